// SPDX-License-Identifier: Apache-2.0
//! Redacts secrets in the output of other programs: by form, by the keyword before them, and by value where this device
//! knows it. It redacts too much rather than too little. Pure.
//!
//! Forms: bootstrap tokens (kubeadm, `[a-z0-9]{6}\.[a-z0-9]{16}`, whose first half is public), private keys in PEM
//! (RFC 7468) and PEM in base64, bearer tokens (RFC 6750), JSON Web Tokens (RFC 7519), user information in URLs
//! (RFC 3986, 3.2.1), and the access tokens of registries and clouds that begin with a word of their own ([`FORMS`]).

use super::escapes::without_escapes;
use super::keyword_redaction::{MARK, redact_after_keywords};
use memchr::memmem::{find, find_iter, rfind};
use zeroize::Zeroizing;

/// Most lines that are dropped after the head of a private key without an end.
const KEY_LINES: usize = 120;
/// Shortest value that is redacted wherever it occurs: shorter ones would also match parts of ordinary words.
const SHORTEST: usize = 4;

/// How access tokens begin, and the shortest length of one: AWS, GitHub, GitLab, Docker Hub, Slack, Google, Vault, npm.
const FORMS: [(&str, usize); 17] = [
    ("AKIA", 20),
    ("ASIA", 20),
    ("ghp_", 36),
    ("gho_", 36),
    ("ghu_", 36),
    ("ghs_", 36),
    ("ghr_", 36),
    ("github_pat_", 36),
    ("glpat-", 20),
    ("dckr_pat_", 20),
    ("dckr_oat_", 20),
    ("xoxb-", 20),
    ("xoxp-", 20),
    ("xoxa-", 20),
    ("AIza", 39),
    ("hvs.", 24),
    ("npm_", 36),
];

/// No access token is shorter: most words of a log are.
const SHORTEST_TOKEN: usize = {
    let (mut shortest, mut number) = (usize::MAX, 0);
    while number < FORMS.len() {
        shortest = if FORMS[number].1 < shortest { FORMS[number].1 } else { shortest };
        number += 1;
    }
    // JSON Web Tokens and PEM in base64 are looked for from 32 on.
    assert!(shortest <= 32);
    shortest
};

/// The secrets of this device, by value.
#[derive(Default)]
pub struct DeviceSecrets(Vec<Zeroizing<String>>);

impl DeviceSecrets {
    /// Adds a value; values shorter than [`SHORTEST`] are ignored.
    pub fn add(&mut self, value: &str) {
        if value.len() >= SHORTEST {
            // Longest first: replacing a value that is part of a longer one must not leave the rest of the longer one.
            let at = self.0.partition_point(|v| v.len() > value.len());
            self.0.insert(at, Zeroizing::new(value.to_owned()));
        }
    }

    /// Adds the lines of every private key in this text.
    pub fn add_keys(&mut self, pem: &str) {
        let mut within = false;
        for line in pem.lines().map(str::trim) {
            match within {
                _ if is_end(line) => within = false,
                _ if is_head(line) => within = true,
                true if looks_like_key(line) => self.add(line),
                _ => {}
            }
        }
    }
}

/// The text without control characters and terminal escapes, and without secrets.
pub fn redact(bytes: &[u8], secrets: &DeviceSecrets) -> String {
    let mut text = without_escapes(&String::from_utf8_lossy(bytes));
    for value in &secrets.0 {
        if find(text.as_bytes(), value.as_bytes()).is_some() {
            text = text.replace(value.as_str(), MARK);
        }
    }
    let text = without_keys(&text);
    text.lines().map(|line| redact_line(line) + "\n").collect()
}

fn redact_line(line: &str) -> String {
    let line = without_credentials(&without_tokens(line));
    redact_after_keywords(&without_words(&line))
}

fn is_head(text: &str) -> bool {
    key_boundary(text, "-----BEGIN ").is_some()
}

fn is_end(text: &str) -> bool {
    key_boundary(text, "-----END ").is_some()
}

/// Start and end of a line `-----BEGIN … PRIVATE KEY-----`, or of its counterpart `-----END …`.
fn key_boundary(text: &str, opens: &str) -> Option<(usize, usize)> {
    const CLOSES: &str = "PRIVATE KEY";
    find_iter(text.as_bytes(), CLOSES).find_map(|closes| {
        let start = rfind(&text.as_bytes()[..closes], opens.as_bytes())?;
        let kind = &text[start + opens.len()..closes];
        let one = kind.bytes().all(|b| b.is_ascii_uppercase() || b == b' ');
        let end = text.len().min(closes + CLOSES.len() + "-----".len());
        (one && text.is_char_boundary(end)).then_some((start, end))
    })
}

/// Redacts private keys on one or many lines, with or without their head.
fn without_keys(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut within: Option<usize> = None;
    for line in text.lines() {
        let mut line = line.to_owned();
        if let Some(count) = within {
            match key_boundary(&line, "-----END ") {
                Some((_, end)) => {
                    line.replace_range(..end, MARK);
                    within = None;
                }
                None => {
                    within = (count < KEY_LINES).then_some(count + 1);
                    continue;
                }
            }
        }
        while let Some((start, head)) = key_boundary(&line, "-----BEGIN ") {
            match key_boundary(&line[head..], "-----END ") {
                Some((_, end)) => line.replace_range(start..head + end, MARK),
                None => {
                    line.replace_range(start.., MARK);
                    within = Some(0);
                }
            }
        }
        if let Some((start, end)) = key_boundary(&line, "-----END ") {
            // The log began in the middle of a key.
            line.replace_range(start..end, MARK);
            while lines.last().is_some_and(|l| looks_like_key(l)) {
                lines.pop();
            }
        }
        lines.push(line);
    }
    lines.join("\n")
}

/// Whether the last word of the line is base64, as in a line of PEM after a log prefix.
fn looks_like_key(line: &str) -> bool {
    let word = line.split_whitespace().next_back().unwrap_or_default();
    word.len() >= 8 && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
}

/// Redacts second halves of bootstrap tokens.
fn without_tokens(line: &str) -> String {
    let small = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (bytes, mut out, mut from) = (line.as_bytes(), String::with_capacity(line.len()), 0);
    for dot in memchr::memchr_iter(b'.', bytes) {
        let before = bytes[from..dot].iter().rev().take_while(|b| small(b)).count();
        let after = bytes[dot + 1..].iter().take_while(|b| small(b)).count();
        if before >= 6 && after >= 16 {
            out.push_str(&line[from..=dot]);
            out.push_str(MARK);
            from = dot + 1 + after;
        }
    }
    out + &line[from..]
}

/// Redacts the user information before the `@` of a URL.
fn without_credentials(line: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(line.len()), line);
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let ends = |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '<' | '>' | '`');
        let authority = &after[..after.find(ends).unwrap_or(after.len())];
        rest = match authority.rsplit_once('@') {
            Some((who, _)) => {
                out.push_str(MARK);
                &after[who.len()..]
            }
            None => after,
        };
    }
    out + rest
}

/// Redacts words that are secrets by form: JSON Web Tokens, PEM in base64 (as in kubeconfigs), and [`FORMS`].
fn without_words(line: &str) -> String {
    let in_word = |c: char| c.is_ascii_alphanumeric() || "+/=-_.".contains(c);
    let (mut out, mut rest) = (String::with_capacity(line.len()), line);
    while let Some(start) = rest.find(in_word) {
        let length = rest[start..].find(|c| !in_word(c)).unwrap_or(rest.len() - start);
        let word = &rest[start..start + length];
        out.push_str(&rest[..start]);
        rest = &rest[start + length..];
        if length < SHORTEST_TOKEN {
            out.push_str(word);
            continue;
        }
        // `{"` and `-----BEGI` in base64; the value may follow a `=` in the same word.
        let secret = ["eyJ", "LS0tLS1CRUdJ"].iter().find_map(|form| word.find(form)).filter(|at| word.len() - at >= 32);
        match secret.or_else(|| token_at(word)) {
            Some(at) => {
                out.push_str(&word[..at]);
                out.push_str(MARK);
            }
            None => out.push_str(word),
        }
    }
    out + rest
}

/// Where one of [`FORMS`] begins in a word: not within other letters and digits, as base64 may have it.
fn token_at(word: &str) -> Option<usize> {
    let alone = |at: usize| !word[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
    let one = |(form, least): (&str, usize)| {
        word.match_indices(form).map(|(at, _)| at).find(|at| alone(*at) && word.len() - at >= least)
    };
    FORMS.into_iter().filter_map(one).min()
}
