// SPDX-License-Identifier: Apache-2.0
//! The image finds its root behind every kind of disk controller. Boots 5 guests, so only `make test-long` runs it.

#![allow(clippy::unwrap_used)]

use qemu::args::Controller;
use qemu::device::{Device, Options};

fn boots_from(controller: Controller, serial: &str) {
    if !e2e::can_boot(e2e::own_arch()) {
        return;
    }
    let image = e2e::image(e2e::own_arch()).unwrap();
    let options = Options { controller, ..e2e::device_options(serial) };
    let mut device = Device::new(&image, &options).unwrap();
    device.power_on().unwrap();
    // User space runs, and has found the boot partition on the same disk.
    device.wait_status("state: waiting for a seed", e2e::SOON).unwrap();
}

#[test]
#[ignore = "boots a guest"]
fn virtio() {
    boots_from(Controller::Virtio, "virtio");
}

#[test]
#[ignore = "boots a guest"]
fn nvme() {
    boots_from(Controller::Nvme, "nvme");
}

#[test]
#[ignore = "boots a guest"]
fn ahci() {
    boots_from(Controller::Ahci, "ahci");
}

#[test]
#[ignore = "boots a guest"]
fn usb_storage() {
    boots_from(Controller::Usb, "usb");
}

#[test]
#[ignore = "boots a guest"]
fn sd_card() {
    boots_from(Controller::Sdhci, "sdhci");
}
