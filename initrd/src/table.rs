// SPDX-License-Identifier: Apache-2.0
//! The GUID partition table (UEFI specification 2.10, section 5.3): both copies read, each repaired from the other, and
//! written one after the other with a flush between them, so that a power cut at any moment leaves a good one.
//!
//! The crate `gpt`, with which images are made, writes both copies at once and takes a damaged copy for an error.

use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes of an entry.
const ENTRY: usize = 128;
/// Bytes of a header that its checksum covers.
const HEADER: usize = 92;
/// Most entries that are read: what every partitioning program makes.
const MOST: usize = 128;

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// GUID of its type, as on the disk.
    pub kind: [u8; 16],
    /// Its own GUID, as on the disk.
    pub id: [u8; 16],
    /// First sector.
    pub first: u64,
    /// Last sector.
    pub last: u64,
    /// Attributes.
    pub flags: u64,
    /// Its name, at most 36 UTF-16 units.
    pub name: String,
}

impl Entry {
    /// Sectors.
    pub fn sectors(&self) -> u64 {
        self.last + 1 - self.first
    }

    fn parse(bytes: &[u8]) -> Option<Entry> {
        let kind: [u8; 16] = bytes[..16].try_into().ok()?;
        let units: Vec<u16> = bytes[56..ENTRY].chunks(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
        let used = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
        (kind != [0; 16]).then(|| Entry {
            kind,
            id: bytes[16..32].try_into().unwrap_or_default(),
            first: number(bytes, 32),
            last: number(bytes, 40),
            flags: number(bytes, 48),
            name: String::from_utf16_lossy(&units[..used]),
        })
    }

    fn bytes(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..16].copy_from_slice(&self.kind);
        bytes[16..32].copy_from_slice(&self.id);
        for (at, value) in [(32, self.first), (40, self.last), (48, self.flags)] {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        for (at, unit) in self.name.encode_utf16().take(36).enumerate() {
            bytes[56 + 2 * at..58 + 2 * at].copy_from_slice(&unit.to_le_bytes());
        }
        bytes
    }
}

/// The disk that holds a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a sector.
    pub sector: u64,
    /// Sectors of the disk.
    pub sectors: u64,
}

impl Geometry {
    /// Sectors that the entries of one copy take.
    fn entry_sectors(self) -> u64 {
        ((MOST * ENTRY) as u64).div_ceil(self.sector)
    }

    /// First sector that a partition may use.
    pub fn first_usable(self) -> u64 {
        2 + self.entry_sectors()
    }

    /// Last sector that a partition may use: behind it is the second copy of the table.
    pub fn last_usable(self) -> u64 {
        self.sectors - 2 - self.entry_sectors()
    }
}

/// A partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// GUID of the disk, as on the disk.
    pub disk: [u8; 16],
    /// Used entries, by number from 1 on, as the kernel numbers partitions.
    pub entries: Vec<(usize, Entry)>,
}

/// A table as it was found.
#[derive(Debug)]
pub struct Found {
    /// The table: of its first copy, where that is good.
    pub table: Table,
    /// What of it has to be written again, in words.
    pub damage: Vec<&'static str>,
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default())
}

/// One copy: the table, and where its header says that the other header is.
fn copy(disk: &File, geometry: Geometry, at: u64) -> Option<(Table, u64)> {
    let mut header = vec![0; usize::try_from(geometry.sector).ok()?];
    disk.read_exact_at(&mut header, at.checked_mul(geometry.sector)?).ok()?;
    let plain = &header[..8] == b"EFI PART" && word(&header, 12) as usize == HEADER && number(&header, 24) == at;
    let (count, size) = (word(&header, 80) as usize, word(&header, 84) as usize);
    if !plain || count == 0 || count > MOST || size != ENTRY {
        return None;
    }
    let sum = word(&header, 16);
    header[16..20].fill(0);
    let mut entries = vec![0; count * ENTRY];
    disk.read_exact_at(&mut entries, number(&header, 72).checked_mul(geometry.sector)?).ok()?;
    let good = crc32fast::hash(&header[..HEADER]) == sum && crc32fast::hash(&entries) == word(&header, 88);
    let used = |(at, bytes): (usize, &[u8])| Some((at + 1, Entry::parse(bytes)?));
    let entries = entries.chunks(ENTRY).enumerate().filter_map(used).collect();
    let table = Table { disk: header[56..72].try_into().ok()?, entries };
    let within = |entry: &Entry| entry.first <= entry.last && entry.last < geometry.sectors;
    (good && table.entries.iter().all(|(_, entry)| within(entry))).then_some((table, number(&header, 32)))
}

/// Whether the first sector says that there is a GUID partition table (section 5.2.3).
fn protected(disk: &File) -> bool {
    let mut mbr = [0; 512];
    disk.read_exact_at(&mut mbr, 0).is_ok() && mbr[510..] == [0x55, 0xaa] && mbr[450] == 0xee
}

impl Table {
    /// Reads the table of a disk: either copy will do.
    ///
    /// # Errors
    /// When neither copy is good.
    pub fn read(disk: &File, geometry: Geometry) -> Result<Found> {
        ensure!(
            geometry.sectors > 2 * geometry.first_usable(),
            "read a partition table: the disk is too small for one"
        );
        let last = geometry.sectors - 1;
        let first = copy(disk, geometry, 1);
        let second = copy(disk, geometry, last).map(|(table, _)| table);
        let mut damage = Vec::new();
        let table = match (first, second) {
            (Some((first, _)), Some(second)) if first == second => first,
            // The second copy was written first, and then the power went: what it says is done again.
            (Some((first, _)), Some(_)) => {
                damage.push("second copy differs");
                first
            }
            (Some((first, at)), None) => {
                // That of a new image is where the image ends.
                if at == last || copy(disk, geometry, at).is_none() {
                    damage.push("second copy");
                } else {
                    damage.push("second copy is not at the end of the disk");
                }
                first
            }
            (None, Some(second)) => {
                damage.push("first copy");
                second
            }
            (None, None) => bail!("read the partition table: neither copy is good"),
        };
        if !protected(disk) {
            damage.push("protective MBR");
        }
        Ok(Found { table, damage })
    }

    /// Writes the table: second copy, first copy, protective MBR, each flushed before the next one begins.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub fn write(&self, disk: &File, geometry: Geometry) -> Result<()> {
        for step in 0..STEPS {
            self.write_step(disk, geometry, step)?;
        }
        Ok(())
    }

    /// One step of [`Table::write`], of [`STEPS`].
    fn write_step(&self, disk: &File, geometry: Geometry, step: usize) -> Result<()> {
        let last = geometry.sectors - 1;
        let entries_of = [last - geometry.entry_sectors(), 2];
        let put = |bytes: &[u8], sector: u64| -> Result<()> {
            disk.write_all_at(bytes, sector * geometry.sector).context("write the partition table")?;
            disk.sync_all().context("flush the partition table")
        };
        match step {
            0 => put(&self.entry_bytes(), entries_of[0]),
            1 => put(&self.header(geometry, last, 1, entries_of[0]), last),
            2 => put(&self.entry_bytes(), entries_of[1]),
            3 => put(&self.header(geometry, 1, last, entries_of[1]), 1),
            _ => put(&protective_mbr(geometry), 0),
        }
    }

    fn entry_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; MOST * ENTRY];
        for (number, entry) in &self.entries {
            bytes[(number - 1) * ENTRY..number * ENTRY].copy_from_slice(&entry.bytes());
        }
        bytes
    }

    fn header(&self, geometry: Geometry, own: u64, other: u64, entries: u64) -> Vec<u8> {
        let mut bytes = vec![0; geometry.sector as usize];
        bytes[..8].copy_from_slice(b"EFI PART");
        bytes[8..12].copy_from_slice(&0x0001_0000_u32.to_le_bytes());
        bytes[12..16].copy_from_slice(&(HEADER as u32).to_le_bytes());
        for (at, value) in
            [(24, own), (32, other), (40, geometry.first_usable()), (48, geometry.last_usable()), (72, entries)]
        {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes[56..72].copy_from_slice(&self.disk);
        bytes[80..84].copy_from_slice(&(MOST as u32).to_le_bytes());
        bytes[84..88].copy_from_slice(&(ENTRY as u32).to_le_bytes());
        bytes[88..92].copy_from_slice(&crc32fast::hash(&self.entry_bytes()).to_le_bytes());
        let sum = crc32fast::hash(&bytes[..HEADER]);
        bytes[16..20].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

/// Steps of a write.
const STEPS: usize = 5;

fn protective_mbr(geometry: Geometry) -> [u8; 512] {
    let mut mbr = [0; 512];
    // One partition of type EE from sector 1 to the end, or as far as 32 bits count.
    mbr[447..450].copy_from_slice(&[0, 2, 0]);
    mbr[450] = 0xee;
    mbr[451..454].copy_from_slice(&[0xff, 0xff, 0xff]);
    mbr[454..458].copy_from_slice(&1_u32.to_le_bytes());
    let sectors = u32::try_from(geometry.sectors - 1).unwrap_or(u32::MAX);
    mbr[458..462].copy_from_slice(&sectors.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    mbr
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry { sector: 512, sectors: 4096 };

    fn entry(first: u64, last: u64, name: &str) -> Entry {
        Entry { kind: [7; 16], id: [first as u8; 16], first, last, flags: 0, name: name.into() }
    }

    fn sample() -> Table {
        Table { disk: [9; 16], entries: vec![(1, entry(64, 127, "BOOT")), (3, entry(128, 999, "root-a"))] }
    }

    fn disk() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(GEOMETRY.sectors * GEOMETRY.sector).unwrap();
        file
    }

    #[test]
    fn what_is_written_is_read_and_any_flipped_byte_is_repaired() {
        let disk = disk();
        assert_eq!(
            Table::read(&disk, GEOMETRY).unwrap_err().to_string(),
            "read the partition table: neither copy is good"
        );
        sample().write(&disk, GEOMETRY).unwrap();
        let found = Table::read(&disk, GEOMETRY).unwrap();
        assert_eq!((found.table, found.damage), (sample(), vec![]));
        let last = (GEOMETRY.sectors - 1) * 512;
        // Every byte that is used of both headers and of the entries in use, and the protective MBR's.
        let places = (450..451).chain(510..512).chain(512..512 + 92).chain(1024..1024 + 384).chain(last..last + 92);
        let seconds = last - 32 * 512;
        for at in places.chain(seconds..seconds + 384) {
            let mut byte = [0];
            disk.read_exact_at(&mut byte, at).unwrap();
            disk.write_all_at(&[byte[0] ^ 0x41], at).unwrap();
            let found = Table::read(&disk, GEOMETRY).unwrap();
            assert_eq!(found.table, sample(), "byte {at}");
            assert_eq!(found.damage.len(), 1, "byte {at}: {:?}", found.damage);
            disk.write_all_at(&byte, at).unwrap();
            if at % 64 == 0 {
                disk.write_all_at(&[byte[0] ^ 1], at).unwrap();
                found.table.write(&disk, GEOMETRY).unwrap();
            }
            assert!(Table::read(&disk, GEOMETRY).unwrap().damage.is_empty(), "byte {at}");
        }
    }

    #[test]
    fn a_power_cut_after_any_step_leaves_one_of_the_two_tables() {
        let mut new = sample();
        new.entries.push((5, entry(1000, 3000, "data")));
        for steps in 0..=STEPS {
            let disk = disk();
            sample().write(&disk, GEOMETRY).unwrap();
            (0..steps).for_each(|step| new.write_step(&disk, GEOMETRY, step).unwrap());
            let found = Table::read(&disk, GEOMETRY).unwrap();
            let expected = if steps <= 2 { sample() } else { new.clone() };
            assert_eq!(found.table, expected, "after {steps} steps");
            assert_eq!(found.damage.is_empty(), steps == 0 || steps >= 4, "after {steps} steps");
        }
    }

    #[test]
    fn an_image_on_a_larger_disk_is_moved_to_its_end() {
        let disk = disk();
        sample().write(&disk, GEOMETRY).unwrap();
        let larger = Geometry { sectors: 8192, ..GEOMETRY };
        disk.set_len(8192 * 512).unwrap();
        let found = Table::read(&disk, larger).unwrap();
        assert_eq!(found.damage, ["second copy is not at the end of the disk"]);
        found.table.write(&disk, larger).unwrap();
        assert!(Table::read(&disk, larger).unwrap().damage.is_empty());
    }

    #[test]
    fn sectors_of_4096_bytes_have_a_table_too() {
        let geometry = Geometry { sector: 4096, sectors: 4096 };
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096 * 4096).unwrap();
        sample().write(&file, geometry).unwrap();
        assert_eq!((geometry.first_usable(), geometry.last_usable()), (6, 4090));
        assert!(Table::read(&file, geometry).unwrap().damage.is_empty());
    }
}
