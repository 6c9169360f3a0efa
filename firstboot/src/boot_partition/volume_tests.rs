// SPDX-License-Identifier: Apache-2.0
//! Looks at media that were made to keep a device busy.

use super::*;
use std::cell::Cell;
use std::io::{Cursor, Result as IoResult, Seek, SeekFrom, Write};
use std::rc::Rc;

/// Two terabytes: zeros but for the first bytes, and every cluster of the root directory followed by itself.
struct Endless {
    head: Vec<u8>,
    at: u64,
    reads: Rc<Cell<u64>>,
}

const SIZE: u64 = 2 << 40;
const SECTOR: usize = 512;
const RESERVED: usize = 32;

impl Endless {
    fn new() -> Self {
        let mut head = vec![0; 64 << 10];
        // A boot sector of FAT32 (Microsoft's "FAT: General Overview of On-Disk Format", section 3).
        let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[0xeb, 0x58, 0x90]);
        put(11, &(SECTOR as u16).to_le_bytes());
        put(13, &[64]);
        put(14, &(RESERVED as u16).to_le_bytes());
        put(16, &[1]);
        put(21, &[0xf8]);
        put(32, &u32::MAX.to_le_bytes());
        // Sectors of the allocation table; root directory at cluster 2; sector of the summary.
        put(36, &(1u32 << 19).to_le_bytes());
        put(44, &2u32.to_le_bytes());
        put(48, &1u16.to_le_bytes());
        put(66, &[0x29]);
        put(82, b"FAT32   ");
        put(510, &[0x55, 0xaa]);
        put(SECTOR, &0x4161_5252u32.to_le_bytes());
        put(SECTOR + 484, &0x6141_7272u32.to_le_bytes());
        put(SECTOR + 508, &0xaa55_0000u32.to_le_bytes());
        put(RESERVED * SECTOR + 8, &2u32.to_le_bytes());
        Endless { head, at: 0, reads: Rc::default() }
    }
}

impl Read for Endless {
    fn read(&mut self, to: &mut [u8]) -> IoResult<usize> {
        assert!(self.reads.get() < 1 << 28, "it is read without end");
        self.reads.set(self.reads.get() + to.len() as u64);
        for byte in to.iter_mut() {
            // Of the data, every byte belongs to a deleted file: there is no end of the directory.
            *byte = self.head.get(self.at as usize).copied().unwrap_or(0xe5);
            self.at += 1;
        }
        Ok(to.len())
    }
}

impl Seek for Endless {
    fn seek(&mut self, to: SeekFrom) -> IoResult<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.at.saturating_add_signed(by),
            SeekFrom::End(by) => SIZE.saturating_add_signed(by),
        };
        Ok(self.at)
    }
}

impl Write for Endless {
    fn write(&mut self, from: &[u8]) -> IoResult<usize> {
        Ok(from.len())
    }

    fn flush(&mut self) -> IoResult<()> {
        Ok(())
    }
}

#[test]
fn s18_a_stick_of_two_terabytes_with_a_circular_directory_is_soon_put_aside() {
    type Look = fn(&Volume<Endless>) -> bool;
    let looks: [Look; 3] = [|v| v.label().is_err(), |v| v.seed().is_err(), |v| v.signature("seed.toml").is_err()];
    for look in looks {
        let medium = Endless::new();
        let reads = medium.reads.clone();
        let volume = Volume::glance(StreamSlice::new(medium, 0, SIZE).unwrap(), SIZE).unwrap();
        assert!(look(&volume), "it has no end, and no seed");
        // Each turn is one more megabyte for the bound; what is read of the medium are its few blocks.
        assert!(reads.get() < LOOK, "{} bytes", reads.get());
    }
}

#[test]
fn s18_a_file_is_searched_piece_by_piece() {
    let needle = b"0123456789abcdef";
    let finds = |bytes: &[u8]| !find_all(bytes, needle).is_empty();
    let largest = Cell::new(0);
    let matches = |bytes: &[u8]| {
        largest.set(largest.get().max(bytes.len()));
        finds(bytes)
    };
    for at in [0, 1, PIECE - 17, PIECE - 16, PIECE - 15, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE - 20, 3 * PIECE - 16] {
        let mut file = vec![b'x'; 3 * PIECE];
        file[at..at + needle.len()].copy_from_slice(needle);
        assert!(contains(&mut Cursor::new(&file), needle.len(), &matches).unwrap(), "{at}");
        file[at + 7] = b'!';
        assert!(!contains(&mut Cursor::new(&file), needle.len(), &matches).unwrap(), "{at}");
    }
    assert!(largest.get() < PIECE + needle.len(), "{} bytes at once", largest.get());
    assert!(!contains(&mut Cursor::new(b""), 1, &matches).unwrap());
}
