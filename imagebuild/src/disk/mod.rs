// SPDX-License-Identifier: Apache-2.0
//! Disk images: a GUID partition table, FAT and ext4 file systems, written into a sparse file without mounting.

mod ext4;
mod fat;
mod table;

pub use table::{GptEntry, Placed, partitions};

use crate::arch::Arch;
use crate::owner::Owner;
use crate::target::{Role, Target};
use crate::{cmd, digest};
use anyhow::{Context, Result};
use std::fs::{self, File, OpenOptions};
use std::path::Path;

const MIB: u64 = 1 << 20;

/// What goes onto the disk besides the root tree.
pub struct Content<'a> {
    /// EFI program that the firmware starts.
    pub loader: &'a Path,
    /// The kernel.
    pub kernel: &'a Path,
    /// The initrd.
    pub initrd: &'a Path,
    /// Files of the boot partition: name and content.
    pub boot: Vec<(&'static str, Vec<u8>)>,
}

/// Identifiers of a build: the same for the same key.
#[derive(Debug, Clone)]
pub struct Ids {
    key: String,
}

impl Ids {
    /// Identifiers for the build with this key.
    pub fn new(key: &str) -> Ids {
        Ids { key: key.to_owned() }
    }

    /// GUID of the disk.
    pub fn disk(&self) -> uuid::Uuid {
        digest::uuid(&self.key, "disk")
    }

    /// GUID of a partition: what `root=PARTUUID=` names.
    pub fn partition(&self, role: Role) -> uuid::Uuid {
        digest::uuid(&self.key, &format!("partition {role:?}"))
    }

    /// UUID of the root file system.
    pub fn root_file_system(&self) -> uuid::Uuid {
        digest::uuid(&self.key, "root file system")
    }

    /// Serial number of a FAT.
    pub fn volume(&self, role: Role) -> u32 {
        digest::uuid(&self.key, &format!("volume {role:?}")).as_fields().0
    }
}

/// The kernel's command line.
pub fn command_line(target: &Target, ids: &Ids) -> String {
    let mut line = format!("root=PARTUUID={} ro", ids.partition(Role::Root));
    line += &format!(" firstboot.rootwait={}", target.initrd.wait);
    for console in &target.consoles {
        line += &format!(" console={console}");
    }
    // Partitions are used as fstab says; the EFI system partition stays unmounted.
    line + " systemd.gpt_auto=no " + &target.command_line
}

/// Writes the image of `target` to `image`; `tree` is the root file system, seen through `owner`.
pub fn build(
    target: &Target,
    ids: &Ids,
    owner: &Owner,
    tree: &Path,
    content: &Content,
    image: &Path,
) -> Result<Vec<Placed>> {
    let root_size = ext4::size(tree, target.partition(Role::Root)?.size_mib * MIB)?;
    let placed = table::plan(target, ids, root_size)?;
    let end = placed.last().map(|p| p.offset + p.length).context("place partitions: there are none")?;
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(image);
    let file = file.with_context(|| format!("create {}", image.display()))?;
    file.set_len(end + MIB).with_context(|| format!("set the size of {}", image.display()))?;
    table::write(file.try_clone()?, ids, &placed).with_context(|| format!("partition {}", image.display()))?;
    for partition in &placed {
        match partition.role {
            Role::Boot => boot_partition(&file, ids, partition, content)?,
            Role::Esp => system_partition(&file, target, ids, partition, content)?,
            Role::Root => ext4::write(owner, ids, tree, image, partition)?,
        }
    }
    file.sync_all().with_context(|| format!("write {}", image.display()))?;
    Ok(placed)
}

fn boot_partition(file: &File, ids: &Ids, place: &Placed, content: &Content) -> Result<()> {
    // Small clusters: the files are small.
    let fat = fat::Fat::format(file, place, ids.volume(place.role), 512)?;
    for (name, bytes) in &content.boot {
        fat.write(name, bytes)?;
    }
    fat.close()
}

fn system_partition(file: &File, target: &Target, ids: &Ids, place: &Placed, content: &Content) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    let entry = format!("title firstboot\nlinux /vmlinuz\ninitrd /initrd\noptions {}\n", command_line(target, ids));
    // The largest clusters that still make it FAT32 at this size: firmware follows the chain one by one.
    let fat = fat::Fat::format(file, place, ids.volume(place.role), 2048)?;
    let loader = match target.arch {
        Arch::Arm64 => "EFI/BOOT/BOOTAA64.EFI",
        Arch::Amd64 => "EFI/BOOT/BOOTX64.EFI",
    };
    fat.write(loader, &read(content.loader)?)?;
    fat.write("loader/loader.conf", b"timeout 0\neditor no\n")?;
    fat.write("loader/entries/firstboot.conf", entry.as_bytes())?;
    fat.write("vmlinuz", &read(content.kernel)?)?;
    fat.write("initrd", &read(content.initrd)?)?;
    fat.close()
}

/// Copies a sparse file so that it stays sparse.
pub fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    cmd::run(std::process::Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(from).arg(to))
}

/// Disks for tests of other modules.
#[cfg(test)]
pub mod testing {
    use super::*;

    /// A partitioned disk whose boot partition is formatted; returns its place.
    pub fn fats_only(target: &Target, ids: &Ids, path: &Path) -> Result<Placed> {
        let placed = table::plan(target, ids, MIB)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.set_len(placed.iter().map(|p| p.length).sum::<u64>() + 2 * MIB)?;
        table::write(file.try_clone()?, ids, &placed)?;
        let boot = placed.into_iter().find(|p| p.role == Role::Boot).context("find the boot partition")?;
        fat::Fat::format(&file, &boot, 1, 512)?.close()?;
        Ok(boot)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_root_and_consoles_in_order() {
        let target = Target::load("generic-arm64").unwrap();
        let ids = Ids::new("k");
        let line = command_line(&target, &ids);
        assert!(line.starts_with(&format!("root=PARTUUID={} ro ", ids.partition(Role::Root))));
        assert!(line.contains(" console=tty0 console=ttyAMA0,115200 "));
    }
}
