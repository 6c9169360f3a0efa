// SPDX-License-Identifier: Apache-2.0
//! docs/operations.md lists what the device may say, whose move it is and what to do: held against every text in the
//! sources, so that neither can change without the other.
//!
//! Every string literal of the sources that reads like words is a message or a part of one, unless it stands in
//! [`NO_MESSAGE`]. `{…}` in it stands for anything. It must be found in one of the table's entries, and each entry must
//! hold one of them. The reasons of hardened settings stand in docs/hardening.md instead, word for word.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fs;
use std::path::{Path, PathBuf};

/// Words that nobody reads as a message: values of other programs' formats, and texts about tables in the code.
const NO_MESSAGE: &[&str] = &[
    // kube/csr.rs: usages of a certificate (X.509).
    "digital signature",
    "client auth",
    // kube/error.rs: another library's word.
    "dns error",
    // kube/error.rs: another library's words, by which its errors are told apart.
    "tunnel error:",
    "proxy authorization required",
    "unexpected end of file",
    "failed to create underlying connection",
    "io error establishing tunnel",
    // host/managed_files.rs, network, phases/registries.rs: lines of files.
    "# Written by firstboot.",
    "nameserver {d}",
    "options cfg80211 ieee80211_regdom={}",
    "ca = \"{path}\"",
    // harden: lines of files, and a comment in /etc/passwd by which firstboot knows its own account.
    "made by firstboot for SSH",
    "{from}restrict,pty {key}",
    "{key} = {value}",
    // harden: values of an audit's findings.
    "not refused",
    "as the image has it",
    "another text",
    "login{LOGIN_DEFS} {key}",
    "{key} = {shown}",
    "{key} {found}",
    // What systemctl shows while it works.
    "STATUS=phase {number}/{of} {phase}",
    "STATUS=node {node} is Ready",
    "STATUS=waiting for a seed",
    "STATUS=being reset",
    "looking for the cluster",
    "asking for a certificate",
    // identity.rs, seed/mod.rs, boot_partition/token_digest.rs: what makes a digest this program's.
    "firstboot token 10",
    "firstboot node name 10",
    "firstboot seed 10",
    // The form of the status file and of the console: docs/operations.md describes both in words.
    "{key}: {value}",
    "phases, with seconds:",
    "whose move",
    "certificate until",
    ", expired",
    "{v} in the bundle",
    "next try",
    "left to do",
    "{} (by this device's clock)",
    "{name:<12} {seconds:>8.2}",
    "in {seconds} s, at {}",
    "firstboot: {line}",
    "firstboot: {text}",
    "firstboot: {fault}",
    "{number}/{of} {phase}",
    "{n}/{of} {p}",
    "phase {n}/{of} {p}",
    "{owner} ({})",
    "{} built {} ({})",
    "{at}failed ({owner}): {error}; {then}",
    // The form of what audit prints: docs/operations.md describes it in words.
    "drift      {id}: {found}, wanted {wanted} ({why})",
    "exception  {id}: {found}, by the seed ({why})",
    "unchecked  {id}: {found} ({why})",
    "{text}{ok} ok, {exceptions} excepted by the seed, {unchecked} unchecked, {drift} drifted",
    // phases/rebuild: containerd's own words, and a fact.
    "invalid database",
    "checksum error",
    "file size too small",
    "missing parent",
    "The image {image} is not unpacked",
    "{} {} {word}",
    // leds.rs: a setting of the kernel.
    "{brightness} {ms} {brightness} 0",
    // harden/kubelet, harden/containerd.rs, harden/units.rs: what was found, beside its id.
    "{value} (--{name})",
    "neither text nor true nor false",
    "not running",
    "with all",
    "without {}",
    // firewall: the language of nft and the form of its answers, where values stand in it; docs/hardening.md has the rules.
    "elements = {{ {} }}",
    "{} dport {} accept",
    "ct status dnat meta l4proto {} ct original proto-dst {} accept",
    "type filter hook prerouting priority mangle; policy accept;",
    "type filter hook input priority filter; policy drop;",
    "type filter hook output priority filter; policy drop;",
    "type filter hook forward priority filter; policy drop;",
    "chain {name} {{",
    "chain {chain} {{",
    "filter {chain} 0 drop",
    "filter prerouting -150 accept, {} dropped",
    "{head}, {} dropped",
    // Parts that say nothing by themselves.
    "{phase} {s:.2}",
    "{verb} {}",
    "{} {reason}",
    ": {words}",
    "{why}; the next try sends another",
    "{why}: sending another",
    "{what}: {why}",
    "{flag}: {why}",
    "{state}: {complaint}",
    "proxy {}",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The device's own sources, without tests.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("firstboot/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            match entry.file_type().unwrap().is_dir() {
                true if name.contains("test") => {}
                // Told under the id of its check, which has a row of its own in the docs: tests/tidy.rs.
                true if name == "preflight" => {}
                true => folders.push(path),
                false if name.contains("test") || name == "fake.rs" || !name.ends_with(".rs") => {}
                false => {
                    let text = fs::read_to_string(&path).unwrap();
                    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
                    found.push((path.strip_prefix(root()).unwrap().display().to_string(), code));
                }
            }
        }
    }
    found.sort();
    assert!(found.len() > 30, "found only {} sources", found.len());
    found
}

/// String literals of Rust code on one line each, escapes resolved; those over several lines are no messages.
fn literals(code: &str) -> Vec<String> {
    let (bytes, mut at, mut found) = (code.as_bytes(), 0, Vec::new());
    while at < bytes.len() {
        let rest = &code[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            let end = raw.find("\"#").unwrap();
            found.push(raw[..end].to_owned());
            at += 3 + end + 2;
        } else if rest.starts_with('\'') {
            // A character, which may be a quotation mark; anything else here is a lifetime.
            let mut next = rest.char_indices().skip(1);
            let (_, first) = next.next().unwrap();
            let end = if first == '\\' { rest[2..].find('\'').map(|e| e + 2) } else { next.next().map(|(i, _)| i) };
            let end = end.filter(|e| rest[*e..].starts_with('\''));
            at += end.map_or(1, |e| e + 1);
        } else if let Some(rest) = rest.strip_prefix('"') {
            let (text, length) = literal(rest);
            found.push(text);
            at += 1 + length;
        } else {
            at += rest.chars().next().unwrap().len_utf8();
        }
    }
    found.retain(|text| !text.trim().contains('\n'));
    found
}

/// The literal up to its closing mark, and how many bytes that took.
fn literal(rest: &str) -> (String, usize) {
    let (mut text, mut chars) = (String::new(), rest.char_indices().peekable());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (text, at + 1),
            '\\' => match chars.next().unwrap().1 {
                // A line that goes on: what leads the next line is not in the text.
                '\n' => while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {},
                'n' => text.push('\n'),
                other => text.push(other),
            },
            c => text.push(c),
        }
    }
    panic!("a literal without an end: {rest:.40}")
}

fn is_words(text: &str) -> bool {
    let word = |w: &str| w.len() > 1 && w.bytes().all(|b| b.is_ascii_lowercase());
    text.trim().contains(' ') && text.split([' ', ':', ',', ';', '{', '}']).any(word)
}

/// What stands fixed in a template, in order; between the pieces may be anything.
fn fixed(template: &str) -> Vec<String> {
    let (mut pieces, mut piece) = (Vec::new(), String::new());
    let mut rest = template.trim();
    let inner = |c: char| c.is_ascii_alphanumeric() || "_:.<>?#+".contains(c);
    while let Some(c) = rest.chars().next() {
        let value = rest.strip_prefix('{').and_then(|r| r.split_once('}')).filter(|(v, _)| v.chars().all(inner));
        if rest.starts_with("{{") || rest.starts_with("}}") {
            piece.push(c);
            rest = &rest[2..];
        } else if let Some((_, after)) = value {
            pieces.push(std::mem::take(&mut piece));
            rest = after;
        } else {
            piece.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    pieces.push(piece);
    pieces.retain(|p| !p.trim().is_empty());
    pieces
}

/// Whether the pieces stand in the entry in this order; what is as short as `read …` must begin it.
fn holds(entry: &str, pieces: &[String]) -> bool {
    let Some(first) = pieces.first() else { return false };
    if pieces.iter().map(String::len).sum::<usize>() < 9 && !entry.starts_with(first.trim()) {
        return false;
    }
    let mut rest = entry;
    pieces.iter().all(|piece| match rest.find(piece.trim()) {
        Some(at) => {
            rest = &rest[at + piece.trim().len()..];
            true
        }
        None => false,
    })
}

/// The messages in the tables below the heading "Messages": the code in the first column.
fn entries() -> Vec<String> {
    let doc = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let section = doc.split("\n## Messages\n").nth(1).expect("docs/operations.md has a heading Messages");
    let section = section.split("\n## ").next().unwrap();
    let first = section.lines().filter_map(|l| l.strip_prefix("| ")?.split(" | ").next());
    let entries: Vec<String> =
        first.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect();
    assert!(entries.len() > 100, "found only {} messages in docs/operations.md", entries.len());
    entries
}

#[test]
fn every_message_is_in_the_table_and_nothing_else() {
    let entries = entries();
    let reasons = fs::read_to_string(root().join("docs/hardening.md")).unwrap();
    let (mut missing, mut alive) = (Vec::new(), vec![false; entries.len()]);
    for (name, code) in sources() {
        for text in literals(&code).into_iter().filter(|t| is_words(t)) {
            if NO_MESSAGE.contains(&text.trim()) {
                continue;
            }
            let pieces = fixed(&text);
            let mut found = false;
            for (entry, alive) in entries.iter().zip(&mut alive) {
                if holds(entry, &pieces) {
                    (found, *alive) = (true, true);
                }
            }
            if !found && !reasons.contains(text.trim()) {
                missing.push(format!("{name}: {text}"));
            }
        }
    }
    let stale: Vec<&String> = entries.iter().zip(alive).filter(|(_, alive)| !alive).map(|(e, _)| e).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "not in the tables of docs/operations.md, Messages (a setting's reason: docs/hardening.md; or, if nobody reads it, NO_MESSAGE here):\n{}\nin \
         the tables, but in no source:\n{stale:#?}",
        missing.join("\n")
    );
}

#[test]
fn exceptions_are_in_the_sources() {
    let all: Vec<String> = sources().iter().flat_map(|(_, code)| literals(code)).collect();
    let stale: Vec<_> = NO_MESSAGE.iter().filter(|e| !all.iter().any(|text| text.trim() == **e)).collect();
    assert!(stale.is_empty(), "in NO_MESSAGE, but in no source: {stale:?}");
}

#[test]
fn literals_are_found() {
    let code = "// \"no\"\nlet a = '\"'; f::<'a>(\"one \\\"two\\\" {x} \\\n        three\", r#\"raw \"four\"\"#, '\\'');\n\"x\\ny\"";
    assert_eq!(literals(code), ["one \"two\" {x} three", "raw \"four\""]);
    assert_eq!(fixed("read {path}: {} {{key}}"), ["read ", ": ", " {key}"]);
    assert!(holds("read …: 3 {key}", &fixed("read {path}: {} {{key}}")));
    assert!(!holds("read …", &fixed("read {path}: {}")));
}
