// SPDX-License-Identifier: Apache-2.0
//! Archives merged, with owners, links and replaced members.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::cmd;
use std::process::Command;

/// What `tar` lists of an archive, without dates.
fn listed(archive: &Archive) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    archive.write(file.as_file()).unwrap();
    let text = cmd::output(
        Command::new("tar").args(["--list", "--verbose", "--numeric-owner", "--full-time", "--file"]).arg(file.path()),
    );
    let text = String::from_utf8(text.unwrap()).unwrap();
    let line = |l: &str| {
        let words: Vec<&str> = l.split_whitespace().collect();
        format!("{} {} {} {}", words[0], words[1], words[2], words[5..].join(" "))
    };
    text.lines().map(line).collect()
}

/// A tar on disk with one member for each call.
fn source(fill: impl FnOnce(&mut tar::Builder<&File>)) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut builder = tar::Builder::new(file.as_file());
    fill(&mut builder);
    builder.finish().unwrap();
    drop(builder);
    file
}

fn header(kind: EntryType, name: &str, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_path(name).unwrap();
    header.set_mode(0o2755);
    header.set_uid(7);
    header.set_gid(8);
    header.set_size(size);
    header.set_mtime(99);
    header.set_cksum();
    header
}

#[test]
fn each_path_is_there_once_and_the_last_one_wins() {
    let first = source(|tar| {
        tar.append(&header(EntryType::Directory, "./", 0), &[][..]).unwrap();
        tar.append(&header(EntryType::Directory, "./usr/", 0), &[][..]).unwrap();
        tar.append(&header(EntryType::Regular, "./usr/b", 3), &b"old"[..]).unwrap();
        tar.append(&header(EntryType::Regular, "./usr/a", 5), &b"hello"[..]).unwrap();
    });
    let second = source(|tar| tar.append(&header(EntryType::Regular, "usr/b", 3), &b"new"[..]).unwrap());
    let mut archive = Archive::default();
    archive.tar(first.path()).unwrap();
    archive.tar(second.path()).unwrap();
    archive.directory("usr", 0o700).unwrap();
    archive.file("usr/new/deep/x", 0o600, b"1".to_vec()).unwrap();
    archive.symlink("usr/l", "a").unwrap();
    assert_eq!(
        listed(&archive),
        [
            "drwxr-sr-x 7/8 0 ./",
            "drwxr-sr-x 7/8 0 usr",
            "-rwxr-sr-x 7/8 5 usr/a",
            "-rwxr-sr-x 7/8 3 usr/b",
            "lrwxrwxrwx 0/0 0 usr/l -> a",
            "drwxr-xr-x 0/0 0 usr/new",
            "drwxr-xr-x 0/0 0 usr/new/deep",
            "-rw------- 0/0 1 usr/new/deep/x",
        ]
    );
    assert_eq!(archive.read("usr/b").unwrap(), b"new");
    assert_eq!(archive.size("usr/new/"), (1, 2));
}

#[test]
fn attributes_long_names_devices_and_hard_links_are_kept() {
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    let target = "t".repeat(150);
    let capability: &[u8] = &[1, 0, 0, 2, 0, b'\n', 0xff];
    let first = source(|tar| {
        tar.append_pax_extensions([("path", long.as_bytes()), ("SCHILY.xattr.security.capability", capability)])
            .unwrap();
        tar.append(&header(EntryType::Regular, "cut", 4), &b"long"[..]).unwrap();
        let mut link = header(EntryType::Symlink, "s", 0);
        tar.append_link(&mut link, "s", &target).unwrap();
        // The link comes before its file, by name.
        tar.append(&header(EntryType::Regular, "z", 1), &b"z"[..]).unwrap();
        let mut hard = header(EntryType::Link, "a", 0);
        tar.append_link(&mut hard, "a", "./z").unwrap();
        let mut device = header(EntryType::Char, "whiteout", 0);
        device.set_device_major(0).unwrap();
        device.set_device_minor(0).unwrap();
        device.set_cksum();
        tar.append(&device, &[][..]).unwrap();
    });
    let mut archive = Archive::default();
    archive.tar(first.path()).unwrap();
    // Once more through our own writer: nothing is lost on the way.
    let copy = tempfile::NamedTempFile::new().unwrap();
    archive.write(copy.as_file()).unwrap();
    let mut again = Archive::default();
    again.tar(copy.path()).unwrap();
    let owned = archive.members[long.as_bytes()].attributes.clone();
    assert_eq!(owned, [("SCHILY.xattr.security.capability".to_owned(), capability.to_owned())]);
    assert_eq!(again.members[long.as_bytes()].attributes, owned);
    assert_eq!(again.read(&long).unwrap(), b"long");
    let lines = listed(&again);
    assert!(lines.contains(&format!("lrwxr-sr-x 7/8 0 s -> {target}")), "{lines:?}");
    assert!(lines.contains(&"crwxr-sr-x 7/8 0,0 whiteout".to_owned()), "{lines:?}");
    assert_eq!(lines.last().unwrap(), "hrwxr-sr-x 7/8 0 a link to z");
}

#[test]
fn what_makes_no_file_system_is_refused() {
    let mut archive = Archive::default();
    archive.symlink("opt", "var/opt").unwrap();
    archive.directory("usr", 0o755).unwrap();
    let error = |result: Result<()>| format!("{:#}", result.unwrap_err());
    assert_eq!(error(archive.file("opt/x", 0o644, vec![])), "add opt/x: opt is not a directory");
    assert_eq!(error(archive.symlink("usr", "x")), "add usr: it is a directory");
    assert_eq!(error(archive.directory("opt", 0o755)), "add directory opt: it is none already");
    for (name, why) in [("/etc/x", "its name is absolute"), ("a/../b", "its name has `..`")] {
        assert_eq!(normal(name.as_bytes()).unwrap_err().to_string(), why);
    }
    let lost = source(|tar| {
        let mut hard = header(EntryType::Link, "a", 0);
        tar.append_link(&mut hard, "a", "z").unwrap();
    });
    archive.tar(lost.path()).unwrap();
    assert_eq!(error(archive.write(std::io::sink())), "archive a: find z, which it is a hard link to");
}
