// SPDX-License-Identifier: Apache-2.0
//! Text that comes in more than one dress: encodings that editors save, points in time.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::error::Error;
use crate::fault::Code;

/// Turns a file's bytes into text: UTF-8 with or without byte-order mark, UTF-16 (either order) with one.
pub(super) fn decode(bytes: &[u8]) -> Result<Zeroizing<String>, Error> {
    let bad = |line: Option<usize>, text: &str| Error { code: Code::SeedNotText, line, text: text.to_owned() };
    let utf16 = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = Zeroizing::new(rest.chunks_exact(2).map(|c| unit([c[0], c[1]])).collect::<Vec<u16>>());
        match rest.len() % 2 {
            0 => String::from_utf16(&units).map(Zeroizing::new).map_err(|_| bad(None, "not valid UTF-16 text")),
            _ => Err(bad(None, "not valid UTF-16 text: odd number of bytes")),
        }
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest),
        _ => utf8(bytes),
    }
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
