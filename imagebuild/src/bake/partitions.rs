// SPDX-License-Identifier: Apache-2.0
//! The partitions of a base: read from a GPT or an MBR; the last one on the disk can be made longer.

use crate::disk::mbr::{self, FirstSector, RECORD, RECORDS};
use ::initrd::table::{Copy, SECTOR, Table, write_mbr};
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Types of records that hold further partitions.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
/// Types of FAT.
const FAT_TYPES: [u8; 6] = [0x01, 0x04, 0x06, 0x0b, 0x0c, 0x0e];
/// The MBR's type of an EFI system partition.
const MBR_ESP: u8 = 0xef;
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
        Ok(Disk { format, partitions, size })
    }

    /// `GPT` or `MBR`.
    pub fn name(&self) -> &'static str {
        match self.format {
            Format::Gpt(_) => "GPT",
            Format::Mbr => "MBR",
        }
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
                write_mbr(file, table, sectors)?;
            }
            Format::Mbr => {
                let length = (partition.length + bytes) / SECTOR;
                let length = u32::try_from(length).ok().context("lengthen the partition: an MBR holds no more")?;
                let place = RECORDS + (number as usize - 1) * RECORD + 12;
                file.write_all_at(&length.to_le_bytes(), place as u64).context("write the MBR")?;
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
