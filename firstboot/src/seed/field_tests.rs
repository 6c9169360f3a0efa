// SPDX-License-Identifier: Apache-2.0
//! Seeds as people really write them, out of public bug reports: each file of `tests/field/` with the outcome that
//! its directory's `expected.toml` gives: `accepted`, or code and message of its refusal.
//!
//! Files that end in `.txt` are join lines; `imagebuild`'s tests read those.

use super::parse;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Outcome of a file that is read.
const ACCEPTED: &str = "accepted";

fn directories() -> Vec<PathBuf> {
    let field = Path::new("tests/field");
    let mut all: Vec<PathBuf> = fs::read_dir(field).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// Files of a directory with what is expected of them.
fn expected(directory: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(directory.join("expected.toml")).unwrap();
    toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
}

#[test]
fn each_file_is_listed() {
    for directory in directories() {
        let names = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != "expected.toml").collect();
        names.sort();
        let listed: Vec<String> = expected(&directory).into_keys().collect();
        assert_eq!(names, listed, "{}", directory.display());
    }
}

#[test]
fn each_seed_has_its_outcome() {
    let mut wrong = Vec::new();
    for directory in directories() {
        for (name, expected) in expected(&directory).into_iter().filter(|(name, _)| name.ends_with(".seed")) {
            let outcome = match parse(&fs::read(directory.join(&name)).unwrap()) {
                Ok(_) => ACCEPTED.to_owned(),
                Err(error) => format!("{}: {error}", error.code.as_str()),
            };
            if outcome != expected {
                let directory = directory.file_name().unwrap().to_string_lossy().into_owned();
                wrong.push(format!("{directory}/{name}:\n  expected {expected}\n  found    {outcome}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
