// SPDX-License-Identifier: Apache-2.0
//! The GUID partition table (UEFI specification 2.10, section 5.3, and 5.2.3 for the protective MBR): read, and written
//! copy by copy, so that one copy is whole at every moment.
//!
//! The crate `gpt` writes both copies in one go and does not flush between them; tests hold the two together.

use crate::medium::Medium;
use anyhow::{Context, Result, bail, ensure};
use uuid::Uuid;

/// Bytes of a sector. Images are laid out for it; a disk with other sectors has no table that is read here.
pub const SECTOR: u64 = 512;
/// Bytes of an entry.
const ENTRY: usize = 128;
/// Most entries: the array has 32 sectors, as usual.
const ENTRIES: usize = 128;
/// Sectors of the array of entries.
const ARRAY: u64 = (ENTRY * ENTRIES) as u64 / SECTOR;
/// Bytes of the header that are in use.
const HEADER: usize = 92;
/// Attribute "Legacy BIOS Bootable" (UEFI 2.10, table 5.8): a partition that is in the MBR, too, for boot ROMs that read
/// nothing else.
pub const IN_MBR: u64 = 1 << 2;
/// Numbers of partitions that an MBR has beside its protective record.
const MBR_NUMBERS: std::ops::RangeInclusive<u32> = 1..=3;

/// A partition: one entry of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is for.
    pub kind: Uuid,
    /// The partition's own identifier.
    pub id: Uuid,
    /// First sector.
    pub first: u64,
    /// Last sector.
    pub last: u64,
    /// Attributes, bit by bit.
    pub flags: u64,
    /// Name; at most 36 units of UTF-16.
    pub name: String,
}

impl Entry {
    /// Reads 128 bytes; `None` for an entry that is not in use.
    fn decode(bytes: &[u8]) -> Option<Entry> {
        let kind = guid(bytes, 0);
        let units = bytes[56..ENTRY].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        let name: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
        (!kind.is_nil()).then(|| Entry {
            kind,
            id: guid(bytes, 16),
            first: u64_at(bytes, 32),
            last: u64_at(bytes, 40),
            flags: u64_at(bytes, 48),
            name: String::from_utf16_lossy(&name),
        })
    }

    fn encode(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..16].copy_from_slice(&self.kind.to_bytes_le());
        bytes[16..32].copy_from_slice(&self.id.to_bytes_le());
        bytes[32..40].copy_from_slice(&self.first.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.last.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.flags.to_le_bytes());
        for (pair, unit) in bytes[56..].chunks_exact_mut(2).zip(self.name.encode_utf16()) {
            pair.copy_from_slice(&unit.to_le_bytes());
        }
        bytes
    }
}

/// A partition with its number, from 1.
pub type Numbered = (u32, Entry);

/// Which copy of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copy {
    /// Behind the protective MBR.
    Primary,
    /// In the last sectors of the disk.
    Backup,
}

/// A table, whatever copy it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Identifier of the disk.
    pub disk: Uuid,
    /// First sector that a partition may have.
    first_usable: u64,
    /// All entries as they are on the disk, so that what is unknown here stays.
    array: Vec<u8>,
}

/// What a disk has of a table.
#[derive(Debug)]
pub struct Found {
    /// The table: the primary copy's, else the backup's.
    pub table: Table,
    /// The copies that are not as they should be.
    pub damaged: Vec<Copy>,
    /// Whether the backup is to move: the disk is longer than the table knows.
    pub grown: bool,
    /// Whether the protective MBR is damaged.
    pub mbr_damaged: bool,
}

impl Table {
    /// A table without partitions.
    pub fn new(disk: Uuid) -> Table {
        Table { disk, first_usable: 2 + ARRAY, array: vec![0; ENTRY * ENTRIES] }
    }

    /// Reads the table of a disk. A disk that is shorter than its table is no error.
    ///
    /// # Errors
    /// When there is no valid copy.
    pub fn read(medium: &mut dyn Medium) -> Result<Found> {
        let sectors = medium.size()? / SECTOR;
        ensure!(sectors > 4 * ARRAY, "read the partition table: the disk is too small for one");
        let last = sectors - 1;
        let primary = read_copy(medium, 1);
        let backup = read_copy(medium, last);
        let (table, alternate) = match (&primary, &backup) {
            (Ok(found), _) => found.clone(),
            (Err(_), Ok((table, _))) => (table.clone(), last),
            (Err(error), Err(_)) => bail!("read the partition table: {error:#}"),
        };
        // Compared byte by byte: a bit outside the checksums is damage as well.
        let differs = |medium: &mut dyn Medium, copy| Ok::<_, anyhow::Error>(!table.is_written(medium, copy, sectors)?);
        let mut damaged = Vec::new();
        let grown = alternate != last;
        // A copy that moves is not damaged.
        if !grown && differs(medium, Copy::Primary)? {
            damaged.push(Copy::Primary);
        }
        if !grown && differs(medium, Copy::Backup)? {
            damaged.push(Copy::Backup);
        }
        let mut mbr = [0; SECTOR as usize];
        medium.read(0, &mut mbr).context("read the protective MBR")?;
        let mbr_damaged = match table.hybrid_records() {
            Some(records) => mbr[446..510] != records || mbr[510..] != SIGNATURE,
            None => !is_protective(&mbr),
        };
        Ok(Found { table, damaged, grown, mbr_damaged })
    }

    /// The records of the MBR where it has partitions besides the protective one; `None` where no partition is
    /// [`IN_MBR`]. Each has the number that it has in this table, and the protective record is the last one.
    fn hybrid_records(&self) -> Option<[u8; 64]> {
        let listed: Vec<Numbered> = self
            .partitions()
            .into_iter()
            .filter(|(number, e)| e.flags & IN_MBR != 0 && MBR_NUMBERS.contains(number))
            .collect();
        let first = listed.iter().map(|(_, entry)| entry.first).min()?;
        let mut records = [0; 64];
        let mut put = |number: u32, kind: u8, start: u64, count: u64| {
            let record = &mut records[(number as usize - 1) * 16..][..16];
            // No cylinders and heads: readers take the sectors.
            record[..8].copy_from_slice(&[0, 0xfe, 0xff, 0xff, kind, 0xfe, 0xff, 0xff]);
            for (at, value) in [(8, start), (12, count)] {
                record[at..at + 4].copy_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
            }
        };
        for (number, entry) in &listed {
            put(*number, FAT32_LBA, entry.first, entry.last + 1 - entry.first);
        }
        put(4, PROTECTIVE, 1, first - 1);
        Some(records)
    }

    /// The partitions, in the order of their numbers.
    pub fn partitions(&self) -> Vec<Numbered> {
        let entries = self.array.chunks_exact(ENTRY).zip(1..);
        entries.filter_map(|(bytes, number)| Some((number, Entry::decode(bytes)?))).collect()
    }

    /// Sets a partition.
    ///
    /// # Errors
    /// When no table has that number, or the name is too long.
    pub fn set(&mut self, number: u32, entry: &Entry) -> Result<()> {
        ensure!((1..=ENTRIES as u32).contains(&number), "set partition {number}: a table has {ENTRIES}");
        ensure!(entry.name.encode_utf16().count() <= 36, "set partition {number}: its name is too long");
        let at = (number as usize - 1) * ENTRY;
        self.array[at..at + ENTRY].copy_from_slice(&entry.encode());
        Ok(())
    }

    /// Last sector that a partition may have on a disk of `sectors`.
    pub fn last_usable(sectors: u64) -> u64 {
        sectors.saturating_sub(ARRAY + 2)
    }

    /// Whether all partitions lie on a disk of `sectors`.
    pub fn fits(&self, sectors: u64) -> bool {
        self.partitions()
            .iter()
            .all(|(_, entry)| entry.first <= entry.last && entry.last <= Table::last_usable(sectors))
    }

    /// Whether a copy is on the disk byte for byte.
    ///
    /// # Errors
    /// None for sectors that cannot be read: they do not have it.
    pub fn is_written(&self, medium: &mut dyn Medium, copy: Copy, sectors: u64) -> Result<bool> {
        let place = Place::of(copy, sectors);
        let same = |medium: &mut dyn Medium, sector: u64, wanted: &[u8]| {
            let mut found = vec![0; wanted.len()];
            medium.read(sector * SECTOR, &mut found).is_ok() && found == wanted
        };
        Ok(same(medium, place.array, &self.array) && same(medium, place.header, &self.header(copy, sectors)))
    }

    /// Writes one copy and flushes it: the entries first, so that the header vouches for them only when they are there.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub fn write(&self, medium: &mut dyn Medium, copy: Copy, sectors: u64) -> Result<()> {
        let place = Place::of(copy, sectors);
        let mut write = |sector: u64, bytes: &[u8]| {
            medium.write(sector * SECTOR, bytes)?;
            medium.flush()
        };
        write(place.array, &self.array)
            .and_then(|()| write(place.header, &self.header(copy, sectors)))
            .with_context(|| format!("write the {} copy of the partition table", copy.name()))
    }

    fn header(&self, copy: Copy, sectors: u64) -> [u8; SECTOR as usize] {
        let (place, other) = (Place::of(copy, sectors), Place::of(copy.other(), sectors));
        let mut bytes = [0; SECTOR as usize];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, b"EFI PART");
        put(8, &0x0001_0000u32.to_le_bytes());
        put(12, &(HEADER as u32).to_le_bytes());
        put(24, &place.header.to_le_bytes());
        put(32, &other.header.to_le_bytes());
        put(40, &self.first_usable.to_le_bytes());
        put(48, &Table::last_usable(sectors).to_le_bytes());
        put(56, &self.disk.to_bytes_le());
        put(72, &place.array.to_le_bytes());
        put(80, &(ENTRIES as u32).to_le_bytes());
        put(84, &(ENTRY as u32).to_le_bytes());
        put(88, &crc32fast::hash(&self.array).to_le_bytes());
        let sum = crc32fast::hash(&bytes[..HEADER]);
        bytes[16..20].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

impl Copy {
    fn other(self) -> Copy {
        match self {
            Copy::Primary => Copy::Backup,
            Copy::Backup => Copy::Primary,
        }
    }

    /// `primary` or `backup`.
    pub fn name(self) -> &'static str {
        match self {
            Copy::Primary => "primary",
            Copy::Backup => "backup",
        }
    }
}

/// The sectors of a copy.
struct Place {
    header: u64,
    array: u64,
}

impl Place {
    fn of(copy: Copy, sectors: u64) -> Place {
        match copy {
            Copy::Primary => Place { header: 1, array: 2 },
            Copy::Backup => Place { header: sectors - 1, array: sectors - 1 - ARRAY },
        }
    }
}

/// The table whose header is in sector `header`, and the sector that it names for the other copy.
fn read_copy(medium: &mut dyn Medium, header: u64) -> Result<(Table, u64)> {
    let mut bytes = [0; SECTOR as usize];
    medium.read(header * SECTOR, &mut bytes).context("read its header")?;
    ensure!(bytes.starts_with(b"EFI PART"), "there is none");
    let size = u32_at(&bytes, 12) as usize;
    ensure!((HEADER..=bytes.len()).contains(&size), "its header has a wrong size");
    let sum = u32_at(&bytes, 16);
    bytes[16..20].fill(0);
    ensure!(crc32fast::hash(&bytes[..size]) == sum, "its header has a wrong checksum");
    ensure!(u64_at(&bytes, 24) == header, "its header is of another sector");
    let (count, entry) = (u32_at(&bytes, 80) as usize, u32_at(&bytes, 84) as usize);
    ensure!(entry == ENTRY && (1..=ENTRIES).contains(&count), "it has {count} entries of {entry} bytes");
    let mut array = vec![0; count * ENTRY];
    let at = u64_at(&bytes, 72).checked_mul(SECTOR).context("its entries are beyond the disk")?;
    medium.read(at, &mut array).context("read its entries")?;
    ensure!(crc32fast::hash(&array) == u32_at(&bytes, 88), "its entries have a wrong checksum");
    array.resize(ENTRY * ENTRIES, 0);
    let first_usable = u64_at(&bytes, 40).max(2 + ARRAY);
    Ok((Table { disk: guid(&bytes, 56), first_usable, array }, u64_at(&bytes, 32)))
}

/// What an MBR ends with.
const SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// Type of a protective record (UEFI 2.10, 5.2.3).
const PROTECTIVE: u8 = 0xee;
/// Type of a FAT32 whose place is given in sectors.
const FAT32_LBA: u8 = 0x0c;

/// Whether the kernel looks for a GUID table behind this MBR: its signature, and one record of type 0xEE from sector 1 on
/// (kernel: block/partitions/efi.c, `is_pmbr_valid`).
fn is_protective(mbr: &[u8; SECTOR as usize]) -> bool {
    let record = |at: usize| mbr[at + 4] == PROTECTIVE && u32_at(mbr, at + 8) == 1;
    mbr[510..] == SIGNATURE && (446..510).step_by(16).any(record)
}

/// The MBR for a disk of `sectors` with this table, when `old` is not as it should be. One that has partitions besides
/// the protective one, though the table has none for it, stays: its maker wanted it so.
fn mbr_for(table: &Table, old: &[u8; SECTOR as usize], sectors: u64) -> Option<[u8; SECTOR as usize]> {
    let mut new = *old;
    if let Some(records) = table.hybrid_records() {
        new[446..510].copy_from_slice(&records);
    } else if is_protective(old) && old[462..510].iter().any(|byte| *byte != 0) {
        return None;
    } else {
        new[446..510].fill(0);
        new[446..458].copy_from_slice(&[0, 0, 2, 0, PROTECTIVE, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
        new[458..462].copy_from_slice(&u32::try_from(sectors - 1).unwrap_or(u32::MAX).to_le_bytes());
    }
    new[510..].copy_from_slice(&SIGNATURE);
    (new != *old).then_some(new)
}

/// Brings the MBR up to date with the table behind it.
///
/// # Errors
/// When the disk cannot be read or written.
pub fn write_mbr(medium: &mut dyn Medium, table: &Table, sectors: u64) -> Result<()> {
    let mut mbr = [0; SECTOR as usize];
    medium.read(0, &mut mbr).context("read the protective MBR")?;
    if let Some(new) = mbr_for(table, &mbr, sectors) {
        medium.write(0, &new).and_then(|()| medium.flush()).context("write the protective MBR")?;
    }
    Ok(())
}

fn guid(bytes: &[u8], at: usize) -> Uuid {
    let mut guid = [0; 16];
    guid.copy_from_slice(&bytes[at..at + 16]);
    Uuid::from_bytes_le(guid)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
