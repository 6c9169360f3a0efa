// SPDX-License-Identifier: Apache-2.0
//! What a partition table is read from and written to: a disk, or an image in a file.

use std::fs::File;
use std::io::{Result, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// A disk whose writes last once it is flushed.
pub trait Medium {
    /// Its size in bytes.
    fn size(&mut self) -> Result<u64>;
    /// Fills `buffer` from byte `at` on.
    fn read(&mut self, at: u64, buffer: &mut [u8]) -> Result<()>;
    /// Writes all of `bytes` to byte `at` and on.
    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()>;
    /// Returns when everything written so far outlasts a power cut.
    fn flush(&mut self) -> Result<()>;
}

impl Medium for File {
    fn size(&mut self) -> Result<u64> {
        self.seek(SeekFrom::End(0))
    }

    fn read(&mut self, at: u64, buffer: &mut [u8]) -> Result<()> {
        self.read_exact_at(buffer, at)
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.write_all_at(bytes, at)
    }

    fn flush(&mut self) -> Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use std::io::Error;

    /// A disk in memory that loses its power after any sector. It keeps what was written only, so it may be large.
    #[derive(Clone)]
    pub struct Fake {
        sectors: std::collections::BTreeMap<u64, [u8; 512]>,
        size: u64,
        /// Writes of one sector each that still succeed.
        pub left: usize,
        /// Sectors written so far.
        pub written: usize,
        /// Flushes so far.
        pub flushed: usize,
    }

    impl Fake {
        pub fn new(size: u64) -> Fake {
            Fake { sectors: Default::default(), size, left: usize::MAX, written: 0, flushed: 0 }
        }

        /// Makes the disk longer or shorter.
        pub fn resize(&mut self, size: u64) {
            self.sectors.retain(|sector, _| (sector + 1) * 512 <= size);
            self.size = size;
        }

        pub fn bytes(&mut self, at: u64, length: usize) -> Vec<u8> {
            let mut bytes = vec![0; length];
            self.read(at, &mut bytes).expect("within the disk");
            bytes
        }

        /// Changes one bit.
        pub fn flip(&mut self, at: u64, bit: u8) {
            self.sectors.entry(at / 512).or_insert([0; 512])[(at % 512) as usize] ^= 1 << bit;
        }

        /// All sectors that are not zero.
        pub fn content(&self) -> Vec<(u64, [u8; 512])> {
            self.sectors.iter().filter(|(_, bytes)| **bytes != [0; 512]).map(|(at, bytes)| (*at, *bytes)).collect()
        }
    }

    impl Medium for Fake {
        fn size(&mut self) -> Result<u64> {
            Ok(self.size)
        }

        fn read(&mut self, at: u64, buffer: &mut [u8]) -> Result<()> {
            if at + buffer.len() as u64 > self.size {
                return Err(Error::other("beyond the end"));
            }
            assert!(at.is_multiple_of(512), "whole sectors");
            for (part, place) in buffer.chunks_mut(512).zip(at / 512..) {
                match self.sectors.get(&place) {
                    Some(sector) => part.copy_from_slice(&sector[..part.len()]),
                    None => part.fill(0),
                }
            }
            Ok(())
        }

        fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
            assert!(at.is_multiple_of(512) && bytes.len().is_multiple_of(512), "whole sectors");
            if at + bytes.len() as u64 > self.size {
                return Err(Error::other("beyond the end"));
            }
            for (sector, place) in bytes.chunks(512).zip(at / 512..) {
                if self.left == 0 {
                    return Err(Error::other("the power is gone"));
                }
                self.left -= 1;
                self.written += 1;
                self.sectors.insert(place, sector.try_into().expect("512 bytes"));
            }
            Ok(())
        }

        fn flush(&mut self) -> Result<()> {
            self.flushed += 1;
            match self.left {
                0 => Err(Error::other("the power is gone")),
                _ => Ok(()),
            }
        }
    }
}
