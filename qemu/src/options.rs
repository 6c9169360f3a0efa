// SPDX-License-Identifier: Apache-2.0
//! What an emulated device is to be.

use crate::args::{Controller, DiskLimits, Link, MAC};
use crate::board::Board;
use imagebuild::arch::Arch;
use imagebuild::target::{Bootloader, Target};

const GIB: u64 = 1 << 30;

/// Options of a device.
#[derive(Debug, Clone)]
pub struct Options {
    /// Architecture of its processors.
    pub arch: Arch,
    /// Disk size in bytes; the image is grown to it, as if flashed to a larger card.
    pub disk_size: u64,
    /// How the disk is attached.
    pub controller: Controller,
    /// Serial number of the system.
    pub serial: Option<String>,
    /// Number of processors.
    pub cpus: u8,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// systemd credentials handed over in memory: name and value.
    pub credentials: Vec<(String, String)>,
    /// Clock chip at power-on: `utc`, or a date such as `1970-01-01T00:00:00`.
    pub clock: String,
    /// Address of its network interface; several devices on one segment need different ones.
    pub mac: String,
    /// What its network interface is plugged into. A [`crate::link::Link`] has to outlive the device.
    pub link: Link,
    /// Guest ports to be reached from the build machine; only on a user network.
    pub guest_ports: Vec<u16>,
    /// What starts the operating system.
    pub start: Start,
    /// Text of `seed.toml` on a USB stick labelled `SEED` that is plugged in.
    pub stick: Option<String>,
    /// Text of `seed.toml` on a second disk labelled `SEED` that is built in.
    pub second_disk: Option<String>,
    /// Whether it has free USB ports for [`Device::plug_in`](crate::device::Device::plug_in).
    pub usb_ports: bool,
    /// How slow its disk is.
    pub disk_limits: Option<DiskLimits>,
    /// The board, where it is not a machine with UEFI: then processors, memory, clock and controllers are the board's.
    pub board: Option<Board>,
    /// Whether what it writes to its disk is recorded, each boot on its own:
    /// [`Device::recording`](crate::device::Device::recording).
    pub record: bool,
}

/// What starts the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The boot loader on the disk, as the firmware finds it.
    BootLoader,
    /// The firmware, with the kernel, initrd and command line that the disk's boot loader would take: for disks that
    /// the firmware has no driver for.
    Firmware,
    /// U-Boot in the place of UEFI, with what it finds on the disk.
    UBoot,
}

impl Options {
    /// What boots images of this target: a machine with UEFI, or what QEMU has of its boards.
    pub fn for_target(target: &Target) -> Self {
        let plain = Options::new(target.arch);
        match target.bootloader {
            Bootloader::SystemdBoot => plain,
            Bootloader::RaspberryPi => Options { board: Some(Board::RASPI3B), ..plain },
            Bootloader::Extlinux => Options { start: Start::UBoot, ..plain },
        }
    }

    /// An ordinary device: two processors, 2 GiB of memory, an 8 GiB disk, serial number `0001`.
    pub fn new(arch: Arch) -> Self {
        Options {
            arch,
            disk_size: 8 * GIB,
            controller: Controller::Virtio,
            serial: Some("0001".to_owned()),
            cpus: 2,
            memory_mib: 2048,
            credentials: Vec::new(),
            clock: "utc".to_owned(),
            mac: MAC.to_owned(),
            link: Link::User,
            guest_ports: Vec::new(),
            start: Start::BootLoader,
            stick: None,
            second_disk: None,
            usb_ports: false,
            disk_limits: None,
            board: None,
            record: false,
        }
    }
}
