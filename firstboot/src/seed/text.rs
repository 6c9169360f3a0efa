// SPDX-License-Identifier: Apache-2.0
//! Text that comes in more than one dress: encodings that editors save, points in time.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::error::Error;
use super::recognise;
use crate::fault::Code;

/// Turns a file's bytes into text: UTF-8, or UTF-16 of either order, each with or without byte-order mark. Lines end in
/// LF or CRLF then; a CR alone, which ends lines too, becomes an LF.
///
/// # Errors
/// Bytes that are no text, or that stop being text.
pub fn decode(bytes: &[u8]) -> Result<Zeroizing<String>, Error> {
    let bad = |line: Option<usize>, text: &str| Error { code: Code::SeedNotText, line, text: text.to_owned() };
    let utf16 = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = Zeroizing::new(rest.chunks_exact(2).map(|c| unit([c[0], c[1]])).collect::<Vec<u16>>());
        match rest.len() % 2 {
            0 => String::from_utf16(&units).map(Zeroizing::new).map_err(|_| bad(None, "not valid UTF-16 text")),
            _ => Err(bad(None, "not valid UTF-16 text: odd number of bytes")),
        }
    };
    if let Some(text) = recognise::binary(bytes) {
        return Err(bad(None, &text));
    }
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest),
        // A seed begins with ASCII: every second byte of that is zero.
        [1..0x80, 0, 1..0x80, 0, ..] => utf16(bytes, u16::from_le_bytes),
        [0, 1..0x80, 0, 1..0x80, ..] => utf16(bytes, u16::from_be_bytes),
        _ => utf8(bytes),
    }?;
    // The same in the other encoding.
    if let Some(text) = recognise::binary(text.as_bytes()) {
        return Err(bad(None, &text));
    }
    if let Some(at) = text.find('\0')
        && !text.trim_matches(|c: char| c.is_whitespace() || c == '\0').is_empty()
    {
        let text = with_line_feeds(Zeroizing::new(text[..at].to_owned()));
        let line = 1 + text.bytes().filter(|b| *b == b'\n').count();
        let text = "there are zero bytes from here on: the file was not written to its end; copy it again, and eject \
                    the medium before you remove it";
        return Err(bad(Some(line), text));
    }
    Ok(with_line_feeds(text))
}

/// A text with an LF for each CR that no LF follows. No other byte moves.
fn with_line_feeds(text: Zeroizing<String>) -> Zeroizing<String> {
    let alone = |at: usize| text.as_bytes()[at] == b'\r' && text.as_bytes().get(at + 1) != Some(&b'\n');
    if !(0..text.len()).any(alone) {
        return text;
    }
    let mut out = Zeroizing::new(String::with_capacity(text.len()));
    out.extend(text.char_indices().map(|(at, c)| if alone(at) { '\n' } else { c }));
    out
}

fn utf8(bytes: &[u8]) -> Result<Zeroizing<String>, Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(e) => {
            let line = 1 + bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count();
            let text = "not valid UTF-8 text; save the file as UTF-8".to_owned();
            Err(Error { code: Code::SeedNotText, line: Some(line), text })
        }
    }
}

/// Seconds since 1970 of an RFC 3339 time; none before 1970 or without a zone.
pub(super) fn rfc3339(text: &str) -> Option<u64> {
    OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp().try_into().ok()
}
