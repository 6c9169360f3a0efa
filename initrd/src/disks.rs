// SPDX-License-Identifier: Apache-2.0
//! Finds the disk whose root has the root hash, and keeps the kernel informed of its partitions.
//!
//! Anyone can write the same root to a stick of their own, so the hash says which root is right and not whose disk it is
//! on. A second disk with it is refused. The first is taken at once when it is inside the device and in use; for one on
//! USB, the device's own disk gets some seconds to appear. One that was just written has no data partition yet: beside
//! an MMC host it waits, too, for a card in the slot may be faster than the device's own disk.

use crate::command_line::{CommandLine, Root};
use crate::kernel::{self, PartitionChange};
use crate::modules::entries;
use crate::table::{Entry, Numbered, SECTOR, Table};
use crate::{layout, verity};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a disk on USB waits for the device's own.
const SETTLE: Duration = Duration::from_secs(5);
/// How long a disk inside the device, without a data partition, waits for what another MMC host may have.
const BESIDE: Duration = Duration::from_secs(2);
/// How long to look on after a damaged root was seen on the device's own disk.
const DAMAGED: Duration = Duration::from_secs(10);
/// When the person at the console reads what is going on.
const SAY_AFTER: Duration = Duration::from_secs(5);
/// How long the kernel may take to show the partitions that it was informed of.
const SHOW: Duration = Duration::from_secs(5);

/// The machine, as far as the search needs it.
pub trait Machine {
    /// Where `/sys` is.
    fn sys(&self) -> PathBuf;
    /// Where `/dev` is.
    fn dev(&self) -> PathBuf;
    /// Time since power-on.
    fn now(&self) -> Duration;
    /// Loads drivers for devices that are new; whether there were any.
    fn load_drivers(&mut self) -> bool;
    /// Returns when something about the hardware changed, at the latest after `most`.
    fn wait(&mut self, most: Duration);
    /// Shows a line to the person at the console.
    fn say(&mut self, line: &str);
}

/// A partition with the root on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The kernel's name of the disk, as `vda`.
    pub disk: String,
    /// Number of the partition.
    pub number: u32,
    /// Whether the disk is below USB.
    pub usb: bool,
}

/// What a disk has of interest.
#[derive(Debug, Clone, Default)]
struct Candidates {
    /// Number of the partition with the root.
    root: Option<u32>,
    /// A partition with the slot's name and another content.
    other: Option<u32>,
    /// Whether it has a data partition: a device has used it.
    data: bool,
}

/// Waits for the disk with the root.
///
/// # Errors
/// When there is none in time, or more than one. Details were said then; the error is what is to be done.
pub fn find(machine: &mut impl Machine, line: &CommandLine) -> Result<Found> {
    let start = machine.now();
    let mut known = BTreeMap::new();
    let (mut since, mut damaged_since, mut said) = (None, None, false);
    let hash = &line.root.hex()[..16];
    loop {
        let new = machine.load_drivers();
        let (found, damaged) = look(machine, &line.root, &mut known);
        let now = machine.now();
        let passed = now.saturating_sub(start);
        let next = match &found[..] {
            [] => {
                if let Some(name) = damaged {
                    let since = *damaged_since.get_or_insert(now);
                    if now >= since + DAMAGED {
                        machine.say(&format!("{name} is damaged, or of another image: its root hash is not {hash}..."));
                        bail!("write the image again if this goes on");
                    }
                }
                if passed >= line.wait {
                    let seconds = line.wait.as_secs();
                    let seen = disks(&machine.sys());
                    machine.say(&format!(
                        "no root with hash {hash}... within {seconds} s; disks and partitions seen: {seen}"
                    ));
                    bail!("the root disk is missing, or needs a driver that this image lacks");
                }
                if passed >= SAY_AFTER && !said {
                    said = true;
                    let seen = disks(&machine.sys());
                    machine.say(&format!("looking for the root with hash {hash}...; so far: {seen}"));
                }
                line.wait
            }
            [one] => {
                let used = known.get(&one.disk).is_some_and(|(_, candidates)| candidates.data);
                let wait = if one.usb {
                    SETTLE
                } else if !used && has_other_mmc_host(&machine.sys(), &one.disk) {
                    BESIDE
                } else {
                    Duration::ZERO
                };
                let settled = *since.get_or_insert(now) + wait;
                if now >= settled {
                    return Ok(one.clone());
                }
                settled - now
            }
            [_, _, ..] => {
                let name = |found: &Found| partition_name(&found.disk, found.number);
                let names = found.iter().map(name).collect::<Vec<_>>().join(" ");
                machine.say(&format!("more than one disk has the root with hash {hash}...: {names}"));
                bail!("remove the disk that is not this device's");
            }
        };
        if !new {
            machine.wait(next.min(Duration::from_secs(1)));
        }
    }
}

/// One look at all disks: those with the root, and the name of a partition on a disk inside the device that should have
/// it. A disk is read when it is new, or when it could not be read.
fn look(
    machine: &impl Machine,
    root: &Root,
    known: &mut BTreeMap<String, (String, Candidates)>,
) -> (Vec<Found>, Option<String>) {
    let mut seen = BTreeMap::new();
    for path in entries(&machine.sys().join("block")) {
        let Some(disk) = path.file_name().and_then(|name| name.to_str()) else { continue };
        // Loops, memory disks and the like have no device; a drive without a medium has no size.
        let size = fs::read_to_string(path.join("size")).unwrap_or_default();
        if !path.join("device").exists() || ["", "0"].contains(&size.trim()) {
            continue;
        }
        let candidates = match known.get(disk) {
            Some((then, candidates)) if *then == size => candidates.clone(),
            _ => match File::open(node(&machine.dev(), disk)).map_err(Into::into).and_then(|file| read(file, root)) {
                Ok(candidates) => candidates,
                Err(_) => continue,
            },
        };
        seen.insert(disk.to_owned(), (size, candidates));
    }
    *known = seen;
    let usb = |disk: &str| is_usb(&machine.sys(), disk);
    let found = known.iter().filter_map(|(disk, (_, candidates))| {
        Some(Found { disk: disk.clone(), number: candidates.root?, usb: usb(disk) })
    });
    let damaged = known.iter().find_map(|(disk, (_, candidates))| {
        let number = candidates.other.filter(|_| !usb(disk))?;
        Some(format!("/dev/{}", partition_name(disk, number)))
    });
    (found.collect(), damaged)
}

/// Looks for the root in a disk's partitions. Of two with the same root, the one of the slot that was started counts.
fn read(mut disk: File, root: &Root) -> Result<Candidates> {
    let partitions = Table::read(&mut disk)?.table.partitions();
    let roots: Vec<&Numbered> = partitions.iter().filter(|(_, entry)| layout::is_root(entry)).collect();
    let holds = |entry: &Entry| verity::holds(&disk, entry.first * SECTOR, root).unwrap_or(false);
    let mut with: Vec<&&Numbered> = roots.iter().filter(|(_, entry)| holds(entry)).collect();
    with.sort_by_key(|(_, entry)| entry.name != root.slot.label());
    let other = || roots.iter().find(|(_, entry)| entry.name == root.slot.label()).map(|(number, _)| *number);
    let data = layout::data(&partitions).is_some();
    Ok(match with.first() {
        Some((number, _)) => Candidates { root: Some(*number), other: None, data },
        None => Candidates { root: None, other: other(), data },
    })
}

/// Whether a disk is below USB, where anyone at a port can plug in.
fn is_usb(sys: &Path, disk: &str) -> bool {
    let Ok(path) = fs::canonicalize(sys.join("block").join(disk)) else { return false };
    path.components().any(|part| {
        let name = part.as_os_str().to_string_lossy();
        name.strip_prefix("usb").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

/// Whether there is an MMC host that this disk is not below: another disk may be there, whose card answers late.
fn has_other_mmc_host(sys: &Path, disk: &str) -> bool {
    let Ok(path) = fs::canonicalize(sys.join("block").join(disk)) else { return false };
    let path = path.to_string_lossy();
    let hosts = entries(&sys.join("class/mmc_host"));
    let mut names = hosts.iter().filter_map(|host| host.file_name()?.to_str());
    names.any(|name| !path.contains(&format!("/mmc_host/{name}/")))
}

/// Disks and partitions that the kernel sees, for the person who reads the console.
fn disks(sys: &Path) -> String {
    let paths = entries(&sys.join("class/block"));
    let names: Vec<_> = paths.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

/// The device file of a disk or partition; sysfs writes `!` for `/`.
pub fn node(dev: &Path, name: &str) -> PathBuf {
    dev.join(name.replace('!', "/"))
}

/// The kernel's name for a partition: `vda3`, `mmcblk0p3`.
pub fn partition_name(disk: &str, number: u32) -> String {
    let p = if disk.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{p}{number}")
}

/// Whether the kernel refuses all writes to a disk.
pub fn is_read_only(sys: &Path, disk: &str) -> bool {
    fs::read_to_string(sys.join("block").join(disk).join("ro")).is_ok_and(|text| text.trim() == "1")
}

/// Informs the kernel of all partitions in the table that it does not know as they are, one by one, so that a disk in use
/// is no obstacle; returns when it shows them.
///
/// # Errors
/// When the kernel refuses, or does not show them in time.
pub fn inform(machine: &mut impl Machine, disk: &str, partitions: &[Numbered]) -> Result<()> {
    let path = node(&machine.dev(), disk);
    let deadline = machine.now() + SHOW;
    loop {
        let missing = missing(&machine.sys(), disk, partitions);
        if missing.is_empty() {
            return Ok(());
        }
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let mut result = Ok(());
        for (number, change, start, length) in missing {
            result = kernel::partition(&file, change, number, start * SECTOR, length * SECTOR)
                .with_context(|| format!("inform the kernel of partition {number} of {disk}"));
        }
        // The kernel may be reading the table itself at this moment.
        if machine.now() >= deadline {
            return result.and_then(|()| bail!("find the partitions of {disk}: the kernel does not show them"));
        }
        if result.is_err() {
            machine.wait(Duration::from_millis(100));
        }
    }
}

/// Number, change, first sector and sectors.
type Missing = (u32, PartitionChange, u64, u64);

/// What the kernel has to be informed of. A partition in another place is first removed, and added by the next look.
fn missing(sys: &Path, disk: &str, partitions: &[Numbered]) -> Vec<Missing> {
    let change = |(number, entry): &Numbered| {
        let (start, length) = (entry.first, entry.last + 1 - entry.first);
        let shown = sys.join("block").join(disk).join(partition_name(disk, *number));
        let read = |name: &str| fs::read_to_string(shown.join(name)).ok()?.trim().parse::<u64>().ok();
        let change = match (read("start"), read("size")) {
            (Some(s), Some(l)) if (s, l) == (start, length) => return None,
            (Some(s), Some(_)) if s == start => PartitionChange::Resize,
            (Some(_), Some(_)) => PartitionChange::Delete,
            _ => PartitionChange::Add,
        };
        Some((*number, change, start, length))
    };
    partitions.iter().filter_map(change).collect()
}

/// `MAJOR:MINOR` of a partition.
///
/// # Errors
/// When the kernel does not show it.
pub fn device_number(sys: &Path, partition: &str) -> Result<String> {
    let path = sys.join("class/block").join(partition).join("dev");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}
