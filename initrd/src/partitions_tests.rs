// SPDX-License-Identifier: Apache-2.0
//! Partition tables on a disk in memory: power cuts after each sector, and flipped bits.
#![allow(clippy::unwrap_used)]

use crate::ext4;
use crate::layout::tests::image;
use crate::medium::{Medium, testing::Fake};
use crate::partitions::{Prepared, prepare};
use crate::table::{Copy, Entry, IN_MBR, SECTOR, Table, write_mbr};
use uuid::Uuid;

const MIB: u64 = 1 << 20;
const SLOT: Option<u64> = Some(768 * MIB);

/// A disk with an image of 502 MiB, made longer.
fn flashed(mib: u64) -> Fake {
    flashed_with(mib, &[])
}

/// The same with these partitions in the MBR.
fn flashed_with(mib: u64, in_mbr: &[u32]) -> Fake {
    let mut disk = Fake::new(502 * MIB);
    let mut table = Table::new(Uuid::from_u128(7));
    for (number, entry) in image() {
        let flags = if in_mbr.contains(&number) { IN_MBR } else { 0 };
        table.set(number, &Entry { flags, ..entry }).unwrap();
    }
    for copy in [Copy::Backup, Copy::Primary] {
        table.write(&mut disk, copy, 502 * MIB / SECTOR).unwrap();
    }
    write_mbr(&mut disk, &table, 502 * MIB / SECTOR).unwrap();
    disk.resize(mib * MIB);
    (disk.written, disk.flushed) = (0, 0);
    disk
}

/// A disk after its first boot.
fn booted(mib: u64) -> (Fake, Prepared) {
    let mut disk = flashed(mib);
    let prepared = prepare(&mut disk, SLOT).unwrap();
    (disk.written, disk.flushed) = (0, 0);
    (disk, prepared)
}

fn labels(prepared: &Prepared) -> Vec<(u32, String, u64, u64)> {
    let row = |p: crate::partitions::Placed| (p.number, p.label, p.offset / MIB, p.length / MIB);
    prepared.placed().into_iter().map(row).collect()
}

#[test]
fn a_first_boot_lays_out_and_the_second_writes_nothing() {
    let (mut disk, first) = booted(8000);
    let expected =
        [("BOOT", 1, 40), ("ESP", 41, 160), ("root-a", 201, 768), ("root-b", 969, 768), ("data", 1737, 6262)];
    let expected: Vec<_> = expected.into_iter().zip(1..).map(|((l, o, n), i)| (i, l.to_owned(), o, n)).collect();
    assert_eq!(labels(&first), expected);
    assert!(first.repaired.is_empty() && first.slot_b());
    let second = prepare(&mut disk, SLOT).unwrap();
    assert_eq!((second, disk.written), (first, 0));
}

#[test]
fn an_image_on_a_disk_of_its_own_size_stays_as_it_is() {
    let (disk, prepared) = booted(502);
    assert_eq!((labels(&prepared).len(), prepared.slot_b(), disk.content()), (3, false, flashed(502).content()));
}

#[test]
fn a_disk_that_is_shorter_than_its_table_is_left_alone() {
    let mut disk = flashed(502);
    disk.resize(400 * MIB);
    let error = prepare(&mut disk, SLOT).unwrap_err();
    assert_eq!(format!("{error:#}"), "use the partition table: the disk is shorter than it says");
    assert_eq!(disk.written, 0);
}

/// A file system that the last owner left where data will be must not come back.
#[test]
fn the_place_of_the_data_partition_is_blank_before_the_table_has_it() {
    let mut disk = flashed(8000);
    let data = 1737 * MIB;
    for at in [0].into_iter().chain(ext4::COPIES) {
        disk.write(data + at, &[0xef; 4096]).unwrap();
    }
    disk.left = 2;
    prepare(&mut disk, SLOT).unwrap_err();
    let found = Table::read(&mut disk).unwrap();
    assert_eq!(found.table.partitions().len(), 3, "no table before the place is blank");
    disk.left = usize::MAX;
    prepare(&mut disk, SLOT).unwrap();
    for at in [0].into_iter().chain(ext4::COPIES) {
        assert_eq!(disk.bytes(data + at, 4096), [0; 4096], "{at}");
    }
    let content = ext4::content_by(|bytes, at| disk.read(data + at, bytes));
    assert_eq!(content.unwrap(), ext4::Content::Blank);
}

/// What firmware finds: the primary copy, else the one in the last sector.
fn firmware(disk: &mut Fake) -> usize {
    Table::read(disk).unwrap().table.partitions().len()
}

/// The power goes after each sector of a first boot, on a longer disk and on one of the image's size with room inside.
#[test]
fn a_power_cut_between_any_two_sectors_heals() {
    let (whole, expected) = booted(8000);
    let mut disk = flashed(8000);
    prepare(&mut disk, SLOT).unwrap();
    let (sectors, flushes) = (disk.written, disk.flushed);
    assert!(flushes >= 6, "each copy in two steps, the wipe and the MBR: {flushes}");
    for cut in 0..sectors {
        let mut disk = flashed(8000);
        disk.left = cut;
        prepare(&mut disk, SLOT).unwrap_err();
        disk.left = usize::MAX;
        assert!([3, 5].contains(&firmware(&mut disk)), "{cut}");
        let healed = prepare(&mut disk, SLOT).unwrap();
        assert_eq!(healed.entries, expected.entries, "{cut}");
        // The stale backup in the middle of the disk was never touched.
        assert_eq!(disk.content(), whole.content(), "{cut}");
    }
}

/// The power goes after each sector of a repair that comes together with a change of the layout.
#[test]
fn a_power_cut_in_a_repair_heals() {
    let damaged = || {
        let mut disk = flashed(8000);
        // The backup is at the end already, and data is not there yet.
        let sectors = 8000 * MIB / SECTOR;
        let table = Table::read(&mut disk).unwrap().table;
        table.write(&mut disk, Copy::Backup, sectors).unwrap();
        disk.flip(SECTOR + 40, 3);
        (disk.written, disk.flushed) = (0, 0);
        disk
    };
    let mut disk = damaged();
    let expected = prepare(&mut disk, SLOT).unwrap();
    assert_eq!(expected.repaired, ["partition table: primary copy"]);
    assert_eq!(expected.entries.len(), 5);
    let sectors = disk.written;
    for cut in 0..sectors {
        let mut disk = damaged();
        disk.left = cut;
        prepare(&mut disk, SLOT).unwrap_err();
        disk.left = usize::MAX;
        firmware(&mut disk);
        assert_eq!(prepare(&mut disk, SLOT).unwrap().entries, expected.entries, "{cut}");
    }
}

/// Every byte of both headers, and every 13th of the entries that are in use; a flipped bit is seen and undone.
#[test]
fn a_flipped_bit_in_either_copy_is_repaired() {
    let (disk, expected) = booted(8000);
    let whole = disk.content();
    let end = 8000 * MIB;
    let header = |at: u64| at..at + SECTOR;
    let array = |at: u64| (at..at + 5 * 128).chain([at + 128 * 128 - 1]);
    let primary = header(SECTOR).chain(array(2 * SECTOR).step_by(13)).map(|at| (at, "primary"));
    let backup = header(end - SECTOR).chain(array(end - 33 * SECTOR).step_by(13)).map(|at| (at, "backup"));
    for (at, copy) in primary.chain(backup) {
        let mut disk = disk.clone();
        disk.flip(at, (at % 8) as u8);
        let prepared = prepare(&mut disk, SLOT).unwrap();
        if let [text] = &prepared.repaired[..] {
            assert_eq!(*text, format!("partition table: {copy} copy"), "{at}");
        } else {
            panic!("{at}: {:?}", prepared.repaired);
        }
        assert_eq!((prepared.entries, disk.content()), (expected.entries.clone(), whole.clone()), "{at}");
    }
}

#[test]
fn a_flipped_bit_in_the_protective_mbr_is_repaired() {
    let (disk, _) = booted(8000);
    for at in 446..512 {
        let mut flipped = disk.clone();
        flipped.flip(at, 0);
        let prepared = prepare(&mut flipped, SLOT).unwrap();
        // The kernel does not look at the other bytes.
        let needed = [450, 454, 455, 456, 457, 510, 511].contains(&at);
        // A second record is its maker's wish, unless the first one is damaged.
        let kept = (462..510).contains(&at);
        assert_eq!(prepared.repaired, if needed { vec!["partition table: protective MBR"] } else { vec![] }, "{at}");
        assert_eq!(flipped.content() == disk.content(), !kept, "{at}");
    }
}

#[test]
fn partitions_of_a_boot_rom_are_in_the_mbr_at_every_boot() {
    let mut disk = flashed_with(8000, &[1, 2]);
    let record = |number: usize, disk: &Fake| {
        let record = &disk.content()[0].1[446 + (number - 1) * 16..][..16];
        let sectors = |at: usize| u64::from(u32::from_le_bytes(record[at..at + 4].try_into().unwrap()));
        (record[4], sectors(8) * SECTOR, sectors(12) * SECTOR)
    };
    prepare(&mut disk, SLOT).unwrap();
    let expected = [(0x0c, MIB, 40 * MIB), (0x0c, 41 * MIB, 160 * MIB), (0, 0, 0), (0xee, SECTOR, MIB - SECTOR)];
    assert_eq!([1, 2, 3, 4].map(|number| record(number, &disk)), expected);
    let whole = disk.content();
    for at in 446..512 {
        disk.flip(at, 0);
        assert_eq!(prepare(&mut disk, SLOT).unwrap().repaired, ["partition table: protective MBR"], "{at}");
        assert_eq!(disk.content(), whole, "{at}");
    }
    (disk.written, disk.flushed) = (0, 0);
    prepare(&mut disk, SLOT).unwrap();
    assert_eq!(disk.written, 0, "what is as it should be is not written again");
}

#[test]
fn both_copies_lost_is_an_error() {
    let (mut disk, _) = booted(8000);
    disk.flip(SECTOR, 0);
    disk.flip(8000 * MIB - SECTOR, 0);
    let text = format!("{:#}", prepare(&mut disk, SLOT).unwrap_err());
    assert_eq!(text, "read the partition table: there is none");
}

/// The crate `gpt` writes images, and is what the harness has read disks with.
#[test]
fn the_crate_gpt_reads_what_is_written_here_and_the_other_way_round() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(8000 * MIB).unwrap();
    let mbr = gpt::mbr::ProtectiveMBR::with_lb_size((8000 * MIB / SECTOR - 1) as u32);
    mbr.overwrite_lba0(&mut file.as_file()).unwrap();
    let mut table = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(gpt::disk::LogicalBlockSize::Lb512)
        .create_from_device(file.reopen().unwrap(), Some(Uuid::from_u128(7)))
        .unwrap();
    let entries = image().into_iter().map(|(number, entry)| {
        let kind = gpt::partition_types::Type { guid: entry.kind, os: gpt::partition_types::OperatingSystem::None };
        let (first_lba, last_lba) = (entry.first, entry.last);
        let (part_guid, flags, name) = (entry.id, entry.flags, entry.name);
        (number, gpt::partition::Partition { part_type_guid: kind, part_guid, first_lba, last_lba, flags, name })
    });
    table.update_partitions(entries.collect()).unwrap();
    table.write().unwrap();

    let mut disk = file.reopen().unwrap();
    let found = Table::read(&mut disk).unwrap();
    assert!(found.damaged.is_empty() && !found.grown && !found.mbr_damaged, "{:?}", found.damaged);
    assert_eq!(found.table.partitions(), image());
    let prepared = prepare(&mut disk, SLOT).unwrap();
    assert!(prepared.repaired.is_empty());
    let read = gpt::GptConfig::new().writable(false).open(file.path()).unwrap();
    let seen: Vec<_> = read.partitions().iter().filter(|(_, p)| p.is_used()).collect();
    assert_eq!(seen.len(), 5);
    for ((number, seen), (own_number, own)) in seen.into_iter().zip(&prepared.entries) {
        assert_eq!((number, seen.first_lba, seen.last_lba, &seen.name), (own_number, own.first, own.last, &own.name));
    }
    assert_eq!(read.primary_header().unwrap().crc32_parts, read.backup_header().unwrap().crc32_parts);
}
