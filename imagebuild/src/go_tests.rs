// SPDX-License-Identifier: Apache-2.0
//! Tests of the choice of Go, and of what is fetched.
#![allow(clippy::unwrap_used)]

use super::*;
use std::io::Cursor;

fn zip(files: &[(&str, &str)]) -> ZipArchive<Cursor<Vec<u8>>> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in files {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    ZipArchive::new(writer.finish().unwrap()).unwrap()
}

#[test]
fn versions_are_read_and_compared() {
    assert_eq!(parse("go version go1.26.8 linux/amd64\n"), Some((1, 26, 8)));
    assert_eq!(parse("go version go1.26 linux/amd64"), Some((1, 26, 0)));
    assert_eq!(parse("go version devel"), None);
    assert!(is_new_enough("go version go1.26.6 linux/amd64"));
    assert!(is_new_enough("go version go1.27.0 linux/arm64"));
    assert!(!is_new_enough("go version go1.26.5 linux/amd64"));
    assert!(!is_new_enough("go version go1.19.8 linux/amd64"));
}

/// An older Go would stop at a go.mod, as it may not fetch a newer one.
#[test]
fn the_oldest_go_is_what_the_components_need() {
    let lock = Lock::find().unwrap();
    let mut needed = Vec::new();
    for name in lock.wrapper.keys() {
        let text = std::fs::read_to_string(lock.wrapper_dir(name).join("go.mod")).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix("go ")).unwrap();
        needed.push(parse(&format!("go version go{line}")).unwrap());
    }
    assert_eq!(needed.into_iter().max(), Some(MIN));
    let pinned = lock.go.unwrap();
    assert!(is_new_enough(&format!("go version go{} linux/amd64", pinned.version)));
    assert!(Arch::ALL.iter().all(|arch| pinned.digest(*arch).unwrap().starts_with("h1:")));
}

/// The sum was made with sha256sum, sort and base64.
#[test]
fn the_sum_is_gos() {
    let h1 = |files: &[(&str, &str)]| h1(&mut zip(files)).unwrap();
    let sum = "h1:TtNNbf5c2HsD6Ex+rcAEWjBz3fsgsZOcZttzsHRfxt0=";
    assert_eq!(h1(&[("m@v1/b.txt", "two\n"), ("m@v1/a.txt", "one\n")]), sum);
    assert_eq!(h1(&[("m@v1/a.txt", "one\n"), ("m@v1/b.txt", "two\n")]), sum);
    assert_ne!(h1(&[("m@v1/a.txt", "one\n"), ("m@v1/c.txt", "two\n")]), sum);
}

#[test]
fn a_module_is_unpacked_as_go_does() {
    let dir = tempfile::tempdir().unwrap();
    let files = [("m@v1/bin/go", "x"), ("m@v1/src/_go.mod", "module std"), ("m@v1/pkg/tool/l/asm", "x")];
    unpack(&mut zip(&files), "m@v1", dir.path()).unwrap();
    let mode = |name: &str| dir.path().join(name).metadata().unwrap().permissions().mode() & 0o111;
    assert_eq!(std::fs::read_to_string(dir.path().join("src/go.mod")).unwrap(), "module std");
    assert_eq!((mode("bin/go"), mode("pkg/tool/l/asm"), mode("src/go.mod")), (0o111, 0o111, 0));
}

#[test]
fn nothing_is_unpacked_outside() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["m@v1/../x", "other@v1/x", "m@v1//x", "m@v12/x"] {
        let e = unpack(&mut zip(&[(name, "x")]), "m@v1", dir.path()).unwrap_err().to_string();
        assert_eq!(e, format!("unpack Go: {name} is outside the module"));
    }
}

#[test]
fn another_sum_is_not_the_same_as_no_answer() {
    let says = |text: &'static str| no_answer(anyhow::anyhow!(text), "m@v1");
    assert!(says("dial tcp: connection refused").is::<Unreachable>());
    let e = says("verifying m@v1: checksum mismatch\nSECURITY ERROR\n");
    assert!(!e.is::<Unreachable>());
    assert!(e.to_string().starts_with("compare m@v1 with Go's"), "{e}");
}

#[test]
fn proxies_come_before_direct_and_off() {
    assert_eq!(
        proxies("https://a.example/,http://b.example|direct,https://c.example"),
        ["https://a.example", "http://b.example"]
    );
    assert_eq!(proxies("off"), Vec::<&str>::new());
    assert_eq!(proxies("direct"), Vec::<&str>::new());
    assert_eq!(proxies(DEFAULT_PROXY).len(), 1);
}

/// What a build machine may have set, by a person or by malice; Go's own word on each setting counts.
#[test]
fn s14_no_setting_of_the_build_machine_turns_verification_off() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("env");
    std::fs::write(&file, "GOSUMDB=off\nGOFLAGS=-mod=mod -insecure\nGOTOOLCHAIN=auto\nGOPRIVATE=*\n").unwrap();
    let machine = |name: &str| {
        let value = match name {
            "GOSUMDB" => "off",
            "GONOSUMDB" | "GONOSUMCHECK" | "GOINSECURE" | "GOPRIVATE" => "example.org",
            "GOFLAGS" => "-mod=mod -toolexec=/tmp/evil",
            "GOTOOLCHAIN" => "auto",
            "GOPROXY" => "https://proxy.example",
            "GOENV" => return Some(file.display().to_string()),
            _ => return None,
        };
        Some(value.to_owned())
    };
    let mut go = Command::new("go");
    for name in ["GOSUMDB", "GONOSUMDB", "GONOSUMCHECK", "GOINSECURE", "GOPRIVATE", "GOFLAGS", "GOTOOLCHAIN", "GOENV"] {
        go.env(name, machine(name).unwrap());
    }
    go.envs(settings(&machine));
    let set: BTreeMap<String, String> = settings(&machine).into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
    assert_eq!(set["GOPROXY"], "https://proxy.example");
    assert_eq!(set["GONOPROXY"], "example.org");
    assert!(!set.contains_key("GOCACHEPROG") && !set.contains_key("GOEXPERIMENT"));
    for name in ["GOCACHEPROG", "GOEXPERIMENT", "GODEBUG", "CGO_LDFLAGS", "CC"] {
        assert!(is_gos(name) && !KEPT.contains(&name), "{name}");
    }
    if !own_is_new_enough() {
        return;
    }
    let asked = ["GOSUMDB", "GONOSUMDB", "GOINSECURE", "GOPRIVATE", "GOFLAGS", "GOTOOLCHAIN", "GOPROXY", "GONOPROXY"];
    let said = cmd::output(go.arg("env").args(asked)).unwrap();
    let said = String::from_utf8(said).unwrap();
    let expected = "sum.golang.org\n\n\n\n-mod=readonly -buildvcs=false\nlocal\nhttps://proxy.example\nexample.org\n";
    assert_eq!(said, expected);
}

/// The same by the command that everything uses, in a process whose environment is an attacker's.
#[test]
fn s14_the_command_takes_nothing_else_from_the_environment() {
    const INSIDE: &str = "FIRSTBOOT_TEST_GO_ENVIRONMENT";
    if std::env::var_os(INSIDE).is_none() {
        let own = std::env::current_exe().unwrap();
        let mut inside = Command::new(own);
        inside.args(["--exact", "go::tests::s14_the_command_takes_nothing_else_from_the_environment"]).env(INSIDE, "1");
        for (name, value) in [
            ("GOCACHEPROG", "/tmp/evil"),
            ("GOFLAGS", "-toolexec=/tmp/evil"),
            ("GOSUMDB", "off"),
            ("GOEXPERIMENT", "none"),
            ("CGO_LDFLAGS", "/tmp/evil.o"),
            ("CC", "/tmp/evil"),
            ("GOMAXPROCS", "2"),
        ] {
            inside.env(name, value);
        }
        cmd::run(&mut inside).unwrap();
        return;
    }
    if !is_here() {
        return;
    }
    let go = command().unwrap();
    let set = |name: &str| {
        let found = go.get_envs().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("{name} is inherited"));
        found.1.map(|value| value.to_str().unwrap().to_owned())
    };
    for name in ["GOCACHEPROG", "GOEXPERIMENT", "CGO_LDFLAGS", "CC"] {
        assert_eq!(set(name), None, "{name}");
    }
    assert_eq!(set("GOFLAGS").as_deref(), Some(FLAGS));
    assert_eq!(set("GOSUMDB").as_deref(), Some(CHECKSUM_DATABASE));
    assert_eq!(set("GOMAXPROCS").as_deref(), Some("2"));
}
