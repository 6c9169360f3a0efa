// SPDX-License-Identifier: Apache-2.0
//! The firmware of a Raspberry Pi, as far as it decides what a disk starts: QEMU has the board, and no firmware for it
//! (documentation of Raspberry Pi: "config.txt", "autoboot.txt", "Boot flow").
//!
//! It reads the disk as the firmware does: the MBR, `autoboot.txt` on the first partition, and on the partition that this
//! or a restart names `config.txt`, `cmdline.txt`, kernel, initrd, device tree and overlays. What the firmware says of the
//! boot in the device tree, it says, too.

mod autoboot;
mod config;
mod device_tree;

pub use config::Config;

use crate::disk::DiskImage;
use anyhow::{Context, Result, ensure};
use firstboot::boot_partition::BootPartition;
use flate2::read::GzDecoder;
use imagebuild::disk::mbr;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A model, as the firmware knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// Filters of `config.txt` that hold for it, besides `all`.
    pub filters: &'static [&'static str],
    /// Its device tree among those of the upstream kernel.
    pub device_tree: &'static str,
    /// The program without which a partition is not bootable.
    pub firmware: &'static str,
    /// Whether its boot ROM reads `bootcode.bin` from the first partition, and an MBR only.
    pub rom_reads_disk: bool,
    /// When the boot loader in its EEPROM was built, seconds since 1970, where it has one.
    pub eeprom: Option<u32>,
    /// What QEMU's board has in another way than its device tree says: node, property and its value.
    pub emulated: &'static [(&'static str, &'static str, Value)],
}

/// A value of a property in a device tree (Devicetree Specification 2.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(&'static str),
    /// None: that it is there says all.
    Empty,
    /// The property is not there.
    Absent,
}

/// Raspberry Pi 3 B.
pub const PI_3B: Model = Model {
    filters: &["pi3"],
    device_tree: "bcm2837-rpi-3-b.dtb",
    firmware: "start.elf",
    rom_reads_disk: true,
    eeprom: None,
    emulated: &[],
};

/// A node that no driver looks at.
const OFF: Value = Value::Text("disabled");

/// Raspberry Pi 4 B.
pub const PI_4B: Model = Model {
    filters: &["pi4"],
    device_tree: "bcm2711-rpi-4-b.dtb",
    firmware: "start4.elf",
    rom_reads_disk: false,
    eeprom: Some(1_779_045_198),
    emulated: &[
        // The socket for power, of which the upstream kernel's tree makes a peripheral: all that QEMU has of USB.
        ("/soc/usb@7e980000", "dr_mode", Value::Text("host")),
        // QEMU has the card at the controller of the Wi-Fi.
        ("/soc/mmc@7e300000", "mmc-pwrseq", Value::Absent),
        ("/soc/mmc@7e300000", "non-removable", Value::Absent),
        ("/soc/mmc@7e300000", "broken-cd", Value::Empty),
        ("/emmc2bus/mmc@7e340000", "status", OFF),
        // The console: the interrupt of the port at the pins never ends in QEMU, and the other one is free of Bluetooth.
        ("/soc/serial@7e215040", "status", OFF),
        ("/soc/serial@7e201000/bluetooth", "status", OFF),
        // What QEMU does not have, and what a driver in the kernel reads at once.
        ("/soc/interrupt-controller@7ef00100", "status", OFF),
        ("/soc/i2c@7ef04500", "status", OFF),
        ("/soc/i2c@7ef09500", "status", OFF),
        ("/soc/hdmi@7ef00700", "status", OFF),
        ("/soc/hdmi@7ef05700", "status", OFF),
        ("/soc/clock@7ef00000", "status", OFF),
    ],
};

/// The partition that the register of restarts (PM_RSTS) names: a bit of the number in every other bit, from bit 0 on
/// (Linux, drivers/watchdog/bcm2835_wdt.c, as Raspberry Pi has it).
pub fn partition_in(register: u32) -> u32 {
    (0..6).map(|bit| (register >> (2 * bit) & 1) << bit).sum()
}

/// What that register names when the system is to be switched off.
pub const HALT: u32 = 63;

/// What the firmware starts.
#[derive(Debug)]
pub struct Boot {
    /// Number of the partition that it took everything from.
    pub partition: u32,
    /// The kernel, unpacked.
    pub kernel: Vec<u8>,
    /// The initrd, when the configuration names one.
    pub initrd: Option<Vec<u8>>,
    /// The device tree, with what the firmware adds.
    pub device_tree: Vec<u8>,
    /// The kernel's command line.
    pub command_line: String,
}

/// What this disk starts on this model. `asked`: the partition that the last restart named; 0 for none.
///
/// # Errors
/// Where the firmware of the model would start nothing, with the reason.
pub fn boot(disk: &DiskImage, model: &Model, serial: &str, asked: u32) -> Result<Boot> {
    let first = fat(disk, 1).context("read the first partition")?;
    if model.rom_reads_disk {
        needed(&first, "bootcode.bin", 1)?;
    }
    let named = |asked| match asked {
        0 => first.read("autoboot.txt").map(|text| autoboot::partition(&text.unwrap_or_default())),
        asked => Ok(asked),
    };
    let wanted = match named(asked)? {
        0 => first_bootable(disk, model)?,
        named => named,
    };
    let system = fat(disk, wanted).with_context(|| format!("read partition {wanted}, which is to be started"))?;
    needed(&system, model.firmware, wanted)?;
    let include = |name: &str| system.read(name).ok().flatten();
    let config = Config::parse(&needed(&system, "config.txt", wanted)?, model.filters, &include)?;
    let kernel = unpacked(needed(&system, &config.kernel, wanted)?)?;
    let initrd = config.initrd.as_ref().map(|name| needed(&system, name, wanted)).transpose()?;
    let name = config.device_tree.as_deref().unwrap_or(model.device_tree);
    let tree = needed(&system, name, wanted)?;
    let overlays = config.overlays.iter().map(|name| needed(&system, &format!("overlays/{name}.dtbo"), wanted));
    let overlays: Vec<Vec<u8>> = overlays.collect::<Result<_>>()?;
    let line = needed(&system, &config.command_line, wanted)?;
    let line = String::from_utf8(line).with_context(|| format!("decode {}", config.command_line))?;
    // Only the first line counts.
    let command_line = line.lines().next().unwrap_or_default().trim().to_owned();
    ensure!(!command_line.is_empty(), "read {}: its first line is empty", config.command_line);
    let said = device_tree::Said { serial, partition: wanted, eeprom: model.eeprom, emulated: model.emulated };
    let device_tree = device_tree::complete(&tree, &overlays, &said)?;
    Ok(Boot { partition: wanted, kernel, initrd, device_tree, command_line })
}

impl Boot {
    /// Writes what QEMU takes into `dir`: paths of kernel, initrd and device tree.
    ///
    /// # Errors
    /// When there is no initrd, or a file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<crate::args::Kernel> {
        let put = |name: &str, bytes: &[u8]| {
            let path = dir.join(name);
            std::fs::write(&path, bytes).with_context(|| format!("write {}", path.display())).map(|()| path)
        };
        let initrd = self.initrd.as_deref().context("start a kernel: config.txt names no initrd")?;
        Ok(crate::args::Kernel {
            kernel: put("kernel", &self.kernel)?,
            initrd: put("initrd", initrd)?,
            device_tree: Some(put("device-tree", &self.device_tree)?),
            command_line: self.command_line.clone(),
        })
    }
}

/// The first FAT partition with the program without which none is bootable.
fn first_bootable(disk: &DiskImage, model: &Model) -> Result<u32> {
    let is_bootable =
        |number: &u32| fat(disk, *number).is_ok_and(|fat| fat.read(model.firmware).is_ok_and(|f| f.is_some()));
    (1..=4).find(is_bootable).with_context(|| format!("find a partition with {}", model.firmware))
}

/// A FAT partition by its number in the MBR.
fn fat(disk: &DiskImage, number: u32) -> Result<BootPartition> {
    /// Types of FAT partitions that the firmware takes.
    const FATS: [u8; 6] = [0x01, 0x04, 0x06, 0x0b, 0x0c, 0x0e];
    ensure!((1..=4).contains(&number), "find partition {number}: an MBR has 1 to 4");
    let mut sector = [0; 512];
    let file = File::open(disk.path()).with_context(|| format!("open {}", disk.path().display()))?;
    file.read_exact_at(&mut sector, 0).context("read the MBR")?;
    let records = mbr::records(&sector).context("read the MBR: it has no signature")?;
    let record = &records[number as usize - 1];
    ensure!(
        FATS.contains(&record.kind),
        "find a FAT in partition {number} of the MBR: its type is {:#04x}",
        record.kind
    );
    BootPartition::open(disk.path(), record.offset, record.length)
}

fn needed(fat: &BootPartition, name: &str, partition: u32) -> Result<Vec<u8>> {
    fat.read(name)?.with_context(|| format!("find {name} on partition {partition}"))
}

/// A kernel as it runs: a compressed one is unpacked by the firmware.
fn unpacked(kernel: Vec<u8>) -> Result<Vec<u8>> {
    if !kernel.starts_with(&[0x1f, 0x8b]) {
        return Ok(kernel);
    }
    let mut out = Vec::new();
    GzDecoder::new(&kernel[..]).read_to_end(&mut out).context("unpack the kernel")?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_register_names_a_partition() {
        for (register, partition) in [(0x1000, 0), (0x1004, 2), (0x1005, 3), (0x555, HALT)] {
            assert_eq!(partition_in(register), partition, "{register:#x}");
        }
    }
}
