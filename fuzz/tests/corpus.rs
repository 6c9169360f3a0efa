// SPDX-License-Identifier: Apache-2.0
//! Every input of the corpora holds to its properties, without libFuzzer: a fixed finding stays fixed.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::thread;

use fuzz::{TARGETS, Target};

/// Largest that all corpora together may be, bytes.
const MAX_BYTES: u64 = 300 * 1024;

fn fuzz_dir(name: &str) -> PathBuf {
    PathBuf::from(name)
}

fn corpus(target: &Target) -> Vec<PathBuf> {
    let dir = fuzz_dir("corpus").join(target.name);
    let mut files: Vec<PathBuf> = fs::read_dir(&dir).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_kept_input_holds() {
    for target in TARGETS {
        let files = corpus(target);
        assert!(files.len() >= 5, "{}: {} inputs", target.name, files.len());
        for file in files {
            let (run, input) = (target.run, fs::read(&file).unwrap());
            assert!(thread::spawn(move || run(&input)).join().is_ok(), "this input broke it: {}", file.display());
        }
    }
}

#[test]
fn corpora_are_small_and_belong_to_a_target() {
    let mut names: Vec<String> =
        fs::read_dir(fuzz_dir("corpus")).unwrap().map(|d| d.unwrap().file_name().into_string().unwrap()).collect();
    let mut known: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
    names.sort();
    known.sort_unstable();
    assert_eq!(names, known);
    let bytes: u64 = TARGETS.iter().flat_map(corpus).map(|f| fs::metadata(f).unwrap().len()).sum();
    assert!(bytes <= MAX_BYTES, "{bytes} bytes; make fuzz-corpus makes them smaller");
}
