// SPDX-License-Identifier: Apache-2.0
//! Which disk holds the root: by the root's content, never by a name that a stranger's disk could have as well.
//!
//! All devices of one image have the same root, so a second disk with it may be a stranger's, and is refused. A disk
//! inside the device is taken at once; for one on USB, where anyone may plug one in, the device's own gets some seconds to
//! appear. Data is taken from the same disk alone.

use crate::layout::is_root;
use crate::table::{Geometry, Table};
use crate::verity::Root;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the device's own disk may take to appear beside one on USB.
const SETTLE: Duration = Duration::from_secs(5);

/// A disk that holds the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its name, as in /sys/block.
    pub name: String,
    /// Its device.
    pub path: PathBuf,
    /// Name of the root's partition in the table.
    pub root: String,
    /// Whether it is on USB.
    pub usb: bool,
}

/// Opens a disk, and says how long it is.
///
/// # Errors
/// When it cannot be opened or measured.
pub fn open(path: &Path, sector: u64, write: bool) -> Result<(File, Geometry)> {
    let file = File::options().read(true).write(write).open(path);
    let mut file = file.with_context(|| format!("open {}", path.display()))?;
    let length = file.seek(SeekFrom::End(0)).with_context(|| format!("measure {}", path.display()))?;
    Ok((file, Geometry { sector, sectors: length / sector }))
}

/// Bytes of a sector of a disk, as its driver says.
pub fn sector(sys: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(sys.join("block").join(name).join("queue/logical_block_size")).unwrap_or_default();
    text.trim().parse().unwrap_or(512)
}

/// Name of the partition of an open disk that holds the root.
pub fn root_on(disk: &File, geometry: Geometry, root: &Root) -> Option<String> {
    let table = Table::read(disk, geometry).ok()?.table;
    let holds = |entry: &&crate::table::Entry| {
        is_root(entry) && root.is_at(disk, entry.first * geometry.sector, entry.sectors() * geometry.sector)
    };
    table.entries.iter().map(|(_, entry)| entry).find(holds).map(|entry| entry.name.clone())
}

/// All disks of this machine, sorted by name: those that have hardware behind them.
fn disks(sys: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(sys.join("block")) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join("device").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Whether a disk is below a USB bus (a directory `usbN`, drivers/usb/core/hcd.c).
fn on_usb(sys: &Path, name: &str) -> bool {
    let Ok(path) = fs::canonicalize(sys.join("block").join(name)) else { return false };
    path.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        part.strip_prefix("usb").is_some_and(|bus| !bus.is_empty() && bus.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// Every disk that holds the root now.
pub fn holding(sys: &Path, dev: &Path, root: &Root) -> Vec<Disk> {
    let one = |name: String| {
        let path = dev.join(&name);
        let (file, geometry) = open(&path, sector(sys, &name), false).ok()?;
        let partition = root_on(&file, geometry, root)?;
        let usb = on_usb(sys, &name);
        Some(Disk { name, path, root: partition, usb })
    };
    disks(sys).into_iter().filter_map(one).collect()
}

/// What to do next while the root is looked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice {
    /// This disk is the one.
    Take(Disk),
    /// Look again.
    Wait,
    /// More than one disk holds the root.
    Ambiguous(Vec<Disk>),
    /// None appeared in time.
    Missing,
}

/// Chooses, `now` after the start of the search, between the disks that hold the root; `since` is when the first one on
/// USB was seen.
pub fn choose(mut found: Vec<Disk>, now: Duration, wait: Duration, since: &mut Option<Duration>) -> Choice {
    if found.len() > 1 {
        return Choice::Ambiguous(found);
    }
    match found.pop() {
        Some(disk) if !disk.usb || now >= *since.get_or_insert(now) + SETTLE => Choice::Take(disk),
        Some(_) => Choice::Wait,
        None if now >= wait => Choice::Missing,
        None => Choice::Wait,
    }
}

/// Disks and partitions that the kernel sees, for the person who reads the console.
pub fn seen(sys: &Path) -> String {
    let entries = fs::read_dir(sys.join("class/block")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

/// Device of a partition by its number, once the kernel has read the table.
///
/// # Errors
/// When the kernel shows no such partition.
pub fn partition(sys: &Path, dev: &Path, disk: &str, number: usize) -> Result<PathBuf> {
    let directory = sys.join("block").join(disk);
    for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))?.flatten() {
        let text = fs::read_to_string(entry.path().join("partition")).unwrap_or_default();
        if text.trim() == number.to_string() {
            return Ok(dev.join(entry.file_name()));
        }
    }
    Err(anyhow::anyhow!("find partition {number} of /dev/{disk}: the kernel does not show it"))
}

/// Whether a disk is write-protected.
pub fn read_only(sys: &Path, name: &str) -> bool {
    fs::read_to_string(sys.join("block").join(name).join("ro")).is_ok_and(|text| text.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn disk(name: &str, usb: bool) -> Disk {
        Disk { name: name.into(), path: Path::new("/dev").join(name), root: "root-a".into(), usb }
    }

    #[test]
    fn a_disk_on_usb_waits_for_the_devices_own_and_two_are_refused() {
        let at = Duration::from_secs;
        let mut since = None;
        let inside = disk("vda", false);
        assert_eq!(choose(vec![inside.clone()], at(0), at(60), &mut since), Choice::Take(inside.clone()));
        let stick = disk("sda", true);
        assert_eq!(choose(vec![], at(1), at(60), &mut since), Choice::Wait);
        assert_eq!(choose(vec![stick.clone()], at(2), at(60), &mut since), Choice::Wait);
        assert_eq!(choose(vec![stick.clone()], at(6), at(60), &mut since), Choice::Wait);
        assert_eq!(choose(vec![stick.clone()], at(7), at(60), &mut since), Choice::Take(stick.clone()));
        let both = vec![stick, inside];
        assert_eq!(choose(both.clone(), at(3), at(60), &mut since), Choice::Ambiguous(both));
        assert_eq!(choose(vec![], at(60), at(60), &mut since), Choice::Missing);
    }

    #[test]
    fn partitions_and_buses_are_found_in_sysfs() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path().canonicalize().unwrap();
        for (name, place) in [("sda", "devices/pci0/usb2/2-1/host0"), ("vda", "devices/pci0/virtio1")] {
            let block = sys.join(place).join("block").join(name);
            fs::create_dir_all(block.join("device")).unwrap();
            fs::create_dir_all(block.join(format!("{name}3"))).unwrap();
            fs::write(block.join(format!("{name}3/partition")), "3\n").unwrap();
            fs::create_dir_all(sys.join("block")).unwrap();
            symlink(block, sys.join("block").join(name)).unwrap();
        }
        fs::create_dir_all(sys.join("block/loop0")).unwrap();
        assert_eq!(disks(&sys), ["sda", "vda"]);
        assert!(on_usb(&sys, "sda") && !on_usb(&sys, "vda"));
        let dev = Path::new("/dev");
        assert_eq!(partition(&sys, dev, "vda", 3).unwrap(), dev.join("vda3"));
        let missing = partition(&sys, dev, "vda", 5).unwrap_err().to_string();
        assert_eq!(missing, "find partition 5 of /dev/vda: the kernel does not show it");
        assert_eq!(sector(&sys, "vda"), 512);
    }
}
