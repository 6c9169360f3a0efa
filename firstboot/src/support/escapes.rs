// SPDX-License-Identifier: Apache-2.0
//! Removes control characters and terminal escapes (ECMA-48), which may break a secret in two. Pure.

/// ESC as programs write it where they quote a line: JSON, Go, a shell, journald's and cat's notations.
const QUOTED: [&str; 7] = ["\\u001b", "\\u001B", "\\x1b", "\\x1B", "\\033", "#033", "^["];
const ESC: char = '\u{1b}';
const BEL: char = '\u{7}';
/// One character for ESC and `[`.
const CSI: char = '\u{9b}';

/// The text without control characters but line ends and tabs, which also turns UTF-16 into plain text, and without the
/// colours and other escapes that they begin.
pub(super) fn without_escapes(text: &str) -> String {
    let keep = |c: &char| {
        matches!(c, '\n' | '\t' | &ESC | &BEL | &CSI) || !(c.is_control() || matches!(c, '\u{fffd}' | '\u{feff}'))
    };
    let mut text: String = text.chars().filter(keep).collect();
    for quoted in QUOTED {
        // Alone it may be a part of anything.
        text = text.replace(&format!("{quoted}["), "\u{9b}");
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let kind = match c {
            CSI => Some('['),
            ESC => rest.next_if(|c| *c != '\n'),
            BEL => continue,
            other => {
                out.push(other);
                continue;
            }
        };
        match kind {
            // Parameters, and one letter.
            Some('[') => {
                while rest.next_if(|c| (' '..='?').contains(c)).is_some() {}
                rest.next_if(|c| ('@'..='~').contains(c));
            }
            // A title, for instance: up to BEL, or ESC and a backslash.
            Some(']' | 'P' | 'X' | '^' | '_') => loop {
                match rest.next_if(|c| *c != '\n') {
                    None | Some(BEL) => break,
                    Some(ESC) => {
                        rest.next_if(|c| *c == '\\');
                        break;
                    }
                    Some(_) => {}
                }
            },
            // As `ESC ( B`.
            Some(' '..='/') => drop(rest.next_if(|c| *c != '\n')),
            Some(_) | None => {}
        }
    }
    out
}
