// SPDX-License-Identifier: Apache-2.0
//! Codes of faults: each is used in the sources, and has one row in docs/operations.md, in the table of its owner.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use firstboot::fault::{Code, Owner};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

const OWNERS: [Owner; 4] = [Owner::Seed, Owner::Image, Owner::Host, Owner::Cluster];

fn root() -> PathBuf {
    PathBuf::from("..")
}

/// First digit of an owner's codes.
fn range(owner: Owner) -> char {
    match owner {
        Owner::Seed => '1',
        Owner::Image => '2',
        Owner::Host => '3',
        Owner::Cluster => '4',
    }
}

/// The device's own sources, without tests and without the table of codes.
fn sources() -> String {
    let (mut found, mut directories) = (String::new(), vec![root().join("firstboot/src")]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if name.contains("test") || name == "fault.rs" || name == "fake.rs" {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                directories.push(path);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).unwrap();
                found += text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
            }
        }
    }
    found
}

/// Whether this word stands in the text, and not as a part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    text.match_indices(word).any(|(at, _)| ends(&text[at + word.len()..]))
}

#[test]
fn codes_are_unique_and_in_the_range_of_their_owner() {
    let mut texts = BTreeSet::new();
    for code in Code::ALL {
        let text = code.as_str();
        assert!(texts.insert(text), "{text} is there twice");
        let number = text.strip_prefix("FB").unwrap_or_else(|| panic!("{text} does not begin with FB"));
        assert!(number.len() == 3 && number.bytes().all(|b| b.is_ascii_digit()), "{text} is not three digits");
        assert!(number.starts_with(range(code.owner())), "{text} is not in the range of {}", code.owner());
        assert_eq!(Code::parse(text), Some(*code));
    }
    assert!(Code::ALL.is_sorted_by_key(|code| code.as_str()), "not in the order of their numbers");
    assert_eq!(OWNERS.map(|owner| owner.general().as_str()), ["FB100", "FB200", "FB300", "FB400"]);
    assert_eq!(Code::parse("FB999"), None);
}

#[test]
fn every_code_is_used() {
    let sources = sources();
    let unused: Vec<String> = Code::ALL
        .iter()
        .filter(|code| !has_word(&sources, &format!("Code::{code:?}")))
        // Those without a kind of their own come by way of the owner.
        .filter(|code| {
            let owner = code.owner();
            **code != owner.general() || !has_word(&sources, &format!("owned_by(Owner::{owner:?}"))
        })
        .map(|code| format!("{code} {code:?}"))
        .collect();
    assert!(unused.is_empty(), "in fault.rs, but used nowhere: {unused:?}");
    assert!(has_word("Code::Host)", "Code::Host") && !has_word("Code::Hosts", "Code::Host"));
}

#[test]
fn every_code_is_documented_once_under_its_owner() {
    let doc = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let section = doc.split("\n## Messages\n").nth(1).expect("docs/operations.md has a heading Messages");
    let section = section.split("\n## ").next().unwrap();
    let mut rows = 0;
    for owner in OWNERS {
        let heading = format!("\n### {owner}: ");
        let table = section.split(&heading).nth(1).unwrap_or_else(|| panic!("no heading {heading}"));
        let table = table.split("\n### ").next().unwrap();
        let cells = |line: &str| line.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect::<Vec<_>>();
        let listed: Vec<Vec<String>> = table.lines().filter(|l| l.starts_with("| `")).map(cells).collect();
        rows += listed.len();
        let codes: Vec<&str> = listed.iter().map(|row| row[0].trim_matches('`')).collect();
        let known: Vec<&str> = Code::ALL.iter().filter(|c| c.owner() == owner).map(|c| c.as_str()).collect();
        assert_eq!(codes, known, "codes of {owner} in docs/operations.md");
        let complete = |row: &&Vec<String>| row.len() == 3 && row.iter().all(|cell| !cell.is_empty());
        assert!(listed.iter().all(|row| complete(&row)), "a row without a meaning or without advice: {listed:?}");
    }
    assert_eq!(rows, section.lines().filter(|line| line.starts_with("| `")).count(), "rows outside these tables");
}

/// The table of causes: every code once, beside its owner, with how it recovers.
#[test]
fn every_code_recovers_as_documented() {
    let doc = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let section = doc.split("\n### How each fault recovers\n").nth(1).expect("a heading How each fault recovers");
    let section = section.split("\n#").next().unwrap();
    let mut seen = Vec::new();
    for line in section.lines().filter(|line| line.contains("`FB") && line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [cause, codes, owner, recovers] = cells[..] else { panic!("not four cells: {line}") };
        assert!(!cause.is_empty() && !recovers.is_empty(), "{line}");
        for text in codes.split(' ') {
            let code = Code::parse(text.trim_matches('`')).unwrap_or_else(|| panic!("no code {text}: {line}"));
            assert_eq!(code.owner().word(), owner, "{line}");
            seen.push(code);
        }
    }
    seen.sort();
    assert_eq!(seen, Code::ALL, "each code once");
}
