// SPDX-License-Identifier: Apache-2.0
//! The partitions of a base: read from a GPT or an MBR; the last one on the disk can be made longer.

use crate::disk::mbr::{self, FirstSector, RECORD, RECORDS};
use ::initrd::table::{Copy, SECTOR, Table};
use anyhow::{Context, Result, bail, ensure};
use firstboot::boot_partition::Volume;
use fscommon::StreamSlice;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Types of records that hold further partitions.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
/// Types of FAT.
const FAT_TYPES: [u8; 6] = [0x01, 0x04, 0x06, 0x0b, 0x0c, 0x0e];
/// The MBR's type of an EFI system partition.
const MBR_ESP: u8 = 0xef;
/// The MBR's type of the record that protects a GPT.
const PROTECTIVE: u8 = 0xee;
/// GUIDs of "Microsoft basic data" and of the EFI system partition.
const BASIC: &str = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7";
const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";

/// What a partition is for by its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A FAT that every laptop shows.
    Fat,
    /// An EFI system partition.
    Esp,
    /// Holds further partitions, which are not read here.
    Extended,
    /// Anything else.
    Other,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Number in the table, from 1.
    pub number: u32,
    /// What its type says.
    pub kind: Kind,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// As `/etc/fstab` names it: the GUID, or the disk's signature and the number, in lower case.
    pub part_uuid: String,
}

impl Partition {
    /// First byte behind it.
    pub fn end(&self) -> u64 {
        self.offset + self.length
    }

    /// Opens the FAT on it for one look, which reads a MiB at most: a chain of clusters may have no end.
    ///
    /// # Errors
    /// When there is none.
    pub fn fat(&self, image: &Path) -> Result<Volume<File>> {
        let what = || format!("open the FAT on partition {}", self.number);
        let file = File::open(image).with_context(|| format!("open {}", image.display()))?;
        let slice = StreamSlice::new(file, self.offset, self.end()).with_context(what)?;
        Volume::glance(slice, self.length).with_context(what)
    }
}

/// Which kind of table.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Format {
    Gpt(Box<Table>),
    Mbr,
}

/// The table of a disk image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    format: Format,
    /// Why no partition can be made longer, whatever lies behind it.
    fixed: Option<String>,
    /// In the order of their numbers.
    pub partitions: Vec<Partition>,
    /// Bytes of the image.
    pub size: u64,
}

impl Disk {
    /// Reads the table.
    ///
    /// # Errors
    /// When there is none, or a partition ends behind the image: then the image is not whole.
    pub fn read(file: &mut File) -> Result<Disk> {
        let size = file.metadata().context("measure the image")?.len();
        let mut sector = [0; SECTOR as usize];
        file.read_exact_at(&mut sector, 0).context("read its first sector: it is shorter than one")?;
        let (format, partitions) = match mbr::read(&sector) {
            FirstSector::Gpt => gpt_partitions(file).map_err(|error| cut_off(file, size).unwrap_or(error))?,
            FirstSector::Mbr(signature, records) => (Format::Mbr, mbr_partitions(signature, &records)),
            FirstSector::None => bail!("find a partition table: it is no disk image"),
        };
        for partition in &partitions {
            ensure!(
                partition.end() <= size,
                "read partition {}: it ends at byte {}, and the image at {size}; it is truncated, get it again",
                partition.number,
                partition.end()
            );
        }
        let fixed = if format == Format::Mbr { None } else { unlike_ours(file) };
        Ok(Disk { format, fixed, partitions, size })
    }

    /// `GPT` or `MBR`.
    pub fn name(&self) -> &'static str {
        match self.format {
            Format::Gpt(_) => "GPT",
            Format::Mbr => "MBR",
        }
    }

    /// Why no partition can be made longer, whatever lies behind it; `None` where the last one can.
    pub fn fixed(&self) -> Option<&str> {
        self.fixed.as_deref()
    }

    /// The partition that begins behind this one, if there is one: then it cannot be made longer.
    pub fn behind(&self, partition: &Partition) -> Option<&Partition> {
        self.partitions.iter().filter(|other| other.offset >= partition.end()).min_by_key(|other| other.offset)
    }

    /// Makes the image and its last partition longer by `bytes`, a multiple of 1 MiB; returns the partition as it is then.
    ///
    /// # Errors
    /// When it is not the last one, the table cannot hold it, or the image cannot be written.
    pub fn lengthen(&mut self, file: &mut File, number: u32, bytes: u64) -> Result<Partition> {
        let at = self.partitions.iter().position(|p| p.number == number).context("find the partition")?;
        let partition = self.partitions[at].clone();
        if let Some(other) = self.behind(&partition) {
            bail!("lengthen partition {number}: partition {} is behind it", other.number);
        }
        if let Some(why) = &self.fixed {
            bail!("lengthen partition {number}: {why}");
        }
        let size = self.size + bytes;
        file.set_len(size).context("lengthen the image")?;
        match &mut self.format {
            Format::Gpt(table) => {
                let sectors = size / SECTOR;
                let mut entry = table.partitions().into_iter().find(|(n, _)| *n == number).context("find the entry")?.1;
                entry.last += bytes / SECTOR;
                table.set(number, &entry)?;
                ensure!(table.fits(sectors), "lengthen partition {number}: the table does not fit behind it");
                // The old backup lies inside the partition now, or right behind it.
                let old = self.size / SECTOR - 33;
                file.write_all_at(&[0; 33 * SECTOR as usize], old * SECTOR).context("remove the old backup table")?;
                for copy in [Copy::Backup, Copy::Primary] {
                    table.write(file, copy, sectors)?;
                }
                protect(file, self.size, size)?;
            }
            Format::Mbr => {
                let length = (partition.length + bytes) / SECTOR;
                let length = u32::try_from(length).ok().context("lengthen the partition: an MBR holds no more")?;
                write_length(file, number, length)?;
            }
        }
        *self = Disk::read(file).context("read the partition table back")?;
        self.partitions.iter().find(|p| p.number == number).cloned().context("find the partition again")
    }
}

/// Why a GPT without a valid copy at the end is most likely unreadable: its header says how long the disk was.
fn cut_off(file: &File, size: u64) -> Option<anyhow::Error> {
    let mut header = [0; 40];
    file.read_exact_at(&mut header, SECTOR).ok()?;
    let last = u64::from_le_bytes(header[32..40].try_into().ok()?);
    let whole = last.checked_add(1)?.checked_mul(SECTOR)?;
    (header.starts_with(b"EFI PART") && whole > size).then(|| {
        anyhow::anyhow!(
            "read the partition table: the image has {size} of {whole} bytes; it is truncated, get it again"
        )
    })
}

/// What a GPT has that would be written otherwise here; `None` where it is the same. Where its entries are fewer than
/// usual, or elsewhere, a boot loader may be in the sectors that are free then.
fn unlike_ours(file: &File) -> Option<String> {
    let mut header = [0; 88];
    if file.read_exact_at(&mut header, SECTOR).is_err() || !header.starts_with(b"EFI PART") {
        return Some("the primary copy of its GPT is damaged".to_owned());
    }
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let sector = u64::from(word(72)) | u64::from(word(76)) << 32;
    let (count, size) = (word(80), word(84));
    ((sector, count, size) != (2, 128, 128)).then(|| {
        format!("its GPT has {count} entries of {size} bytes from sector {sector} on, not 128 of 128 from sector 2 on")
    })
}

/// Makes the record that protects the GPT as long as the disk, `size` bytes instead of `before`. All others stay: which
/// partitions boot ROMs find in the MBR is the choice of the image's maker.
fn protect(file: &File, before: u64, size: u64) -> Result<()> {
    let mut sector = [0; SECTOR as usize];
    file.read_exact_at(&mut sector, 0).context("read the protective MBR")?;
    let records = mbr::records(&sector).context("read the protective MBR: it has no signature")?;
    let alone = records.iter().filter(|record| record.kind != 0).count() == 1;
    for record in records.iter().filter(|record| record.kind == PROTECTIVE) {
        // Beside others it may end where the first of them begins.
        if alone || record.offset + record.length >= before {
            let sectors = size.saturating_sub(record.offset) / SECTOR;
            write_length(file, record.number, u32::try_from(sectors).unwrap_or(u32::MAX))?;
        }
    }
    Ok(())
}

/// Writes how many sectors a record of the MBR has.
fn write_length(file: &File, number: u32, sectors: u32) -> Result<()> {
    let place = RECORDS + (number as usize - 1) * RECORD + 12;
    file.write_all_at(&sectors.to_le_bytes(), place as u64).context("write the MBR")
}

fn gpt_partitions(file: &mut File) -> Result<(Format, Vec<Partition>)> {
    let size = file.metadata().context("measure the image")?.len();
    let found = Table::read(file)?;
    if let Some(error) = cut_off(file, size) {
        return Err(error);
    }
    let mut partitions = Vec::new();
    for (number, entry) in found.table.partitions() {
        let place = entry.first.checked_mul(SECTOR).zip(entry.last.checked_add(1).and_then(|s| s.checked_mul(SECTOR)));
        let place = place.and_then(|(first, end)| Some((first, end.checked_sub(first)?)));
        let (offset, length) = place.with_context(|| format!("read partition {number}: it has no place"))?;
        let kind = match entry.kind.to_string().as_str() {
            BASIC => Kind::Fat,
            ESP => Kind::Esp,
            _ => Kind::Other,
        };
        partitions.push(Partition { number, kind, offset, length, part_uuid: entry.id.to_string() });
    }
    Ok((Format::Gpt(Box::new(found.table)), partitions))
}

fn mbr_partitions(signature: u32, records: &[mbr::Record]) -> Vec<Partition> {
    let partition = |record: &mbr::Record| {
        let kind = match record.kind {
            kind if EXTENDED.contains(&kind) => Kind::Extended,
            kind if FAT_TYPES.contains(&kind) => Kind::Fat,
            MBR_ESP => Kind::Esp,
            _ => Kind::Other,
        };
        let part_uuid = format!("{signature:08x}-{:02x}", record.number);
        Partition { number: record.number, kind, offset: record.offset, length: record.length, part_uuid }
    };
    records.iter().map(partition).collect()
}
