// SPDX-License-Identifier: Apache-2.0
//! Finds the partitions that may contain the seed: on the boot partition, or on a stick.
#![allow(clippy::disallowed_methods)] // reads block devices, changes nothing

use super::partition::BootPartition;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Label of a stick, which is carried from device to device.
pub const STICK_LABEL: &str = "SEED";

/// How many partitions of a stick are looked at: a look at each takes its time, and a stick may have hundreds.
const MOST_PARTITIONS: usize = 8;

/// A partition that may contain a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file system.
    pub partition: BootPartition,
    /// Whether the partition is on a stick, which firstboot only reads.
    pub removable: bool,
}

/// Finds the boot partition (`label`, on the disk of the root file system) first, then sticks labelled [`STICK_LABEL`].
pub fn locate(label: &str) -> Result<Vec<Place>> {
    let root_disk = root_disk(Path::new("/sys"))?;
    let mut places = Vec::new();
    for device in block_devices(&root_disk)? {
        if let Some(partition) = labelled(&device, label) {
            places.push(Place { partition, removable: false });
        }
    }
    for disk in names(Path::new("/sys/block"))? {
        let disk = Path::new("/sys/block").join(disk);
        let same = fs::canonicalize(&disk).is_ok_and(|d| d == root_disk);
        if same || !is_removable(&disk) {
            continue;
        }
        // A stick that is pulled between two looks is no fault of this device. The whole disk, which comes last, is looked at
        // in any case: a stick without partitions is one.
        let devices = block_devices(&disk).unwrap_or_default();
        let whole = devices.len().saturating_sub(1);
        let looked_at = devices.into_iter().enumerate().filter(|(n, _)| *n < MOST_PARTITIONS || *n == whole);
        for (_, device) in looked_at {
            if let Some(partition) = labelled(&device, STICK_LABEL) {
                places.push(Place { partition, removable: true });
            }
        }
    }
    Ok(places)
}

/// The FAT file systems on the disk of the root file system that satisfy `is`, in the order of its partitions.
///
/// # Errors
/// When that disk cannot be found or listed.
pub fn on_root_disk(is: &dyn Fn(&BootPartition) -> bool) -> Result<Vec<BootPartition>> {
    let devices = block_devices(&root_disk(Path::new("/sys"))?)?;
    Ok(devices.iter().filter_map(|device| BootPartition::open_whole(device).ok()).filter(|fat| is(fat)).collect())
}

/// Whether a person carries this disk (its sysfs directory) from device to device: a USB disk or an SD card. Every other
/// disk may be filled by what runs on the device, as a pod with a raw volume does, and loop, memory and device-mapper
/// devices have no hardware behind them.
fn is_removable(disk: &Path) -> bool {
    let Ok(hardware) = fs::canonicalize(disk.join("device")) else { return false };
    let parts = || hardware.components().map(|part| part.as_os_str().to_string_lossy());
    // The root hub of a USB bus is a directory `usbN` (drivers/usb/core/hcd.c).
    let usb = parts().any(|part| {
        part.strip_prefix("usb").is_some_and(|bus| !bus.is_empty() && bus.bytes().all(|b| b.is_ascii_digit()))
    });
    let read = |name: &str| fs::read_to_string(hardware.join(name)).unwrap_or_default();
    // An eMMC chip is of type MMC (drivers/mmc/core/bus.c), and soldered in.
    let card = parts().any(|part| part == "mmc_host") && read("type").trim() == "SD";
    usb || card
}

/// Name of the disk with the root file system, for messages.
pub fn root_disk_name() -> String {
    root_disk(Path::new("/sys"))
        .ok()
        .and_then(|d| d.file_name().map(|n| n.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "unknown".into())
}

/// The disk with the root file system, in /dev.
pub(super) fn root_disk_device() -> Result<PathBuf> {
    let disk = root_disk(Path::new("/sys"))?;
    Ok(Path::new("/dev").join(disk.file_name().context("find the name of the disk of the root file system")?))
}

/// The sysfs directory of the disk that contains `/`.
fn root_disk(sys: &Path) -> Result<PathBuf> {
    let device = rustix::fs::stat("/").context("look at /")?.st_dev;
    disk_of(sys, rustix::fs::major(device), rustix::fs::minor(device))
}

/// The sysfs directory of the disk that a block device is on: itself, the disk of a partition, or, for a device mapping
/// such as a verified root, the disk of the one device below it.
fn disk_of(sys: &Path, major: u32, minor: u32) -> Result<PathBuf> {
    let link = sys.join(format!("dev/block/{major}:{minor}"));
    let Ok(mut device) = fs::canonicalize(&link) else {
        bail!("find the disk of the root file system: {} does not exist", link.display());
    };
    // A mapping lies on a partition, or on another mapping; the kernel builds no circles.
    while let Ok(below) = names(&device.join("slaves")) {
        let [one] = below.as_slice() else { break };
        device = fs::canonicalize(device.join("slaves").join(one)).context("find the disk below a device mapping")?;
    }
    if device.join("partition").exists() {
        device.parent().map(Path::to_owned).context("find the disk of the root file system")
    } else {
        Ok(device)
    }
}

/// The partitions of the disk and the disk itself, as paths in /dev.
fn block_devices(disk: &Path) -> Result<Vec<PathBuf>> {
    let mut devices = Vec::new();
    for name in names(disk)? {
        if disk.join(&name).join("partition").exists() {
            devices.push(Path::new("/dev").join(name));
        }
    }
    if let Some(name) = disk.file_name() {
        devices.push(Path::new("/dev").join(name));
    }
    Ok(devices)
}

fn labelled(device: &Path, label: &str) -> Option<BootPartition> {
    // A device without a readable FAT file system is no candidate.
    let partition = BootPartition::open_whole(device).ok()?;
    (partition.label().ok()? == label).then_some(partition)
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .with_context(|| format!("list {}", dir.display()))?
        .filter_map(|e| e.ok().map(|e| e.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Finds the partitions that may contain a seed; its argument is the label of the boot partition.
pub type SeedLocator<'a> = &'a dyn Fn(&str) -> anyhow::Result<Vec<Place>>;

/// The boot partition of the device itself, as opposed to a stick.
pub fn internal_partition(places: &[Place]) -> Option<BootPartition> {
    places.iter().find(|p| !p.removable).map(|p| p.partition.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_verified_root_is_on_the_disk_below_its_mapping() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path().canonicalize().unwrap();
        for path in
            ["dev/block", "devices/vda/vda3", "devices/vda/slaves", "devices/dm-0/slaves", "devices/dm-1/slaves"]
        {
            fs::create_dir_all(sys.join(path)).unwrap();
        }
        fs::write(sys.join("devices/vda/vda3/partition"), "3\n").unwrap();
        symlink("../../vda/vda3", sys.join("devices/dm-0/slaves/vda3")).unwrap();
        symlink("../../dm-0", sys.join("devices/dm-1/slaves/dm-0")).unwrap();
        for (number, device) in [("254:0", "vda"), ("254:3", "vda/vda3"), ("253:0", "dm-0"), ("253:1", "dm-1")] {
            symlink(format!("../../devices/{device}"), sys.join("dev/block").join(number)).unwrap();
        }
        for (major, minor) in [(254, 0), (254, 3), (253, 0), (253, 1)] {
            assert_eq!(disk_of(&sys, major, minor).unwrap(), sys.join("devices/vda"), "{major}:{minor}");
        }
        assert!(disk_of(&sys, 7, 7).unwrap_err().to_string().ends_with("dev/block/7:7 does not exist"));
    }

    #[test]
    fn s04_only_what_a_person_carries_is_removable() {
        let dir = tempfile::tempdir().unwrap();
        let disk = |name: &str, hardware: &str, kind: Option<&str>| {
            let hardware = dir.path().join("devices").join(hardware);
            fs::create_dir_all(&hardware).unwrap();
            if let Some(kind) = kind {
                fs::write(hardware.join("type"), format!("{kind}\n")).unwrap();
            }
            let disk = dir.path().join("block").join(name);
            fs::create_dir_all(&disk).unwrap();
            symlink(&hardware, disk.join("device")).unwrap();
            is_removable(&disk)
        };
        let usb = "pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0";
        assert!(disk("sda", usb, Some("0")));
        assert!(disk("mmcblk0", "platform/soc/fe340000.mmc/mmc_host/mmc0/mmc0:aaaa", Some("SD")));
        // Soldered in, inside the case, or somewhere else on a network.
        assert!(!disk("mmcblk1", "platform/soc/fe330000.mmc/mmc_host/mmc1/mmc1:0001", Some("MMC")));
        assert!(!disk("sdb", "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0", Some("0")));
        assert!(!disk("vdb", "pci0000:00/0000:00:05.0/virtio2", None));
        assert!(!disk("nvme1n1", "pci0000:00/0000:00:06.0/nvme/nvme1", None));
        assert!(!disk("sdc", "platform/host7/session1/target7:0:0/7:0:0:1", Some("0")));
        assert!(!disk("usbdisk", "pci0000:00/usb-like/ata2", None));
        fs::create_dir_all(dir.path().join("block/loop0")).unwrap();
        assert!(!is_removable(&dir.path().join("block/loop0")));
    }
}
