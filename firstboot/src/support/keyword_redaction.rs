// SPDX-License-Identifier: Apache-2.0
//! Secrets that are known by the word before them: `psk="…"`, `password: …`, `Authorization: Bearer …`. Pure.

/// A word after which a value is secret.
struct KeyWord {
    /// Lower case; what may stand before it (`wpa_psk`, `sae_password`) does not matter.
    word: &'static str,
    /// Whether a value without quotes may hold blanks, and so goes to the end of the line.
    line: bool,
    /// Whether a blank alone may stand before the value.
    blank: bool,
}

const fn value(word: &'static str) -> KeyWord {
    KeyWord { word, line: false, blank: false }
}

const fn line(word: &'static str) -> KeyWord {
    KeyWord { word, line: true, blank: false }
}

const KEY_WORDS: &[KeyWord] = &[
    line("psk"),
    line("passphrase"),
    line("password"),
    line("passwd"),
    line("authorization"),
    line("private-key"),
    line("private_key"),
    line("wep-key0"),
    line("wep_key0"),
    KeyWord { word: "bearer", line: false, blank: true },
    KeyWord { word: "--token", line: false, blank: true },
    KeyWord { word: "--tls-bootstrap-token", line: false, blank: true },
    KeyWord { word: "--discovery-token", line: false, blank: true },
    KeyWord { word: "--password", line: false, blank: true },
    value("token"),
    value("secret"),
    value("key-data"),
    value("apikey"),
    value("api-key"),
    value("api_key"),
    value("access-key"),
    value("access_key"),
];

/// The line without the values that follow a key word.
pub(super) fn after_key_words(text: &str) -> String {
    let mut text = text.to_owned();
    // ASCII case alone: places in both texts are the same.
    let mut small = text.to_ascii_lowercase();
    for key in KEY_WORDS {
        let mut from = 0;
        while let Some(at) = small[from..].find(key.word).map(|at| from + at + key.word.len()) {
            from = at;
            if let Some((start, end)) = value_at(&text, at, key)
                && &text[start..end] != MARK
            {
                text.replace_range(start..end, MARK);
                small.replace_range(start..end, MARK);
                from = start + MARK.len();
            }
        }
    }
    text
}

/// Where the value of a key word that ends at `at` begins and ends; `None` when none follows.
fn value_at(text: &str, at: usize, key: &KeyWord) -> Option<(usize, usize)> {
    // A key may itself be in quotes, and those escaped: `"token":"…"`, `\"token\":\"…\"`.
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
            // Where a quotation mark is part of the value, as wpa_supplicant allows, what is behind it goes as well.
            let end = if key.line { inner.rfind(quote) } else { closing(inner, quote, depth) };
            (inner, end.unwrap_or(inner.len()))
        }
        None if key.line => (value, value.len()),
        None => (value, value.find(|c: char| c.is_whitespace() || "\"'}".contains(c)).unwrap_or(value.len())),
    };
    let start = text.len() - value.len();
    (end > 0).then_some((start, start + end))
}

/// Where a quoted value ends whose opening mark has `depth` backslashes before it: at a mark with no more of them. One with more is
/// part of the value.
fn closing(inner: &str, quote: char, depth: usize) -> Option<usize> {
    inner.match_indices(quote).find_map(|(at, _)| {
        let before = inner[..at].len() - inner[..at].trim_end_matches('\\').len();
        (before <= depth).then_some(at - before)
    })
}

/// Stands where a secret was.
pub const MARK: &str = "[redacted]";
