// SPDX-License-Identifier: Apache-2.0
//! The options of the boot entry: UTF-16, as systemd-boot hands them over.

use crate::Failure;
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of a SHA-256.
const DIGEST: usize = 32;

/// The file to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Its path on the volume that this program came from: `\EFI\firstboot\a.efi`.
    pub path: String,
    /// SHA-256 of its content.
    pub digest: [u8; DIGEST],
}

/// Reads the load options of a loaded image (UEFI 2.10, 9.1): little-endian UTF-16, here `PATH SHA256`, with or without
/// a NUL at the end. Blanks around both words do not count; the path may contain some.
///
/// # Errors
/// [`Failure::Options`] when they are anything else.
pub fn parse(bytes: &[u8]) -> Result<Options, Failure> {
    let (units, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Failure::Options("they have an odd number of bytes"));
    }
    let units = units.iter().map(|unit| u16::from_le_bytes(*unit)).take_while(|unit| *unit != 0);
    let text: Result<String, _> = char::decode_utf16(units).collect();
    let Ok(text) = text else { return Err(Failure::Options("they are not text")) };
    let Some((path, digest)) = text.trim().rsplit_once([' ', '\t']) else {
        return Err(Failure::Options("they are not a path and a SHA-256"));
    };
    let path = path.trim_end();
    if !path.starts_with('\\') {
        return Err(Failure::Options("the path does not begin with \\"));
    }
    let Some(digest) = hex(digest) else {
        return Err(Failure::Options("the SHA-256 is not 64 hexadecimal digits"));
    };
    Ok(Options { path: path.to_owned(), digest })
}

fn hex(text: &str) -> Option<[u8; DIGEST]> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits: [u8; 2 * DIGEST] = digits?.try_into().ok()?;
    let (pairs, _) = digits.as_chunks::<2>();
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use alloc::format;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    fn refused(text: &str) -> Failure {
        parse(&utf16(text)).unwrap_err()
    }

    #[test]
    fn path_and_digest_with_and_without_an_end() {
        let line = format!("\\EFI\\firstboot\\a.efi {ABC}");
        for text in [line.clone(), format!("{line}\0"), format!(" {line}  \0\0"), format!("{line}\0rest\u{1}")] {
            let options = parse(&utf16(&text)).unwrap();
            assert_eq!(options.path, "\\EFI\\firstboot\\a.efi");
            assert_eq!(options.digest[..3], [0xba, 0x78, 0x16], "{text:?}");
            assert_eq!(options.digest[31], 0xad);
        }
    }

    #[test]
    fn capital_digits_and_blanks_in_the_path() {
        let options = parse(&utf16(&format!("\\a b.efi \t {}", ABC.to_uppercase()))).unwrap();
        assert_eq!((options.path.as_str(), options.digest[31]), ("\\a b.efi", 0xad));
    }

    #[test]
    fn what_is_not_such_a_line_is_refused() {
        let digits = Failure::Options("the SHA-256 is not 64 hexadecimal digits");
        assert_eq!(refused(&format!("\\a.efi {}", &ABC[1..])), digits);
        assert_eq!(refused(&format!("\\a.efi {ABC}0")), digits);
        assert_eq!(refused(&format!("\\a.efi {}g", &ABC[1..])), digits);
        assert_eq!(refused(&format!("\\a.efi {}\u{e4}", &ABC[2..])), digits);
        let words = Failure::Options("they are not a path and a SHA-256");
        assert_eq!(refused(""), words);
        assert_eq!(refused(&format!("  {ABC}\0")), words);
        assert_eq!(refused("\\a.efi"), words);
        assert_eq!(refused(&format!("a.efi {ABC}")), Failure::Options("the path does not begin with \\"));
    }

    #[test]
    fn what_is_not_text_is_refused() {
        let mut bytes = utf16(&format!("\\a.efi {ABC}"));
        bytes.push(0);
        assert_eq!(parse(&bytes), Err(Failure::Options("they have an odd number of bytes")));
        bytes.truncate(2);
        bytes.extend([0x00, 0xd8]);
        assert_eq!(parse(&bytes), Err(Failure::Options("they are not text")));
    }
}
