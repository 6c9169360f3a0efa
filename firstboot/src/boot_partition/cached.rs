// SPDX-License-Identifier: Apache-2.0
//! A medium of which the blocks that were read last are kept. The FAT library seeks to each entry of a directory, 32 bytes
//! long, anew, and walks through a directory from its beginning for each name: a thousand seeds would be read a thousand
//! times from the medium.

use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom, Write};

/// Size of a block, bytes: a page of the kernel's cache.
const BLOCK: u64 = 4096;
/// Most blocks that are kept: a directory of [`MOST_SEEDS`](super::many::MOST_SEEDS) with the longest names.
const BLOCKS: usize = 64;

/// Reads through blocks that are kept; writes at once.
pub(super) struct Cached<T> {
    inner: T,
    at: u64,
    /// The one that was used last comes last.
    blocks: Vec<Block>,
}

struct Block {
    start: u64,
    /// Fewer than [`BLOCK`] only at the end of the medium.
    bytes: Vec<u8>,
}

impl<T: Read + Seek> Cached<T> {
    pub(super) fn new(inner: T) -> Self {
        Cached { inner, at: 0, blocks: Vec::new() }
    }

    /// The block that begins at `start`, read now or before.
    fn block(&mut self, start: u64) -> Result<&Block> {
        let block = match self.blocks.iter().rposition(|block| block.start == start) {
            Some(at) if at + 1 == self.blocks.len() => None,
            Some(at) => Some(self.blocks.remove(at)),
            None => {
                let mut bytes = Vec::with_capacity(BLOCK as usize);
                self.inner.seek(SeekFrom::Start(start))?;
                Read::by_ref(&mut self.inner).take(BLOCK).read_to_end(&mut bytes)?;
                if self.blocks.len() == BLOCKS {
                    self.blocks.remove(0);
                }
                Some(Block { start, bytes })
            }
        };
        self.blocks.extend(block);
        Ok(&self.blocks[self.blocks.len() - 1])
    }
}

impl<T: Read + Seek> Read for Cached<T> {
    fn read(&mut self, to: &mut [u8]) -> Result<usize> {
        let (at, within) = (self.at, (self.at % BLOCK) as usize);
        // Content of files is read once.
        let kept = if to.len() < BLOCK as usize { self.block(at - within as u64).ok() } else { None };
        let read = match kept {
            Some(block) => block.bytes.get(within..).unwrap_or_default().read(to)?,
            // Where a part of a block cannot be read, another part may be.
            None => {
                self.inner.seek(SeekFrom::Start(at))?;
                self.inner.read(to)?
            }
        };
        self.at += read as u64;
        Ok(read)
    }
}

impl<T: Write + Seek> Write for Cached<T> {
    fn write(&mut self, from: &[u8]) -> Result<usize> {
        self.inner.seek(SeekFrom::Start(self.at))?;
        // What a failed write has left is read from the medium.
        self.blocks.retain(|block| block.start >= self.at + from.len() as u64 || block.start + BLOCK <= self.at);
        let written = self.inner.write(from)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> Result<()> {
        self.inner.flush()
    }
}

impl<T: Seek> Seek for Cached<T> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self
                .at
                .checked_add_signed(by)
                .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "seek before the start"))?,
            SeekFrom::End(_) => self.inner.seek(to)?,
        };
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::cell::Cell;
    use std::io::Cursor;

    /// A medium that counts reads, and has one byte that cannot be read.
    struct Medium<'a> {
        bytes: Cursor<Vec<u8>>,
        reads: &'a Cell<usize>,
        bad: Option<u64>,
    }

    impl Read for Medium<'_> {
        fn read(&mut self, to: &mut [u8]) -> Result<usize> {
            self.reads.set(self.reads.get() + 1);
            let at = self.bytes.position();
            if self.bad.is_some_and(|bad| (at..at + to.len() as u64).contains(&bad)) {
                return Err(Error::other("bad sector"));
            }
            self.bytes.read(to)
        }
    }

    impl Write for Medium<'_> {
        fn write(&mut self, from: &[u8]) -> Result<usize> {
            // As a file in a partition: it does not grow.
            let left = self.bytes.get_ref().len() - self.bytes.position() as usize;
            self.bytes.write(&from[..from.len().min(left)])
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    impl Seek for Medium<'_> {
        fn seek(&mut self, to: SeekFrom) -> Result<u64> {
            self.bytes.seek(to)
        }
    }

    fn cached(bytes: Vec<u8>, reads: &Cell<usize>, bad: Option<u64>) -> Cached<Medium<'_>> {
        Cached::new(Medium { bytes: Cursor::new(bytes), reads, bad })
    }

    #[test]
    fn it_reads_what_the_medium_has_after_any_writes() {
        const SIZE: usize = 100 * BLOCK as usize + 700;
        let reads = Cell::new(0);
        let mut model: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
        let mut cached = cached(model.clone(), &reads, None);
        let mut state = 1u64;
        let mut any = |below: usize| {
            // Numerical Recipes, §7.1.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for step in 0..20_000 {
            let (at, length) = (any(SIZE), any([40, 600, 3 * BLOCK as usize][step % 3]));
            let end = SIZE.min(at + length);
            assert_eq!(cached.seek(SeekFrom::Start(at as u64)).unwrap(), at as u64);
            if any(3) == 0 {
                let bytes = vec![any(256) as u8; end - at];
                cached.write_all(&bytes).unwrap();
                model[at..end].copy_from_slice(&bytes);
            } else {
                let mut bytes = vec![0; end - at];
                cached.read_exact(&mut bytes).unwrap();
                assert_eq!(bytes, model[at..end], "{at}..{end} in step {step}");
            }
            assert_eq!(cached.stream_position().unwrap(), end as u64);
            assert!(cached.blocks.len() <= BLOCKS);
        }
        assert_eq!(cached.seek(SeekFrom::End(0)).unwrap(), SIZE as u64);
        assert_eq!(cached.read(&mut [0; 10]).unwrap(), 0);
        assert!(cached.seek(SeekFrom::Current(-(SIZE as i64) - 1)).is_err());
        assert_eq!(cached.inner.bytes.into_inner(), model);
    }

    #[test]
    fn a_directory_is_read_once() {
        let reads = Cell::new(0);
        let mut cached = cached(vec![7; BLOCKS * BLOCK as usize], &reads, None);
        for _ in 0..10 {
            cached.rewind().unwrap();
            for entry in 0..BLOCKS * BLOCK as usize / 32 {
                cached.seek(SeekFrom::Start(entry as u64 * 32)).unwrap();
                cached.read_exact(&mut [0; 32]).unwrap();
            }
        }
        assert!(reads.get() <= 2 * BLOCKS, "{}", reads.get());
    }

    #[test]
    fn what_is_beside_a_bad_sector_is_read() {
        let reads = Cell::new(0);
        let mut cached = cached(vec![7; 4 * BLOCK as usize], &reads, Some(BLOCK + 600));
        cached.seek(SeekFrom::Start(BLOCK)).unwrap();
        cached.read_exact(&mut [0; 512]).unwrap();
        cached.read_exact(&mut [0; 512]).unwrap_err();
        cached.seek(SeekFrom::Start(BLOCK + 1024)).unwrap();
        cached.read_exact(&mut [0; 512]).unwrap();
    }
}
