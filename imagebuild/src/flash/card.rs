// SPDX-License-Identifier: Apache-2.0
//! A card or disk that is written: without a partition table until all else was read back.
//!
//! Its first and last MiB are cleared before anything is written, and the first piece of the image, which has the
//! partition table, is written last. So a card whose writing ended at any moment, a power cut too, has no partitions:
//! nothing boots from it, and no system shows an old table whose second copy was left at its end.

use super::chunk::{ALIGNMENT, Aligned, CHUNK, Chunk, Sum, is_zero};
use crate::exit::{Failure, VERIFICATION};
use anyhow::{Context, Result, ensure};
use rustix::fs::{Advice, FallocateFlags, OFlags, fadvise, fallocate, fcntl_getfl, fcntl_setfl};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

/// A card, open for writing.
#[derive(Debug)]
pub struct Card {
    path: PathBuf,
    file: File,
    size: u64,
    /// Whether writes and reads go past the page cache.
    direct: bool,
    /// Whether the device has a command that guarantees zeros.
    zeroes: bool,
    /// The first piece, which is written last.
    first: Option<Arc<Chunk>>,
}

impl Card {
    /// Opens a block device, or a file in the place of one. The kernel refuses a block device that is mounted or that
    /// another device is made of, in whatever mount namespace (open(2), O_EXCL).
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(path: &Path) -> Result<Card> {
        let what = || format!("open {}", path.display());
        let block = path.metadata().with_context(what)?.file_type().is_block_device();
        let exclusive = if block { OFlags::EXCL } else { OFlags::empty() };
        let open = |flags: OFlags| {
            OpenOptions::new().read(true).write(true).custom_flags((flags | exclusive).bits() as i32).open(path)
        };
        let (file, direct) = match open(OFlags::DIRECT) {
            // A file system without direct access.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => (open(OFlags::empty()), false),
            other => (other, true),
        };
        let mut file = file.map_err(|e| match e.kind() {
            io::ErrorKind::ResourceBusy => anyhow::anyhow!("{}: it is in use (lsblk {0} says by what)", path.display()),
            io::ErrorKind::PermissionDenied => anyhow::anyhow!("{}: {e}: run this as root (sudo)", what()),
            _ => anyhow::Error::from(e).context(what()),
        })?;
        let size = file.seek(SeekFrom::End(0)).with_context(what)?;
        Ok(Card { path: path.to_owned(), file, size, direct, zeroes: true, first: None })
    }

    /// Removes every partition table: zeros in the first and the last MiB.
    ///
    /// # Errors
    /// When the card cannot be written.
    pub fn clear(&mut self) -> Result<()> {
        let zeros = Aligned::zeros(self.size.min(MIB) as usize);
        self.write_at(zeros.get(), 0)
            .with_context(|| format!("clear the partition table of {}", self.path.display()))?;
        self.write_at(zeros.get(), self.size - zeros.get().len() as u64)
            .with_context(|| format!("clear the second partition table of {}", self.path.display()))?;
        self.flush()
    }

    /// Writes a piece; the first one is kept for [`Card::finish`].
    ///
    /// # Errors
    /// When the card is full, was removed, or fails.
    pub fn write(&mut self, chunk: &Arc<Chunk>) -> Result<()> {
        let Sum { offset, len, digest } = chunk.sum;
        ensure!(
            offset + len as u64 <= self.size,
            "write {}: the image is larger than its {} bytes",
            self.path.display(),
            self.size
        );
        if offset == 0 {
            self.first = Some(Arc::clone(chunk));
            return Ok(());
        }
        if digest.is_none() && self.zero(offset, len as u64) {
            return Ok(());
        }
        self.write_at(chunk.bytes.get(), offset)
            .with_context(|| format!("write {} at byte {offset}", self.path.display()))
    }

    /// Has the device make zeros without being sent any. Linux does this only where the device guarantees that zeros
    /// are read afterwards, and fails otherwise: fallocate(2) with FALLOC_FL_PUNCH_HOLE on a block device.
    fn zero(&mut self, offset: u64, len: u64) -> bool {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.zeroes = self.zeroes && fallocate(&self.file, flags, offset, len).is_ok();
        self.zeroes
    }

    /// Brings everything to the medium.
    ///
    /// # Errors
    /// When a write that the kernel had accepted failed.
    pub fn flush(&self) -> Result<()> {
        self.file
            .sync_all()
            .with_context(|| format!("write {}: the medium did not take all of it", self.path.display()))
    }

    /// Writes the first piece. The card is complete when it, too, was read back.
    ///
    /// # Errors
    /// When the card was removed or fails.
    pub fn finish(&mut self) -> Result<()> {
        let first = self.first.take().with_context(|| format!("write {}: the image is empty", self.path.display()))?;
        self.write_at(first.bytes.get(), 0).with_context(|| format!("write {} at byte 0", self.path.display()))?;
        self.flush()
    }

    /// Reads a piece from the medium, past the page cache, and compares it with what was to be written.
    ///
    /// # Errors
    /// [`VERIFICATION`] when it differs.
    pub fn verify(&mut self, sum: &Sum, memory: &mut Aligned) -> Result<()> {
        let what = || format!("read back {} at byte {}", self.path.display(), sum.offset);
        let place = what();
        let bytes = &mut memory.get_mut()[..sum.len];
        self.read_at(bytes, sum.offset).context(place)?;
        let same = if sum.digest.is_none() { is_zero(bytes) } else { Sum::of(sum.offset, bytes) == *sum };
        if same {
            return Ok(());
        }
        let text = format!(
            "verify {}: the {} bytes from byte {} are not what was written: the card or its reader is damaged",
            self.path.display(),
            sum.len,
            sum.offset
        );
        Err(Failure::new(VERIFICATION, text).into())
    }

    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.transfer(bytes.len(), at, |file| file.write_all_at(bytes, at))
    }

    fn read_at(&mut self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let len = NonZeroU64::new(bytes.len() as u64);
        self.transfer(bytes.len(), at, |file| {
            // Without direct access the page cache would answer for the medium. Flushed pages can be dropped.
            fadvise(file, at, len, Advice::DontNeed)?;
            file.read_exact_at(bytes, at)
        })
    }

    /// Does one transfer, directly where that is possible. The last piece of an image, or of a file, may be no multiple
    /// of a sector; and some drivers refuse what others accept.
    fn transfer(&mut self, len: usize, at: u64, mut act: impl FnMut(&File) -> io::Result<()>) -> io::Result<()> {
        if self.direct && (len.is_multiple_of(ALIGNMENT) && at.is_multiple_of(512)) {
            match act(&self.file) {
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => {}
                other => return other,
            }
        }
        if self.direct {
            self.direct = false;
            fcntl_setfl(&self.file, fcntl_getfl(&self.file)? - OFlags::DIRECT)?;
        }
        act(&self.file)
    }
}

/// Memory for [`Card::verify`].
pub fn memory() -> Aligned {
    Aligned::zeros(CHUNK)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "card_tests.rs"]
mod tests;
