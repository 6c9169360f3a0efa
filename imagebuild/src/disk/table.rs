// SPDX-License-Identifier: Apache-2.0
//! The GUID partition table: planned, written, and read back.

use super::mbr::{self, FirstSector};
use super::{Ids, MIB};
use crate::arch::Arch;
use crate::target::{Bootloader, Role, Target};
use ::initrd::table::{IN_MBR, Numbered, SECTOR, Table, write_mbr};
use anyhow::{Context, Result, ensure};
use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::partition_types as types;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A partition with its place on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// What it is for.
    pub role: Role,
    /// Name in the table, and label of the file system.
    pub label: String,
    /// GUID of its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// GUID of the partition.
    pub uuid: String,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Whether it is marked as bootable, and in the MBR, too: for firmware that reads no other table.
    pub in_mbr: bool,
}

/// Places the partitions one after another, each on a whole MiB.
///
/// # Errors
/// When the root is longer than the partition that a device has for it.
pub fn plan(target: &Target, ids: &Ids, root_size: u64) -> Result<Vec<Placed>> {
    let mut offset = MIB;
    let mut placed = Vec::new();
    for partition in &target.partitions {
        let kind = match (partition.role, target.arch) {
            // Windows and macOS show this type and hide EFI system partitions.
            (Role::Boot, _) => types::BASIC,
            // Of the same type, so that desktops hide what is not for them.
            (Role::Esp | Role::SystemA | Role::SystemB, _) => types::EFI,
            (Role::RootA, Arch::Arm64) => types::LINUX_ROOT_ARM_64,
            (Role::RootA, Arch::Amd64) => types::LINUX_ROOT_X64,
        };
        let length = match partition.role {
            Role::RootA => root_size,
            _ => partition.size_mib.unwrap_or_default() * MIB,
        };
        let most = partition.slot_mib.map_or(u64::MAX, |mib| mib * MIB);
        ensure!(length <= most, "place partition {}: {length} bytes, a device has {most}", partition.label);
        ensure!(length > 0, "place partition {}: it has no size", partition.label);
        placed.push(Placed {
            role: partition.role,
            label: partition.label.clone(),
            kind: kind.guid.to_string(),
            uuid: ids.partition(partition.role).to_string(),
            offset,
            length,
            in_mbr: target.bootloader != Bootloader::SystemdBoot && partition.role != Role::RootA,
        });
        offset += length.next_multiple_of(MIB);
    }
    Ok(placed)
}

/// Writes the table to a file of the disk's full size.
pub fn write(mut file: File, ids: &Ids, placed: &[Placed]) -> Result<()> {
    let sectors = file.metadata()?.len() / SECTOR;
    let mbr = ProtectiveMBR::with_lb_size(u32::try_from(sectors - 1).unwrap_or(u32::MAX));
    mbr.overwrite_lba0(&mut file).context("write the protective MBR")?;
    let mut table = GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512)
        .create_from_device(file, Some(ids.disk()))
        .context("create a partition table")?;
    let mut entries = BTreeMap::new();
    for (index, place) in placed.iter().enumerate() {
        let kind = place.kind.parse::<uuid::Uuid>().context("read a partition type")?;
        let entry = Partition {
            part_type_guid: types::Type { guid: kind, os: types::OperatingSystem::None },
            part_guid: ids.partition(place.role),
            first_lba: place.offset / SECTOR,
            last_lba: (place.offset + place.length) / SECTOR - 1,
            flags: if place.in_mbr { IN_MBR } else { 0 },
            name: place.label.clone(),
        };
        entries.insert(index as u32 + 1, entry);
    }
    table.update_partitions(entries).context("fill the partition table")?;
    let mut file = table.write().context("write the partition table")?;
    // Where the table says so, the MBR has partitions, too.
    let written = Table::read(&mut file).context("read the partition table back")?.table;
    write_mbr(&mut file, &written, sectors)
}

/// A partition as the table of a disk or image has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GptEntry {
    /// Name in the table; of an MBR, which has none, the number.
    pub name: String,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// Reads the table of a disk or image, a GPT or an MBR: partitions by number, from 1. The backup copy of a GPT serves where
/// the primary one is damaged, as on a card whose power went while its first boot wrote the table.
pub fn partitions(disk: &Path) -> Result<BTreeMap<u32, GptEntry>> {
    let what = || format!("read the partition table of {}", disk.display());
    let mut file = File::open(disk).with_context(what)?;
    let mut sector = [0; SECTOR as usize];
    file.read_exact_at(&mut sector, 0).with_context(what)?;
    if let FirstSector::Mbr(_, records) = mbr::read(&sector) {
        let entry =
            |r: &mbr::Record| (r.number, GptEntry { name: r.number.to_string(), offset: r.offset, length: r.length });
        return Ok(records.iter().map(entry).collect());
    }
    let table = Table::read(&mut file).with_context(what)?.table;
    let found = |(number, entry): Numbered| {
        let bytes = |sector: u64| sector.checked_mul(SECTOR);
        let place = bytes(entry.first).zip(entry.last.checked_add(1).and_then(bytes));
        let length = place.and_then(|(first, end)| Some((first, end.checked_sub(first)?)));
        let (offset, length) = length.with_context(|| format!("{}: partition {number} has no place", what()))?;
        Ok((number, GptEntry { name: entry.name, offset, length }))
    };
    table.partitions().into_iter().map(found).collect()
}

/// Whether a disk has a table at its beginning, be it a damaged one.
///
/// # Errors
/// When its first sectors cannot be read.
pub fn is_there(disk: &File) -> io::Result<bool> {
    let mut sectors = [[0u8; SECTOR as usize]; 2];
    for (sector, at) in sectors.iter_mut().zip([0, SECTOR]) {
        match disk.read_exact_at(sector, at) {
            // It is shorter than any table.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
    }
    Ok(mbr::read(&sectors[0]) != FirstSector::None || sectors[1].starts_with(b"EFI PART"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_table_reads_back_as_planned() {
        let target = Target::load("generic-amd64").unwrap();
        let ids = Ids::new("test");
        let placed = plan(&target, &ids, 300 * MIB).unwrap();
        let path = std::env::temp_dir().join(format!("table-{}.img", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(700 * MIB).unwrap();
        write(file, &ids, &placed).unwrap();
        let found =
            |name: &str, offset, mib| GptEntry { name: name.to_owned(), offset: offset * MIB, length: mib * MIB };
        let esp = target.partition(Role::Esp).unwrap().size_mib.unwrap();
        assert_eq!(
            partitions(&path).unwrap(),
            BTreeMap::from([
                (1, found("BOOT", 1, 40)),
                (2, found("ESP", 41, esp)),
                (3, found("root-a", 41 + esp, 300))
            ])
        );
        assert_eq!(placed[2].kind.to_uppercase(), "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709");
        let error = plan(&target, &ids, 769 * MIB).unwrap_err().to_string();
        assert_eq!(error, "place partition root-a: 806354944 bytes, a device has 805306368");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn one_copy_of_the_table_is_enough() {
        use std::os::unix::fs::FileExt;
        let target = Target::load("generic-amd64").unwrap();
        let placed = plan(&target, &Ids::new("test"), 300 * MIB).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(700 * MIB).unwrap();
        write(file.reopen().unwrap(), &Ids::new("test"), &placed).unwrap();
        let whole = partitions(file.path()).unwrap();
        // The primary header, one of its entries, and both with the backup.
        let byte = |at: u64| file.as_file().write_all_at(&[0xa5], at).unwrap();
        byte(2 * SECTOR + 300);
        assert_eq!(partitions(file.path()).unwrap(), whole);
        byte(SECTOR + 60);
        assert_eq!(partitions(file.path()).unwrap(), whole);
        byte(700 * MIB - SECTOR + 60);
        let error = format!("{:#}", partitions(file.path()).unwrap_err());
        assert!(error.starts_with("read the partition table of "), "{error}");
        assert!(error.ends_with("its header has a wrong checksum"), "{error}");
        assert!(is_there(file.as_file()).unwrap());
        // Without the protective MBR the header shows it; then nothing does, and a short file has none either.
        file.as_file().write_all_at(&[0; SECTOR as usize], 0).unwrap();
        assert!(is_there(file.as_file()).unwrap());
        file.as_file().write_all_at(&[0; SECTOR as usize], SECTOR).unwrap();
        assert!(!is_there(file.as_file()).unwrap());
        file.as_file().set_len(SECTOR + 1).unwrap();
        assert!(!is_there(file.as_file()).unwrap());
    }
}
