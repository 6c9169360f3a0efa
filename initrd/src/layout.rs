// SPDX-License-Identifier: Apache-2.0
//! Where partitions are to be: a pure function from what a table has to what it should have.
//!
//! An image ends with root-a, which is as long as its content. At first boot root-a is lengthened to a slot, root-b of
//! the same length is made behind it, and data takes the rest. What exists is never moved or shortened.

use crate::command_line::Slot;
use crate::table::{Entry, Numbered, SECTOR, Table};
use sha2::{Digest, Sha256};
use uuid::{Uuid, uuid};

/// Partitions start and end on whole MiB; in sectors.
const ALIGN: u64 = (1 << 20) / SECTOR;
/// What data must get before the slots get more than they need, sectors: 1 GiB.
const DATA_BESIDE_SLOTS: u64 = (1 << 30) / SECTOR;
/// The least that makes a data partition, sectors: 128 MiB. A smaller one would hold little more than its journal.
const DATA_AT_LEAST: u64 = (128 << 20) / SECTOR;

/// Type of a root for x86-64 (UAPI group: Discoverable Partitions Specification).
pub const ROOT_X86_64: Uuid = uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709");
/// Type of a root for arm64 (the same).
pub const ROOT_ARM64: Uuid = uuid!("b921b045-1df0-41c3-af44-4c6f280d3fae");
/// Type of a Linux file system.
pub const LINUX_DATA: Uuid = uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4");
/// Name of the data partition.
pub const DATA: &str = "data";

/// Whether a partition may hold a root.
pub fn is_root(entry: &Entry) -> bool {
    [ROOT_X86_64, ROOT_ARM64].contains(&entry.kind)
}

/// The partition of a slot.
pub fn slot(partitions: &[Numbered], slot: Slot) -> Option<&Numbered> {
    partitions.iter().find(|(_, entry)| is_root(entry) && entry.name == slot.label())
}

/// The data partition.
pub fn data(partitions: &[Numbered]) -> Option<&Numbered> {
    partitions.iter().find(|(_, entry)| entry.kind == LINUX_DATA && entry.name == DATA)
}

/// The partitions to set, longer or new, in the order of their numbers; empty when all is as it should be.
///
/// `sectors` is the size of the disk, `wanted` that of a slot in bytes (without it, slots stay as they are), `disk` the
/// identifier of the disk, from which those of new partitions are made.
pub fn plan(partitions: &[Numbered], sectors: u64, wanted: Option<u64>, disk: Uuid) -> Vec<Numbered> {
    if data(partitions).is_some() {
        return Vec::new();
    }
    let Some(mut start) = partitions.iter().map(|(_, entry)| after(entry)).max() else { return Vec::new() };
    let end = (Table::last_usable(sectors) + 1) / ALIGN * ALIGN;
    let mut number = partitions.iter().map(|(number, _)| number + 1).max().unwrap_or(1);
    let mut planned = Vec::new();
    let mut add = |kind, name: &str, first: u64, end: u64| {
        let entry = Entry { kind, id: id(disk, name), first, last: end - 1, flags: 0, name: name.to_owned() };
        planned.push((number, entry));
        number += 1;
    };
    if let (Some(wanted), Some((_, a)), None) = (wanted, slot(partitions, Slot::A), slot(partitions, Slot::B)) {
        let is_last = after(a) == start;
        let length = (wanted / SECTOR).max(after(a) - a.first).next_multiple_of(ALIGN);
        // Slots are of one length: what fits the one fits the other.
        let a_end = if is_last { a.first + length } else { start };
        if a_end + length + DATA_BESIDE_SLOTS <= end {
            add(a.kind, Slot::B.label(), a_end, a_end + length);
            start = a_end + length;
        } else if a_end + DATA_BESIDE_SLOTS <= end {
            start = a_end;
        }
    }
    if start + DATA_AT_LEAST <= end {
        add(LINUX_DATA, DATA, start, end);
    }
    // Last, because its number is lower; and only when something is put behind it.
    if let (Some((_, next)), Some((a_number, a))) = (planned.first(), slot(partitions, Slot::A)) {
        let last = next.first - 1;
        if last > a.last && partitions.iter().all(|(_, other)| other.last <= a.last) {
            planned.insert(0, (*a_number, Entry { last, ..a.clone() }));
        }
    }
    planned
}

/// First aligned sector behind a partition.
fn after(entry: &Entry) -> u64 {
    (entry.last + 1).next_multiple_of(ALIGN)
}

/// Identifier of a new partition: the same each time, so that a first boot that is cut off goes on with the same table.
fn id(disk: Uuid, name: &str) -> Uuid {
    let digest = Sha256::new().chain_update(disk.as_bytes()).chain_update(name).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    const MIB: u64 = ALIGN;

    fn entry(kind: Uuid, name: &str, first_mib: u64, mib: u64) -> Entry {
        let (first, last) = (first_mib * MIB, (first_mib + mib) * MIB - 1);
        Entry { kind, id: id(Uuid::nil(), name), first, last, flags: 0, name: name.to_owned() }
    }

    /// As an image has them: BOOT, ESP, root-a of 300 MiB from 201 MiB on.
    pub fn image() -> Vec<Numbered> {
        let basic = uuid!("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7");
        let esp = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        vec![
            (1, entry(basic, "BOOT", 1, 40)),
            (2, entry(esp, "ESP", 41, 160)),
            (3, entry(ROOT_X86_64, "root-a", 201, 300)),
        ]
    }

    /// `(number, name, first MiB, MiB)` of what is planned for a disk of so many MiB, slots of 768 MiB.
    fn planned(partitions: &[Numbered], mib: u64) -> Vec<(u32, String, u64, u64)> {
        let planned = plan(partitions, mib * MIB, Some(768 << 20), Uuid::max());
        for (_, entry) in &planned {
            assert!(entry.first % MIB == 0 && (entry.last + 1) % MIB == 0, "{entry:?}");
        }
        let row = |(number, e): Numbered| (number, e.name, e.first / MIB, (e.last + 1 - e.first) / MIB);
        planned.into_iter().map(row).collect()
    }

    fn row(number: u32, name: &str, first: u64, mib: u64) -> (u32, String, u64, u64) {
        (number, name.to_owned(), first, mib)
    }

    #[test]
    fn a_large_disk_gets_both_slots_and_the_rest_is_data() {
        // The last MiB is not whole: the backup table is in it.
        let expected = vec![row(3, "root-a", 201, 768), row(4, "root-b", 969, 768), row(5, "data", 1737, 6262)];
        assert_eq!(planned(&image(), 8000), expected);
        assert_eq!(plan(&image(), 8000 * MIB, Some(768 << 20), Uuid::max())[1].1.kind, ROOT_X86_64);
    }

    #[test]
    fn the_sizes_at_which_a_part_is_left_out() {
        let least = 201 + 768 + 768 + 1024 + 1;
        assert_eq!(planned(&image(), least).last(), Some(&row(5, "data", 1737, 1024)));
        let one = vec![row(3, "root-a", 201, 768), row(4, "data", 969, 1024 + 768 - 1)];
        assert_eq!(planned(&image(), least - 1), one, "no root-b");
        let least = 201 + 768 + 1024 + 1;
        assert_eq!(planned(&image(), least).last(), Some(&row(4, "data", 969, 1024)));
        assert_eq!(planned(&image(), least - 1), [row(4, "data", 501, 1024 + 768 - 300 - 1)], "root-a stays");
        let least = 501 + 128 + 1;
        assert_eq!(planned(&image(), least), [row(4, "data", 501, 128)]);
        assert_eq!(planned(&image(), least - 1), [], "no data");
        assert_eq!(planned(&image(), 502), [], "a disk of the image's own size");
    }

    #[test]
    fn a_root_that_is_longer_than_a_slot_makes_both_slots_longer() {
        let mut image = image();
        image[2].1.last += 600 * MIB;
        let expected = [row(4, "root-b", 1101, 900), row(5, "data", 2001, 5998)];
        assert_eq!(planned(&image, 8000), expected);
    }

    #[test]
    fn what_is_planned_is_final() {
        let mut partitions = image();
        for (number, entry) in plan(&partitions, 8000 * MIB, Some(768 << 20), Uuid::max()) {
            partitions.retain(|(other, _)| *other != number);
            partitions.push((number, entry));
        }
        assert_eq!(planned(&partitions, 8000), []);
        assert_eq!(planned(&partitions, 16_000), [], "data is there: the disk keeps its layout");
        // Without data, it is made again behind root-b.
        partitions.retain(|(_, entry)| entry.name != DATA);
        assert_eq!(planned(&partitions, 8000), [row(5, "data", 1737, 6262)]);
    }

    #[test]
    fn a_partition_behind_the_root_stays_where_it_is() {
        let mut partitions = image();
        partitions.push((7, entry(LINUX_DATA, "mine", 600, 50)));
        let expected = [row(8, "root-b", 650, 768), row(9, "data", 1418, 6581)];
        assert_eq!(planned(&partitions, 8000), expected);
    }

    #[test]
    fn without_a_slot_size_only_data_is_made() {
        let planned = plan(&image(), 8000 * MIB, None, Uuid::max());
        assert_eq!(planned.iter().map(|(n, e)| (*n, e.first / MIB)).collect::<Vec<_>>(), [(4, 501)]);
        assert_eq!(plan(&[], 8000 * MIB, None, Uuid::max()), []);
    }

    #[test]
    fn identifiers_differ_by_disk_and_name() {
        let ids = [id(Uuid::nil(), "a"), id(Uuid::nil(), "b"), id(Uuid::max(), "a")];
        assert!(ids[0] != ids[1] && ids[0] != ids[2]);
        assert_eq!(ids[0].get_version_num(), 8);
    }
}
