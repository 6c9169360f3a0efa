// SPDX-License-Identifier: Apache-2.0
//! The search for the root on this machine, with disks that are files in a directory and a clock that only waiting moves.
#![allow(clippy::unwrap_used)]

use crate::command_line::{CommandLine, Root, Slot};
use crate::disks::{Found, Machine, find, is_read_only, partition_name};
use crate::layout::{LINUX_DATA, ROOT_ARM64};
use crate::medium::Medium;
use crate::table::{Copy, Entry, SECTOR, Table, write_mbr};
use crate::verity::tests::partition;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;
use uuid::Uuid;

/// Where a disk is in `/sys/devices`.
const INTERNAL: &str = "pci0000:00/0000:00:04.0/virtio1";
const USB: &str = "pci0000:00/0000:00:05.0/usb1/1-1/1-1:1.0/host2/target2:0:0/2:0:0:0";
const EMMC: &str = "platform/fe310000.mmc/mmc_host/mmc0/mmc0:0001";
const CARD: &str = "platform/fe2b0000.mmc/mmc_host/mmc1/mmc1:aaaa";
const NVME: &str = "pci0000:00/0000:00:06.0/nvme/nvme0";
/// First sector of the first partition; each has so many.
const PART: u64 = 256;

/// A machine with no disk, one second after power-on.
struct Fake {
    dir: tempfile::TempDir,
    clock: u64,
    said: Vec<String>,
    /// A disk that appears when the clock shows `late_at`.
    late: Option<(String, String, File)>,
    late_at: u64,
}

/// Partitions of a disk: name, and what it holds.
type Parts<'a> = &'a [(&'a str, &'a [u8])];

impl Fake {
    fn new() -> Fake {
        Fake { dir: tempfile::tempdir().unwrap(), clock: 1, said: vec![], late: None, late_at: 4 }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn image(parts: Parts) -> File {
        let mut file = tempfile::tempfile().unwrap();
        let sectors = PART * (parts.len() as u64 + 2);
        file.set_len(sectors * SECTOR).unwrap();
        let mut table = Table::new(Uuid::max());
        for (number, (name, bytes)) in (1..).zip(parts) {
            let first = PART * u64::from(number);
            let kind = if name.starts_with("root") { ROOT_ARM64 } else { LINUX_DATA };
            let (id, last) = (Uuid::from_u128(number.into()), first + PART - 1);
            table.set(number, &Entry { kind, id, first, last, flags: 0, name: (*name).to_owned() }).unwrap();
            file.write(first * SECTOR, bytes).unwrap();
        }
        for copy in [Copy::Primary, Copy::Backup] {
            table.write(&mut file, copy, sectors).unwrap();
        }
        write_mbr(&mut file, &table, sectors).unwrap();
        file
    }

    fn disk(&self, name: &str, place: &str, mut image: File) {
        fs::create_dir_all(self.at("dev")).unwrap();
        let mut node = File::create(self.at("dev").join(name)).unwrap();
        std::io::Seek::rewind(&mut image).unwrap();
        std::io::copy(&mut image, &mut node).unwrap();
        let device = self.at("sys/devices").join(place);
        let block = device.join("block").join(name);
        fs::create_dir_all(&block).unwrap();
        symlink(&device, block.join("device")).unwrap();
        fs::write(block.join("size"), format!("{}\n", node.metadata().unwrap().len() / SECTOR)).unwrap();
        for list in ["sys/block", "sys/class/block"] {
            fs::create_dir_all(self.at(list)).unwrap();
            symlink(&block, self.at(list).join(name)).unwrap();
        }
    }

    fn mmc_hosts(&self, names: &[&str]) {
        names.iter().for_each(|name| fs::create_dir_all(self.at("sys/class/mmc_host").join(name)).unwrap());
    }

    fn search(&mut self, root: &Root) -> Result<Found, String> {
        let line = CommandLine { root: root.clone(), slot: None, wait: Duration::from_secs(60), init: "/i".into() };
        find(self, &line).map_err(|error| format!("{error:#}"))
    }
}

impl Machine for Fake {
    fn sys(&self) -> PathBuf {
        self.at("sys")
    }

    fn dev(&self) -> PathBuf {
        self.at("dev")
    }

    fn now(&self) -> Duration {
        Duration::from_secs(self.clock)
    }

    fn load_drivers(&mut self) -> bool {
        false
    }

    fn wait(&mut self, most: Duration) {
        assert!(most <= Duration::from_secs(1) && most > Duration::ZERO);
        self.clock += 1;
        if self.clock == self.late_at
            && let Some((name, place, image)) = self.late.take()
        {
            self.disk(&name, &place, image);
        }
    }

    fn say(&mut self, line: &str) {
        self.said.push(line.to_owned());
    }
}

fn found(disk: &str, number: u32, usb: bool) -> Result<Found, String> {
    Ok(Found { disk: disk.to_owned(), number, usb })
}

const BOOT: (&str, &[u8]) = ("BOOT", b"x");

#[test]
fn the_only_root_is_taken_at_once() {
    let (bytes, root) = partition(3, Slot::A);
    let mut fake = Fake::new();
    fake.disk("vda", INTERNAL, Fake::image(&[BOOT, BOOT, ("root-a", &bytes)]));
    fake.disk("sda", USB, Fake::image(&[BOOT]));
    assert_eq!(fake.search(&root), found("vda", 3, false));
    assert_eq!((fake.clock, &fake.said[..]), (1, &[][..]), "nothing was waited for");
}

/// A device that runs from a USB disk: another one may still appear, so it is waited for.
#[test]
fn the_only_root_may_be_on_usb() {
    let (bytes, root) = partition(3, Slot::A);
    let mut fake = Fake::new();
    fake.disk("sda", USB, Fake::image(&[BOOT, ("root-a", &bytes)]));
    assert_eq!(fake.search(&root), found("sda", 2, true));
    assert_eq!(fake.clock, 6);
}

const ADVICE: &str = "remove the disk that is not this device's";

fn more(root: &Root, names: &str) -> String {
    format!("more than one disk has the root with hash {}...: {names}", &root.hex()[..16])
}

/// Anyone can write the image to a stick: it has the root hash, and data of its own.
#[test]
fn s08_a_stick_with_the_same_root_is_not_started() {
    let (bytes, root) = partition(3, Slot::A);
    let mut fake = Fake::new();
    fake.disk("sda", USB, Fake::image(&[BOOT, ("root-a", &bytes), ("data", b"x")]));
    fake.disk("vda", INTERNAL, Fake::image(&[("root-a", &bytes)]));
    assert_eq!(fake.search(&root), Err(ADVICE.to_owned()));
    assert_eq!(fake.said, [more(&root, "sda2 vda1")]);
}

/// The same where the device's own disk is slow.
#[test]
fn s08_a_stick_does_not_win_against_a_slow_disk() {
    let (bytes, root) = partition(3, Slot::A);
    let mut fake = Fake::new();
    fake.disk("sda", USB, Fake::image(&[("root-a", &bytes)]));
    fake.late = Some(("mmcblk0".into(), "platform/mmc0".into(), Fake::image(&[BOOT, ("root-b", &bytes)])));
    assert_eq!(fake.search(&root), Err(ADVICE.to_owned()));
    assert_eq!(fake.said, [more(&root, "mmcblk0p2 sda1")]);
}

/// A card that was left in the slot is found before the device's own disk: it must not be partitioned in its place.
#[test]
fn s08_a_card_in_the_slot_does_not_win_against_a_slow_disk() {
    let (bytes, root) = partition(3, Slot::A);
    for (name, place, names) in [("mmcblk0", EMMC, "mmcblk0p2 mmcblk1p1"), ("nvme0n1", NVME, "mmcblk1p1 nvme0n1p2")] {
        let mut fake = Fake::new();
        fake.mmc_hosts(&["mmc0", "mmc1"]);
        fake.disk("mmcblk1", CARD, Fake::image(&[("root-a", &bytes)]));
        let own = Fake::image(&[BOOT, ("root-a", &bytes), ("data", b"x")]);
        (fake.late, fake.late_at) = (Some((name.into(), place.into(), own)), 3);
        assert_eq!(fake.search(&root), Err(ADVICE.to_owned()));
        assert_eq!(fake.said, [more(&root, names)]);
    }
    // The other way round: the disk that was just written is the device's own.
    let mut fake = Fake::new();
    fake.mmc_hosts(&["mmc1"]);
    fake.disk("nvme0n1", NVME, Fake::image(&[("root-a", &bytes)]));
    (fake.late, fake.late_at) = (Some(("mmcblk1".into(), CARD.into(), Fake::image(&[("root-a", &bytes)]))), 2);
    assert_eq!(fake.search(&root), Err(ADVICE.to_owned()));
}

/// Only a disk that is about to be partitioned waits, and only where there is something to wait for.
#[test]
fn a_disk_in_the_device_waits_for_another_mmc_host_once() {
    let (bytes, root) = partition(3, Slot::A);
    let new = || Fake::image(&[("root-a", &bytes)]);
    let used = || Fake::image(&[("root-a", &bytes), ("data", b"x")]);
    for (hosts, image, clock) in [
        (&["mmc0", "mmc1"][..], new(), 3),
        (&["mmc0", "mmc1"][..], used(), 1),
        // Another name that begins alike.
        (&["mmc0", "mmc00"][..], new(), 3),
        (&["mmc0"][..], new(), 1),
        (&[][..], new(), 1),
    ] {
        let mut fake = Fake::new();
        fake.mmc_hosts(hosts);
        fake.disk("mmcblk0", EMMC, image);
        assert_eq!(fake.search(&root), found("mmcblk0", 1, false));
        assert_eq!((fake.clock, &fake.said[..]), (clock, &[][..]), "{hosts:?}");
    }
}

#[test]
fn s08_a_partition_of_another_type_is_no_root() {
    let (bytes, root) = partition(3, Slot::A);
    let mut fake = Fake::new();
    fake.disk("vda", INTERNAL, Fake::image(&[("data", &bytes)]));
    assert_eq!(fake.search(&root), Err("the root disk is missing, or needs a driver that this image lacks".to_owned()));
}

/// An upgrade may bring the root that is there already.
#[test]
fn of_two_slots_with_the_same_root_the_started_one_is_taken() {
    let (bytes, mut root) = partition(3, Slot::A);
    let mut fake = Fake::new();
    fake.disk("vda", INTERNAL, Fake::image(&[("root-b", &bytes), ("root-a", &bytes)]));
    assert_eq!(fake.search(&root), found("vda", 2, false));
    root.slot = Slot::B;
    assert_eq!(fake.search(&root), found("vda", 1, false));
    // The name is no condition: the hash is.
    let mut fake = Fake::new();
    fake.disk("vda", INTERNAL, Fake::image(&[BOOT, ("root-a", &bytes)]));
    assert_eq!(fake.search(&root), found("vda", 2, false));
}

#[test]
fn slots_with_other_roots_are_passed_over() {
    let (a, _) = partition(3, Slot::A);
    let (b, root) = partition(5, Slot::B);
    let mut fake = Fake::new();
    fake.disk("vda", INTERNAL, Fake::image(&[("root-a", &a), ("root-b", &b)]));
    assert_eq!(fake.search(&root), found("vda", 2, false));
}

#[test]
fn a_damaged_root_is_reported_soon() {
    let (mut bytes, root) = partition(300, Slot::A);
    let at = crate::verity::top(300) as usize;
    bytes[at + 5] ^= 1;
    let mut fake = Fake::new();
    // Too long for a partition of the fake: only the top block matters, and it is in the next one.
    fake.disk("vda", INTERNAL, Fake::image(&[("root-a", &bytes[..1]), ("x", b"")]));
    assert_eq!(fake.search(&root), Err("write the image again if this goes on".to_owned()));
    let hash = &root.hex()[..16];
    let looking = format!("looking for the root with hash {hash}...; so far: vda");
    let damaged = format!("/dev/vda1 is damaged, or of another image: its root hash is not {hash}...");
    assert_eq!((fake.clock, &fake.said[..]), (11, &[looking, damaged][..]));
}

/// A stick with another image does not shorten the wait for the device's own disk.
#[test]
fn a_damaged_root_on_usb_is_waited_past() {
    let (bytes, root) = partition(3, Slot::A);
    let mut fake = Fake::new();
    fake.disk("sda", USB, Fake::image(&[("root-a", b"other")]));
    fake.late = Some(("vda".into(), INTERNAL.into(), Fake::image(&[("root-a", &bytes)])));
    assert_eq!(fake.search(&root), found("vda", 1, false));
    assert_eq!(fake.clock, 4);
}

#[test]
fn a_machine_without_a_root_says_what_it_sees() {
    let (_, root) = partition(3, Slot::A);
    let mut fake = Fake::new();
    assert_eq!(fake.search(&root), Err("the root disk is missing, or needs a driver that this image lacks".to_owned()));
    let hash = &root.hex()[..16];
    let looking = format!("looking for the root with hash {hash}...; so far: none");
    let none = format!("no root with hash {hash}... within 60 s; disks and partitions seen: none");
    assert_eq!((fake.clock, &fake.said[..]), (61, &[looking, none][..]));
}

/// The kernel does not look at the backup copy, but it is looked at here.
#[test]
fn a_disk_with_one_copy_of_its_table_has_a_root() {
    let (bytes, root) = partition(3, Slot::A);
    let mut image = Fake::image(&[("root-a", &bytes)]);
    image.write(SECTOR, &[0; 512]).unwrap();
    let mut fake = Fake::new();
    fake.disk("vda", INTERNAL, image);
    assert_eq!(fake.search(&root), found("vda", 1, false));
}

#[test]
fn names_and_write_protection() {
    assert_eq!(partition_name("vda", 12), "vda12");
    assert_eq!(partition_name("nvme0n1", 3), "nvme0n1p3");
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("block/sda")).unwrap();
    assert!(!is_read_only(dir.path(), "sda"));
    fs::write(dir.path().join("block/sda/ro"), "1\n").unwrap();
    assert!(is_read_only(dir.path(), "sda"));
}
