// SPDX-License-Identifier: Apache-2.0
//! What the boot loader of a disk starts: the unified kernel image that the entry of its first slot names.

use super::{DiskImage, ESP};
use anyhow::{Context, Result, ensure};
use fscommon::{BufStream, StreamSlice};
use imagebuild::disk::GptEntry;
use imagebuild::uki;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

/// Label of the partition of the first slot, where the firmware reads no boot entries.
pub(super) const SYSTEM_A: &str = "SYSTEM-A";
/// The kernel's command line there.
pub(super) const CMDLINE: &str = "cmdline.txt";

/// The boot loader's entry of the first slot, on the EFI system partition (Boot Loader Specification, type 1).
const ENTRY: &str = "loader/entries/firstboot-a.conf";

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

pub(super) type Fat = fatfs::FileSystem<BufStream<StreamSlice<File>>>;

impl DiskImage {
    /// What the boot loader's entry of the first slot starts.
    ///
    /// # Errors
    /// When there is no such entry, or its image is not the one that its digest names.
    pub fn boot_entry(&self) -> Result<BootEntry> {
        let fat = self.system_partition(false)?;
        let (path, digest) = image_of(&read(&fat, ENTRY)?)?;
        let image = read(&fat, &path)?;
        let found = hex(&image);
        ensure!(found == digest, "read {path}: its SHA-256 is {found}, the boot loader's entry says {digest}");
        let section = |name: &str| uki::section(&image, name).map(<[u8]>::to_vec);
        let command_line = uki::command_line(&image)?.to_owned();
        Ok(BootEntry { kernel: section(".linux")?, initrd: section(".initrd")?, command_line })
    }

    /// Replaces the kernel's command line in that image, and the digest in the entry.
    ///
    /// # Errors
    /// When there is no room for it, or the disk cannot be written.
    pub fn set_command_line(&self, words: &str) -> Result<()> {
        let fat = self.system_partition(true)?;
        let entry = read(&fat, ENTRY)?;
        let (path, digest) = image_of(&entry)?;
        let mut image = read(&fat, &path)?;
        uki::set_command_line(&mut image, words)?;
        // Both are as long as before, so that no cluster is taken or freed.
        let entry = String::from_utf8(entry).context("decode the boot loader's entry")?.replace(&digest, &hex(&image));
        for (path, bytes) in [(path.as_str(), &image[..]), (ENTRY, entry.as_bytes())] {
            let mut file = fat.root_dir().open_file(path).with_context(|| format!("open {path}"))?;
            let written = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(bytes)).and_then(|()| file.flush());
            written.with_context(|| format!("write {path}"))?;
        }
        fat.unmount().context("close the EFI system partition")
    }

    /// Flips one bit of the image that the boot loader's entry of the first slot starts, in byte `at` modulo its length;
    /// returns the number of that byte.
    ///
    /// # Errors
    /// When there is no such entry, or the disk cannot be read or written.
    pub fn flip_boot_image(&self, at: u64) -> Result<u64> {
        let fat = self.system_partition(true)?;
        let (path, _) = image_of(&read(&fat, ENTRY)?)?;
        let at = {
            let mut file = fat.root_dir().open_file(&path).with_context(|| format!("open {path}"))?;
            let at = at % file.seek(SeekFrom::End(0)).with_context(|| format!("measure {path}"))?;
            let mut byte = [0];
            let mut flip = || {
                file.seek(SeekFrom::Start(at))?;
                file.read_exact(&mut byte)?;
                file.seek(SeekFrom::Start(at))?;
                file.write_all(&[byte[0] ^ 1])?;
                file.flush()
            };
            flip().with_context(|| format!("flip a bit of {path}"))?;
            at
        };
        fat.unmount().context("close the EFI system partition")?;
        Ok(at)
    }

    /// The kernel's command line of the first slot, whatever starts it.
    ///
    /// # Errors
    /// When the disk has neither a boot entry nor a `cmdline.txt`.
    pub fn command_line(&self) -> Result<String> {
        match self.named(SYSTEM_A)? {
            Some(_) => {
                let text = read(&self.system_partition(false)?, CMDLINE)?;
                Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
            }
            None => Ok(self.boot_entry()?.command_line),
        }
    }

    pub(super) fn system_partition(&self, write: bool) -> Result<Fat> {
        self.fat(self.partition(ESP)?, write)
    }

    pub(super) fn fat(&self, extent: GptEntry, write: bool) -> Result<Fat> {
        let file = File::options().read(true).write(write).open(self.path());
        let file = file.with_context(|| format!("open {}", self.path().display()))?;
        let end = extent.offset + extent.length;
        let slice = StreamSlice::new(file, extent.offset, end).context("find a FAT partition")?;
        let options = fatfs::FsOptions::new().time_provider(&firstboot::boot_partition::FIXED_DATE);
        fatfs::FileSystem::new(BufStream::new(slice), options).context("read a FAT partition")
    }
}

pub(super) fn read(fat: &Fat, path: &str) -> Result<Vec<u8>> {
    let mut file = fat.root_dir().open_file(path).with_context(|| format!("open {path}"))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).with_context(|| format!("read {path}"))?;
    Ok(bytes)
}

/// The path on the EFI system partition and the SHA-256 of what an entry starts, in the options of our program
/// `verify.efi`.
fn image_of(entry: &[u8]) -> Result<(String, String)> {
    let entry = std::str::from_utf8(entry).context("decode the boot loader's entry")?;
    let options = entry.lines().find_map(|line| line.trim_start().strip_prefix("options "));
    let options = options.context("find options in the boot loader's entry")?;
    let mut words = options.split_whitespace();
    let (Some(path), Some(digest), None) = (words.next(), words.next(), words.next()) else {
        anyhow::bail!("read options `{options}` of the boot loader's entry: expected a path and a digest");
    };
    Ok((path.trim_start_matches('\\').replace('\\', "/"), digest.to_owned()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    firstboot::text::hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_names_an_image_and_its_digest() {
        let entry = b"title firstboot\nefi /EFI/firstboot/verify.efi\noptions \\EFI\\firstboot\\a.efi 00ff\n";
        assert_eq!(image_of(entry).unwrap(), ("EFI/firstboot/a.efi".to_owned(), "00ff".to_owned()));
        let error = |entry: &[u8]| image_of(entry).unwrap_err().to_string();
        assert_eq!(error(b"title x\n"), "find options in the boot loader's entry");
        assert!(error(b"options a\n").ends_with("expected a path and a digest"));
    }
}
