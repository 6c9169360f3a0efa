// SPDX-License-Identifier: Apache-2.0
//! `seed::parse`: no secret is shown, whatever the seed; the encoding does not matter; overwriting the token leaves the
//! seed the same seed.

use firstboot::phases::registries::hosts;
use firstboot::seed::{Error, JoinToken, Seed, parse};

use crate::secrets::{EXAMPLE, count, long_runs, passwords, tokens, twin};

/// Everything that can be seen of a result: what `Debug` prints of a seed, digest included, or the message.
fn shown(result: &Result<Seed, Error>) -> String {
    match result {
        Ok(seed) => format!("{seed:?} {}", seed.digest()),
        Err(error) => format!("{error} {error:?}"),
    }
}

pub fn run(input: &[u8]) {
    let result = parse(input);
    let output = shown(&result);
    // Zeros at the beginning are taken for UTF-16 without its mark.
    let wide = input.iter().take(4).any(|b| *b == 0);
    let Some(text) = std::str::from_utf8(input).ok().filter(|_| !wide) else {
        assert_eq!(output, shown(&parse(input)), "the same bytes are read differently");
        return;
    };
    if let Err(error) = &result {
        let line = error.to_string();
        assert!(!line.chars().any(char::is_control), "more than a line: {line:?}");
        let leak = long_runs(&line).find(|run| *run != EXAMPLE && text.contains(run));
        assert_eq!(leak, None, "the message shows something that may be a token");
    }
    encodings(text, &output);
    match &result {
        Err(_) => {
            let secrets = tokens(text);
            if !secrets.is_empty() {
                let twin = twin(text, secrets);
                assert_eq!(output, shown(&parse(twin.as_bytes())), "the message depends on a token");
            }
        }
        Ok(seed) => {
            accepted(text, seed, &output);
            registries(seed);
        }
    }
    if text.contains("password") || text.contains("proxy") {
        let secrets = passwords(text);
        if !secrets.is_empty() {
            let twin = twin(text, secrets);
            assert_eq!(output, shown(&parse(twin.as_bytes())), "it depends on a password");
        }
    }
}

/// containerd can read what is written for it, and gets each mirror, in order.
fn registries(seed: &Seed) {
    for registry in &seed.registries {
        let text = hosts(registry, Some("/ca.crt"));
        let table: toml::Table = text.parse().expect("hosts.toml is TOML");
        let reported: Vec<&str> = table
            .get("host")
            .and_then(|h| h.as_table())
            .into_iter()
            .flat_map(|h| h.keys())
            .map(String::as_str)
            .collect();
        let mut want: Vec<&str> = registry.mirrors.iter().map(|m| m.url.as_str()).collect();
        want.sort_unstable();
        assert_eq!(reported, want, "{}", *text);
    }
}

/// A seed that is read: nothing depends on the token, and the token can be overwritten.
fn accepted(text: &str, seed: &Seed, output: &str) {
    let Some(token) = seed.token() else { return };
    let secret = token.secret();
    let whole = format!("{}.{secret}", token.id());
    // Where it stands more than once (a label of the same characters) or not in so many words (escapes), a twin would
    // change more than the token.
    if token.is_erased() || count(text, secret) != 1 || count(text, &whole) != 1 {
        return;
    }
    let at = text.find(&whole).expect("it was counted") + token.id().len() + 1;
    let other = twin(text, Some(at..at + secret.len()));
    if count(&other, &other[at..at + secret.len()]) != 1 {
        return;
    }
    let twin = parse(other.as_bytes());
    assert_eq!(output, shown(&twin), "Debug or the digest depends on the token");
    assert_ne!(Ok(seed), twin.as_ref(), "two tokens count as one");
    let spent = parse(text.replace(secret, JoinToken::ERASED).as_bytes()).expect("a seed whose token was overwritten");
    assert!(spent.token().is_some_and(JoinToken::is_erased));
    assert_eq!(spent.digest(), seed.digest(), "overwriting the token made another seed");
}

/// The same text as Windows saves it.
fn encodings(text: &str, output: &str) {
    if text.starts_with('\u{feff}') || 2 * text.len() + 2 > firstboot::seed::MAX_SIZE {
        return;
    }
    let mut utf16 = vec![0xff, 0xfe];
    utf16.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    assert_eq!(output, shown(&parse(&utf16)), "UTF-16 is read differently");
}
