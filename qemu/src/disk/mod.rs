// SPDX-License-Identifier: Apache-2.0
//! Disk images seen from outside a running guest: partitions, the FAT boot partition, what its boot loader starts, files,
//! a private copy.
//!
//! Only for disks whose guest is switched off, except that the boot partition may be read while it runs: firstboot
//! overwrites its status file in place, so what is read is at worst torn, never another file.

mod data;
mod entry;
mod prepare;
pub mod slot;
#[cfg(test)]
mod testing;
pub mod tree;
mod view;

pub use data::CheckedData;
pub use entry::BootEntry;
pub use prepare::Settled;

use anyhow::{Context, Result, bail};
use firstboot::boot_partition::BootPartition;
use imagebuild::disk::{GptEntry, partitions};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use view::{Kind, View};

/// Number of the FAT partition that carries the seed.
pub const BOOT: u32 = 1;
/// Number of the EFI system partition, on a disk for UEFI.
pub const ESP: u32 = 2;
/// Number of the first slot there: the root file system, and the hashes that verify it.
pub const ROOT: u32 = 3;
/// Label of the first slot.
pub const FIRST_SLOT: &str = "root-a";
/// Label of the second slot, made at the first boot where there is room.
pub const SECOND_SLOT: &str = "root-b";
/// Label of the partition that everything is written to, made at the first boot.
pub const DATA: &str = "data";

/// A raw disk image with a GPT.
#[derive(Debug, Clone)]
pub struct DiskImage {
    path: PathBuf,
}

impl DiskImage {
    /// Reads the partition table of `path`, for the errors that it may have.
    pub fn open(path: &Path) -> Result<Self> {
        partitions(path)?;
        Ok(DiskImage { path: path.to_owned() })
    }

    /// A file that may have no partitions.
    #[cfg(test)]
    pub(crate) fn bare(path: &Path) -> Self {
        DiskImage { path: path.to_owned() }
    }

    /// Path of the image.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Place of partition `number`, as the table has it now: a first boot changes the table.
    pub fn partition(&self, number: u32) -> Result<GptEntry> {
        let found = partitions(&self.path)?.remove(&number);
        found.with_context(|| format!("find partition {number} in {}", self.path.display()))
    }

    /// Place of the partition with this label, as the table has it now; `None` when there is none.
    pub fn named(&self, label: &str) -> Result<Option<GptEntry>> {
        Ok(partitions(&self.path)?.into_values().find(|partition| partition.name == label))
    }

    /// The FAT partition that carries the seed.
    pub fn boot(&self) -> Result<BootPartition> {
        let extent = self.partition(BOOT)?;
        BootPartition::open(&self.path, extent.offset, extent.length)
    }

    /// Puts `seed` where a user's laptop would.
    pub fn put_seed(&self, seed: &str) -> Result<()> {
        self.boot()?.write("seed.toml", seed.as_bytes()).context("write seed.toml to the boot partition")
    }

    /// The status file of the boot partition, without its padding.
    pub fn status(&self) -> Result<String> {
        let bytes = self.boot()?.read("firstboot-status.txt")?.context("find firstboot-status.txt")?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    /// Whether the boot partition's directory still lists a seed.
    pub fn seed_present(&self) -> Result<bool> {
        Ok(self.boot()?.seed()?.is_some())
    }

    /// A private copy in `to`, sparse where this one is, `size` bytes long when that is more.
    pub fn copy(&self, to: &Path, size: u64) -> Result<DiskImage> {
        let mut command = Command::new("cp");
        imagebuild::cmd::run(command.args(["--sparse=auto", "--reflink=auto", "--"]).arg(&self.path).arg(to))?;
        let file = File::options().write(true).open(to).with_context(|| format!("open {}", to.display()))?;
        let now = file.metadata().with_context(|| format!("measure {}", to.display()))?.len();
        file.set_len(now.max(size)).with_context(|| format!("grow {}", to.display()))?;
        Ok(DiskImage { path: to.to_owned() })
    }

    /// Overwrites `bytes` at `offset` of the disk, as damage would.
    pub fn damage(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        use std::os::unix::fs::FileExt;
        let file = File::options().write(true).open(&self.path).context("open the disk to damage it")?;
        file.write_all_at(bytes, offset).with_context(|| format!("overwrite the disk at {offset}"))
    }

    /// Flips one bit of the byte at `offset` of the disk.
    pub fn flip_at(&self, offset: u64) -> Result<()> {
        use std::os::unix::fs::FileExt;
        let mut byte = [0];
        let file = File::open(&self.path).with_context(|| format!("open {}", self.path.display()))?;
        file.read_exact_at(&mut byte, offset).with_context(|| format!("read the disk at {offset}"))?;
        self.damage(offset, &[byte[0] ^ 0x04])
    }

    /// SHA-256 of the first `length` bytes of a partition, hex: whether anything on it changed. A first boot lengthens
    /// the partition of the root, so that its own length says nothing.
    pub fn digest(&self, number: u32, length: u64) -> Result<String> {
        use sha2::{Digest, Sha256};
        let extent = self.partition(number)?;
        let mut file = File::open(&self.path).with_context(|| format!("open {}", self.path.display()))?;
        file.seek(SeekFrom::Start(extent.offset)).context("seek in a disk image")?;
        let (mut part, mut hash, mut buffer) = (file.take(length.min(extent.length)), Sha256::new(), vec![0; 1 << 20]);
        loop {
            match part.read(&mut buffer).context("read a disk image")? {
                0 => break,
                n => hash.update(&buffer[..n]),
            }
        }
        Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
    }

    /// Content of a file, as the running system would see it; `None` when there is none. Links are followed.
    pub fn read_file(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let read = || -> Result<Option<Vec<u8>>> {
            let view = View::of(self)?;
            match view.find(&view.resolve(path, true)?)? {
                Some(found) if found.kind == Kind::File => view.read(&found).map(Some),
                Some(_) => bail!("it is no file"),
                None => Ok(None),
            }
        };
        read().with_context(|| format!("read {path} of the guest"))
    }

    /// Whether a path exists. Links on the way are followed.
    pub fn exists(&self, path: &str) -> Result<bool> {
        let view = View::of(self)?;
        Ok(view.find(&view.resolve(path, false)?)?.is_some())
    }

    /// Names in a directory, sorted; empty when it does not exist.
    pub fn list(&self, dir: &str) -> Result<Vec<String>> {
        let view = View::of(self)?;
        view.names(&view.resolve(dir, true)?)
    }

    /// Offset on the disk of what the beginning of a file of the verified root is read from: compressed, and maybe with
    /// others' data.
    ///
    /// # Errors
    /// When there is no such file in the root.
    pub fn root_offset(&self, path: &str) -> Result<u64> {
        let view = View::of(self)?;
        let found = view.find(&view.resolve(path, true)?)?.with_context(|| format!("find {path}"))?;
        view.place(&found)?.with_context(|| format!("find {path} in the root: it is on the data partition"))
    }

    /// A partition as e2fsprogs name a file system inside a file.
    fn spec(&self, place: &GptEntry) -> Result<String> {
        let path = self.path.display().to_string();
        if path.contains('?') {
            bail!("name a partition of {path}: e2fsprogs take no question mark in a path");
        }
        Ok(format!("{path}?offset={}", place.offset))
    }
}
