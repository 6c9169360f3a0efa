// SPDX-License-Identifier: Apache-2.0
//! `imagebuild bake` as a program: what it prints of bad input, and what a run that was ended leaves.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn bake(base: &Path, out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagebuild"));
    command.args(["bake", "--target", "generic-amd64", "--base"]).arg(base).arg("--out").arg(out);
    command
}

/// What it said, the steps left out.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().filter(|line| !line.contains(": done in ")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn bad_input_is_one_line_and_the_exit_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let (base, out) = (dir.path().join("b.img"), dir.path().join("out"));
    fs::write(&base, "no disk".repeat(1000)).unwrap();
    for check in [true, false] {
        let output = bake(&base, &out).args(check.then_some("--check")).output().unwrap();
        let text = format!("imagebuild: bake {}: find a partition table: it is no disk image\n", base.display());
        assert_eq!((said(&output), output.status.code(), output.stdout.len()), (text, Some(1), 0));
        assert!(!out.exists());
    }
}

/// Many frames of zeros: small, long to unpack, and holes on the disk.
fn write_large(path: &Path) {
    let frame = zstd::encode_all(std::io::repeat(0).take(1 << 30), 1).unwrap();
    fs::write(path, frame.repeat(256)).unwrap();
}

#[test]
fn a_run_that_was_ended_leaves_no_image_and_the_next_one_clears_up() {
    let dir = tempfile::tempdir().unwrap();
    let (base, out) = (dir.path().join("large.img.zst"), dir.path().join("out"));
    write_large(&base);
    let mut child = bake(&base, &out).stderr(Stdio::null()).spawn().unwrap();
    let names = || -> Vec<String> {
        let entries = fs::read_dir(&out).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while !names().iter().any(|name| out.join(name).join("image").exists()) {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let left = names();
    assert!(left.len() == 1 && left[0].starts_with(".bake-"), "{left:?}");
    fs::write(&base, zstd::encode_all(&b"no disk".repeat(1000)[..], 1).unwrap()).unwrap();
    let output = bake(&base, &out).output().unwrap();
    let text = format!("imagebuild: bake {}: find a partition table: it is no disk image\n", base.display());
    assert_eq!((said(&output), names()), (text, vec![]));
}

#[test]
fn a_check_that_was_ended_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (base, out) = (dir.path().join("large.img.zst"), dir.path().join("out/images"));
    write_large(&base);
    let mut child = bake(&base, &out).arg("--check").stderr(Stdio::null()).spawn().unwrap();
    // The file has no name: what the process has open shows where it is.
    let (open, place) = (format!("/proc/{}/fd", child.id()), fs::canonicalize(dir.path()).unwrap());
    let is_unpacking = || {
        let mut links =
            fs::read_dir(&open).into_iter().flatten().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        links.any(|to| to.starts_with(&place) && to.to_string_lossy().ends_with(" (deleted)"))
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_unpacking() {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["large.img.zst"]);
}
