// SPDX-License-Identifier: Apache-2.0
//! The whole way of boards without UEFI: one whose firmware the harness plays, and one with U-Boot. Boots 2 guests.

#![allow(clippy::unwrap_used)]

use imagebuild::arch::Arch;
use imagebuild::target::Target;
use qemu::board::Board;
use qemu::control_plane::{ControlPlane, is_ready};
use qemu::device::Options;
use qemu::disk::DiskImage;
use qemu::progress::Progress;
use qemu::{firmware, pods, raspberry_pi, scenario};

const SERIAL: &str = "00000000abcd1234";

/// A device of this target joins, runs pods, and its disk has no seed and no token then. Returns the node's name.
/// `board`: another one of the target's than is its default.
fn joins(target: &str, serial: &str, board: Option<Board>) -> String {
    let defaults = Options::for_target(&Target::load(target).unwrap());
    let image = DiskImage::open(&qemu::image_of(target).unwrap()).unwrap();
    let plane = ControlPlane::start(&Default::default()).unwrap();
    pods::create(&plane).unwrap();
    let options = Options {
        serial: Some(serial.to_owned()),
        guest_ports: vec![pods::PORT],
        board: board.or(defaults.board),
        ..defaults
    };
    let (device, token) = scenario::seeded(&plane, &image, &options).unwrap();
    let mut joined = scenario::join(&plane, device, token, &mut Progress::default()).unwrap();
    assert!(is_ready(&joined.node));
    joined.prove(&plane).unwrap();
    let left = joined.switch_off_and_search().unwrap();
    assert!(!left.seed_present);
    assert_eq!(left.token_at, [0; 0]);
    assert_eq!(e2e::status_value(&left.status, "state"), "joined");
    joined.name
}

#[test]
fn a_raspberry_pi_3_joins_by_itself() {
    if !e2e::can_boot(Arch::Arm64) {
        return;
    }
    assert_eq!(joins("raspberrypi", SERIAL, None), format!("edge-{SERIAL}"));
}

#[test]
#[ignore = "long"]
fn a_raspberry_pi_4_joins_by_itself() {
    if !e2e::can_boot(Arch::Arm64) {
        return;
    }
    assert_eq!(joins("raspberrypi", SERIAL, Some(Board::RASPI4B)), format!("edge-{SERIAL}"));
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
    // The board says no serial number, so the name is of its network interface, or of chance.
    assert!(joins("uboot-arm64", SERIAL, None).starts_with("edge-"));
}

/// What the firmware of each model takes from an image; nothing is booted.
#[test]
fn the_firmware_of_each_model_finds_what_it_starts() {
    if !e2e::can_boot(Arch::Arm64) {
        return;
    }
    let image = DiskImage::open(&qemu::image_of("raspberrypi").unwrap()).unwrap();
    for model in [&raspberry_pi::PI_3B, &raspberry_pi::PI_4B] {
        let boot = raspberry_pi::boot(&image, model, SERIAL, 0).unwrap();
        assert_eq!(boot.partition, 2);
        assert!(boot.command_line.starts_with("firstboot.root="), "{}", boot.command_line);
        // An arm64 kernel image (Linux, Documentation/arch/arm64/booting.rst).
        assert_eq!(&boot.kernel[56..60], b"ARM\x64");
        assert!(boot.device_tree.windows(SERIAL.len()).any(|bytes| bytes == SERIAL.as_bytes()));
        let built = 1_779_045_198u32.to_be_bytes();
        assert_eq!(boot.device_tree.windows(4).any(|bytes| bytes == built), model.eeprom.is_some());
        // Slot B is empty in an image: a restart into it starts nothing.
        let error = format!("{:#}", raspberry_pi::boot(&image, model, SERIAL, 3).unwrap_err());
        assert_eq!(error, format!("find {} on partition 3", model.firmware));
    }
}
