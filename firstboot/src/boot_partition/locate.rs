// SPDX-License-Identifier: Apache-2.0
//! Finds the partitions that may contain the seed: on the boot partition, or on a stick.
#![allow(clippy::disallowed_methods)] // reads block devices, changes nothing

use super::partition::BootPartition;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Label of a stick, which is carried from device to device.
pub const STICK_LABEL: &str = "SEED";

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
        // Loop, memory and device-mapper devices have no hardware behind them.
        if same || !disk.join("device").exists() {
            continue;
        }
        // A stick that is pulled between two looks is no fault of this device.
        for device in block_devices(&disk).unwrap_or_default() {
            if let Some(partition) = labelled(&device, STICK_LABEL) {
                places.push(Place { partition, removable: true });
            }
        }
    }
    Ok(places)
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
