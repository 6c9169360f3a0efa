// SPDX-License-Identifier: Apache-2.0
//! What of two root file systems has to be the same: paths, kinds, modes and contents, but for what [`DIFFERS`] names.

use super::tree::{Entry, Tree};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What of a file may differ.
#[derive(Debug, Clone, Copy)]
enum How {
    /// All of its content.
    Content,
    /// These keys of a JSON document.
    Keys(&'static [&'static str]),
    /// The order and number of records, and these facts.
    Records(&'static [&'static str]),
    /// When the originals of copies of files were written, and ranges of addresses in them.
    Copies,
    /// The ranges of addresses in it.
    Ranges,
}

/// Facts that differ after two joins by one seed: a time, and what was damaged and repaired on the way.
const JOURNAL_FACTS: &[&str] = &["kubelet-started", "damage", "damage-reported"];

/// Files that differ after two joins by one seed, each with what may differ and why it must.
#[rustfmt::skip]
const DIFFERS: &[(&str, How, &str)] = &[
    ("var/lib/firstboot/journal", How::Records(JOURNAL_FACTS), "a run that was cut off has left its records; times; a seal without its seed is no phase"),
    ("var/lib/firstboot/journal.copy", How::Records(JOURNAL_FACTS), "the same"),
    ("var/lib/firstboot/node-files.json", How::Copies, "times, and ranges of addresses"),
    ("var/lib/firstboot/credential.copy", How::Content, "another key, another certificate"),
    ("var/lib/firstboot/status.json", How::Keys(&["written", "since", "certificate_until", "phases"]), "times"),
    ("var/lib/firstboot/receipt.json", How::Keys(&["boot", "sealed", "phases"]), "times, and the boot that it was written in"),
    ("var/lib/firstboot/verified-time", How::Content, "a time"),
    ("var/lib/kubelet/pki/kubelet-client-DATE.pem", How::Content, "another key, another certificate"),
    ("etc/cni/net.d/99-firstboot.conflist", How::Ranges, "the cluster gives each new Node a range of addresses"),
];

/// Paths that differ between a device that was reset and one that was flashed, each with the reason.
const AFTER_RESET: [(&str, &str); 4] = [
    ("var/lib/firstboot", "firstboot's own record, which no image holds"),
    ("var/lib/firstboot/journal", "the same"),
    ("var/lib/firstboot/journal.copy", "the same"),
    ("etc/machine-id", "empty, so that the next boot makes another"),
];

/// Differences between two trees of devices that joined, one line each.
pub fn differences(wanted: &Tree, found: &Tree) -> Vec<String> {
    let (wanted, found) = (plain(wanted), plain(found));
    let paths: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    let odd = paths.into_iter().filter(|path| wanted.get(*path) != found.get(*path));
    odd.map(|path| format!("/{path}: {}", odd_part(wanted.get(path), found.get(path)))).collect()
}

/// Where two texts part.
fn odd_part(wanted: Option<&String>, found: Option<&String>) -> String {
    let (Some(wanted), Some(found)) = (wanted, found) else {
        return (if wanted.is_some() { "missing" } else { "should not be there" }).to_owned();
    };
    let same = wanted.bytes().zip(found.bytes()).take_while(|(a, b)| a == b).count().saturating_sub(40);
    let part = |text: &str| {
        String::from_utf8_lossy(&text.as_bytes()[same.min(text.len())..]).chars().take(160).collect::<String>()
    };
    format!("wanted …{:?}, found …{:?}", part(wanted), part(found))
}

/// Differences between a device that was flashed and one that was reset.
pub fn left_by_reset(flashed: &Tree, found: &Tree) -> Vec<String> {
    let paths: BTreeSet<&String> = flashed.keys().chain(found.keys()).collect();
    let odd = paths
        .into_iter()
        .filter(|path| flashed.get(*path) != found.get(*path) && !AFTER_RESET.iter().any(|(known, _)| known == path));
    let mut all: Vec<String> =
        odd.map(|path| format!("/{path}: {:?}, now {:?}", shown(flashed, path), shown(found, path))).collect();
    match found.get("etc/machine-id") {
        same if same == flashed.get("etc/machine-id") => {}
        Some(Entry::File(0o444, bytes)) if bytes.is_empty() => {}
        _ => all.push(format!("/etc/machine-id: {:?}", shown(found, "etc/machine-id"))),
    }
    all
}

fn shown(tree: &Tree, path: &str) -> Option<String> {
    tree.get(path).map(|entry| text(entry, None))
}

/// Where firstboot keeps its own files.
const STATE: &str = "var/lib/firstboot/";

/// Each path with what is there, in a form in which only what has to be the same is left.
fn plain(tree: &Tree) -> BTreeMap<String, String> {
    let one = |(path, entry): (&String, &Entry)| {
        let path = dated(path);
        let how = |path: &str| DIFFERS.iter().find(|(known, ..)| *known == path).map(|(_, how, _)| *how);
        let original = path.strip_suffix(".copy").filter(|_| path.starts_with(STATE) && how(&path).is_none());
        let text = match (original, entry) {
            (Some(original), Entry::File(mode, bytes)) => {
                // The first line holds checksums of what is compared here.
                let start = bytes.iter().position(|b| *b == b'\n').map_or(0, |end| end + 1);
                text(&Entry::File(*mode, bytes[start..].into()), how(original))
            }
            _ => text(entry, how(&path)),
        };
        (path, text)
    };
    // What was damaged on the way is kept for people.
    let kept = |(path, _): &(&String, &Entry)| !(path.starts_with(STATE) && path.ends_with(".damaged"));
    tree.iter().filter(kept).map(one).collect()
}

/// A text without the dates in names of certificates' files.
fn dated(text: &str) -> String {
    let mut pieces = text.split("kubelet-client-2");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        plain += "kubelet-client-DATE";
        plain += piece.find(".pem").map_or(piece, |end| &piece[end..]);
    }
    plain
}

fn text(entry: &Entry, how: Option<How>) -> String {
    match entry {
        Entry::Directory(mode) => format!("directory {mode:o}"),
        Entry::Link(target) => format!("link to {}", dated(target)),
        Entry::File(mode, bytes) => {
            let text = String::from_utf8_lossy(bytes);
            let text = match how {
                None => text.into_owned(),
                Some(How::Content) => (if bytes.is_empty() { "" } else { "something" }).to_owned(),
                Some(How::Keys(keys)) => without_keys(&text, keys),
                Some(How::Records(facts)) => records(&text, facts),
                Some(How::Ranges) => ranges(&text),
                Some(How::Copies) => ranges_in_copies(&without_stamps(&text)),
            };
            format!("file {mode:o} {text}")
        }
    }
}

fn without_keys(text: &str, keys: &[&str]) -> String {
    let Ok(mut document) = serde_json::from_str::<Value>(text) else { return format!("unreadable: {text}") };
    if let Some(fields) = document.as_object_mut() {
        fields.retain(|key, _| !keys.contains(&key.as_str()));
        // What was damaged on the way and repaired.
        if let Some(warnings) = fields.get_mut("warnings").and_then(Value::as_array_mut) {
            warnings.retain(|warning| !warning.as_str().is_some_and(|text| text.starts_with("Damage: ")));
        }
    }
    document.to_string()
}

/// Copies of files, by path, without the times of the originals.
fn without_stamps(text: &str) -> String {
    let Ok(mut document) = serde_json::from_str::<Value>(text) else { return format!("unreadable: {text}") };
    for copy in document.as_object_mut().into_iter().flat_map(|copies| copies.values_mut()) {
        copy.as_object_mut().and_then(|copy| copy.remove("stamp"));
    }
    document.to_string()
}

/// Without the numbers of IPv4 ranges in a text within a JSON document.
fn ranges_in_copies(text: &str) -> String {
    text.split('\\').map(ranges).collect::<Vec<_>>().join("\\")
}

/// What a journal comes to: effects and phases as sets, the last word of each fact. Runs, and a seal that was said twice,
/// count once.
fn records(text: &str, facts: &[&str]) -> String {
    let (mut last, mut all) = (BTreeMap::new(), BTreeSet::new());
    for line in text.lines() {
        let Ok(mut line) = serde_json::from_str::<Value>(line) else { return format!("unreadable: {text}") };
        let record = line[2].take();
        if let Some(phase) = record.get("done") {
            // Where the power went after the seed was destroyed, the rest of the seal is done outside of the table.
            if phase["phase"] != "seal" {
                all.insert(json!({"done": phase["phase"]}).to_string());
            }
        } else if let Some(fact) = record.get("fact") {
            last.insert(fact["name"].to_string(), fact["value"].to_string());
        } else if record.get("begun").is_none() {
            all.insert(dated(&record.to_string()));
        }
    }
    last.retain(|name, _| !facts.iter().any(|known| name.trim_matches('"') == *known));
    format!("{all:#?} {last:#?}")
}

/// Without the numbers of IPv4 ranges.
fn ranges(text: &str) -> String {
    let range = |word: &str| word.contains('/') && word.split('.').count() == 4 && !word.contains("0.0.0.0");
    text.split('"').map(|word| if range(word) { "RANGE" } else { word }).collect::<Vec<_>>().join("\"")
}
