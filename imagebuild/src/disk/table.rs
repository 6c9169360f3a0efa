// SPDX-License-Identifier: Apache-2.0
//! The GUID partition table: planned, written, and read back.

use super::{Ids, MIB};
use crate::target::{Role, Target};
use anyhow::{Context, Result, ensure};
use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::partition_types as types;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

const SECTOR: u64 = 512;

/// A partition with its place on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
}

/// Places the partitions one after another, each on a whole MiB.
pub fn plan(target: &Target, ids: &Ids, root_size: u64) -> Result<Vec<Placed>> {
    let mut offset = MIB;
    let mut placed = Vec::new();
    for partition in &target.partitions {
        let kind = match (partition.role, target.arch.as_str()) {
            // Windows and macOS show this type and hide EFI system partitions.
            (Role::Boot, _) => types::BASIC,
            (Role::Esp, _) => types::EFI,
            (Role::Root, "arm64") => types::LINUX_ROOT_ARM_64,
            (Role::Root, _) => types::LINUX_ROOT_X64,
        };
        let length = match partition.role {
            Role::Root => root_size,
            _ => partition.size_mib * MIB,
        };
        ensure!(length > 0, "place partition {}: it has no size", partition.label);
        placed.push(Placed {
            role: partition.role,
            label: partition.label.clone(),
            kind: kind.guid.to_string(),
            uuid: ids.partition(partition.role).to_string(),
            offset,
            length,
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
            flags: 0,
            name: place.label.clone(),
        };
        entries.insert(index as u32 + 1, entry);
    }
    table.update_partitions(entries).context("fill the partition table")?;
    table.write().context("write the partition table")?;
    Ok(())
}

/// Reads the table of a disk or image: name, byte offset and length of each partition.
pub fn partitions(disk: &Path) -> Result<Vec<(String, u64, u64)>> {
    let table = GptConfig::new().writable(false).open(disk);
    let table = table.with_context(|| format!("read the partition table of {}", disk.display()))?;
    let place = |p: &Partition| (p.name.clone(), p.first_lba * SECTOR, (p.last_lba + 1 - p.first_lba) * SECTOR);
    Ok(table.partitions().values().filter(|p| p.is_used()).map(place).collect())
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
        assert_eq!(
            partitions(&path).unwrap(),
            [
                ("BOOT".to_owned(), MIB, 64 * MIB),
                ("ESP".to_owned(), 65 * MIB, 256 * MIB),
                ("root".to_owned(), 321 * MIB, 300 * MIB)
            ]
        );
        assert_eq!(placed[2].kind.to_uppercase(), "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709");
        std::fs::remove_file(path).unwrap();
    }
}
