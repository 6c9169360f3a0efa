// SPDX-License-Identifier: Apache-2.0
//! The disks of this machine as sysfs has them: which are removable, and what uses them.
//!
//! Sources: Linux' Documentation/ABI/stable/sysfs-block and testing/sysfs-block, proc_pid_mountinfo(5), proc_swaps(5).

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FileType, major, minor};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Directories whose file systems are the running system's.
const SYSTEM: [&str; 8] = ["/boot", "/efi", "/etc", "/home", "/nix", "/opt", "/usr", "/var"];

/// What uses a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// It holds the running system: the root, `/boot`, swap …
    System(String),
    /// A file system on it is mounted here.
    Mounted(String),
    /// Another device is made of it: RAID, LVM, an encrypted disk.
    Held(String),
}

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Name of the kernel, as `sdb` or `mmcblk0`.
    pub name: String,
    /// Bytes; 0 for an empty card reader.
    pub size: u64,
    /// Manufacturer and model, as far as the disk says.
    pub model: String,
    /// `USB`, `SD`, or `` when it is neither.
    pub bus: &'static str,
    /// Whether it can be taken out: a removable medium, a USB disk, an SD card.
    pub removable: bool,
    /// Whether a switch on the card or the kernel protects it from writing.
    pub read_only: bool,
    /// Bytes of a sector.
    pub sector: u32,
    /// What uses it; empty for a disk that may be written.
    pub uses: Vec<Use>,
}

/// Where the kernel shows its disks: `/sys`, `/proc` and `/dev` below a root.
#[derive(Debug, Clone)]
pub struct Kernel {
    root: PathBuf,
}

impl Kernel {
    /// The kernel of this machine.
    pub fn here() -> Kernel {
        Kernel { root: "/".into() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// All disks with a medium, in the order of their names, without loop devices, RAM disks and what is made of others.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn disks(&self) -> Result<Vec<Disk>> {
        let uses = self.uses()?;
        let mut disks = Vec::new();
        for name in names(&self.at("sys/block")).context("list the disks of this machine")? {
            let made =
                ["loop", "ram", "zram", "dm-", "md", "nbd", "fd", "sr"].iter().any(|kind| name.starts_with(kind));
            // The boot areas and the protected one of an eMMC.
            let area = name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb"));
            if !made && !area {
                let disk = self.disk(&name, &uses)?;
                disks.extend((disk.size > 0).then_some(disk));
            }
        }
        Ok(disks)
    }

    /// The disk with this device node.
    ///
    /// # Errors
    /// When it is no block device, or a partition.
    pub fn find(&self, node: &Path) -> Result<Disk> {
        let what = || format!("open {}", node.display());
        let status = rustix::fs::stat(node).with_context(what)?;
        ensure!(FileType::from_raw_mode(status.st_mode).is_block_device(), "{}: it is no block device", what());
        let device = (major(status.st_rdev), minor(status.st_rdev));
        let directory = self.directory(device).with_context(what)?;
        let name = file_name(&directory);
        if directory.join("partition").exists() {
            let disk = directory.parent().map(file_name).unwrap_or_default();
            bail!("{}: it is a partition: give the whole disk, /dev/{disk}", what());
        }
        self.disk(&name, &self.uses()?)
    }

    /// The loop device that is made of this file.
    pub fn loop_device(&self, file: &Path) -> Option<String> {
        let all = names(&self.at("sys/block")).unwrap_or_default().into_iter();
        let backing = |name: &str| fs::read_to_string(self.at("sys/block").join(name).join("loop/backing_file")).ok();
        all.filter(|name| name.starts_with("loop"))
            .find(|name| backing(name).is_some_and(|f| Path::new(f.trim_end()) == file))
    }

    /// Where a file system of a block device, or of one of its partitions, is mounted; nothing where none is, or where
    /// the kernel does not say it.
    pub fn mounted_at(&self, node: &Path) -> Option<String> {
        let device = rustix::fs::stat(node).ok()?.st_rdev;
        self.mounted((major(device), minor(device)))
    }

    fn mounted(&self, device: (u32, u32)) -> Option<String> {
        let disk = self.directory(device).ok()?;
        let mounts = fs::read_to_string(self.at("proc/self/mountinfo")).ok()?;
        mounts.lines().filter_map(|line| self.mount(line)).find_map(|(device, point)| {
            let directory = self.directory(device).ok()?;
            (directory == disk || directory.parent() == Some(disk.as_path())).then_some(point)
        })
    }

    fn disk(&self, name: &str, uses: &[(String, Use)]) -> Result<Disk> {
        let link = self.at("sys/block").join(name);
        let directory = fs::canonicalize(&link).with_context(|| format!("read {}", link.display()))?;
        let text = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default().trim().to_owned();
        let number = |file: &str| text(file).parse::<u64>().unwrap_or(0);
        let usb = directory.components().any(|part| part.as_os_str().to_string_lossy().starts_with("usb"));
        // mmc: "SD" is a card, "MMC" is soldered on.
        let bus = if usb { "USB" } else { ["", "SD"][usize::from(text("device/type") == "SD")] };
        let model = [text("device/vendor"), text("device/model"), text("device/name")];
        let words: Vec<&str> =
            model.iter().map(String::as_str).filter(|w| !w.is_empty() && !w.starts_with("0x")).collect();
        let mut uses: Vec<Use> = uses.iter().filter(|(disk, _)| disk == name).map(|(_, used)| used.clone()).collect();
        if uses.is_empty() {
            uses.extend(holders(&directory).into_iter().map(Use::Held));
        }
        Ok(Disk {
            name: name.to_owned(),
            // The kernel counts sectors of 512 bytes here, whatever the disk has.
            size: number("size") * 512,
            model: words.join(" "),
            bus,
            removable: number("removable") == 1 || !bus.is_empty(),
            read_only: number("ro") == 1,
            sector: u32::try_from(number("queue/logical_block_size")).ok().filter(|s| *s > 0).unwrap_or(512),
            uses,
        })
    }

    /// The directory of a block device: `…/block/sdb`, or `…/block/sdb/sdb1`.
    fn directory(&self, (major, minor): (u32, u32)) -> Result<PathBuf> {
        let link = self.at("sys/dev/block").join(format!("{major}:{minor}"));
        fs::canonicalize(&link).with_context(|| format!("read {}", link.display()))
    }

    /// Which disks are used, by what. A file system on LVM, RAID or an encrypted partition counts for every disk below.
    fn uses(&self) -> Result<Vec<(String, Use)>> {
        let mut uses = Vec::new();
        let mut add = |device: (u32, u32), used: &dyn Fn() -> Use| {
            let mut disks = BTreeSet::new();
            if let Ok(directory) = self.directory(device) {
                below(&directory, &mut disks, 8);
            }
            for disk in disks {
                let found = (disk, used());
                if !uses.contains(&found) {
                    uses.push(found);
                }
            }
        };
        let path = self.at("proc/self/mountinfo");
        let mounts = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        for line in mounts.lines() {
            let Some((device, point)) = self.mount(line) else { continue };
            let system = point == "/" || SYSTEM.iter().any(|dir| Path::new(&point).starts_with(dir));
            add(device, &|| {
                if system { Use::System(format!("{point} is on it")) } else { Use::Mounted(point.clone()) }
            });
        }
        for line in fs::read_to_string(self.at("proc/swaps")).unwrap_or_default().lines().skip(1) {
            let path = unescape(line.split_whitespace().next().unwrap_or_default());
            if let Some(device) = self.numbers(&path, true) {
                add(device, &|| Use::System(format!("{path} on it is swap space")));
            }
        }
        Ok(uses)
    }

    /// Device and mount point of a line of mountinfo.
    fn mount(&self, line: &str) -> Option<((u32, u32), String)> {
        let mut words = line.split(' ');
        let (major, minor) = words.by_ref().nth(2)?.split_once(':')?;
        let device = (major.parse().ok()?, minor.parse().ok()?);
        let point = unescape(words.nth(1)?);
        // Some file systems (btrfs) have a number of their own, and name the device behind the dash.
        let device = match device {
            (0, _) => self.numbers(&unescape(line.split_once(" - ")?.1.split(' ').nth(1)?), false)?,
            device => device,
        };
        Some((device, point))
    }

    /// Numbers of a block device by its path; with `file`, those of the disk on which a file is.
    fn numbers(&self, path: &str, file: bool) -> Option<(u32, u32)> {
        if !path.starts_with('/') {
            return None;
        }
        let status = rustix::fs::stat(self.at(path)).ok()?;
        let block = FileType::from_raw_mode(status.st_mode).is_block_device();
        let device = if block { status.st_rdev } else { status.st_dev };
        (block || file).then(|| (major(device), minor(device)))
    }
}

impl Disk {
    /// Manufacturer, model and bus.
    pub fn description(&self) -> String {
        let bus = if self.bus.is_empty() { String::new() } else { format!("({})", self.bus) };
        [self.model.as_str(), &bus].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// Why this disk is not written, and what to do about it; `None` when it may be.
    pub fn refusal(&self) -> Option<String> {
        let name = &self.name;
        let first = |matches: &dyn Fn(&Use) -> Option<String>| self.uses.iter().find_map(matches);
        let system = first(&|used| match used {
            Use::System(what) => Some(format!("it is a disk of the running system: {what}")),
            _ => None,
        });
        let other = || {
            first(&|used| match used {
                Use::Mounted(point) => Some(format!("it is mounted at {point}: run umount \"{point}\"")),
                Use::Held(holder) => Some(format!("{holder} is made of it: close that first (lsblk /dev/{name})")),
                Use::System(_) => None,
            })
        };
        let protected =
            || self.read_only.then(|| "it is protected from writing (the switch at a card's edge)".to_owned());
        system.or_else(other).or_else(protected)
    }
}

/// Adds the disks that a device lies on, through RAID, LVM and encryption.
fn below(directory: &Path, disks: &mut BTreeSet<String>, depth: u32) {
    let disk = if directory.join("partition").exists() { directory.parent().unwrap_or(directory) } else { directory };
    disks.insert(file_name(disk));
    for slave in names(&directory.join("slaves")).unwrap_or_default() {
        if let (Ok(directory), Some(depth)) =
            (fs::canonicalize(directory.join("slaves").join(slave)), depth.checked_sub(1))
        {
            below(&directory, disks, depth);
        }
    }
}

/// Names of the devices that are made of a disk or of its partitions.
fn holders(disk: &Path) -> Vec<String> {
    let mut found = names(&disk.join("holders")).unwrap_or_default();
    for part in names(disk).unwrap_or_default() {
        let part = disk.join(part);
        if part.join("partition").exists() {
            found.extend(names(&part.join("holders")).unwrap_or_default());
        }
    }
    found
}

fn names(directory: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Octal escapes of blanks and backslashes, as the kernel writes them.
fn unescape(text: &str) -> String {
    let mut plain = text.to_owned();
    for (code, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        plain = plain.replace(code, character);
    }
    plain
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "disks_tests.rs"]
mod tests;
