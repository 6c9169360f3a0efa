// SPDX-License-Identifier: Apache-2.0
//! A medium with a limit on the bytes read: a broken allocation table can contain a cycle, in which the FAT library
//! would loop for ever.

use std::io::{Error, Read, Result, Seek, SeekFrom, Write};

/// Forwards reads until `left` bytes were read; then every read fails.
pub(super) struct Bounded<T> {
    inner: T,
    left: u64,
}

impl<T> Bounded<T> {
    pub(super) fn new(inner: T, left: u64) -> Self {
        Bounded { inner, left }
    }
}

impl<T: Read> Read for Bounded<T> {
    fn read(&mut self, to: &mut [u8]) -> Result<usize> {
        let read = self.inner.read(to)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => return Err(Error::other("more was read than it can hold: its allocation table is broken")),
        }
        Ok(read)
    }
}

impl<T: Write> Write for Bounded<T> {
    fn write(&mut self, from: &[u8]) -> Result<usize> {
        self.inner.write(from)
    }

    fn flush(&mut self) -> Result<()> {
        self.inner.flush()
    }
}

impl<T: Seek> Seek for Bounded<T> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.inner.seek(to)
    }
}
