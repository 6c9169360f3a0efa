// SPDX-License-Identifier: Apache-2.0
//! Faults that any value may have, whatever it is: they are named before what its own parser says.

use super::character;

/// Reads a value by its parser. Where that refuses it, the reason that holds for any value comes first.
///
/// # Errors
/// The reason, without the value.
pub(super) fn read<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
    parse(text).map_err(|why| general(text, |other| parse(other).is_ok()).unwrap_or(why))
}

/// A fault that has nothing to do with what the value is.
fn general(text: &str, is_good: impl Fn(&str) -> bool) -> Option<String> {
    // Text of several lines, as certificates are, may have such characters where they do no harm.
    let to_blame = |cleaned: String| !text.contains('\n') || is_good(&cleaned);
    if character::cleaned(text).is_some_and(to_blame) {
        return character::in_value(text);
    }
    if text.trim() != text && is_good(text.trim()) {
        return Some("there is space before or after it; delete it".to_owned());
    }
    let quoted = |quote: char| text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote));
    if ['\'', '"', '`'].into_iter().any(|quote| quoted(quote).is_some_and(&is_good)) {
        return Some("it has quotation marks of its own; delete them".to_owned());
    }
    let placeholder = text.starts_with('<') && text.ends_with('>') || text.contains("{{") || text.contains("${");
    placeholder.then(|| "a placeholder is left in it; put the value there".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_general_reason_comes_first() {
        let parse = |text: &str| match text {
            "good" | "a\ngood" => Ok(()),
            _ => Err("expected good".to_owned()),
        };
        let why = |text: &str| read(text, parse).unwrap_err();
        assert_eq!(read("good", parse), Ok(()));
        assert_eq!(why("bad"), "expected good");
        assert_eq!(why("go\u{200b}od"), "the character U+200B (zero-width space) is invisible; delete it");
        assert_eq!(why("b\u{a0}d"), "the character U+00A0 is a no-break space; delete it, or type a space instead");
        assert_eq!(why("a\ngo\u{200b}od"), "the character U+200B (zero-width space) is invisible; delete it");
        assert_eq!(why("“a”\nbad"), "expected good");
        assert_eq!(why(" good"), "there is space before or after it; delete it");
        assert_eq!(why(" bad"), "expected good");
        assert_eq!(why("\"good\""), "it has quotation marks of its own; delete them");
        for left in ["<good>", "${GOOD}", "{{ good }}"] {
            assert_eq!(why(left), "a placeholder is left in it; put the value there");
        }
    }
}
