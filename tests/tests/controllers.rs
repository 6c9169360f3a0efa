// SPDX-License-Identifier: Apache-2.0
//! The image finds its root behind every kind of disk controller. Boots 5 guests, so only `make test-long` runs it.

#![allow(clippy::unwrap_used)]

use qemu::args::Controller;
use qemu::device::{Device, Options, Start};

fn boots_from(controller: Controller, start: Start, serial: &str, root: &str) {
    if !e2e::can_boot(e2e::own_arch()) {
        return;
    }
    let image = e2e::image(e2e::own_arch()).unwrap();
    let options = Options { controller, start, ..e2e::device_options(serial) };
    let mut device = Device::new(&image, &options).unwrap();
    device.power_on().unwrap();
    let line = device.wait_console("initrd: root is ", e2e::SOON).unwrap();
    assert_eq!(line.trim(), format!("initrd: root is {root}"));
    // User space runs, and has found the boot partition on the same disk.
    device.wait_status("state: waiting for a seed", e2e::SOON).unwrap();
}

#[test]
#[ignore = "boots a guest"]
fn virtio() {
    boots_from(Controller::Virtio, Start::BootLoader, "virtio", "/dev/vda3");
}

#[test]
#[ignore = "boots a guest"]
fn nvme() {
    boots_from(Controller::Nvme, Start::BootLoader, "nvme", "/dev/nvme0n1p3");
}

#[test]
#[ignore = "boots a guest"]
fn ahci() {
    boots_from(Controller::Ahci, Start::BootLoader, "ahci", "/dev/sda3");
}

#[test]
#[ignore = "boots a guest"]
fn usb_storage() {
    boots_from(Controller::Usb, Start::BootLoader, "usb", "/dev/sda3");
}

/// The emulator's firmware has no driver for SD cards: it gets what the boot loader on the card would start, from
/// memory.
#[test]
#[ignore = "boots a guest"]
fn sd_card() {
    boots_from(Controller::Sdhci, Start::Firmware, "sdhci", "/dev/mmcblk0p3");
}
