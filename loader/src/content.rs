// SPDX-License-Identifier: Apache-2.0
//! A file's content: read whole into memory, and hashed there. What is loaded later is this memory.

use crate::{Failure, Options};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use sha2::{Digest, Sha256};

/// Bytes of one read. EDK2's FAT driver is slow in small ones; not every firmware is good at very large ones.
pub const CHUNK: usize = 4 << 20;

/// A file in memory that is the one that its options name.
#[derive(Debug, PartialEq, Eq)]
pub struct Content(Vec<u8>);

impl Content {
    /// The bytes that were hashed.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Reads a file of `size` bytes by calling `next` until it is complete, and compares its SHA-256. `next` fills the front
/// of what it is given, at most [`CHUNK`] bytes, and says how many bytes that was; 0 is the end of the file. Its error is
/// the firmware's word for it.
///
/// # Errors
/// [`Failure::Memory`], [`Failure::Read`], and [`Failure::Damaged`] when the content is another one.
pub fn read(
    options: &Options,
    size: u64,
    mut next: impl FnMut(&mut [u8]) -> Result<usize, String>,
) -> Result<Content, Failure> {
    let path = &options.path;
    let unread = |why: String| Failure::Read { path: path.clone(), why };
    let mut bytes = Vec::new();
    let length = usize::try_from(size).ok().filter(|length| bytes.try_reserve_exact(*length).is_ok());
    let Some(length) = length else { return Err(Failure::Memory { path: path.clone(), size }) };
    bytes.resize(length, 0);
    let (mut at, mut hash) = (0, Sha256::new());
    while at < length {
        let chunk = &mut bytes[at..length.min(at + CHUNK)];
        let count = next(chunk).map_err(unread)?;
        // More than was asked for is a broken driver.
        let Some(filled) = chunk.get(..count) else { return Err(unread(format!("a read gave {count} bytes"))) };
        if filled.is_empty() {
            return Err(unread(format!("it ends after {at} of {size} bytes")));
        }
        hash.update(filled);
        at += count;
    }
    match <[u8; 32]>::from(hash.finalize()) == options.digest {
        true => Ok(Content(bytes)),
        false => Err(Failure::Damaged { path: path.clone() }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    /// A file that comes in pieces of at most `piece` bytes.
    fn file(bytes: &[u8], piece: usize) -> impl FnMut(&mut [u8]) -> Result<usize, String> {
        let mut rest = bytes;
        move |into| {
            assert!(into.len() <= CHUNK);
            let (now, later) = rest.split_at(rest.len().min(piece).min(into.len()));
            into[..now.len()].copy_from_slice(now);
            rest = later;
            Ok(now.len())
        }
    }

    fn options(bytes: &[u8]) -> Options {
        Options { path: "\\a.efi".into(), digest: Sha256::digest(bytes).into() }
    }

    fn long() -> Vec<u8> {
        (0..CHUNK + 4097).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn the_named_file_is_read_whole_in_any_pieces() {
        for bytes in [long(), b"abc".to_vec(), Vec::new()] {
            for piece in [1000, usize::MAX] {
                let content = read(&options(&bytes), bytes.len() as u64, file(&bytes, piece)).unwrap();
                assert_eq!(content.bytes(), bytes);
            }
        }
    }

    #[test]
    fn one_flipped_bit_anywhere_is_damage() {
        let bytes = long();
        for at in [0, CHUNK - 1, CHUNK, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let failure = read(&options(&bytes), bytes.len() as u64, file(&damaged, usize::MAX)).unwrap_err();
            assert_eq!(failure, Failure::Damaged { path: "\\a.efi".into() }, "byte {at}");
        }
    }

    #[test]
    fn a_file_of_another_length_is_refused() {
        let bytes = b"abcdef";
        let longer = read(&options(bytes), 6, file(b"abcdefg", 2));
        assert_eq!(longer.unwrap().bytes(), bytes, "its directory entry says 6");
        let shorter = read(&options(bytes), 5, file(bytes, 2)).unwrap_err();
        assert_eq!(shorter, Failure::Damaged { path: "\\a.efi".into() });
        let cut = read(&options(bytes), 6, file(b"abc", 2)).unwrap_err().to_string();
        assert_eq!(cut, "\\a.efi cannot be read: it ends after 3 of 6 bytes");
    }

    #[test]
    fn failures_of_the_firmware_are_passed_on() {
        let failure = read(&options(b"abc"), 3, |_| Err("DEVICE_ERROR".into())).unwrap_err().to_string();
        assert_eq!(failure, "\\a.efi cannot be read: DEVICE_ERROR");
        let failure = read(&options(b"abc"), 3, |into| Ok(into.len() + 1)).unwrap_err().to_string();
        assert_eq!(failure, "\\a.efi cannot be read: a read gave 4 bytes");
        let failure = read(&options(b"abc"), u64::MAX, |_| Ok(0)).unwrap_err();
        assert_eq!(failure, Failure::Memory { path: "\\a.efi".into(), size: u64::MAX });
        let unnamed = Options { digest: [0; 32], ..options(b"abc") };
        assert!(read(&unnamed, 3, file(b"abc", 3)).is_err());
        assert_eq!(vec![0u8; 0], read(&options(b""), 0, |_| Err("unused".into())).unwrap().bytes());
    }
}
