// SPDX-License-Identifier: Apache-2.0
//! Bytes of the card that changed, anywhere in what is verified: none is ever used, and each is reported with its place.
//! Boots one guest, and firmware without an operating system 40 times.

#![allow(clippy::unwrap_used)]

use e2e::{SOON, WAITS, device_options, own_arch};
use imagebuild::arch::Arch;
use initrd::command_line::CommandLine;
use initrd::verity::{BLOCK, tree_blocks};
use qemu::device::{Device, Options};
use qemu::disk::ROOT;
use std::collections::BTreeSet;
use std::time::Duration;

/// Flipped bytes of data; most of an image is data.
const IN_DATA: usize = 1000;
/// Flipped bytes in the lowest level of hashes, each of which vouches for 128 blocks.
const IN_HASHES: usize = 20;
const DIGESTS: u64 = 128;
/// Flipped bytes of the kernel image, each of which costs a start of the firmware.
const IN_KERNEL_IMAGE: usize = 40;
/// All of a root, block by block, by an emulated processor.
const READ: Duration = Duration::from_secs(1800);
const UNIT: &str = "[Service]\nExecStart=/bin/sh /etc/flips.sh\n";
/// Reads the verified root past all caches, once a stick is pulled out: plugging one in would load its drivers from the
/// root. The programs that it takes are in memory by then, as are those of systemd, which notices that as well: a flipped
/// byte in one of them would end it. dd says how many blocks it has read so far whenever it skips one, and at its end.
const SCRIPT: &str = r#"
until [ -b /dev/sda ]; do sleep 1; done
cat /usr/bin/sh /usr/bin/dd /usr/bin/sed /usr/bin/paste /usr/bin/fold /usr/bin/sleep /usr/bin/udevadm \
  /usr/lib/systemd/systemd /usr/lib/systemd/*.so /usr/lib/*/systemd/*.so /usr/lib/*/*.so.* >/dev/null
echo 'flips: ready' >/dev/console
while [ -b /dev/sda ]; do sleep 1; done
dd if=/dev/dm-0 of=/dev/null bs=4096 iflag=direct conv=noerror 2>/run/flips
sed -n 's/^\([0-9]*\)+0 records in$/\1/p' /run/flips | paste -s -d, | fold -w 200 | sed 's/^/flips: /' >/dev/console
echo 'flips: over' >/dev/console
"#;

fn random() -> fastrand::Rng {
    let seed = fastrand::u64(..);
    println!("random choices come from seed {seed}");
    fastrand::Rng::with_seed(seed)
}

#[test]
#[ignore = "long: reads the whole root in a guest"]
fn no_flipped_byte_of_the_root_is_read() {
    if !e2e::can_boot(own_arch()) {
        return;
    }
    let mut random = random();
    let image = e2e::image(own_arch()).unwrap();
    let mut device = Device::new(&image, &Options { usb_ports: true, ..device_options("flips") }).unwrap();
    device.disk().prepare_data().unwrap();
    let wanted = "/etc/systemd/system/multi-user.target.wants/flips.service";
    device.disk().write_file("/etc/flips.sh", SCRIPT.as_bytes(), 0o755).unwrap();
    device.disk().write_file("/etc/systemd/system/flips.service", UNIT.as_bytes(), 0o644).unwrap();
    device.disk().link_file(wanted, "../flips.service").unwrap();
    let line = device.disk().boot_entry().unwrap().command_line;
    let blocks = CommandLine::parse(&line).unwrap().root.blocks;
    device.power_on().unwrap();
    device.wait_console(WAITS, SOON).unwrap();
    device.plug_in("go", &[]).unwrap();
    device.wait_console("flips: ready", SOON).unwrap();

    // The tree is after the data and one block with the superblock; its lowest level is at its end.
    let lowest = blocks.div_ceil(DIGESTS);
    let level = blocks + 1 + tree_blocks(blocks) - lowest;
    let (mut data, mut groups) = (BTreeSet::new(), BTreeSet::new());
    let mut bytes = Vec::new();
    for _ in 0..IN_DATA {
        let block = random.u64(..blocks);
        bytes.push(block * BLOCK + random.u64(..BLOCK));
        data.insert(block);
    }
    for _ in 0..IN_HASHES {
        // The last block of the level is not full.
        let block = random.u64(..lowest - 1);
        bytes.push((level + block) * BLOCK + random.u64(..BLOCK));
        groups.insert(block);
    }
    // Twice the same byte would be whole again.
    bytes.sort_unstable();
    bytes.dedup();
    let flip = |disk: &qemu::disk::DiskImage| {
        let root = disk.partition(ROOT)?;
        bytes.iter().try_for_each(|at| disk.flip_at(root.offset + at))
    };
    device.while_paused(flip).unwrap();
    device.pull_out("go").unwrap();
    device.wait_console("flips: over", READ).unwrap();

    let text = device.console().text().unwrap();
    let said: String = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("flips: "))
        .filter(|w| !["ready", "over"].contains(w))
        .collect();
    let counts: Vec<u64> = said.split(',').map(|count| count.trim().parse().unwrap()).collect();
    // Blocks read before each that was not, and at the end.
    let (all, before) = counts.split_last().unwrap();
    let skipped: BTreeSet<u64> = before.iter().zip(0..).map(|(read, skipped)| read + skipped).collect();
    // A block of hashes that the kernel had verified before it was changed is still in its memory: its blocks are read, and
    // are good. One that it reads anew costs all of its blocks.
    let of = |group: &u64| group * DIGESTS..(group + 1) * DIGESTS;
    let (lost, kept): (Vec<u64>, Vec<u64>) = groups.iter().partition(|group| of(group).all(|b| skipped.contains(&b)));
    assert!(!lost.is_empty(), "no block of hashes was read anew: {kept:?}");
    let expected: BTreeSet<u64> = data.into_iter().chain(lost.iter().flat_map(of)).collect();
    assert_eq!(skipped, expected);
    assert_eq!(all + skipped.len() as u64, blocks);
}

fn no_flipped_byte_of_the_kernel_image_is_run(arch: Arch) {
    if !e2e::can_boot(arch) {
        return;
    }
    let mut random = random();
    let image = e2e::image(arch).unwrap();
    for _ in 0..IN_KERNEL_IMAGE / 2 {
        let mut device = Device::new(&image, &Options { arch, ..device_options("flips") }).unwrap();
        let at = device.disk().flip_boot_image(random.u64(..)).unwrap();
        device.power_on().unwrap();
        let line = device.wait_console("firstboot: \\EFI\\firstboot\\a.efi", SOON).unwrap();
        assert!(
            line.contains("a.efi is damaged: SHA-256 is not the one that the boot entry names"),
            "byte {at}: {line}"
        );
        device.power_cut().unwrap();
        // A kernel or an initrd would say more than that.
        let text = device.console().text().unwrap();
        assert!(!text.contains("initrd: ") && !text.contains("Linux version"), "byte {at}: {text}");
    }
}

#[test]
#[ignore = "long: twenty starts of the firmware"]
fn amd64_runs_no_flipped_byte_of_the_kernel_image() {
    no_flipped_byte_of_the_kernel_image_is_run(Arch::Amd64);
}

#[test]
#[ignore = "long: twenty starts of the firmware"]
fn arm64_runs_no_flipped_byte_of_the_kernel_image() {
    no_flipped_byte_of_the_kernel_image_is_run(Arch::Arm64);
}
