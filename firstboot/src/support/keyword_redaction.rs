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
}

const fn value(word: &'static str) -> Keyword {
    Keyword { word, line: false, blank: false }
}

const fn line(word: &'static str) -> Keyword {
    Keyword { word, line: true, blank: false }
}

const KEYWORDS: &[Keyword] = &[
    line("psk"),
    line("passphrase"),
    line("password"),
    line("passwd"),
    line("authorization"),
    line("private-key"),
    line("private_key"),
    line("wep-key0"),
    line("wep_key0"),
    Keyword { word: "bearer", line: false, blank: true },
    Keyword { word: "--token", line: false, blank: true },
    Keyword { word: "--tls-bootstrap-token", line: false, blank: true },
    Keyword { word: "--discovery-token", line: false, blank: true },
    Keyword { word: "--password", line: false, blank: true },
    value("token"),
    value("secret"),
    value("key-data"),
    value("apikey"),
    value("api-key"),
    value("api_key"),
    value("access-key"),
    value("access_key"),
];

/// The line with [`MARK`] in place of the values that follow a keyword.
pub(super) fn redact_after_keywords(text: &str) -> String {
    let mut text = text.to_owned();
    // Only ASCII letters change case, so offsets in both texts are equal.
    let mut small = text.to_ascii_lowercase();
    for key in KEYWORDS {
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
