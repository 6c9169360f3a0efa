// SPDX-License-Identifier: Apache-2.0
//! The whole way of boards without UEFI: one whose firmware the harness plays, and one with U-Boot. Boots 2 guests.

#![allow(clippy::unwrap_used)]

use imagebuild::arch::Arch;
use qemu::board::Board;
use qemu::control_plane::{ControlPlane, is_ready};
use qemu::device::{Options, Start};
use qemu::disk::DiskImage;
use qemu::progress::Progress;
use qemu::seed::secret_of;
use qemu::{firmware, raspberry_pi, scenario, search};

const SERIAL: &str = "00000000abcd1234";

/// A device of this target joins, and its disk has no seed and no token then. Returns the node's name.
fn joins(target: &str, options: &Options) -> String {
    let image = DiskImage::open(&qemu::image_of(target).unwrap()).unwrap();
    let plane = ControlPlane::start(&Default::default()).unwrap();
    let (device, token) = scenario::seeded(&plane, &image, options).unwrap();
    let mut joined = scenario::join(&plane, device, token, &mut Progress::default()).unwrap();
    assert!(is_ready(&joined.node));
    // A board may have no power button, and its seed is gone for good by then.
    joined.device.power_cut().unwrap();
    let disk = joined.device.disk();
    assert!(!disk.seed_present().unwrap());
    assert_eq!(search::find(disk.path(), secret_of(&joined.token)).unwrap(), [0; 0]);
    assert_eq!(e2e::status_value(&disk.status().unwrap(), "state"), "joined");
    joined.name
}

#[test]
fn a_raspberry_pi_3_joins_by_itself() {
    if !e2e::can_boot(Arch::Arm64) {
        return;
    }
    let options = Options { serial: Some(SERIAL.to_owned()), board: Some(Board::RASPI3B), ..Options::new(Arch::Arm64) };
    assert_eq!(joins("raspberrypi", &options), format!("edge-{SERIAL}"));
}

#[test]
#[ignore = "long: an image of its own"]
fn a_board_with_u_boot_joins_by_itself() {
    if !e2e::can_boot(Arch::Arm64) {
        return;
    }
    if let Err(why) = firmware::u_boot() {
        return e2e::skip::skip_unless_ci(&why.to_string());
    }
    let options = Options { start: Start::UBoot, ..Options::new(Arch::Arm64) };
    // The board says no serial number, so the name is of its network interface, or of chance.
    assert!(joins("uboot-arm64", &options).starts_with("edge-"));
}

/// What the firmware of each model takes from an image; nothing is booted.
#[test]
fn the_firmware_of_each_model_finds_what_it_starts() {
    if !e2e::can_boot(Arch::Arm64) {
        return;
    }
    let image = DiskImage::open(&qemu::image_of("raspberrypi").unwrap()).unwrap();
    for model in [&raspberry_pi::PI_3B, &raspberry_pi::PI_4B] {
        let boot = raspberry_pi::boot(&image, model, SERIAL, false).unwrap();
        assert_eq!(boot.partition, 2);
        assert!(boot.command_line.starts_with("firstboot.root="), "{}", boot.command_line);
        // An arm64 kernel image (Linux, Documentation/arch/arm64/booting.rst).
        assert_eq!(&boot.kernel[56..60], b"ARM\x64");
        assert!(boot.device_tree.windows(SERIAL.len()).any(|bytes| bytes == SERIAL.as_bytes()));
        // Slot B is empty in an image: trying it starts nothing.
        let error = format!("{:#}", raspberry_pi::boot(&image, model, SERIAL, true).unwrap_err());
        assert_eq!(error, format!("find {} on partition 3", model.firmware));
    }
}
