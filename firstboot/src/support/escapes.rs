// SPDX-License-Identifier: Apache-2.0
//! Removes control characters and terminal escapes (ECMA-48), which may break a secret in two. Pure.

use memchr::memchr2;
use memchr::memmem::find;

/// How a colour begins: ESC and `[`, their one character, and ESC as programs write it where they quote a line, in the
/// notations of JSON, Go, a shell, journald and cat.
const COLOURS: [&str; 8] = ["\u{9b}", "\\u001b[", "\\u001B[", "\\x1b[", "\\x1B[", "\\033[", "#033[", "^[["];
const ESC: char = '\u{1b}';
const BEL: char = '\u{7}';

/// The text without control characters but line ends and tabs, which also turns UTF-16 into plain text, and without the
/// colours and other escapes that they begin.
pub(super) fn without_escapes(text: &str) -> String {
    let keep = |c: &char| {
        matches!(c, '\n' | '\t' | &ESC | &BEL | '\u{9b}') || !(c.is_control() || matches!(c, '\u{fffd}' | '\u{feff}'))
    };
    // Most texts have nothing to remove; looking for it costs a fraction of removing it.
    let plain = text.bytes().all(|b| matches!(b, b'\n' | b'\t' | b' '..=b'~'));
    let mut text = if plain { text.to_owned() } else { text.chars().filter(keep).collect() };
    for colour in COLOURS {
        if find(text.as_bytes(), colour.as_bytes()).is_some() {
            text = text.replace(colour, "\u{1b}[");
        }
    }
    if memchr2(ESC as u8, BEL as u8, text.as_bytes()).is_none() {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    for (n, piece) in text.split(ESC).enumerate() {
        out.push_str(if n == 0 { piece } else { after_escape(piece) });
    }
    out.replace(BEL, "")
}

/// What follows an escape whose ESC stood before `text`. No escape goes over the end of a line.
fn after_escape(text: &str) -> &str {
    let bytes = text.as_bytes();
    let is = |at: usize, low: u8, high: u8| bytes.get(at).is_some_and(|b| (low..=high).contains(b));
    let mut end = 1;
    match bytes.first() {
        // Parameters, and one letter.
        Some(b'[') => {
            while is(end, b' ', b'?') {
                end += 1;
            }
            end += usize::from(is(end, b'@', b'~'));
        }
        // A title, for instance: up to BEL, or to the next ESC, which a backslash follows.
        Some(b']' | b'P' | b'X' | b'^' | b'_') => {
            end = text.find(['\n', BEL]).unwrap_or(text.len());
        }
        // As `ESC ( B`.
        Some(b' '..=b'/') => end += usize::from(is(end, b' ', b'~')),
        Some(b'0'..=b'~') => {}
        _ => end = 0,
    }
    text.get(end..).unwrap_or_default()
}
