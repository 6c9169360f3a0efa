// SPDX-License-Identifier: Apache-2.0
//! The whole way of a Raspberry Pi 3 B: its firmware is played by the harness, the rest is the board that QEMU emulates.
//! Boots 1 guest.

#![allow(clippy::unwrap_used)]

use imagebuild::arch::Arch;
use qemu::args::Board;
use qemu::control_plane::{ControlPlane, is_ready};
use qemu::device::Options;
use qemu::disk::DiskImage;
use qemu::progress::Progress;
use qemu::seed::secret_of;
use qemu::{scenario, search};

#[test]
fn a_raspberry_pi_3_joins_by_itself() {
    if !e2e::can_boot(Arch::Arm64) {
        return;
    }
    let image = DiskImage::open(&qemu::image_of("raspberrypi").unwrap()).unwrap();
    let plane = ControlPlane::start(&Default::default()).unwrap();
    let serial = Some("00000000abcd1234".to_owned());
    let options = Options { serial, board: Some(Board::RASPI3B), ..Options::new(Arch::Arm64) };
    let (device, token) = scenario::seeded(&plane, &image, &options).unwrap();
    let mut joined = scenario::join(&plane, device, token, &mut Progress::default()).unwrap();
    assert_eq!(joined.name, "edge-00000000abcd1234");
    assert!(is_ready(&joined.node));
    // A board has no power button, and its seed is gone for good by then.
    joined.device.power_cut().unwrap();
    let disk = joined.device.disk();
    assert!(!disk.seed_present().unwrap());
    assert_eq!(search::find(disk.path(), secret_of(&joined.token)).unwrap(), [0; 0]);
    assert_eq!(e2e::status_value(&disk.status().unwrap(), "state"), "joined");
}
