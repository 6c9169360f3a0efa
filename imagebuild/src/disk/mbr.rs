// SPDX-License-Identifier: Apache-2.0
//! The primary partitions of a Master Boot Record (UEFI 2.10, 5.2.1), which images of others have in place of a GPT.

use ::initrd::table::SECTOR;

/// Where the records are, and how long one is.
pub const RECORDS: usize = 446;
/// Bytes of a record.
pub const RECORD: usize = 16;
/// Type of the record by which a GPT is protected.
const PROTECTIVE: u8 = 0xee;

/// A partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Its number, from 1.
    pub number: u32,
    /// Its type.
    pub kind: u8,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// What a first sector is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstSector {
    /// It protects a GPT.
    Gpt,
    /// The disk's signature, and its partitions.
    Mbr(u32, Vec<Record>),
    /// No table: nothing, or the first sector of a file system.
    None,
}

/// Reads a first sector.
pub fn read(sector: &[u8; SECTOR as usize]) -> FirstSector {
    let word = |at: usize| u32::from_le_bytes([sector[at], sector[at + 1], sector[at + 2], sector[at + 3]]);
    let at = |number: u32| RECORDS + (number as usize - 1) * RECORD;
    if sector[510..] != [0x55, 0xaa] {
        return FirstSector::None;
    }
    if (1..=4).any(|number| sector[at(number) + 4] == PROTECTIVE) {
        return FirstSector::Gpt;
    }
    // A boot sector of FAT has the same signature and no table: a flag that is none says so.
    if (1..=4).any(|number| sector[at(number)] & 0x7f != 0) {
        return FirstSector::None;
    }
    let record = |number: u32| Record {
        number,
        kind: sector[at(number) + 4],
        offset: u64::from(word(at(number) + 8)) * SECTOR,
        length: u64::from(word(at(number) + 12)) * SECTOR,
    };
    let records: Vec<Record> = (1..=4).map(record).filter(|record| record.kind != 0).collect();
    match records.is_empty() {
        true => FirstSector::None,
        false => FirstSector::Mbr(word(440), records),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(records: &[(u32, u8, u8, u32, u32)]) -> [u8; 512] {
        let mut sector = [0; 512];
        sector[440..444].copy_from_slice(&0x1234_abcd_u32.to_le_bytes());
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        for (number, flag, kind, first, sectors) in records {
            let at = RECORDS + (*number as usize - 1) * RECORD;
            sector[at] = *flag;
            sector[at + 4] = *kind;
            sector[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
            sector[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
        }
        sector
    }

    #[test]
    fn records_are_told_from_a_gpt_and_from_a_file_system() {
        let two = sector(&[(1, 0x80, 0x0c, 8192, 1000), (3, 0, 0x83, 16384, 2000)]);
        let record = |number, kind, offset, length| Record { number, kind, offset, length };
        let found = vec![record(1, 0x0c, 8192 * 512, 512_000), record(3, 0x83, 16384 * 512, 1_024_000)];
        assert_eq!(read(&two), FirstSector::Mbr(0x1234_abcd, found));
        // A hybrid one counts as its GPT.
        assert_eq!(read(&sector(&[(1, 0, 0xee, 1, 99), (2, 0, 0x0c, 5, 5)])), FirstSector::Gpt);
        assert_eq!(read(&sector(&[])), FirstSector::None);
        assert_eq!(read(&sector(&[(1, b'k', b' ', 7, 7)])), FirstSector::None);
        assert_eq!(read(&[0; 512]), FirstSector::None);
    }
}
