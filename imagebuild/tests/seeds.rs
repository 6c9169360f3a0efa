// SPDX-License-Identifier: Apache-2.0
//! `imagebuild seed` as its program: exit codes, JSON, and the questions on a terminal.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const IMAGEBUILD: &str = env!("CARGO_BIN_EXE_imagebuild");
const TOKEN: &str = "abcdef.0123456789abcdef";

fn hash() -> String {
    format!("sha256:{}", "0".repeat(64))
}

fn seed(server: &str) -> String {
    format!(
        "version = 1\n[cluster]\napiserver = \"{server}\"\ntoken = \"{TOKEN}\"\nca-cert-hashes = [\"{}\"]\n",
        hash()
    )
}

fn run(dir: &Path, words: &[&str]) -> Output {
    Command::new(IMAGEBUILD).args(words).current_dir(dir).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_failed_online_check_is_exit_code_1_and_json() {
    let dir = tempfile::tempdir().unwrap();
    // A port that was free a moment ago refuses connections.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    std::fs::write(dir.path().join("seed.toml"), seed(&closed.to_string())).unwrap();
    let out = run(dir.path(), &["seed", "check", "--online", "--json", "--kubernetes-version", "1.36.3", "seed.toml"]);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(text(&out.stderr), "imagebuild: check seed.toml online: 1 of 2 checks failed\n");
    let json: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&json["good"], &json["file"]), (&Value::Bool(false), &Value::from("seed.toml")));
    let row = &json["checks"][1];
    assert_eq!(
        [&row["check"], &row["state"], &row["owner"], &row["code"]],
        ["reachable", "failed", "cluster", "FB407"]
    );
    assert_eq!(row["text"], format!("connect to API server {closed}: connection refused"));

    let out = run(dir.path(), &["seed", "check", "--online", "seed.toml"]);
    let first = format!(
        "FAILED   {closed}  reachable       cluster, FB407: connect to API server {closed}: connection refused"
    );
    assert_eq!((out.status.code(), text(&out.stdout).lines().nth(1)), (Some(1), Some(first.as_str())));

    std::fs::write(dir.path().join("bad.toml"), seed("a:1").replace("token =", "tokn =")).unwrap();
    let out = run(dir.path(), &["seed", "check", "--online", "bad.toml"]);
    let line =
        "FAILED   seed            seed, FB105: seed.toml:4: unknown key \"tokn\" in [cluster]; did you mean token?\n";
    assert_eq!((out.status.code(), text(&out.stdout)), (Some(1), line.to_owned()));
}

#[test]
fn a_shown_seed_has_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = ["pass phrase of Wi-Fi", "registry-password", "proxy-password", "dXNlcjphdXRoLXBhc3N3b3Jk"];
    let seed = format!(
        "{}# {TOKEN} once more\n[network]\nproxy = \"http://user:proxy-password@192.0.2.9:3128\"\n[network.wifi]\n\
         ssid = \"shop\"\ncountry = \"DE\"\npassword = '{}'\n[registries.\"a.example.com\"]\nusername = \"robot\"\n\
         password = \"registry-password\"\n[registries.\"b.example.com\"]\nauth = \"{}\"\n",
        seed("192.0.2.1:6443"),
        secrets[0],
        secrets[3]
    );
    std::fs::write(dir.path().join("seed.toml"), &seed).unwrap();
    let out = run(dir.path(), &["seed", "show", "seed.toml"]);
    let shown = text(&out.stdout);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let mut want = seed.replace("0123456789abcdef", "****************");
    want = want.replace("'pass phrase of Wi-Fi'", "\"****\"").replace("\"registry-password\"", "\"****\"");
    want = want
        .replace("\"http://user:proxy-password@192.0.2.9:3128\"", "\"****\"")
        .replace(&format!("\"{}\"", secrets[3]), "\"****\"");
    assert_eq!(shown, want);
    assert!(secrets.iter().all(|secret| !shown.contains(secret)));

    // What cannot be read cannot be masked.
    std::fs::write(dir.path().join("bad.toml"), seed.replace("country", "cuntry")).unwrap();
    let out = run(dir.path(), &["seed", "show", "bad.toml"]);
    assert_eq!((out.status.code(), out.stdout.len()), (Some(1), 0));
    assert!(text(&out.stderr).starts_with("imagebuild: FB105: seed.toml:11: unknown key \"cuntry\""));
}

#[test]
fn a_seed_is_put_on_a_mounted_boot_partition() {
    let dir = tempfile::tempdir().unwrap();
    let boot = dir.path().join("mounted");
    std::fs::create_dir(&boot).unwrap();
    std::fs::write(dir.path().join("seed.toml"), seed("192.0.2.1:6443")).unwrap();
    let out = run(dir.path(), &["seed", "put", "seed.toml", "mounted"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).starts_with("imagebuild: write seed.toml to mounted: it is no boot partition"));
    std::fs::write(boot.join("firstboot-status.txt"), "").unwrap();
    let out = run(dir.path(), &["seed", "put", "seed.toml", "mounted"]);
    let said = "seed.toml is on the boot partition at mounted; eject it before you remove it\n";
    assert_eq!((out.status.code(), text(&out.stdout)), (Some(0), said.to_owned()));
    assert_eq!(std::fs::read_to_string(boot.join("seed.toml")).unwrap(), seed("192.0.2.1:6443"));
}

#[test]
fn a_reader_that_has_gone_ends_a_command_as_it_ends_others() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("seed.toml"), seed("192.0.2.1:6443")).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(IMAGEBUILD);
    command.args(["seed", "show", "seed.toml"]).current_dir(dir.path()).stdin(Stdio::null()).stdout(writer);
    let out = command.output().unwrap();
    // SIGPIPE, and no word of a panic.
    assert_eq!((out.status.signal(), text(&out.stderr)), (Some(13), String::new()));
    // What has failed has its exit code, also where its output is closed.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(IMAGEBUILD);
    command.args(["seed", "show", "none.toml"]).current_dir(dir.path()).stdin(Stdio::null()).stderr(writer);
    assert_eq!(command.output().unwrap().status.code(), Some(1));
}

#[test]
fn an_image_that_gets_a_seed_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("seed.toml"), seed("192.0.2.1:6443")).unwrap();
    let path = dir.path().join("stick.img");
    let image = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    image.set_len(16 << 20).unwrap();
    let options = fatfs::FormatVolumeOptions::new().volume_label(*b"SEED       ");
    fatfs::format_volume(fscommon::BufStream::new(image), options).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    for said in ["imagebuild: stick.img: its mode is now 0600, was 0644: a seed may hold a token\n", ""] {
        let out = run(dir.path(), &["seed", "put", "seed.toml", "stick.img"]);
        assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), said.to_owned()));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

/// On a terminal, that of util-linux's `script`, which is part of every Debian. Each answer is typed when a question is
/// there; once more if it came before the program had turned the echo off, which drops what is typed ahead.
fn on_terminal(dir: &Path, words: &str, answers: &[&str]) -> String {
    let command = format!("{IMAGEBUILD} seed new {words}");
    let mut child = Command::new("script")
        .args(["-q", "-e", "-c", &command, "/dev/null"])
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (send, bytes) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = screen.read(&mut buffer) {
            if send.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut shown = String::new();
    let more = |shown: &mut String, limit: Duration| {
        let got = bytes.recv_timeout(limit);
        got.map(|bytes| shown.push_str(&String::from_utf8_lossy(&bytes))).is_ok()
    };
    for answer in answers {
        // A question that is drawn again goes on at once.
        let started = Instant::now();
        while more(&mut shown, Duration::from_millis(500)) || !shown.ends_with(": ") {
            assert!(started.elapsed() < Duration::from_secs(60), "no question\n{shown}");
        }
        for _ in 0..5 {
            keys.write_all(format!("{answer}\r").as_bytes()).unwrap();
            if more(&mut shown, Duration::from_secs(10)) {
                break;
            }
        }
    }
    while more(&mut shown, Duration::from_secs(20)) {}
    drop(keys);
    assert!(child.wait().unwrap().success(), "{shown}");
    shown
}

#[test]
fn on_a_terminal_each_answer_is_judged_as_it_is_entered() {
    let dir = tempfile::tempdir().unwrap();
    let (hash, typo) = (hash(), "abcdef.0123456789abcde");
    let answers = [
        "kubeadm join 192.0.2.1:6443", // no token: asked again
        "",                            // then value by value
        "https://192.0.2.1",
        "192.0.2.1 api.example.com:443",
        typo,
        TOKEN,
        &hash[..70],
        &hash,
        "edge_1",
        "edge-{serial}",
        "master",
        "worker",
        "",
        "node-role.kubernetes.io/edge=",
        "zone=a shelf=3",
        "slow",
        "slow:NoSchedule",
        "",
    ];
    let shown = on_terminal(dir.path(), "", &answers);
    for want in [
        "expected host:port without https://, as in 10.0.0.1:6443",
        "expected 6 and 16 characters a-z0-9, as in abcdef.0123456789abcdef",
        "expected sha256: and 64 hexadecimal digits",
        "expected a node name: at most 63 characters a-z, 0-9, - and .",
        "expected \"edge\" or \"worker\"",
        "a node may not give itself this label",
        "expected KEY=VALUE:EFFECT with effect NoSchedule",
        "seed.toml: good: joins 192.0.2.1:6443, api.example.com:443 with token abcdef",
    ] {
        assert!(shown.contains(want), "{want}\n{shown}");
    }
    let want = format!(
        "version = 1\n\n[cluster]\napiserver = [\"192.0.2.1\", \"api.example.com:443\"]\ntoken = \"{TOKEN}\"\n\
         ca-cert-hashes = [\"{hash}\"]\n\n[node]\nname = \"edge-{{serial}}\"\nrole = \"worker\"\ncni = \"auto\"\n\
         taints = [\"slow:NoSchedule\"]\n\n[node.labels]\nshelf = \"3\"\nzone = \"a\"\n"
    );
    assert_eq!(std::fs::read_to_string(dir.path().join("seed.toml")).unwrap(), want);
}

#[test]
fn on_a_terminal_the_join_line_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let end = format!("    --discovery-token-ca-cert-hash {}", hash());
    let line = format!("kubeadm join 192.0.2.1:6443 --token {TOKEN} \\");
    let shown = on_terminal(dir.path(), "--name edge-7 --role edge --cni none", &[&line, &end, "", "", "other.toml"]);
    assert!(shown.contains("The device will join 192.0.2.1:6443 with token abcdef"), "{shown}");
    let made = std::fs::read_to_string(dir.path().join("other.toml")).unwrap();
    assert!(made.ends_with("\n[node]\nname = \"edge-7\"\nrole = \"edge\"\ncni = \"none\"\n"), "{made}");
}
