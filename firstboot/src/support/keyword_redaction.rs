// SPDX-License-Identifier: Apache-2.0
//! Redacts secrets that follow a keyword: `psk="…"`, `password: …`, `Authorization: Bearer …`. Pure.

/// A keyword before a secret value.
struct Keyword {
    /// The keyword in lower case, with any prefix (`wpa_psk`, `sae_password`).
    word: &'static str,
    /// Whether a value without quotes may contain blanks, and so extends to the end of the line.
    line: bool,
    /// Whether a blank is a sufficient separator before the value.
    blank: bool,
    /// Whether it is a word of its own, for it may also end another: `bypass`, `sigma`.
    word_start: bool,
}

const fn value(word: &'static str) -> Keyword {
    Keyword { word, line: false, blank: false, word_start: false }
}

const fn line(word: &'static str) -> Keyword {
    Keyword { word, line: true, blank: false, word_start: false }
}

const fn flag(word: &'static str) -> Keyword {
    Keyword { word, line: false, blank: true, word_start: false }
}

const fn alone(word: &'static str) -> Keyword {
    Keyword { word, line: false, blank: false, word_start: true }
}

const KEYWORDS: &[Keyword] = &[
    line("psk"),
    line("passphrase"),
    line("password"),
    line("passwd"),
    line("authorization"),
    line("private-key"),
    line("private_key"),
    line("privatekey"),
    line("presharedkey"),
    line("preshared-key"),
    line("preshared_key"),
    line("wep-key0"),
    line("wep-key1"),
    line("wep-key2"),
    line("wep-key3"),
    line("wep_key0"),
    line("wep_key1"),
    line("wep_key2"),
    line("wep_key3"),
    line("cookie"),
    flag("bearer"),
    flag("--token"),
    flag("--tls-bootstrap-token"),
    flag("--discovery-token"),
    flag("--password"),
    value("token"),
    value("secret"),
    value("key-data"),
    value("apikey"),
    value("api-key"),
    value("api_key"),
    value("access-key"),
    value("access_key"),
    value("accesskey"),
    value("account-key"),
    value("account_key"),
    value("accountkey"),
    value("credential"),
    value("credentials"),
    value("signature"),
    value("pwd"),
    alone("auth"),
    alone("pass"),
    alone("sig"),
];

/// The line with [`MARK`] in place of the values that follow a keyword.
pub(super) fn redact_after_keywords(text: &str) -> String {
    let mut text = text.to_owned();
    // Only ASCII letters change case, so offsets in both texts are equal.
    let mut small = text.to_ascii_lowercase();
    let present = present(&small);
    // No replacement makes another keyword: none contains a bracket.
    for (_, key) in KEYWORDS.iter().enumerate().filter(|(number, _)| present >> number & 1 == 1) {
        let mut from = 0;
        while let Some(at) = small[from..].find(key.word).map(|at| from + at + key.word.len()) {
            from = at;
            let within = small[..at - key.word.len()].ends_with(|c: char| c.is_ascii_alphanumeric());
            if !(key.word_start && within)
                && let Some((start, end)) = value_at(&text, at, key)
                && ![MARK, "true", "false"].contains(&&text[start..end])
            {
                text.replace_range(start..end, MARK);
                small.replace_range(start..end, MARK);
                from = start + MARK.len();
            }
        }
    }
    text
}

/// Which of [`KEYWORDS`] are in this text, by bit: in one pass, for most lines of a log have none.
fn present(small: &str) -> u64 {
    const { assert!(KEYWORDS.len() <= 64) };
    let bytes = small.as_bytes();
    let mut found = 0;
    for (at, first) in bytes.iter().enumerate().filter(|(_, first)| STARTS[usize::from(**first)]) {
        for (number, key) in KEYWORDS.iter().enumerate() {
            let word = key.word.as_bytes();
            if word[0] == *first && bytes[at..].starts_with(word) {
                found |= 1 << number;
            }
        }
    }
    found
}

/// Whether a keyword starts with this byte.
const STARTS: [bool; 256] = {
    let mut starts = [false; 256];
    let mut number = 0;
    while number < KEYWORDS.len() {
        starts[KEYWORDS[number].word.as_bytes()[0] as usize] = true;
        number += 1;
    }
    starts
};

/// Start and end of the value of a keyword that ends at `at`; `None` when no value follows.
fn value_at(text: &str, at: usize, key: &Keyword) -> Option<(usize, usize)> {
    // The keyword itself may be in quotes, also in escaped ones: `"token":"…"`, `\"token\":\"…\"`.
    let rest = text[at..].trim_start_matches(['\\', '"', '\'']);
    let assigned = rest.trim_start().strip_prefix([':', '=']).map(str::trim_start);
    let rest = match assigned {
        Some(rest) => rest,
        None if key.blank && rest.starts_with(char::is_whitespace) => rest.trim_start(),
        None => return None,
    };
    let value = rest.trim_start_matches('\\');
    let depth = rest.len() - value.len();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
    let (value, end) = match quote {
        Some(quote) => {
            let inner = &value[1..];
            // wpa_supplicant allows quotation marks in the value, so redact up to the last one of the line.
            let end = if key.line { inner.rfind(quote) } else { closing(inner, quote, depth) };
            (inner, end.unwrap_or(inner.len()))
        }
        None if key.line => (value, value.len()),
        None => (value, value.find(|c: char| c.is_whitespace() || "\"'}".contains(c)).unwrap_or(value.len())),
    };
    let start = text.len() - value.len();
    (end > 0).then_some((start, start + end))
}

/// End of a quoted value whose opening quotation mark has `depth` backslashes before it: the first quotation mark with
/// at most as many. One with more backslashes is part of the value.
fn closing(inner: &str, quote: char, depth: usize) -> Option<usize> {
    inner.match_indices(quote).find_map(|(at, _)| {
        let before = inner[..at].len() - inner[..at].trim_end_matches('\\').len();
        (before <= depth).then_some(at - before)
    })
}

/// Replaces a secret.
pub const MARK: &str = "[redacted]";
