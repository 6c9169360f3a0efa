// SPDX-License-Identifier: Apache-2.0
//! Sections 1 to 4 of the CIS Kubernetes Benchmark 1.12, every automated and manual check of them, in words of our own.
//!
//! Numbers and conditions are those of kube-bench (aquasecurity/kube-bench, `cfg/cis-1.12`, read in November 2026). What is
//! looked at comes from the device's own tools and from its processes, and nothing from firstboot's own audit.
//! docs/hardening.md has the same lists, with the reason of each warning; tests hold them together. Section 5, policies, is
//! for what runs in a cluster.

pub mod control_plane;
pub mod node;

use std::collections::BTreeMap;

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It does not hold to the letter, and docs/hardening.md says why that is right here.
    Warn,
    /// It does not hold.
    Fail,
}

/// One check, of what is known of a device.
pub struct Check<F> {
    /// Number in the benchmark.
    pub id: &'static str,
    /// What is looked at, in words of our own.
    pub asks: &'static str,
    /// Verdict, and what was found.
    pub look: fn(&F) -> Judged,
}

/// A verdict, and what was found.
pub type Judged = (Verdict, String);

/// A check's id, what it asks, its verdict, and what was found.
pub type Row = (&'static str, &'static str, Verdict, String);

/// Every check with its verdict and what was found.
pub fn verdicts<F>(checks: &[Check<F>], facts: &F) -> Vec<Row> {
    let judged = checks.iter().map(|check| (check, (check.look)(facts)));
    judged.map(|(check, (verdict, found))| (check.id, check.asks, verdict, found)).collect()
}

/// Prints every verdict.
///
/// # Panics
/// When a check fails, or other checks than these are warnings.
pub fn expect(rows: &[Row], warned: &[&str]) {
    for (id, asks, verdict, found) in rows {
        println!("CIS {id} {verdict:?}: {asks}: {found}");
    }
    let not_passed: Vec<(&str, Verdict)> =
        rows.iter().filter(|row| row.2 != Verdict::Pass).map(|row| (row.0, row.2)).collect();
    let wanted: Vec<(&str, Verdict)> = warned.iter().map(|id| (*id, Verdict::Warn)).collect();
    assert_eq!(not_passed, wanted, "{rows:#?}");
}

/// Mode and owner of each file, by its path.
struct Files(BTreeMap<String, (u32, String)>);

/// Files whose path begins and ends so.
type Place<'a> = (&'a str, &'a str);

impl Files {
    /// From lines of path, mode, and owner and group.
    fn read(text: &str) -> Self {
        let file = |line: &str| {
            let mut words = line.rsplitn(3, ' ');
            let (owner, mode, name) = (words.next()?, words.next()?, words.next()?);
            Some((name.to_owned(), (u32::from_str_radix(mode, 8).ok()?, owner.to_owned())))
        };
        Files(text.lines().filter_map(file).collect())
    }

    fn get(&self, path: &str) -> Option<(u32, &str)> {
        self.0.get(path).map(|(mode, owner)| (*mode, owner.as_str()))
    }

    /// All files of these places; none where one of the places has no file.
    fn of(&self, places: &[Place<'_>]) -> Vec<(&str, u32, &str)> {
        let mut all = Vec::new();
        for (begin, end) in places {
            let there = self.0.iter().filter(|(path, _)| path.starts_with(begin) && path.ends_with(end));
            let before = all.len();
            all.extend(there.map(|(path, (mode, owner))| (path.as_str(), *mode, owner.as_str())));
            if all.len() == before {
                return Vec::new();
            }
        }
        all
    }

    /// Each place has a file, and none of them is open to more than `most`.
    fn modes(&self, places: &[Place<'_>], most: u32) -> Judged {
        let all = self.of(places);
        let found = all.iter().map(|(path, mode, _)| format!("{path} {mode:o}")).collect::<Vec<_>>().join(", ");
        pass(!all.is_empty() && all.iter().all(|(_, mode, _)| mode & !most == 0), found)
    }

    /// Each place has a file, and all of them are root's.
    fn owners(&self, places: &[Place<'_>]) -> Judged {
        let all = self.of(places);
        let found = all.iter().map(|(path, _, owner)| format!("{path} {owner}")).collect::<Vec<_>>().join(", ");
        pass(!all.is_empty() && all.iter().all(|(.., owner)| *owner == "root:root"), found)
    }
}

/// Flags on a command line; empty where it is not known.
#[derive(Default, PartialEq, Eq)]
struct Flags(Vec<String>);

impl Flags {
    /// From a program and its arguments, one a line.
    fn read(text: &str) -> Self {
        Flags(text.lines().skip(1).map(str::to_owned).collect())
    }

    /// The last value of a flag.
    fn get(&self, name: &str) -> Option<&str> {
        let prefix = format!("--{name}=");
        self.0.iter().rev().find_map(|flag| flag.strip_prefix(&prefix))
    }

    fn are_known(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Local addresses that TCP sockets listen at, as `ss -Hltn` lists them.
fn addresses(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.split_whitespace().nth(3)).map(str::to_owned).collect()
}

/// Something listens at this port, at no other address than those of the device itself.
fn loopback_alone(listening: &[String], port: u16) -> Judged {
    let end = format!(":{port}");
    let at: Vec<&str> = listening.iter().map(String::as_str).filter(|address| address.ends_with(&end)).collect();
    let own = |address: &&str| address.starts_with("127.0.0.1:") || address.starts_with("[::1]:");
    pass(!at.is_empty() && at.iter().all(own), at.join(", "))
}

/// Lines of a name and a value.
fn pairs(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn pass(holds: bool, found: String) -> Judged {
    (if holds { Verdict::Pass } else { Verdict::Fail }, found)
}

/// What the unit tests of the sections share.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod docs {
    use super::{Row, Verdict};

    /// The section of docs/hardening.md with this heading has a row for each check, with its verdict and, for a warning, its
    /// reason; and it counts them.
    pub(super) fn compare(heading: &str, rows: &[Row]) {
        let docs = std::fs::read_to_string("../docs/hardening.md").unwrap();
        let section = docs.split(&format!("\n## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
        let is_check =
            |line: &&str| line.strip_prefix("| ").is_some_and(|l| l.starts_with(|c: char| c.is_ascii_digit()));
        let found: Vec<Vec<&str>> =
            section.lines().filter(is_check).map(|l| l.trim_matches(['|', ' ']).split(" | ").collect()).collect();
        // Rows whose first cell is empty continue the one above.
        let reason = |id: &str| -> usize {
            let below = section.lines().skip_while(|l| !l.starts_with(&format!("| {id} | "))).skip(1);
            below.take_while(|l| l.starts_with("| | ")).map(str::len).sum()
        };
        assert_eq!(found.len(), rows.len());
        for (row, (id, asks, verdict, _)) in found.iter().zip(rows) {
            let word = if *verdict == Verdict::Pass { "PASS" } else { "WARN" };
            assert_eq!(row[..], [*id, *asks, word]);
            assert!(word == "PASS" || reason(id) > 60, "{row:?} says no reason");
        }
        let passed = rows.iter().filter(|row| row.2 == Verdict::Pass).count();
        let (all, warned) = (rows.len(), rows.len() - passed);
        let count = format!("Of the {all} checks {passed} pass, {warned} are warnings and none fails.");
        let words = section.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(&count), "{heading} does not say: {count}");
    }
}
