// SPDX-License-Identifier: Apache-2.0
//! Everything that a guest wrote to its disk, in order and with its flushes, and the disk as it was at any moment.
//!
//! QEMU's filter `blklogwrites` records it in the format of the kernel's dm-log-writes
//! (Documentation/admin-guide/device-mapper/log-writes.rst): a superblock of one sector, then entries of one sector
//! each, every one followed by the data that it is about. All numbers are little endian.

mod replay;

pub use replay::{Moment, Replay};

use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;
/// Sectors by which entries count, bytes.
const SECTOR: u64 = 512;

/// One request to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Bytes were written.
    Write {
        /// Where on the disk, bytes.
        at: u64,
        /// How many, bytes.
        len: u64,
        /// Where they are in the recording, bytes.
        data: u64,
    },
    /// Bytes are not needed any more; what is read there later is zeros.
    Discard {
        /// Where on the disk, bytes.
        at: u64,
        /// How many, bytes.
        len: u64,
    },
    /// Everything before it has to survive a power cut.
    Flush,
}

/// A recording.
#[derive(Debug)]
pub struct Log {
    file: File,
    entries: Vec<Entry>,
}

impl Log {
    /// Reads which entries a recording has. They count from its last flush, which a guest that switches itself off
    /// makes at its end.
    ///
    /// # Errors
    /// When it is no recording, or is cut.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("open recording {}", path.display()))?;
        let shown = || format!("read recording {}", path.display());
        let entries = entries(&file).with_context(shown)?;
        Ok(Log { file, entries })
    }

    /// The requests to the disk, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many flushes there are.
    pub fn flushes(&self) -> usize {
        self.entries.iter().filter(|entry| **entry == Entry::Flush).count()
    }

    /// The bytes of a write.
    fn data(&self, data: u64, len: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len).context("measure a write")?];
        self.file.read_exact_at(&mut bytes, data).with_context(|| format!("read a recording at {data}"))?;
        Ok(bytes)
    }
}

/// Four numbers, as the superblock and each entry begin with.
fn numbers(file: &File, at: u64) -> Result<[u64; 4]> {
    let mut bytes = [0; 32];
    file.read_exact_at(&mut bytes, at).with_context(|| format!("read an entry at {at}"))?;
    let mut numbers = [0; 4];
    for (number, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
        *number = u64::from_le_bytes(bytes.try_into().context("read a number")?);
    }
    Ok(numbers)
}

fn entries(file: &File) -> Result<Vec<Entry>> {
    let [magic, version, count, sector] = numbers(file, 0)?;
    ensure!(magic == MAGIC && version == VERSION, "find dm-log-writes version {VERSION}");
    // A number of 32 bits; what follows it is padding.
    ensure!(sector & 0xffff_ffff == SECTOR, "find sectors of {SECTOR} bytes");
    let mut entries = Vec::new();
    let mut next = SECTOR;
    for _ in 0..count {
        let [sector, sectors, flags, _] = numbers(file, next)?;
        next += SECTOR;
        let (at, len) = (sector * SECTOR, sectors * SECTOR);
        if flags & MARK != 0 {
            bail!("read an entry: unexpected mark");
        }
        // A flush applies to what came before it; its own data, if any, comes after.
        if flags & FLUSH != 0 {
            entries.push(Entry::Flush);
        }
        if flags & DISCARD != 0 {
            entries.push(Entry::Discard { at, len });
        } else if len > 0 {
            entries.push(Entry::Write { at, len, data: next });
            next += len;
        }
        if flags & FUA != 0 {
            entries.push(Entry::Flush);
        }
    }
    let length = file.metadata().context("measure a recording")?.len();
    ensure!(next <= length.next_multiple_of(SECTOR), "find {count} entries: the recording is cut");
    Ok(entries)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A recording of these requests: sector, flags, data.
    pub(crate) fn recorded(path: &Path, requests: &[(u64, u64, &[u8])]) {
        let mut bytes = Vec::new();
        let mut put = |numbers: [u64; 4], data: &[u8]| {
            let mut sector = numbers.map(u64::to_le_bytes).concat();
            sector.resize(512, 0);
            bytes.extend(sector);
            bytes.extend(data);
        };
        put([MAGIC, VERSION, requests.len() as u64, SECTOR], &[]);
        for (sector, flags, data) in requests {
            // Of a discard there is only the length.
            let kept: &[u8] = if flags & DISCARD == 0 { data } else { &[] };
            put([*sector, data.len() as u64 / SECTOR, *flags, 0], kept);
        }
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn entries_are_read_with_their_data() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        recorded(&path, &[(4, 0, &[7; 1024]), (0, FLUSH, &[]), (1, FUA, &[9; 512]), (4, DISCARD, &[0; 512])]);
        let log = Log::open(&path).unwrap();
        let wanted = [
            Entry::Write { at: 2048, len: 1024, data: 1024 },
            Entry::Flush,
            Entry::Write { at: 512, len: 512, data: 3072 },
            Entry::Flush,
            Entry::Discard { at: 2048, len: 512 },
        ];
        assert_eq!(log.entries(), wanted);
        assert_eq!(log.data(1024, 1024).unwrap(), [7; 1024]);
        assert_eq!(log.data(3072, 512).unwrap(), [9; 512]);
    }

    #[test]
    fn what_is_no_recording_or_half_of_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let refused = || format!("{:#}", Log::open(&path).unwrap_err());
        std::fs::write(&path, [0; 512]).unwrap();
        assert!(refused().ends_with("find dm-log-writes version 1"), "{}", refused());
        recorded(&path, &[(4, 0, &[7; 1024])]);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 512]).unwrap();
        assert!(refused().ends_with("find 1 entries: the recording is cut"), "{}", refused());
    }
}
