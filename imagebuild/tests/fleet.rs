// SPDX-License-Identifier: Apache-2.0
//! `imagebuild seed fleet` and `imagebuild fleet` as a person calls them, and what an HTTP client gets.
#![allow(clippy::unwrap_used, missing_docs)]

use imagebuild::digest;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const BASE: &str = "version = 1\n[cluster]\napiserver = \"10.0.0.1:6443\"\ntoken = \"abcdef.0123456789abcdef\"\n\
    ca-cert-hashes = [\"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"]\n\
    [node]\nname = \"edge-{serial}\"\n";

fn imagebuild() -> Command {
    Command::new(env!("CARGO_BIN_EXE_imagebuild"))
}

/// A table of `rows` devices, a base, and an image.
fn files(dir: &Path, rows: usize) -> (PathBuf, PathBuf, PathBuf) {
    let (csv, base, image) = (dir.join("devices.csv"), dir.join("base.toml"), dir.join("disk.img"));
    let rows: String = (0..rows).map(|n| format!("s{n};Main St {n}\r\n")).collect();
    fs::write(&csv, format!("\u{feff}serial;place\r\n{rows}")).unwrap();
    fs::write(&base, BASE).unwrap();
    let target = imagebuild::target::Target::load("generic-amd64").unwrap();
    let root = dir.join("root");
    fs::write(&root, vec![7; 2 << 20]).unwrap();
    let content = imagebuild::disk::Content { fats: Default::default(), root: &root };
    imagebuild::disk::build(&target, &imagebuild::disk::Ids::new("t"), &content, &image).unwrap();
    (csv, base, image)
}

#[test]
fn a_table_becomes_a_directory_of_seeds_or_one_list_of_errors() {
    let dir = tempfile::tempdir().unwrap();
    let (csv, base, image) = files(dir.path(), 3);
    let out = dir.path().join("seeds");
    let run = |csv: &Path| {
        let mut command = imagebuild();
        command.args(["seed", "fleet"]).arg(csv).arg("--base").arg(&base).arg("--out").arg(&out).output().unwrap()
    };
    let bad = dir.path().join("bad.csv");
    fs::write(&bad, "serial,place,network.vlan\na,p,x\nb,p,y\na,p,\n").unwrap();
    let refused = run(&bad);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(refused.stderr).unwrap(),
        format!(
            "imagebuild: make seeds from {}: nothing was written\nrows 2, 3: network.vlan must be a whole number\n",
            bad.display()
        )
    );
    assert!(!out.exists());
    let good = run(&csv);
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let said = String::from_utf8(good.stdout).unwrap();
    assert_eq!(said, format!("{}: 3 seeds, sheet.html and sheet.pdf\n", out.display()));
    let check = imagebuild().args(["seed", "check"]).arg(out.join("edge-s1.toml")).output().unwrap();
    assert!(check.status.success());
    let check = imagebuild().args(["seed", "check"]).arg(&out).output().unwrap();
    let lines = String::from_utf8(check.stdout).unwrap();
    let named: Vec<&str> = lines.lines().filter_map(|line| line.split_once(": good: joins ").map(|(n, _)| n)).collect();
    assert_eq!(
        (check.status.code(), named),
        (Some(0), vec!["edge-s0.toml", "edge-s1.toml", "edge-s2.toml"]),
        "{lines}"
    );
    fs::write(out.join("bad.toml"), "version = 2\n").unwrap();
    for (command, last) in [("check", "bad.toml: FB104: "), ("show", "bad.toml: FB")] {
        let all = imagebuild().args(["seed", command]).arg(&out).output().unwrap();
        let error = String::from_utf8(all.stderr).unwrap();
        let want = format!("imagebuild: check {}: 1 of 4 seeds are not good\n", out.display());
        assert_eq!((all.status.code(), error), (Some(1), want));
        let text = String::from_utf8(all.stdout).unwrap();
        assert!(text.contains(last) && !text.contains("0123456789abcdef\""), "{text}");
    }
    // All on one card, each by its serial number.
    let into = |csv: &Path| {
        let mut command = imagebuild();
        command.args(["seed", "fleet"]).arg(csv).arg("--base").arg(&base).arg("--into").arg(&image).output().unwrap()
    };
    fs::set_permissions(&image, fs::Permissions::from_mode(0o644)).unwrap();
    let done = into(&csv);
    let mode = format!("{}: its mode is now 0600, was 0644: a seed may hold a token\n", image.display());
    let noted = String::from_utf8(done.stderr).unwrap();
    assert!(noted.contains(&mode), "{noted}");
    assert_eq!(image.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let said = String::from_utf8(done.stdout).unwrap();
    assert_eq!(said, format!("3 seeds are in seeds on the boot partition of {}\n", image.display()));
    let partition = imagebuild::disk::partitions(&image).unwrap().into_values().find(|p| p.name == "BOOT").unwrap();
    let boot = firstboot::boot_partition::BootPartition::open(&image, partition.offset, partition.length).unwrap();
    assert_eq!(boot.list_in("seeds").unwrap().unwrap(), ["s0.toml", "s1.toml", "s2.toml"]);
    assert!(String::from_utf8(boot.read("seeds/s2.toml").unwrap().unwrap()).unwrap().contains("\"edge-s2\""));
    fs::write(&bad, "node.name,place,note\na,p,x\nb,p,\n").unwrap();
    let refused = String::from_utf8(into(&bad).stderr).unwrap();
    let why = "it has neither serial nor mac, by which a device finds its seed on a card";
    let want =
        format!("imagebuild: make seeds from {}: nothing was written\nrow 2: {why}\nrow 3: {why}\n", bad.display());
    assert_eq!(refused, want);
    assert_eq!(boot.list_in("seeds").unwrap().unwrap().len(), 3);
    assert!(fs::read(out.join("sheet.pdf")).unwrap().starts_with(b"%PDF-"));
    assert!(!fs::read_to_string(out.join("sheet.html")).unwrap().contains("0123456789abcdef"));
}

#[test]
fn a_thousand_entries_take_a_moment() {
    let dir = tempfile::tempdir().unwrap();
    let (csv, base, image) = files(dir.path(), 1000);
    let out = dir.path().join("fleet.json");
    let mut command = imagebuild();
    command.args(["fleet", "manifest"]).arg(&csv).arg("--base").arg(&base).arg("--image").arg(&image);
    let begun = Instant::now();
    let run = command.args(["--base-url", "http://host:1/p", "--out"]).arg(&out).output().unwrap();
    println!("1000 entries: {:?}", begun.elapsed());
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let manifest: Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    let list = manifest["os_list"].as_array().unwrap();
    assert_eq!((list.len(), &list[999]["url"]), (1000, &"http://host:1/p/images/edge-s999.img".into()));
    // Not a measurement: it would take minutes if every image were read.
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Status line with headers, and body.
fn get(address: &str, method: &str, path: &str, headers: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    (String::from_utf8(answer[..at].to_vec()).unwrap().to_lowercase(), answer[at + 4..].to_vec())
}

#[test]
fn each_device_gets_the_image_with_its_own_seed() {
    let dir = tempfile::tempdir().unwrap();
    let (csv, base, image) = files(dir.path(), 3);
    let mut command = imagebuild();
    command.args(["fleet", "serve", "--listen", "127.0.0.1:0"]).arg(&csv).arg("--base").arg(&base);
    let child = command.arg("--image").arg(&image).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut server = Server(child);
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("3 devices: rpi-imager --repo http://").unwrap().to_owned();
    let (address, path) = url.split_once('/').unwrap();
    // The digests are known once the server says so.
    let mut lines = BufReader::new(server.0.stderr.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("the digests of all images are known"));
    let (head, body) = get(address, "GET", &format!("/{path}"), "");
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: application/json"), "{head}");
    let manifest: Value = serde_json::from_slice(&body).unwrap();
    let mut digests = Vec::new();
    for (n, entry) in manifest["os_list"].as_array().unwrap().iter().enumerate() {
        let path = entry["url"].as_str().unwrap().strip_prefix(&format!("http://{address}")).unwrap();
        let (head, body) = get(address, "GET", path, "");
        assert!(head.contains(&format!("content-length: {}", entry["extract_size"])), "{head}");
        assert_eq!(digest::bytes(&body), entry["extract_sha256"].as_str().unwrap());
        let card = dir.path().join("card.img");
        fs::write(&card, &body).unwrap();
        let boot = imagebuild::disk::partitions(&card).unwrap().remove(&1).unwrap();
        let boot = firstboot::boot_partition::BootPartition::open(&card, boot.offset, boot.length).unwrap();
        let seed = String::from_utf8(boot.read("seed.toml").unwrap().unwrap()).unwrap();
        assert!(seed.contains(&format!("name = \"edge-s{n}\"\n")), "{seed}");
        let (head, part) = get(address, "GET", path, "Range: bytes=1048576-1049599\r\n");
        assert!(head.starts_with("http/1.1 206") && head.contains("content-range: bytes 1048576-1049599/"), "{head}");
        assert!(part == body[1_048_576..1_049_600]);
        let (head, none) = get(address, "HEAD", path, "");
        assert!(head.contains(&format!("content-length: {}", body.len())) && none.is_empty(), "{head}");
        digests.push(digest::bytes(&body));
    }
    assert!(digests.len() == 3 && digests[0] != digests[1] && digests[1] != digests[2]);
    // Without the prefix there is nothing.
    for path in ["/", "/images/edge-s0.img", &format!("/{}/images/none.img", path.split_once('/').unwrap().0)] {
        assert!(get(address, "GET", path, "").0.starts_with("http/1.1 404"), "{path}");
    }
    assert!(get(address, "DELETE", &format!("/{path}"), "").0.starts_with("http/1.1 405"));
}

#[test]
fn completions_and_manual_pages_are_made_of_the_commands() {
    let dir = tempfile::tempdir().unwrap();
    let out = imagebuild().args(["completions", "bash"]).output().unwrap();
    let script = String::from_utf8(out.stdout).unwrap();
    assert!(script.contains("complete -F _imagebuild") && script.contains("--no-eject"), "{script}");
    let out = imagebuild().args(["man", "--out"]).arg(dir.path()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    for page in ["imagebuild.1", "imagebuild-flash.1", "imagebuild-seed-fleet.1", "imagebuild-fleet-serve.1"] {
        assert!(dir.path().join(page).exists(), "{page}");
    }
    let page = fs::read_to_string(dir.path().join("imagebuild-flash.1")).unwrap();
    assert!(page.contains("Exit codes: 0 written and verified"), "{page}");
}
