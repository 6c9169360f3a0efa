// SPDX-License-Identifier: Apache-2.0
//! Characters that programs for writing put in the place of others, and characters that are invisible: a value that has
//! one looks right and is wrong, so its message names the character and never the value.

/// What is to be done about a character.
enum Remedy {
    /// It shows nothing.
    Delete,
    /// It looks like another one.
    Type(&'static str),
    /// It looks like the quotation mark.
    Quote(char),
    /// It has an ASCII form of the same name.
    Ascii(char),
    /// It stands for something that was lost.
    CopyAgain,
}

/// Name of a character that is easily mistaken, and what is to be done about it. Ordinary letters of any script are none.
fn known(c: char) -> Option<(&'static str, Remedy)> {
    let width = |name| Some((name, Remedy::Type("a space")));
    match c {
        '\t' | '\n' | '\r' => None,
        '\u{ad}' => Some(("soft hyphen", Remedy::Delete)),
        '\u{200b}' => Some(("zero-width space", Remedy::Delete)),
        '\u{200c}' => Some(("zero-width non-joiner", Remedy::Delete)),
        '\u{200d}' => Some(("zero-width joiner", Remedy::Delete)),
        '\u{2060}' => Some(("word joiner", Remedy::Delete)),
        '\u{feff}' => Some(("byte-order mark", Remedy::Delete)),
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            Some(("mark of writing direction", Remedy::Delete))
        }
        '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' => Some(("variation selector", Remedy::Delete)),
        '\u{34f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{2061}'..='\u{2065}'
        | '\u{206a}'..='\u{206f}'
        | '\u{3164}'
        | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' => Some(("filler", Remedy::Delete)),
        '\u{85}' | '\u{2028}' | '\u{2029}' => Some(("line separator", Remedy::Type("a line end"))),
        '\u{a0}' => width("no-break space"),
        '\u{202f}' => width("narrow no-break space"),
        '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{205f}' | '\u{3000}' => width("space of a special width"),
        c if c.is_control() => Some(("control character", Remedy::Delete)),
        '\u{2018}'..='\u{201b}' | '\u{2032}' | '\u{2039}' | '\u{203a}' | '\u{b4}' | '\u{2bc}' => {
            Some(("curly quotation mark", Remedy::Quote('\'')))
        }
        '\u{201c}'..='\u{201f}' | '\u{2033}' | '\u{ab}' | '\u{bb}' | '\u{301d}'..='\u{301f}' => {
            Some(("curly quotation mark", Remedy::Quote('"')))
        }
        '\u{2010}' | '\u{2011}' => Some(("typographic hyphen", Remedy::Type("-"))),
        '\u{2012}' | '\u{2013}' => Some(("en dash", Remedy::Type("-"))),
        '\u{2014}' | '\u{2015}' => Some(("em dash", Remedy::Type("-"))),
        '\u{2212}' => Some(("minus sign", Remedy::Type("-"))),
        '\u{fe58}' | '\u{fe63}' => Some(("small hyphen", Remedy::Type("-"))),
        '\u{2026}' => Some(("ellipsis", Remedy::CopyAgain)),
        '\u{fffd}' => Some(("replacement character", Remedy::CopyAgain)),
        '\u{ff01}'..='\u{ff5e}' => {
            let ascii = char::from_u32(u32::from(c) - 0xfee0)?;
            Some(("full-width character", Remedy::Ascii(ascii)))
        }
        _ => None,
    }
}

/// Whether a character shows nothing at all; a space of any kind does not count.
pub(super) fn is_invisible(c: char) -> bool {
    matches!(known(c), Some((_, Remedy::Delete))) && !c.is_control()
}

/// Whether a character is taken for a hyphen by people.
pub(super) fn is_dash(c: char) -> bool {
    matches!(known(c), Some((_, Remedy::Type("-"))))
}

/// Whether a character is taken for a quotation mark by people.
pub(super) fn is_curly(c: char) -> bool {
    matches!(known(c), Some((_, Remedy::Quote(_))))
}

/// Names a character, where it is easily mistaken, with what to do where it stands between values.
pub(super) fn in_syntax(c: char) -> Option<String> {
    message(c, false)
}

/// Names the first character of a value that is easily mistaken, with what to do.
pub(super) fn in_value(text: &str) -> Option<String> {
    text.chars().find_map(|c| message(c, true))
}

/// The same, and any other that is not ASCII.
pub(super) fn not_ascii(text: &str) -> Option<String> {
    let other = || text.chars().find(|c| !c.is_ascii()).map(|c| format!("the character {} is not ASCII", number(c)));
    in_value(text).or_else(other)
}

/// The value without such characters, as it was most probably meant; nothing where it has none.
pub(super) fn cleaned(text: &str) -> Option<String> {
    let mut changed = false;
    let mut out = String::new();
    for c in text.chars() {
        let known = known(c);
        changed |= known.is_some();
        match known {
            None => out.push(c),
            Some((_, Remedy::Delete | Remedy::CopyAgain)) => {}
            Some((_, Remedy::Type("-"))) => out.push('-'),
            Some((_, Remedy::Type(_))) => out.push(' '),
            Some((_, Remedy::Quote(ascii) | Remedy::Ascii(ascii))) => out.push(ascii),
        }
    }
    changed.then_some(out)
}

/// A word without the curly quotation marks around it.
pub(super) fn without_curly_quotes(word: &str) -> &str {
    let mut chars = word.chars();
    match (chars.next(), chars.next_back()) {
        (Some(first), Some(last)) if is_curly(first) && is_curly(last) => chars.as_str(),
        _ => word,
    }
}

/// Names the entity of HTML that a text begins with after its `&`, with what to do.
pub(super) fn entity(text: &str) -> Option<String> {
    const ENTITIES: [(&str, &str); 13] = [
        ("#45;", "-"),
        ("#x2d;", "-"),
        ("#39;", "'"),
        ("#x27;", "'"),
        ("apos;", "'"),
        ("#34;", "\""),
        ("quot;", "\""),
        ("#92;", "\\"),
        ("nbsp;", "a space"),
        ("#160;", "a space"),
        ("amp;", "&"),
        ("lt;", "<"),
        ("gt;", ">"),
    ];
    let lower = text.chars().take(6).collect::<String>().to_ascii_lowercase();
    let (entity, means) = ENTITIES.iter().find(|(entity, _)| lower.starts_with(entity))?;
    Some(format!("&{entity} stands for {means} in the source of a web page; write {means} instead"))
}

/// `U+200B`.
pub(super) fn number(c: char) -> String {
    format!("U+{:04X}", u32::from(c))
}

fn message(c: char, in_value: bool) -> Option<String> {
    let (name, remedy) = known(c)?;
    let article = if name.starts_with(['e', 'i']) { "an" } else { "a" };
    let number = number(c);
    Some(match remedy {
        Remedy::Delete => format!("the character {number} ({name}) is invisible; delete it"),
        Remedy::Type("a space") if in_value => {
            format!("the character {number} is {article} {name}; delete it, or type a space instead")
        }
        Remedy::Type(other) => format!("the character {number} is {article} {name}; type {other} instead"),
        Remedy::Ascii(ascii) => format!("the character {number} is {article} {name}; type {ascii} instead"),
        Remedy::Quote(ascii) if in_value => {
            format!("the character {number} is {article} {name}; delete it, or type {ascii} instead")
        }
        Remedy::Quote(ascii) => format!("the character {number} is {article} {name}; type {ascii} instead"),
        Remedy::CopyAgain => {
            format!("the character {number} ({name}) stands for something that was lost; copy the value again")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_named_with_what_to_do() {
        for (c, want) in [
            ('\u{200b}', "the character U+200B (zero-width space) is invisible; delete it"),
            ('\u{ad}', "the character U+00AD (soft hyphen) is invisible; delete it"),
            ('\u{2060}', "the character U+2060 (word joiner) is invisible; delete it"),
            ('\u{feff}', "the character U+FEFF (byte-order mark) is invisible; delete it"),
            ('\u{202e}', "the character U+202E (mark of writing direction) is invisible; delete it"),
            ('\0', "the character U+0000 (control character) is invisible; delete it"),
            ('\u{2028}', "the character U+2028 is a line separator; type a line end instead"),
            ('–', "the character U+2013 is an en dash; type - instead"),
            ('‑', "the character U+2011 is a typographic hyphen; type - instead"),
            ('：', "the character U+FF1A is a full-width character; type : instead"),
            ('…', "the character U+2026 (ellipsis) stands for something that was lost; copy the value again"),
        ] {
            assert_eq!(in_syntax(c).as_deref(), Some(want));
            assert_eq!(in_value(&format!("a{c}b")).as_deref(), Some(want));
        }
        assert_eq!(in_syntax('\u{a0}').unwrap(), "the character U+00A0 is a no-break space; type a space instead");
        assert_eq!(
            in_value("a\u{a0}").unwrap(),
            "the character U+00A0 is a no-break space; delete it, or type a space instead"
        );
        assert_eq!(in_syntax('“').unwrap(), "the character U+201C is a curly quotation mark; type \" instead");
        assert_eq!(
            in_value("a’").unwrap(),
            "the character U+2019 is a curly quotation mark; delete it, or type ' instead"
        );
        assert_eq!(not_ascii("aбв").unwrap(), "the character U+0431 is not ASCII");
        for plain in ["", "a b\tc\n", "Zürich", "東京", "🙂", "'\"-:"] {
            assert_eq!((in_value(plain), cleaned(plain)), (None, None), "{plain}");
        }
    }

    #[test]
    fn what_was_meant() {
        assert_eq!(cleaned("“a\u{200b}–b：1”").as_deref(), Some("\"a-b:1\""));
        assert_eq!(without_curly_quotes("“a”"), "a");
        assert_eq!(without_curly_quotes("‚a‘"), "a");
        for word in ["", "“", "“a", "\"a\"", "a”"] {
            assert_eq!(without_curly_quotes(word), word);
        }
    }
}
