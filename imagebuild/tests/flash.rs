// SPDX-License-Identifier: Apache-2.0
//! `imagebuild flash` as a person calls it: files in the place of cards, and loop devices where this machine has them.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../tests/skip.rs"]
mod skip;

use imagebuild::disk::Fat;
use imagebuild::target::Role;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const MIB: usize = 1 << 20;
const SEED: &str = "version = 1\nreset = true\n";

fn imagebuild() -> Command {
    Command::new(env!("CARGO_BIN_EXE_imagebuild"))
}

fn flash(words: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = imagebuild();
    command.arg("flash");
    words.iter().for_each(|word| {
        command.arg(word);
    });
    command.stdin(Stdio::null()).output().unwrap()
}

/// A pipe whose other end is closed.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn told(out: &Output) -> (Option<i32>, String) {
    (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
}

/// A disk of 66 MiB: a table with the partition BOOT, a FAT on it, and bytes behind it; and its raw bytes.
fn image(dir: &Path) -> (PathBuf, Vec<u8>) {
    let path = dir.join("disk.img");
    let target = imagebuild::target::Target::load("generic-amd64").unwrap();
    let root = dir.join("root");
    fs::write(&root, (0..9 * MIB).map(|n| (n / 7) as u8).collect::<Vec<_>>()).unwrap();
    let boot = Fat { files: vec![("readme.txt".to_owned(), b"hello".to_vec())], free: 0 };
    let content = imagebuild::disk::Content { fats: BTreeMap::from([(Role::Boot, boot)]), root: &root };
    imagebuild::disk::build(&target, &imagebuild::disk::Ids::new("t"), &content, &path).unwrap();
    let bytes = fs::read(&path).unwrap();
    (path, bytes)
}

/// A card that holds another image.
fn card(dir: &Path, name: &str, size: usize) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, vec![0xee; size]).unwrap();
    path
}

fn has_table(path: &Path) -> bool {
    imagebuild::disk::partitions(path).is_ok()
}

#[test]
fn a_packed_image_and_a_seed_reach_two_cards() {
    let dir = tempfile::tempdir().unwrap();
    let (path, raw) = image(dir.path());
    let packed = dir.path().join("disk.img.zst");
    fs::write(&packed, zstd::encode_all(&raw[..], 1).unwrap()).unwrap();
    let sum = imagebuild::digest::file(&packed).unwrap();
    fs::write(dir.path().join("SHA256SUMS"), format!("{sum}  disk.img.zst\n")).unwrap();
    let seeds = dir.path().join("seeds");
    fs::create_dir(&seeds).unwrap();
    fs::write(seeds.join("shop-1.toml"), SEED).unwrap();
    fs::write(seeds.join("shop-2.toml"), format!("# 2\n{SEED}")).unwrap();
    let (a, b) = (card(dir.path(), "a", raw.len() + 5 * MIB), card(dir.path(), "b", raw.len()));
    let out = flash(&[&packed, &a, &b, &"--fixed", &"--yes", &"--seeds", &seeds]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(0), "{}", told(&out).1);
    assert!(text.contains(", with shop-1.toml as seed.toml; it is safe to remove\n"), "{text}");
    assert!(told(&out).1.contains("its SHA-256 is the one in SHA256SUMS"), "{}", told(&out).1);
    // Besides the seed, which is put as on any image, the cards are the image.
    for (card, seed) in [(&a, SEED.to_owned()), (&b, format!("# 2\n{SEED}"))] {
        let same = dir.path().join("same.img");
        fs::copy(&path, &same).unwrap();
        imagebuild::seed::put(seed.as_bytes(), None, &same).unwrap();
        let (card, same) = (fs::read(card).unwrap(), fs::read(&same).unwrap());
        let boot = MIB..41 * MIB;
        assert!(card[..MIB] == same[..MIB] && card[boot.end..raw.len()] == same[boot.end..]);
        let partition = |bytes: &[u8]| {
            fs::write(dir.path().join("p"), &bytes[boot.clone()]).unwrap();
            let boot = firstboot::boot_partition::BootPartition::open_whole(&dir.path().join("p")).unwrap();
            (boot.read("seed.toml").unwrap(), boot.read("readme.txt").unwrap())
        };
        assert_eq!(partition(&card), (Some(seed.into_bytes()), Some(b"hello".to_vec())));
    }
    // The old content behind the image is of no table.
    assert!(fs::read(&a).unwrap()[raw.len() + 4 * MIB..].iter().all(|b| *b == 0));
    let mut left: Vec<_> = fs::read_dir(&seeds).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["shop-1.flashed", "shop-2.flashed"]);
}

#[test]
fn what_can_be_known_before_is_refused_before() {
    let dir = tempfile::tempdir().unwrap();
    let (path, raw) = image(dir.path());
    let a = card(dir.path(), "a", raw.len());
    let refused = |words: &[&dyn AsRef<std::ffi::OsStr>], code, text: &str| {
        let out = flash(words);
        let text = text.replace("DIR", &dir.path().display().to_string());
        assert_eq!(told(&out), (Some(code), format!("imagebuild: {text}\n")));
        assert!(fs::read(&a).unwrap().iter().all(|b| *b == 0xee), "{text}: nothing was written");
    };
    refused(&[&path, &a], 1, "write DIR/a: it is a file: give --fixed to write it as a card; nothing was written");
    refused(&[&path, &a, &"--fixed"], 2, "flash: there is no terminal to ask on: give --yes");
    refused(&[&path, &"--seed", &"x"], 2, "flash: --seed and --seeds need a device to write");
    let small = card(dir.path(), "small", raw.len() - 512);
    let why = format!("it has {} bytes, and the image needs {}: take a larger one", raw.len() - 512, raw.len());
    refused(&[&path, &a, &small, &"--fixed", &"--yes"], 1, &format!("write DIR/small: {why}; nothing was written"));
    // The same from the table in a compressed image that does not say how long it is.
    let packed = dir.path().join("disk.img.zst");
    fs::write(&packed, zstd::encode_all(&raw[..], 1).unwrap()).unwrap();
    refused(&[&packed, &small, &"--fixed", &"--yes"], 1, &format!("write DIR/small: {why}; nothing was written"));
    let bad = dir.path().join("seed.toml");
    fs::write(&bad, "version = 2\n").unwrap();
    let code = "FB104: seed.toml:1: this firstboot reads seeds of version = 1 only";
    refused(&[&path, &a, &"--fixed", &"--yes", &"--seed", &bad], 1, &format!("check DIR/seed.toml: {code}"));
    let hash = "0".repeat(64);
    let ended = format!(
        "version = 1\n[cluster]\napiserver = \"192.0.2.1\"\ntoken = \"abcdef.0123456789abcdef\"\n\
         ca-cert-hashes = \"sha256:{hash}\"\ntoken-expires = 2020-01-01T00:00:00Z\n"
    );
    fs::write(&bad, ended).unwrap();
    let why = "cluster.token-expires is past: the token has ended, and no device joins with it; make a new seed";
    refused(&[&path, &a, &"--fixed", &"--yes", &"--seed", &bad], 1, &format!("check DIR/seed.toml: {why}"));
    // Another run that takes seeds of the same directory.
    let lock = File::open(dir.path()).unwrap();
    lock.lock().unwrap();
    let why = "take seeds from DIR: another flash uses this directory: wait until it has ended";
    refused(&[&path, &a, &"--fixed", &"--yes", &"--seeds", &dir.path()], 1, why);
    drop(lock);
    let why = "it is the image itself: give another device; nothing was written";
    refused(&[&path, &path, &"--fixed", &"--yes"], 1, &format!("write DIR/disk.img: {why}"));
    let cut = dir.path().join("cut.img");
    fs::write(&cut, &raw[..raw.len() - MIB]).unwrap();
    let why = format!("it has {} bytes of the {} that its partition table names", raw.len() - MIB, raw.len());
    refused(&[&cut, &a, &"--fixed", &"--yes"], 1, &format!("open DIR/cut.img: {why}: it is truncated: get it again"));
    let why = "it has no partition table and no boot sector: give a raw image, or one packed with zstd or gzip";
    refused(&[&bad, &a, &"--fixed", &"--yes"], 1, &format!("open DIR/seed.toml: it is no disk image: {why}"));
    let (sum, zeros) = (imagebuild::digest::file(&path).unwrap(), "0".repeat(64));
    fs::write(dir.path().join("SHA256SUMS"), format!("{zeros}  disk.img\n")).unwrap();
    let why = format!("its SHA-256 is {sum}, and DIR/SHA256SUMS has {zeros}: get it again");
    refused(&[&path, &a, &"--fixed", &"--yes"], 3, &format!("check DIR/disk.img: {why}"));
    fs::remove_file(dir.path().join("SHA256SUMS")).unwrap();
    fs::create_dir(dir.path().join("SHA256SUMS")).unwrap();
    refused(&[&path, &a, &"--fixed", &"--yes"], 1, "read DIR/SHA256SUMS: Is a directory (os error 21)");
}

#[test]
fn a_reader_that_has_gone_does_not_end_the_writing() {
    let dir = tempfile::tempdir().unwrap();
    let (path, raw) = image(dir.path());
    for option in [&["--yes"][..], &["--yes", "--json"]] {
        let card = card(dir.path(), "a", raw.len());
        let mut command = imagebuild();
        command.arg("flash").arg(&path).arg(&card).arg("--fixed").args(option);
        let status = command.stdin(Stdio::null()).stdout(unread()).stderr(unread()).status().unwrap();
        assert_eq!(status.code(), Some(0), "{option:?}");
        assert!(fs::read(&card).unwrap() == raw, "{option:?}");
    }
}

#[test]
fn an_image_that_was_packed_when_it_was_truncated_leaves_no_table() {
    let dir = tempfile::tempdir().unwrap();
    let (_, raw) = image(dir.path());
    let path = dir.path().join("disk.img.zst");
    fs::write(&path, zstd::bulk::compress(&raw[..raw.len() - MIB], 1).unwrap()).unwrap();
    let a = card(dir.path(), "a", raw.len());
    let (code, text) = told(&flash(&[&path, &a, &"--fixed", &"--yes"]));
    let why = format!("it has {} bytes of the {} that its partition table names", raw.len() - MIB, raw.len());
    let name = fs::canonicalize(&a).unwrap().display().to_string();
    let after = format!("{name} is unusable until it is flashed again");
    let line = format!("imagebuild: read the image: {why}: it is truncated: get it again: {after}\n");
    assert!(code == Some(1) && text.contains(&line), "{code:?} {text}");
    assert!(!has_table(&a));
}

#[test]
fn a_signed_image_is_verified_before_a_card_is_written() {
    if !imagebuild::cmd::found("ssh-keygen") {
        assert!(std::env::var_os("CI").is_none(), "ssh-keygen is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (path, raw) = image(dir.path());
    let at = |name: &str| dir.path().join(name);
    for name in ["company", "other"] {
        imagebuild::sign::make_key(&at(name)).unwrap();
    }
    let sums = format!("{}  disk.img\n", imagebuild::digest::file(&path).unwrap());
    let signer = imagebuild::sign::Signer::open(Some(&at("company"))).unwrap();
    fs::write(at("SHA256SUMS"), &sums).unwrap();
    fs::write(at("SHA256SUMS.sig"), signer.sign(sums.as_bytes()).unwrap()).unwrap();
    let card = card(dir.path(), "a", raw.len());
    // A machine that has no key of its own.
    let run = |words: &[&str]| {
        let mut command = imagebuild();
        command.env("XDG_CACHE_HOME", at("cache")).arg("flash").arg(&path).arg(&card).args(["--fixed", "--yes"]);
        let out = command.args(words).current_dir(dir.path()).stdin(Stdio::null()).output().unwrap();
        told(&out)
    };
    let (code, text) = run(&[]);
    let want = format!(
        "imagebuild: flash {}: it is signed, and this machine does not know by which key it should be: give --key FILE with \
         the public key, or --unsigned\n",
        path.display()
    );
    assert_eq!((code, text), (Some(2), want));
    let (code, text) = run(&["--key", "other.pub"]);
    let want = "SHA256SUMS.sig: it is by another key than the one that is trusted; --key FILE names the public key\n";
    assert!(code == Some(3) && text.ends_with(want), "{code:?} {text}");
    assert_eq!(fs::read(&card).unwrap(), vec![0xee; raw.len()]);
    let (code, text) = run(&["--key", "company.pub"]);
    let want = "its SHA-256 is the one in SHA256SUMS, whose signature is good\n";
    assert!(code == Some(0) && text.contains(want), "{code:?} {text}");
    assert_eq!(run(&["--unsigned"]).0, Some(0));
    // What was changed afterwards, in whatever file.
    fs::write(at("SHA256SUMS"), sums.replace("disk.img", "disk2.img")).unwrap();
    let (code, text) = run(&["--key", "company.pub"]);
    assert!(code == Some(3) && text.contains("which was changed after it was signed"), "{code:?} {text}");
    fs::remove_file(at("SHA256SUMS.sig")).unwrap();
    let (code, text) = run(&["--key", "company.pub"]);
    assert!(code == Some(3) && text.ends_with("SHA256SUMS.sig: the image is not signed\n"), "{code:?} {text}");
}

#[test]
fn a_damaged_image_leaves_a_card_that_nothing_boots_from() {
    let dir = tempfile::tempdir().unwrap();
    let (_, raw) = image(dir.path());
    let packed = zstd::encode_all(&raw[..], 1).unwrap();
    let path = dir.path().join("disk.img.zst");
    fs::write(&path, &packed[..packed.len() - 3]).unwrap();
    let a = card(dir.path(), "a", raw.len());
    let out = flash(&[&path, &a, &"--fixed", &"--yes", &"--json"]);
    let events: Vec<serde_json::Value> = out
        .stdout
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    let failed = events.iter().find(|e| e["event"] == "failed").unwrap();
    let name = fs::canonicalize(&a).unwrap().display().to_string();
    let text = failed["error"].as_str().unwrap();
    assert!(text.starts_with("read the image after "), "{text}");
    assert!(text.ends_with(&format!("incomplete frame: {name} is unusable until it is flashed again")), "{text}");
    assert_eq!((&failed["exit_code"], out.status.code()), (&1.into(), Some(1)));
    assert_eq!(events.last().unwrap()["error"], format!("flash {}: 1 of 1 devices failed", path.display()));
    assert!(!has_table(&a));
}

#[test]
fn an_interruption_ends_with_130_and_without_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let (_, raw) = image(dir.path());
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let a = card(dir.path(), "a", raw.len());
    let mut child = imagebuild()
        .args(["flash", "--fixed", "--yes", "--json"])
        .args([&pipe, &a])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut image = File::options().write(true).open(&pipe).unwrap();
    image.write_all(&raw[..20 * MIB]).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    // Something is on the card.
    assert!(lines.any(|line| line.contains("\"progress\"")));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    drop(image);
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(
        rest.iter().any(|line| line.contains("interrupted: ") && line.contains("unusable until it is flashed again"))
    );
    assert!(!has_table(&a));
}

/// A file as a block device.
struct Loop(PathBuf);

impl Loop {
    fn new(file: &Path, options: &[&str]) -> Option<Loop> {
        let out = Command::new("losetup").args(["--find", "--show"]).args(options).arg(file).output().ok()?;
        out.status.success().then(|| Loop(String::from_utf8(out.stdout).unwrap().trim().into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

#[test]
fn block_devices_are_written_and_those_in_use_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let (path, raw) = image(dir.path());
    let file = card(dir.path(), "a", raw.len() + 4 * MIB);
    let Some(device) = Loop::new(&file, &["--partscan"]) else {
        skip::skip("this process may not make loop devices");
        return;
    };
    let name = device.0.display().to_string();
    let plain = |text: String| text.replace(&name, "LOOP");
    let refused = |words: &[&dyn AsRef<std::ffi::OsStr>], text: &str| {
        let (code, said) = told(&flash(words));
        assert_eq!((code, plain(said)), (Some(1), format!("imagebuild: {text}; nothing was written\n")));
    };
    refused(&[&path, &device.0, &"--yes"], "write LOOP: it is built in, not removable: give --fixed to write it");
    let user = "LOOP is made of it: run losetup --detach LOOP";
    let canonical = fs::canonicalize(&file).unwrap();
    refused(&[&path, &file, &"--yes", &"--fixed"], &format!("write {}: {user}", canonical.display()));
    let out = flash(&[&path, &device.0, &"--fixed", &"--yes"]);
    assert_eq!(out.status.code(), Some(0), "{}", told(&out).1);
    let written = fs::read(&file).unwrap();
    assert!(written[..raw.len()] == raw[..] && written[raw.len() + 3 * MIB..].iter().all(|b| *b == 0));
    let sectors = Loop::new(&card(dir.path(), "b", raw.len() + 4 * MIB), &["--sector-size", "4096"]).unwrap();
    let (code, said) = told(&flash(&[&path, &sectors.0, &"--fixed", &"--yes"]));
    let why = "its sectors have 4096 bytes, and the image's partition table is for 512; nothing was written";
    assert_eq!((code, said), (Some(1), format!("imagebuild: write {}: {why}\n", sectors.0.display())));
    // Mounted, where this process may mount: then the loop device's first partition is in use.
    let part = format!("{name}p1");
    if !fs::metadata(&part).is_ok_and(|part| part.file_type().is_block_device()) {
        return skip::skip("the kernel makes no partitions of loop devices here");
    }
    let point = dir.path().join("mnt");
    fs::create_dir(&point).unwrap();
    let script = "mount \"$1\" \"$2\" && shift 2 && exec \"$@\"";
    let mounted = |words: &[&dyn AsRef<std::ffi::OsStr>]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", &part]).arg(&point).arg(env!("CARGO_BIN_EXE_imagebuild"));
        words.iter().for_each(|word| {
            command.arg(word);
        });
        let (code, said) = told(&command.output().unwrap());
        (code, plain(said))
    };
    let at = point.display();
    let text = format!("imagebuild: write LOOP: it is mounted at {at}: run umount \"{at}\"; nothing was written\n");
    assert_eq!(mounted(&[&"flash", &path, &device.0, &"--fixed", &"--yes"]), (Some(1), text));
    let seed = dir.path().join("seed.toml");
    fs::write(&seed, SEED).unwrap();
    let instead = "or give the mount point of the boot partition in its place";
    let text = format!("imagebuild: write a seed to LOOP: it is mounted at {at}: run umount \"{at}\", {instead}\n");
    assert_eq!(mounted(&[&"seed", &"put", &seed, &device.0]), (Some(1), text));
    // The partition itself is none.
    let (_, said) = told(&flash(&[&path, &part, &"--fixed", &"--yes"]));
    assert!(plain(said).contains("it is a partition: give the whole disk, LOOP"), "a partition is no disk");
    // Held by another program for itself: the kernel's word.
    let script = "import os,sys,subprocess\nf=os.open(sys.argv[1], os.O_RDONLY|os.O_EXCL)\n\
                  sys.exit(subprocess.call(sys.argv[2:]))";
    let held = |words: &[&dyn AsRef<std::ffi::OsStr>]| {
        let mut command = Command::new("python3");
        command.args(["-c", script, &name, env!("CARGO_BIN_EXE_imagebuild")]);
        words.iter().for_each(|word| {
            command.arg(word);
        });
        let (code, said) = told(&command.output().unwrap());
        (code, plain(said))
    };
    assert_eq!(
        held(&[&"flash", &path, &device.0, &"--fixed", &"--yes"]),
        (Some(1), "imagebuild: open LOOP: it is in use (lsblk LOOP says by what)\n".into())
    );
    let text =
        format!("imagebuild: write a seed to LOOP: it is in use (lsblk LOOP says by what): unmount it, {instead}\n");
    assert_eq!(held(&[&"seed", &"put", &seed, &device.0]), (Some(1), text));
    // What was refused has changed nothing.
    let mut first = vec![0; MIB];
    File::open(&file).unwrap().read_exact_at(&mut first, 0).unwrap();
    assert!(first == raw[..MIB]);
    // What is not in use gets it, while this program holds it.
    let out = imagebuild().args(["seed", "put"]).arg(&seed).arg(&device.0).output().unwrap();
    assert_eq!((out.status.code(), told(&out).1), (Some(0), String::new()));
    let said = String::from_utf8(out.stdout).unwrap();
    assert_eq!(plain(said), "seed.toml is on the boot partition of LOOP\n");
}
