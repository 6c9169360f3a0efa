// SPDX-License-Identifier: Apache-2.0
//! The primary partitions of a Master Boot Record (UEFI 2.10, 5.2.1), which images of others have in place of a GPT.

use ::initrd::table::SECTOR;

/// Where the records are, and how long one is.
pub const RECORDS: usize = 446;
/// Bytes of a record.
pub const RECORD: usize = 16;
/// How the sector ends.
const SIGNATURE: [u8; 2] = [0x55, 0xaa];
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
    let Some(mut records) = records(sector).map(Vec::from) else { return FirstSector::None };
    if records.iter().any(|record| record.kind == PROTECTIVE) {
        return FirstSector::Gpt;
    }
    // A boot sector of FAT has the same signature and no table: a flag that is none says so.
    let is_flag = |number: usize| sector[RECORDS + number * RECORD] & 0x7f == 0;
    records.retain(|record| record.kind != 0);
    match !records.is_empty() && (0..4).all(is_flag) {
        true => FirstSector::Mbr(word(sector, 440), records),
        false => FirstSector::None,
    }
}

/// The four records of a first sector, those of type 0 (none) and those beside a GPT included; nothing where the sector has
/// no signature.
pub fn records(sector: &[u8; SECTOR as usize]) -> Option<[Record; 4]> {
    let record = |number: u32| {
        let at = RECORDS + (number as usize - 1) * RECORD;
        let bytes = |at: usize| u64::from(word(sector, at)) * SECTOR;
        Record { number, kind: sector[at + 4], offset: bytes(at + 8), length: bytes(at + 12) }
    };
    (sector[510..] == SIGNATURE).then(|| [1, 2, 3, 4].map(record))
}

fn word(sector: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([sector[at], sector[at + 1], sector[at + 2], sector[at + 3]])
}

/// A first sector with these records, without flags.
#[cfg(test)]
pub(crate) fn for_tests(signature: u32, records: &[Record]) -> [u8; SECTOR as usize] {
    let mut sector = [0; SECTOR as usize];
    sector[440..444].copy_from_slice(&signature.to_le_bytes());
    sector[510..].copy_from_slice(&SIGNATURE);
    for record in records {
        let at = RECORDS + (record.number as usize - 1) * RECORD;
        let sectors = |bytes: u64| ((bytes / SECTOR) as u32).to_le_bytes();
        sector[at + 4] = record.kind;
        sector[at + 8..at + 12].copy_from_slice(&sectors(record.offset));
        sector[at + 12..at + 16].copy_from_slice(&sectors(record.length));
    }
    sector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_from_a_gpt_and_from_a_file_system() {
        let record = |number, kind, offset, length| Record { number, kind, offset, length };
        let two = [record(1, 0x0c, 8192 * 512, 512_000), record(3, 0x83, 16384 * 512, 1_024_000)];
        let mut sector = for_tests(0x1234_abcd, &two);
        sector[RECORDS] = 0x80;
        assert_eq!(read(&sector), FirstSector::Mbr(0x1234_abcd, two.to_vec()));
        // A hybrid one counts as its GPT.
        let hybrid = for_tests(0, &[record(1, 0xee, 512, 99 * 512), record(2, 0x0c, 5 * 512, 5 * 512)]);
        assert_eq!(read(&hybrid), FirstSector::Gpt);
        assert_eq!(records(&hybrid).map(|all| all[1]), Some(record(2, 0x0c, 5 * 512, 5 * 512)));
        assert_eq!(read(&for_tests(0, &[])), FirstSector::None);
        let mut fat = for_tests(0, &[record(1, b' ', 7 * 512, 7 * 512)]);
        fat[RECORDS] = b'k';
        assert_eq!(read(&fat), FirstSector::None);
        assert_eq!((read(&[0; 512]), records(&[0; 512])), (FirstSector::None, None));
    }
}
