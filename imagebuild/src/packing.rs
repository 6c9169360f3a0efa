// SPDX-License-Identifier: Apache-2.0
//! What reading packed images takes.

use std::io::{ErrorKind, Read, Result};

/// The window that zstd may ask for, as a power of 2: the most that the format has (RFC 8878, 3.1.1.1.2).
pub const ZSTD_WINDOW_LOG_MAX: u32 = 31;

/// Reads until the buffer is full or the end; how many bytes there were.
///
/// # Errors
/// As the reader, but for an interruption.
pub fn fill(from: &mut dyn Read, to: &mut [u8]) -> Result<usize> {
    let mut at = 0;
    while at < to.len() {
        match from.read(&mut to[at..]) {
            Ok(0) => break,
            Ok(n) => at += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(at)
}
