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

/// The sysfs directory of the disk that contains `/`.
fn root_disk(sys: &Path) -> Result<PathBuf> {
    let device = rustix::fs::stat("/").context("look at /")?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let link = sys.join(format!("dev/block/{major}:{minor}"));
    let Ok(partition) = fs::canonicalize(&link) else {
        bail!("find the disk of the root file system: {} does not exist", link.display());
    };
    if partition.join("partition").exists() {
        partition.parent().map(Path::to_owned).context("find the disk of the root file system")
    } else {
        Ok(partition)
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
