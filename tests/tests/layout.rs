// SPDX-License-Identifier: Apache-2.0
//! What the initrd makes of a disk: its partitions at the first boot, the same ones at the next, and what becomes of them
//! when the table, the data or the root is damaged. Boots 3 guests, 7 times in all; none of them joins.

#![allow(clippy::unwrap_used)]

use e2e::{OFF, SOON, device_options, found, own_arch, root_is_as_flashed, status_value};
use imagebuild::arch::Arch;
use imagebuild::disk::GptEntry;
use imagebuild::target::{Role, Target};
use initrd::command_line::{CommandLine, Slot};
use initrd::report::{Boot, State};
use initrd::table::Table;
use initrd::verity;
use qemu::args::Controller;
use qemu::device::{Device, Options, Start};
use qemu::disk::{DATA, DiskImage, ESP, ROOT, SECOND_SLOT};
use std::fs::File;

const MIB: u64 = 1 << 20;
/// Bytes of a group of blocks, each of which may begin with a copy of the superblock.
const GROUP: u64 = 128 * MIB;
/// Smaller than usual, with room for both slots and data.
const DISK: u64 = 4 << 30;

/// What the initrd says before it does.
const MAKING: &str = "making the file system of the data partition";

/// Leaves the initrd's report of each boot where it can be read once the device is off.
const SCRIPT: &str = "mkdir -p /var/lib/firstboot-test\ncp /run/firstboot/boot.json /var/lib/firstboot-test/boot.json\nsync\n\
                      echo \"test: boot.json kept\"\n";

#[test]
fn generic_amd64_lays_out_its_disk() {
    lays_out_its_disk(Arch::Amd64);
}

#[test]
fn generic_arm64_lays_out_its_disk() {
    lays_out_its_disk(Arch::Arm64);
}

fn lays_out_its_disk(arch: Arch) {
    if !e2e::can_boot(arch) {
        return;
    }
    let image = e2e::image(arch).unwrap();
    let options = Options { disk_size: DISK, arch, ..device_options("layout") };
    let mut device = Device::new(&image, &options).unwrap();
    // Nothing is prepared: the first boot makes all of it.
    until_it_waits(&mut device);
    assert_eq!(said(&device), ["root is /dev/vda3", MAKING, "filling /var", "data is created"]);
    device.power_off(OFF).unwrap();
    let first = partitions(device.disk());
    as_the_target_says(&image, &first, arch);
    assert!(root_is_as_flashed(&image, device.disk()).unwrap());

    if arch != own_arch() {
        // What follows is the same code: another boot of an emulated foreign processor would show nothing more.
        return;
    }
    // The next boot finds everything, and writes no table.
    e2e::add_script(device.disk(), SCRIPT).unwrap();
    let boot = next(&mut device);
    let kept = Boot {
        version: 1,
        slot: Slot::A,
        root: "/dev/vda3".to_owned(),
        data: Some("/dev/vda5".to_owned()),
        state: State::Kept,
        reason: None,
        repaired: vec![],
        slot_b: true,
    };
    assert_eq!(boot, kept);
    assert_eq!(partitions(device.disk()), first);
    damaged(&image, &mut device, &first, &kept);
}

/// Boots with damage, one kind after another.
fn damaged(image: &DiskImage, device: &mut Device, first: &[(u32, GptEntry)], kept: &Boot) {
    // The first copy of the table: header and entries. EDK2 would repair it, so the disk is one that EDK2 has no driver for.
    let as_card =
        Options { controller: Controller::Sdhci, start: Start::Firmware, disk_size: 0, ..device_options("card") };
    let mut card = Device::new(device.disk(), &as_card).unwrap();
    card.disk().damage(512, &[0; 33 * 512]).unwrap();
    let boot = next(&mut card);
    let node = |number| format!("/dev/mmcblk0p{number}");
    let repaired = vec!["partition table: primary copy".to_owned()];
    assert_eq!(boot, Boot { root: node(3), data: Some(node(5)), repaired, ..kept.clone() });
    assert_eq!(said(&card), ["root is /dev/mmcblk0p3", "repaired: partition table: primary copy"]);
    assert_eq!(partitions(card.disk()), first);
    let status = card.disk().status().unwrap();
    assert!(status.contains("warning: Damage: repaired: partition table: primary copy"), "{status}");
    drop(card);

    // The superblock of the data partition and all copies of it: nothing can be repaired, so all is lost. With it the unit
    // that keeps boot.json.
    let data = device.disk().data().unwrap();
    device.disk().damage(data.offset + 1024, &[0; 1024]).unwrap();
    for group in 1..data.length.div_ceil(GROUP) {
        device.disk().damage(data.offset + group * GROUP, &[0; 4096]).unwrap();
    }
    until_it_waits(device);
    device.power_off(OFF).unwrap();
    let why = "the data partition holds no file system";
    let last = ["root is /dev/vda3", MAKING, "filling /var", &format!("data is recreated: {why}")].map(str::to_owned);
    assert!(said(device).ends_with(&last), "{:#?}", said(device));
    let status = device.disk().status().unwrap();
    let lost = format!("warning: Data: the data partition could not be used, and an empty one took its place: {why}");
    assert!(status.contains(&lost), "{status}");
    assert_eq!(status_value(&status, "state"), "waiting for a seed");
    assert_eq!(partitions(device.disk()), first);
    device.disk().check_data().unwrap();
    assert!(root_is_as_flashed(image, device.disk()).unwrap());

    // The top of the hash tree: this is not the root that the kernel was built for.
    let line = CommandLine::parse(&image.boot_entry().unwrap().command_line).unwrap();
    let top = device.disk().partition(ROOT).unwrap().offset + verity::top(line.root.blocks);
    device.disk().flip_at(top + 7).unwrap();
    device.power_on().unwrap();
    let refused =
        format!("/dev/vda3 is damaged, or of another image: its root hash is not {}...", &line.root.hex()[..16]);
    let restarts = "write the image again if this goes on; starting over in 30 s".to_owned();
    // It says so again, after a restart.
    qemu::wait::until("the initrd to start over", SOON, || {
        device.check()?;
        Ok((device.console().count(&refused)? > 1).then_some(()))
    })
    .map_err(|e| e.context(device.report()))
    .unwrap();
    let said = said(device);
    assert!(said.windows(2).any(|two| *two == [refused.clone(), restarts.clone()]), "{said:#?}");
    device.power_cut().unwrap();
}

/// Switches a device on that has [`SCRIPT`], and off again once it waits for a seed. What the initrd reported.
fn next(device: &mut Device) -> Boot {
    let kept = once_more(device, "test: boot.json kept");
    until_it_waits(device);
    kept(device);
    device.power_off(OFF).unwrap();
    serde_json::from_str(&found(device, "boot.json").unwrap()).unwrap()
}

/// Switches a device on and waits until it has said that it waits for a seed.
fn until_it_waits(device: &mut Device) {
    let waits = once_more(device, e2e::WAITS);
    device.power_on().unwrap();
    waits(device);
}

/// Waits until the console shows `text` once more than now.
fn once_more(device: &Device, text: &str) -> impl FnOnce(&Device) + use<> {
    let (text, before) = (text.to_owned(), device.console().count(text).unwrap());
    move |device| {
        let shown = qemu::wait::until(&format!("`{text}` on the console, again"), SOON, || {
            device.check()?;
            Ok((device.console().count(&text)? > before).then_some(()))
        });
        shown.map_err(|e| e.context(device.report())).unwrap();
    }
}

/// What the initrd has said, in all boots.
fn said(device: &Device) -> Vec<String> {
    let text = device.console().text().unwrap();
    text.lines().filter_map(|line| line.split_once("initrd: ")).map(|(_, said)| said.trim().to_owned()).collect()
}

/// The table of a disk; both its copies and the protective MBR are good.
fn partitions(disk: &DiskImage) -> Vec<(u32, GptEntry)> {
    let found = Table::read(&mut File::open(disk.path()).unwrap()).unwrap();
    assert_eq!((found.damaged, found.grown, found.mbr_damaged), (vec![], false, false));
    // By another reader.
    imagebuild::disk::partitions(disk.path()).unwrap().into_iter().collect()
}

/// Five partitions: two slots of the target's size, and data to the end of the disk.
fn as_the_target_says(image: &DiskImage, made: &[(u32, GptEntry)], arch: Arch) {
    let target = Target::load(&format!("generic-{arch}")).unwrap();
    let slot = target.partition(Role::RootA).unwrap().slot_mib.unwrap() * MIB;
    let root = image.partition(ROOT).unwrap();
    let entry = |name: &str, offset, length| GptEntry { name: name.to_owned(), offset, length };
    let data = root.offset + 2 * slot;
    let wanted = [
        (1, image.partition(1).unwrap()),
        (ESP, image.partition(ESP).unwrap()),
        (ROOT, entry("root-a", root.offset, slot)),
        (4, entry(SECOND_SLOT, root.offset + slot, slot)),
        // The backup of the table takes less than the last MiB.
        (5, entry(DATA, data, DISK - MIB - data)),
    ];
    assert_eq!(made, wanted);
    assert!(root.length < slot, "the image is not smaller than its slot");
}
