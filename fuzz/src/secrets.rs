// SPDX-License-Identifier: Apache-2.0
//! Secrets in an input, found without firstboot's parser, and twins: the same input with other secrets. What firstboot
//! shows of an input and of its twin must be the same, for then it cannot depend on the secret. So a label that happens
//! to have the token's characters is no false alarm.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// The secret half of the token that messages and documentation show.
pub const EXAMPLE: &str = "0123456789abcdef";

fn plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Where the secret half of anything stands that looks like a bootstrap token: 6, a dot and 16 of a-z0-9.
pub fn tokens(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let run = |from: usize| bytes[from..].iter().take_while(|b| plain(**b)).count();
    let mut found = Vec::new();
    for (dot, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'.') {
        let before = bytes[..dot].iter().rev().take_while(|b| plain(**b)).take(7).count();
        if before == 6 && run(dot + 1) == 16 {
            found.push(dot + 1..dot + 17);
        }
    }
    found
}

/// Where in a seed the passwords of Wi-Fi and registries and the credentials of a proxy stand, if they stand there in so
/// many words. A registry's `auth` is left out: its twin might not be base64.
pub fn passwords(seed: &str) -> Vec<Range<usize>> {
    let Ok(root) = DeTable::parse(seed) else { return Vec::new() };
    let table = |name: &str| root.get_ref().get(name).and_then(|n| n.get_ref().as_table());
    let inner = |value: &toml::Spanned<DeValue<'_>>| inner(seed, value);
    let registries = table("registries").into_iter().flat_map(|all| all.values());
    let registries = registries.filter_map(|one| one.get_ref().as_table()?.get("password").and_then(inner));
    let Some(network) = table("network") else { return registries.collect() };
    let password = network.get("wifi").and_then(|w| w.get_ref().as_table()?.get("password")).and_then(inner);
    let credentials = network.get("proxy").and_then(inner).and_then(|url| {
        let start = url.start + "http://".len();
        let authority = seed.get(start..url.end)?.split(['/', '?', '#', '\\']).next()?;
        Some(start..start + authority.rfind('@')?)
    });
    password.into_iter().chain(credentials).chain(registries).collect()
}

/// Where in a text the value of a key of a table stands, if it stands there in so many words.
pub fn value(text: &str, table: &str, key: &str) -> Option<Range<usize>> {
    let root = DeTable::parse(text).ok()?;
    inner(text, root.get_ref().get(table)?.get_ref().as_table()?.get(key)?)
}

fn inner(text: &str, value: &toml::Spanned<DeValue<'_>>) -> Option<Range<usize>> {
    let Range { start, end } = value.span();
    let inner = start + 1..end.checked_sub(1)?;
    // Without escapes and line ends, what is between the quotes is the value.
    (text.get(inner.clone()) == value.get_ref().as_str()).then_some(inner)
}

/// The same text with every letter and digit of `ranges` replaced by the next one of its class: decimal digits, the other
/// hexadecimal ones, the other letters; `e` stays, which in a number without quotes means an exponent. One to one, so
/// equal secrets stay equal, and a Wi-Fi key stays a key.
pub fn twin(text: &str, ranges: impl IntoIterator<Item = Range<usize>>) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for range in ranges {
        for byte in &mut bytes[range] {
            *byte = match *byte {
                b'z' => b'g',
                b'Z' => b'G',
                b'9' => b'0',
                b'd' => b'f',
                b'f' => b'a',
                b'F' => b'A',
                b'e' => b'e',
                b if b.is_ascii_alphanumeric() => b + 1,
                b => b,
            };
        }
    }
    String::from_utf8(bytes).expect("only ASCII was replaced by ASCII")
}

/// How often `part` stands in `text`, overlapping places included.
pub fn count(text: &str, part: &str) -> usize {
    text.as_bytes().windows(part.len().max(1)).filter(|w| *w == part.as_bytes()).count()
}

/// Runs of 16 or more of a-z0-9 in `shown`, each of which may hide a token's secret.
pub fn long_runs(shown: &str) -> impl Iterator<Item = &str> {
    shown.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit()).filter(|run| run.len() >= 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_anywhere() {
        let text = "x = abcdef.0123456789abcdef\nabcdefg.0123456789abcdef abcdef.0123456789abcdef0 é.abcdef";
        assert_eq!(tokens(text).into_iter().map(|r| r.start).collect::<Vec<_>>(), [11]);
        assert!(tokens("abcdef.0123456789abcde").is_empty());
    }

    #[test]
    fn passwords_are_found_by_key() {
        let seed = "[network]\nproxy = 'http://u:p@h:1'\nwifi = { ssid = \"s\", password = \"geheim 1\" }\n";
        let found: Vec<&str> = passwords(seed).into_iter().map(|r| &seed[r]).collect();
        assert_eq!(found, ["geheim 1", "u:p"]);
        let seed = "[registries.'a.b']\nusername = 'u'\npassword = 'pw'\nauth = 'dTpw'\n";
        let found: Vec<&str> = passwords(seed).into_iter().map(|r| &seed[r]).collect();
        assert_eq!(found, ["pw"]);
    }

    #[test]
    fn a_twin_differs_in_the_secret_alone() {
        let secret = "é abcdef.".len().."é abcdef.09azde".len();
        assert_eq!(twin("é abcdef.09azde", Some(secret)), "é abcdef.10bgfe");
        assert_eq!(count("aaaa", "aa"), 3);
    }
}
