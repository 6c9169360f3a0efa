// SPDX-License-Identifier: Apache-2.0
//! Disk images seen from outside a running guest: partitions, the FAT boot partition, the kernel, a private copy.
//!
//! Only for disks whose guest is switched off, except that the boot partition may be read while it runs: firstboot
//! overwrites its status file in place, so what is read is at worst torn, never another file.

mod root;
pub mod tree;

use anyhow::{Context, Result, bail};
use firstboot::boot_partition::BootPartition;
use imagebuild::disk::{GptEntry, partitions};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A raw disk image with a GPT.
#[derive(Debug, Clone)]
pub struct DiskImage {
    path: PathBuf,
    /// By number, as in the table.
    partitions: BTreeMap<u32, GptEntry>,
}

/// What a boot loader starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootEntry {
    /// The kernel's file.
    pub kernel: Vec<u8>,
    /// The initrd's file.
    pub initrd: Vec<u8>,
    /// The kernel's command line.
    pub command_line: String,
}

/// The boot loader's default entry, on the EFI system partition.
const ENTRY: &str = "loader/entries/firstboot.conf";
const BOOT: u32 = 1;
const EFI_SYSTEM: u32 = 2;
const ROOT: u32 = 3;

impl DiskImage {
    /// Reads the partition table of `path`.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(DiskImage { path: path.to_owned(), partitions: partitions(path)? })
    }

    /// A file that has no partitions.
    #[cfg(test)]
    pub(crate) fn bare(path: &Path) -> Self {
        DiskImage { path: path.to_owned(), partitions: BTreeMap::new() }
    }

    /// Path of the image.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Place of partition `number`.
    pub fn partition(&self, number: u32) -> Result<&GptEntry> {
        let found = self.partitions.get(&number);
        found.with_context(|| format!("find partition {number} in {}", self.path.display()))
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

    /// What the default entry of the boot loader starts.
    pub fn boot_entry(&self) -> Result<BootEntry> {
        let extent = self.partition(EFI_SYSTEM)?;
        let file = File::open(&self.path).with_context(|| format!("open {}", self.path.display()))?;
        let end = extent.offset + extent.length;
        let slice = fscommon::StreamSlice::new(file, extent.offset, end).context("find the EFI system partition")?;
        let fat = fatfs::FileSystem::new(slice, fatfs::FsOptions::new()).context("read the EFI system partition")?;
        let root = fat.root_dir();
        let read = |path: &str| -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            let mut file = root.open_file(path.trim_start_matches('/')).with_context(|| format!("open {path}"))?;
            file.read_to_end(&mut bytes).with_context(|| format!("read {path}"))?;
            Ok(bytes)
        };
        let entry = String::from_utf8(read(ENTRY)?).context("decode the loader's entry")?;
        let value = |key: &str| {
            let line = entry.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' '));
            line.map(str::trim).with_context(|| format!("find {key} in the loader's entry"))
        };
        let (kernel, initrd) = (read(value("linux")?)?, read(value("initrd")?)?);
        Ok(BootEntry { kernel, initrd, command_line: value("options")?.to_owned() })
    }

    /// Replaces the kernel's command line in the default entry of the boot loader.
    pub fn set_command_line(&self, words: &str) -> Result<()> {
        let extent = self.partition(EFI_SYSTEM)?;
        let file = File::options().read(true).write(true).open(&self.path);
        let file = file.with_context(|| format!("open {}", self.path.display()))?;
        let end = extent.offset + extent.length;
        let slice = fscommon::StreamSlice::new(file, extent.offset, end).context("find the EFI system partition")?;
        let slice = fscommon::BufStream::new(slice);
        let fat = fatfs::FileSystem::new(slice, fatfs::FsOptions::new()).context("read the EFI system partition")?;
        {
            let mut entry = fat.root_dir().open_file(ENTRY).with_context(|| format!("open {ENTRY}"))?;
            let mut text = String::new();
            entry.read_to_string(&mut text).with_context(|| format!("read {ENTRY}"))?;
            let old =
                text.lines().find(|line| line.starts_with("options ")).context("find options in the loader's entry")?;
            let text = text.replace(old, &format!("options {words}"));
            entry.seek(SeekFrom::Start(0)).and_then(|_| entry.truncate()).with_context(|| format!("empty {ENTRY}"))?;
            entry.write_all(text.as_bytes()).with_context(|| format!("write {ENTRY}"))?;
        }
        fat.unmount().context("close the EFI system partition")
    }

    /// A private copy in `to`, sparse where this one is, `size` bytes long when that is more.
    pub fn copy(&self, to: &Path, size: u64) -> Result<DiskImage> {
        let mut command = Command::new("cp");
        imagebuild::cmd::run(command.args(["--sparse=auto", "--reflink=auto", "--"]).arg(&self.path).arg(to))?;
        let file = File::options().write(true).open(to).with_context(|| format!("open {}", to.display()))?;
        let now = file.metadata().with_context(|| format!("measure {}", to.display()))?.len();
        file.set_len(now.max(size)).with_context(|| format!("grow {}", to.display()))?;
        Ok(DiskImage { path: to.to_owned(), partitions: self.partitions.clone() })
    }

    /// Overwrites `bytes` at `offset` of the disk, as damage would.
    pub fn damage(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        use std::os::unix::fs::FileExt;
        let file = File::options().write(true).open(&self.path).context("open the disk to damage it")?;
        file.write_all_at(bytes, offset).with_context(|| format!("overwrite the disk at {offset}"))
    }

    /// SHA-256 of a partition's bytes, hex: whether anything on it changed.
    pub fn digest(&self, number: u32) -> Result<String> {
        use sha2::{Digest, Sha256};
        let extent = self.partition(number)?;
        let mut file = File::open(&self.path).with_context(|| format!("open {}", self.path.display()))?;
        file.seek(SeekFrom::Start(extent.offset)).context("seek in a disk image")?;
        let (mut part, mut hash, mut buffer) = (file.take(extent.length), Sha256::new(), vec![0; 1 << 20]);
        loop {
            match part.read(&mut buffer).context("read a disk image")? {
                0 => break,
                n => hash.update(&buffer[..n]),
            }
        }
        Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
    }

    /// The root partition as e2fsprogs name a file system inside a file.
    fn root_spec(&self) -> Result<String> {
        let path = self.path.display().to_string();
        if path.contains('?') {
            bail!("name the root partition of {path}: e2fsprogs take no question mark in a path");
        }
        Ok(format!("{path}?offset={}", self.partition(ROOT)?.offset))
    }
}
