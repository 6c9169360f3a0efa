// SPDX-License-Identifier: Apache-2.0
//! Says what a file is that is no seed, and what is wrong with a line that is not TOML. No message has any of the text.

use super::character::{self, is_invisible};
use super::error::Error;
use super::reader::line_of;
use super::types::{JoinToken, may_show};
use super::{foreign, join_text};
use crate::fault::Code;

/// What a seed begins with.
const BEGINS: &str = "a seed is plain text that begins with: version = 1";

/// Files that are not text, by their first bytes.
const BINARY: [(&[u8], &str); 14] = [
    (b"PK\x03\x04", "a ZIP archive or a document of a word processor"),
    (b"\xd0\xcf\x11\xe0", "a document of a word processor"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90\0", "a program"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"\0\x05\x16\x07", "what macOS keeps beside a file (AppleDouble)"),
    (b"L\0\0\0\x01\x14\x02\0", "a shortcut of Windows"),
    (b"\x30\x82", "a certificate or key in DER"),
];

/// Text that is something else, by its beginning in lower case, with what to do.
const TEXT: [(&str, &str, &str); 19] = [
    ("{\\rtf", "Rich Text (RTF)", "save it as plain text"),
    ("<!doctype html", "a web page (HTML)", BEGINS),
    ("<html", "a web page (HTML)", BEGINS),
    ("<", "XML or HTML", BEGINS),
    ("#cloud-config", "cloud-config for cloud-init", BEGINS),
    ("#!", "a script", BEGINS),
    ("```", "Markdown", "delete the lines with ```"),
    ("-----begin certificate", "a certificate", "it is the value of ca-cert in [cluster]"),
    ("-----begin public key", "a public key", BEGINS),
    ("-----begin", "a private key", "remove it from this medium"),
    ("putty-user-key-file", "a private key of PuTTY", "remove it from this medium"),
    ("ssh-", "a public key for SSH", "it is a value of ssh-keys in [access]"),
    ("ecdsa-sha2-", "a public key for SSH", "it is a value of ssh-keys in [access]"),
    ("sk-", "a public key for SSH", "it is a value of ssh-keys in [access]"),
    ("{", "JSON", BEGINS),
    ("[{", "JSON", BEGINS),
    ("[\"", "JSON", BEGINS),
    ("---", "YAML", BEGINS),
    ("%yaml", "YAML", BEGINS),
];

/// YAML by a line of it, as far as its first colon or to its end, with what to do.
const YAML: [(&str, &str, &str); 11] = [
    ("kind: JoinConfiguration", "a JoinConfiguration of kubeadm (YAML)", CLUSTER),
    ("kind: InitConfiguration", "an InitConfiguration of kubeadm (YAML)", JOIN),
    ("kind: ClusterConfiguration", "a ClusterConfiguration of kubeadm (YAML)", JOIN),
    ("kind: KubeletConfiguration", "a KubeletConfiguration (YAML)", "its fields belong in [kubelet.config]"),
    ("clusters:", "a kubeconfig", JOIN),
    ("kind:", "an object of Kubernetes (YAML)", JOIN),
    ("runcmd:", "cloud-config for cloud-init", BEGINS),
    ("write_files:", "cloud-config for cloud-init", BEGINS),
    ("ethernets:", "configuration of netplan (YAML)", "settings of the network belong in [network]"),
    ("wifis:", "configuration of netplan (YAML)", "settings of the network belong in [network]"),
    ("", "YAML", "a seed is TOML, KEY = VALUE, and begins with: version = 1"),
];

const CLUSTER: &str = "its values are apiserver, token and ca-cert-hashes in [cluster], after version = 1";
const JOIN: &str =
    "write version = 1, and join = '…' with the line that kubeadm token create --print-join-command prints";

/// Says what bytes are that no text begins with.
pub(super) fn binary(bytes: &[u8]) -> Option<String> {
    let (_, what) = BINARY.iter().find(|(magic, _)| bytes.starts_with(magic))?;
    Some(format!("this is {what}, and not a seed: {BEGINS}"))
}

/// Says what a text is that has no `version` or is not TOML, if it is known.
pub(super) fn text(text: &str) -> Option<String> {
    let start = text.trim_start_matches(|c: char| c.is_whitespace() || is_invisible(c));
    let head: String = start.chars().take(40).collect::<String>().to_ascii_lowercase();
    let said = |what: &str, advice: &str| Some(format!("this is {what}, and not a seed: {advice}"));
    let begins = |(mark, ..): &&(&str, &str, &str)| head.starts_with(mark);
    // Keys are often put beside the certificate that they belong to.
    if text.contains("PRIVATE KEY-----") && !has_version(text) {
        return said("a private key", "remove it from this medium");
    }
    let in_yaml = || TEXT.iter().find(begins).is_none_or(|(_, what, _)| *what == "YAML");
    if let Some((_, what, advice)) = TEXT.iter().find(begins)
        && !in_yaml()
    {
        return said(what, advice);
    }
    if has_version(text) {
        return None;
    }
    let is_key = text.lines().any(|line| line.trim_start().starts_with("join"));
    if !is_key && !join_text::commands(text).is_empty() {
        return said(
            "a join line alone",
            "write version = 1 in the first line, and join = '…' with this line in the next",
        );
    }
    let lines =
        || text.lines().map(str::trim_end).filter(|l| !l.trim_start().is_empty() && !l.trim_start().starts_with('#'));
    let first = lines().next()?;
    if let Some(other) = foreign::line(first) {
        return Some(other);
    }
    if lines().count() == 1 && (JoinToken::parse(first).is_ok() || foreign::token(first).is_some()) {
        return said("a token alone", JOIN);
    }
    if lines().any(|l| l.replace(' ', "").starts_with("network={")) {
        return said("configuration of wpa_supplicant", "ssid, password and country belong in [network.wifi]");
    }
    let is_yaml = head.starts_with("---") || head.starts_with("%yaml") || first.split_once(':').is_some_and(is_entry);
    if !is_yaml {
        return None;
    }
    let has = |mark: &str| lines().any(|line| line.trim_start().starts_with(mark));
    let (_, what, advice) = YAML.iter().find(|(mark, ..)| has(mark))?;
    said(what, advice)
}

/// Whether the two sides of a colon are key and value of YAML.
fn is_entry((key, value): (&str, &str)) -> bool {
    let key = key.trim_start_matches("- ");
    !key.is_empty()
        && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
        && !value.starts_with("//")
        && (value.is_empty() || value.starts_with(' '))
}

/// Whether some line sets `version`, as a seed does.
fn has_version(text: &str) -> bool {
    let rest = |line: &str| line.trim_start().strip_prefix("version").map(|rest| rest.trim_start().to_owned());
    text.lines().filter_map(rest).any(|rest| rest.starts_with('='))
}

/// What is wrong with a text that is not TOML. The parser's own message and line are used, never its `Display`, which
/// prints the line.
pub(super) fn syntax(text: &str, error: &toml::de::Error) -> Error {
    if let Some(text) = self::text(text) {
        return Error { code: Code::SeedSyntax, line: None, text };
    }
    let line = error.span().map(|s| line_of(text, s.start));
    // A string that is not closed is noticed in the line after it, if at all.
    if let Some(line) = line
        && let Some(before) = [line, line.saturating_sub(1)].into_iter().find(|n| is_open(line_at(text, *n)))
    {
        let text =
            "not valid TOML: a value has no quotation mark at its end; one of several lines stands between \"\"\"";
        return Error { code: Code::SeedSyntax, line: Some(before), text: text.to_owned() };
    }
    if !has_version(text) {
        let text = format!("not valid TOML, and without version: {BEGINS}");
        return Error { code: Code::SeedSyntax, line, text };
    }
    // The parser's messages are fixed texts; the guard is for the day when one is not.
    let shown = error.message().split_whitespace().all(may_show);
    let message = if shown { error.message().replace('\n', ", ") } else { "syntax error".to_owned() };
    let message = line.and_then(|line| better(line_at(text, line))).unwrap_or(message);
    Error { code: Code::SeedSyntax, line, text: format!("not valid TOML: {message}") }
}

/// A line by its number, from 1.
fn line_at(text: &str, number: usize) -> &str {
    number.checked_sub(1).and_then(|index| text.lines().nth(index)).unwrap_or_default()
}

/// Whether a line gives a key a string of one line that does not end in it.
fn is_open(line: &str) -> bool {
    let Some((key, value)) = line.split_once('=') else { return false };
    let (key, value) = (key.trim(), value.trim_start());
    let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    let mut chars = value.chars();
    let Some(quote) = chars.next().filter(|c| ['"', '\''].contains(c)) else { return false };
    let mut escaped = false;
    let closed = chars.any(|c| {
        let end = c == quote && !escaped;
        escaped = c == '\\' && quote == '"' && !escaped;
        end
    });
    is_key && !closed
}

/// What is wrong with a line, in words of its own.
fn better(line: &str) -> Option<String> {
    let outside = outside_of_strings(line);
    if let Some(odd) = outside.chars().find_map(character::in_syntax) {
        return Some(odd);
    }
    if let Some(entity) = outside.split('&').skip(1).find_map(character::entity) {
        return Some(entity);
    }
    if !outside.contains('=') && !join_text::commands(line).is_empty() {
        return Some("write join = '…' with the join line between the quotation marks".to_owned());
    }
    let colon = outside.split_once(':').is_some_and(is_entry) || outside.trim_start().starts_with(':');
    if colon && !outside.contains('=') {
        return Some("TOML has KEY = VALUE, not KEY: VALUE".to_owned());
    }
    let value = line.split_once('=').map(|(_, value)| value.trim())?;
    let marks = |mark: char| value.chars().filter(|c| *c == mark).count();
    let alone = |mark: &str| value.starts_with(mark) && !value.starts_with(&mark.repeat(3)) && !value.contains(',');
    let word = value.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default().to_ascii_lowercase();
    if ["true", "yes", "on"].contains(&word.as_str()) {
        return Some("write true, in lower case".to_owned());
    }
    if ["false", "no", "off"].contains(&word.as_str()) {
        return Some("write false, in lower case".to_owned());
    }
    if value.ends_with([';', ',']) {
        return Some("a line has no ; or , at its end".to_owned());
    }
    let bare = value.trim_start_matches(['[', ' ']);
    let no_number = bare.contains(|c: char| c.is_ascii_alphabetic() || ".:/<$".contains(c));
    if no_number && bare.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '<' || c == '$') {
        return Some("put the value in quotation marks, \"…\"".to_owned());
    }
    if alone("\"") && marks('"') > 2 && !value.contains("\\\"") && !value.contains('\'') {
        return Some("a value with quotation marks (\") in it stands between single ones, '…'".to_owned());
    }
    if alone("'") && marks('\'') > 2 && !value.contains('"') {
        return Some("a value with apostrophes (') in it stands between double quotation marks, \"…\"".to_owned());
    }
    None
}

/// A line of TOML without its strings and its comment.
fn outside_of_strings(line: &str) -> String {
    let (mut out, mut inside, mut escaped) = (String::new(), None, false);
    for c in line.chars() {
        match inside {
            Some(_) if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(quote) if c == quote => inside = None,
            Some(_) => {}
            None if c == '#' => break,
            None if c == '"' || c == '\'' => inside = Some(c),
            None => out.push(c),
        }
    }
    out
}

#[cfg(test)]
#[path = "recognise_tests.rs"]
mod tests;
