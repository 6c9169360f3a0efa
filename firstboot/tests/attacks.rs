// SPDX-License-Identifier: Apache-2.0
//! docs/threat-model.md and the tests agree: each fact names a test that is there, or is by design, and each test that
//! tries what an attacker would is named.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// Numbers of the points of the first security review, each of which has a test of its own.
const POINTS: std::ops::RangeInclusive<u8> = 1..=21;

fn root() -> PathBuf {
    PathBuf::from("..")
}

/// Names of all functions of the workspace.
fn functions() -> BTreeSet<String> {
    let packages = ["firstboot", "imagebuild", "initrd", "qemu", "tests", "fuzz"];
    let mut directories: Vec<PathBuf> =
        packages.iter().flat_map(|name| ["src", "tests"].map(|part| root().join(name).join(part))).collect();
    let mut found = BTreeSet::new();
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let names =
                    text.lines().filter_map(|line| line.trim_start().trim_start_matches("pub ").strip_prefix("fn "));
                found.extend(names.filter_map(|rest| rest.split(['(', '<']).next()).map(str::to_owned));
            }
        }
    }
    found
}

/// Numbers at the start of a test's name: `s03_s04_…` has two.
fn numbers(name: &str) -> Vec<u8> {
    let number =
        |part: &str| part.strip_prefix('s').filter(|digits| digits.len() == 2).and_then(|digits| digits.parse().ok());
    name.split('_').map_while(number).collect()
}

/// Facts of the summary, and the tests that are named below each.
fn facts() -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(root().join("docs/threat-model.md")).unwrap();
    let summary = text.split("\n## ").find(|part| part.starts_with("Summary\n")).unwrap();
    let mut facts: Vec<(String, Vec<String>)> = Vec::new();
    for line in summary.lines().filter(|line| line.starts_with("| ")) {
        if let Some(names) = line.strip_prefix("| | `") {
            facts.last_mut().unwrap().1.push(names.trim_end_matches(" |").trim_end_matches('`').to_owned());
        } else if line.starts_with("| gets |") || line.starts_with("| does not get |") {
            facts.push((line.to_owned(), Vec::new()));
        }
    }
    assert!(facts.len() > 40, "{}", facts.len());
    facts
}

#[test]
fn every_fact_has_a_test_or_is_by_design() {
    let functions = functions();
    for (fact, tests) in facts() {
        assert_ne!(tests.is_empty(), !fact.contains("(by design)"), "{fact}");
        for test in tests {
            assert!(functions.contains(&test), "{fact} names {test}, which is no test");
        }
    }
}

#[test]
fn every_point_has_a_test_and_the_facts_name_it() {
    let functions = functions();
    let tested: BTreeSet<u8> = functions.iter().flat_map(|name| numbers(name)).collect();
    let named: BTreeSet<u8> =
        facts().iter().flat_map(|(_, tests)| tests.iter().flat_map(|test| numbers(test))).collect();
    for point in POINTS {
        assert!(tested.contains(&point) && named.contains(&point), "s{point:02}");
    }
}
