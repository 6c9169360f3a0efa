// SPDX-License-Identifier: Apache-2.0
//! The layout of a disk: what the first boot adds to the partitions of an image.
//!
//! An image ends with its root slot `root-a`, as long as its content. The first boot lengthens that slot to its full
//! size, adds `root-b` of the same size where the disk has room for it, and gives the rest to `data`.

use crate::table::{Entry, Geometry, Table};
use anyhow::{Context, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Name of the first root slot.
pub const ROOT_A: &str = "root-a";
/// Name of the second root slot.
pub const ROOT_B: &str = "root-b";
/// Name of the data partition.
pub const DATA: &str = "data";

const MIB: u64 = 1 << 20;
/// With less than this for data, the disk gets no second slot.
const DATA_BESIDE_B: u64 = 1024 * MIB;
/// With less than this there is no data partition.
const LEAST_DATA: u64 = 64 * MIB;
/// Bytes at the start of a new data partition that are overwritten: what an earlier use of the disk left there must not
/// be taken for this device's data.
const WIPED: u64 = MIB;
/// Linux file system data, 0FC63DAF-8483-4772-8E79-3D69D8477DE4, as on the disk (Discoverable Partitions Specification).
const LINUX_DATA: [u8; 16] =
    [0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4];
/// Root partition of amd64, 4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709.
const ROOT_AMD64: [u8; 16] =
    [0xe3, 0xbc, 0x68, 0x4f, 0xcd, 0xe8, 0xb1, 0x4d, 0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09];
/// Root partition of arm64, B921B045-1DF0-41C3-AF44-4C6F280D3FAE.
const ROOT_ARM64: [u8; 16] =
    [0x45, 0xb0, 0x21, 0xb9, 0xf0, 0x1d, 0xc3, 0x41, 0xaf, 0x44, 0x4c, 0x6f, 0x28, 0x0d, 0x3f, 0xae];

/// Whether a partition may hold a root of either architecture.
pub fn is_root(entry: &Entry) -> bool {
    [ROOT_AMD64, ROOT_ARM64].contains(&entry.kind)
}

/// Lays a disk out: what is missing is added to `table`. Returns whether anything was. `id` gives a new GUID for each
/// partition.
pub fn complete(table: &mut Table, geometry: Geometry, slot_mib: u64, id: &mut dyn FnMut() -> [u8; 16]) -> bool {
    let named = |table: &Table, name: &str| table.entries.iter().position(|(_, entry)| entry.name == name);
    let (Some(a), None) = (named(table, ROOT_A), named(table, DATA)) else { return false };
    let mib = MIB / geometry.sector;
    let up = |sector: u64| sector.next_multiple_of(mib);
    let end = (geometry.last_usable() + 1) / mib * mib;
    let slot = slot_mib * mib;
    let room = |from: u64, bytes: u64| from + bytes / geometry.sector <= end;
    // Behind the last partition: the image's last one is the root slot, unless a power cut or a person added others.
    let behind = table.entries.iter().map(|(_, entry)| up(entry.last + 1)).max().unwrap_or(end);
    let entry = &mut table.entries[a].1;
    let grown = entry.first + slot;
    let is_last = behind == up(entry.last + 1);
    let fits = is_last && grown > entry.last && room(up(grown), LEAST_DATA);
    if fits {
        entry.last = grown - 1;
    }
    let (kind, mut at) = (entry.kind, if fits { up(grown) } else { behind });
    let mut add = |table: &mut Table, name: &str, kind, first, last| {
        let free = (1..).find(|number| table.entries.iter().all(|(used, _)| used != number)).unwrap_or(1);
        table.entries.push((free, Entry { kind, id: id(), first, last, flags: 0, name: name.to_owned() }));
        table.entries.sort_by_key(|(number, _)| *number);
    };
    let mut changed = fits;
    if named(table, ROOT_B).is_none() && fits && room(at + up(slot), DATA_BESIDE_B) {
        add(table, ROOT_B, kind, at, at + slot - 1);
        at += up(slot);
        changed = true;
    }
    if room(at, LEAST_DATA) {
        add(table, DATA, LINUX_DATA, at, end - 1);
        changed = true;
    }
    changed
}

/// Lays out the disk, as every boot does: repairs the table, and completes it. Returns the table, and what was repaired.
///
/// # Errors
/// When neither copy of the table is good, or the disk cannot be written.
pub fn apply(disk: &File, geometry: Geometry, slot_mib: u64, id: &mut dyn FnMut() -> [u8; 16]) -> Result<Laid> {
    let found = Table::read(disk, geometry)?;
    let mut table = found.table;
    let completed = complete(&mut table, geometry, slot_mib, id);
    if completed && let Some(data) = table.named(DATA) {
        // Before the table says that it is there: after a power cut it is overwritten again.
        disk.write_all_at(&vec![0; WIPED as usize], data.first * geometry.sector).context("wipe the data partition")?;
        disk.sync_all().context("flush the data partition")?;
    }
    if completed || !found.damage.is_empty() {
        table.write(disk, geometry)?;
    }
    // A new image's second copy is not at the end of the disk, which is no damage.
    let repaired = if completed { Vec::new() } else { found.damage };
    Ok(Laid { table, repaired, completed })
}

/// A disk that is laid out.
#[derive(Debug)]
pub struct Laid {
    /// Its partitions.
    pub table: Table,
    /// What of the partition table was repaired.
    pub repaired: Vec<&'static str>,
    /// Whether partitions were added.
    pub completed: bool,
}

impl Table {
    /// The partition with this name.
    pub fn named(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().map(|(_, entry)| entry).find(|entry| entry.name == name)
    }

    /// Number of the partition with this name.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.entries.iter().find(|(_, entry)| entry.name == name).map(|(number, _)| *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB_SECTORS: u64 = 2048;

    fn image() -> Table {
        let entry = |kind, first: u64, mib: u64, name: &str| Entry {
            kind,
            id: [1; 16],
            first: first * MIB_SECTORS,
            last: (first + mib) * MIB_SECTORS - 1,
            flags: 0,
            name: name.into(),
        };
        let entries = vec![
            (1, entry([1; 16], 1, 40, "BOOT")),
            (2, entry([2; 16], 41, 80, "ESP")),
            (3, entry(ROOT_AMD64, 121, 300, ROOT_A)),
        ];
        Table { disk: [3; 16], entries }
    }

    fn laid(mib: u64) -> Vec<(String, u64, u64)> {
        let geometry = Geometry { sector: 512, sectors: mib * MIB_SECTORS };
        let mut table = image();
        let mut next = 10;
        complete(&mut table, geometry, 768, &mut || {
            next += 1;
            [next; 16]
        });
        assert!(!complete(&mut table.clone(), geometry, 768, &mut || [0; 16]), "a second time changes nothing");
        let of = |(number, entry): &(usize, Entry)| {
            assert_eq!(entry.first % MIB_SECTORS, 0);
            let at = ["", "BOOT", "ESP", ROOT_A].get(*number).map_or(entry.name.clone(), |name| (*name).to_owned());
            (at, entry.first / MIB_SECTORS, entry.sectors() / MIB_SECTORS)
        };
        table.entries.iter().skip(2).map(of).collect()
    }

    fn row(name: &str, first: u64, mib: u64) -> (String, u64, u64) {
        (name.to_owned(), first, mib)
    }

    #[test]
    fn a_disk_gets_what_it_has_room_for() {
        let a = row(ROOT_A, 121, 768);
        // 8 GiB: both slots, and the rest.
        assert_eq!(laid(8192), [a.clone(), row(ROOT_B, 889, 768), row(DATA, 1657, 8192 - 1657 - 1)]);
        // Just enough for both slots, and a MiB too little.
        assert_eq!(laid(1657 + 1024 + 1), [a.clone(), row(ROOT_B, 889, 768), row(DATA, 1657, 1024)]);
        assert_eq!(laid(1657 + 1024), [a.clone(), row(DATA, 889, 1657 + 1024 - 889 - 1)]);
        // Too little for the slot's full size: data behind its content.
        assert_eq!(laid(889 + 64), [row(ROOT_A, 121, 300), row(DATA, 421, 889 + 64 - 421 - 1)]);
        // Nothing is left.
        assert_eq!(laid(421 + 64), [row(ROOT_A, 121, 300)]);
    }

    #[test]
    fn only_a_new_data_partition_is_wiped() {
        let geometry = Geometry { sector: 512, sectors: 4096 * MIB_SECTORS };
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(geometry.sectors * 512).unwrap();
        image().write(&disk, geometry).unwrap();
        let start = 1657 * MIB;
        disk.write_all_at(b"an earlier device's data", start + 1080).unwrap();
        let first = apply(&disk, geometry, 768, &mut || [5; 16]).unwrap();
        assert_eq!((first.completed, first.repaired.len()), (true, 0));
        let read = || {
            let mut bytes = [1; 24];
            disk.read_exact_at(&mut bytes, start + 1080).unwrap();
            bytes
        };
        assert_eq!(read(), [0; 24]);
        disk.write_all_at(b"this device's own data..", start + 1080).unwrap();
        disk.write_all_at(&[0; 512], 512).unwrap();
        let second = apply(&disk, geometry, 768, &mut || [6; 16]).unwrap();
        assert_eq!((second.completed, second.repaired), (false, vec!["first copy"]));
        assert_eq!(&read(), b"this device's own data..");
        assert_eq!(second.table, first.table);
    }
}
