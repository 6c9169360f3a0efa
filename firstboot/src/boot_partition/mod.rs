// SPDX-License-Identifier: Apache-2.0
//! The FAT partition that carries the seed in and the status file out; it is never mounted.
//!
//! One user-space library (`fatfs`) reads and writes it on the device and on the build machine alike. The device
//! opens the partition itself (`/dev/vda1`, offset 0); a build machine opens a disk image at the partition's offset.

mod bounded;
mod locate;
mod raw;

pub use locate::{Place, STICK_LABEL, locate, root_disk_name};

use crate::seed::MAX_SIZE;
use anyhow::{Context, Result, bail, ensure};
use bounded::Bounded;
use fatfs::{FileSystem, FsOptions};
use fscommon::{BufStream, StreamSlice};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Names under which a seed is looked for, in this order; Windows hides known endings, so people save the second.
pub const SEED_NAMES: [&str; 2] = ["seed.toml", "seed.toml.txt"];
/// Name of the file that tells a person with the card in a laptop how far the device came.
pub const STATUS_NAME: &str = "firstboot-status.txt";
/// Size of the status file in bytes: fixed, so that it is overwritten in place and no directory entry changes.
pub const STATUS_SIZE: usize = 16384;

type Medium = Bounded<BufStream<StreamSlice<File>>>;
type Volume = FileSystem<Medium>;
type Directory<'a> = fatfs::Dir<'a, Medium>;

/// Most folders within each other that are searched.
const MAX_DEPTH: usize = 32;

/// A FAT file system inside a file or block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootPartition {
    path: PathBuf,
    offset: u64,
    len: u64,
}

impl BootPartition {
    /// The file system that starts `offset` bytes into `path` and is `len` bytes long.
    ///
    /// # Errors
    /// When there is no FAT file system.
    pub fn open(path: &Path, offset: u64, len: u64) -> Result<Self> {
        let partition = BootPartition { path: path.to_owned(), offset, len };
        partition.volume(false)?;
        Ok(partition)
    }

    /// The FAT file system on a whole block device or image of one partition.
    pub fn open_whole(path: &Path) -> Result<Self> {
        let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let len = file.seek(SeekFrom::End(0)).with_context(|| format!("measure {}", path.display()))?;
        Self::open(path, 0, len)
    }

    /// Block device or image that holds it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[allow(clippy::disallowed_methods)] // a door of its own: the build machine opens disk images by it too
    fn file(&self, write: bool) -> Result<File> {
        let verb = if write { "open for writing" } else { "open" };
        OpenOptions::new()
            .read(true)
            .write(write)
            .open(&self.path)
            .with_context(|| format!("{verb} {}", self.path.display()))
    }

    fn volume(&self, write: bool) -> Result<Volume> {
        let slice = StreamSlice::new(self.file(write)?, self.offset, self.offset + self.len)
            .with_context(|| format!("open the boot partition in {}", self.path.display()))?;
        // No piece of work reads everything more than a few times.
        let medium = Bounded::new(BufStream::new(slice), (1 << 20) + self.len.saturating_mul(4));
        FileSystem::new(medium, FsOptions::new())
            .with_context(|| format!("read a FAT file system from {}", self.path.display()))
    }

    /// Runs `change` on the root directory, then makes it durable.
    fn change<T>(&self, change: impl FnOnce(&Directory<'_>) -> Result<T>) -> Result<T> {
        let volume = self.volume(true)?;
        let done = change(&volume.root_dir());
        let closed = volume.unmount();
        self.file(true)?.sync_all().with_context(|| format!("flush {}", self.path.display()))?;
        let done = done?;
        closed.with_context(|| format!("close the file system on {}", self.path.display()))?;
        Ok(done)
    }

    /// Volume label, without padding.
    pub fn label(&self) -> Result<String> {
        let volume = self.volume(false)?;
        let from_directory = volume.read_volume_label_from_root_dir().context("read the volume label")?;
        Ok(from_directory.unwrap_or_else(|| volume.volume_label()).trim().to_owned())
    }

    /// Names in the root directory.
    pub fn list(&self) -> Result<Vec<String>> {
        let volume = self.volume(false)?;
        let mut names = Vec::new();
        for entry in volume.root_dir().iter() {
            names.push(entry.context("list the boot partition")?.file_name());
        }
        Ok(names)
    }

    /// Content of a file in the root directory; `None` when there is none of this name (case is ignored, as FAT does).
    ///
    /// # Errors
    /// When it cannot be read, or says that it is larger than the partition.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(bytes) = self.read_up_to(name, self.len)? else { return Ok(None) };
        ensure!(bytes.len() as u64 <= self.len, "read {name} on the boot partition: it is larger than the partition");
        Ok(Some(bytes))
    }

    /// The first bytes of a file: `limit` and one more, which tells that there are more.
    fn read_up_to(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let volume = self.volume(false)?;
        let root = volume.root_dir();
        let file = match root.open_file(name) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("open {name} on the boot partition")),
        };
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .with_context(|| format!("read {name} on the boot partition"))?;
        Ok(Some(bytes))
    }

    /// The seed, as (name, bytes): the first of [`SEED_NAMES`] that exists.
    ///
    /// # Errors
    /// When it cannot be read or is larger than [`MAX_SIZE`].
    pub fn seed(&self) -> Result<Option<(&'static str, Vec<u8>)>> {
        for name in SEED_NAMES {
            if let Some(bytes) = self.read_up_to(name, MAX_SIZE as u64)? {
                if bytes.len() > MAX_SIZE {
                    bail!("read {name}: it has more than the {MAX_SIZE} bytes allowed");
                }
                return Ok(Some((name, bytes)));
            }
        }
        Ok(None)
    }

    /// Writes a file in the root directory. An existing file of the same length keeps its clusters.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.change(|root| {
            let mut file = root.create_file(name).with_context(|| format!("create {name} on the boot partition"))?;
            file.write_all(bytes).with_context(|| format!("write {name} on the boot partition"))?;
            file.truncate().with_context(|| format!("truncate {name} on the boot partition"))?;
            file.flush().with_context(|| format!("write {name} on the boot partition"))
        })
    }

    /// Overwrites `from` with `to` (of the same length) wherever it stands in a file, in place.
    /// Returns how many times it stood there.
    pub fn overwrite(&self, name: &str, from: &[u8], to: &[u8]) -> Result<usize> {
        let bytes = self.read(name)?.with_context(|| format!("find {name} on the boot partition"))?;
        let places = find_all(&bytes, from);
        self.change(|root| {
            let mut file = root.open_file(name).with_context(|| format!("open {name} on the boot partition"))?;
            for &place in &places {
                file.seek(SeekFrom::Start(place as u64)).with_context(|| format!("seek in {name}"))?;
                file.write_all(to).with_context(|| format!("overwrite {name} on the boot partition"))?;
            }
            file.flush().with_context(|| format!("overwrite {name} on the boot partition"))
        })?;
        Ok(places.len())
    }

    /// Overwrites a file with zeros, makes that durable, then removes it. Nothing happens when it is not there.
    pub fn destroy(&self, name: &str) -> Result<()> {
        let Some(bytes) = self.read(name)? else { return Ok(()) };
        self.write(name, &vec![0; bytes.len()])?;
        self.remove(name)
    }

    /// Removes a file from the root directory. Nothing happens when it is not there.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.change(|root| match root.remove(name) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e).with_context(|| format!("remove {name} on the boot partition")),
        })
    }

    /// Zeroes every free cluster that is not zero already; returns how many were.
    pub fn zero_free_clusters(&self) -> Result<u64> {
        raw::zero_free_clusters(&mut self.file(true)?, self.offset)
            .with_context(|| format!("zero the free clusters of {}", self.path.display()))
    }

    /// Byte offsets within the partition at which `needle` stands in UTF-8 or UTF-16, read past the page cache.
    pub fn scan(&self, needle: &str) -> Result<Vec<u64>> {
        raw::scan(&self.file(false)?, self.offset, self.len, needle)
            .with_context(|| format!("search {}", self.path.display()))
    }

    /// Paths of the files whose content holds `needle` in UTF-8 or UTF-16.
    pub fn files_with(&self, needle: &str) -> Result<Vec<String>> {
        let volume = self.volume(false)?;
        let mut found = Vec::new();
        search_directory(&volume.root_dir(), "", MAX_DEPTH, &encodings(needle), &mut found)?;
        Ok(found)
    }
}

fn search_directory(
    dir: &Directory<'_>,
    prefix: &str,
    depth: usize,
    needles: &[Vec<u8>; 3],
    found: &mut Vec<String>,
) -> Result<()> {
    ensure!(depth > 0, "search the boot partition: more than {MAX_DEPTH} folders within each other");
    for entry in dir.iter() {
        let entry = entry.context("list the boot partition")?;
        let path = format!("{prefix}{}", entry.file_name());
        if entry.is_dir() {
            if !matches!(entry.file_name().as_str(), "." | "..") {
                search_directory(&entry.to_dir(), &format!("{path}/"), depth - 1, needles, found)?;
            }
            continue;
        }
        let mut bytes = Vec::new();
        entry.to_file().read_to_end(&mut bytes).with_context(|| format!("read {path} on the boot partition"))?;
        if needles.iter().any(|n| !find_all(&bytes, n).is_empty()) {
            found.push(path);
        }
    }
    Ok(())
}

/// `text` as the bytes that editors may have saved: UTF-8, UTF-16 little endian, UTF-16 big endian.
pub fn encodings(text: &str) -> [Vec<u8>; 3] {
    [
        text.as_bytes().to_vec(),
        text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
    ]
}

/// Offsets of every occurrence of `needle`, overlapping ones counted once.
pub fn find_all(hay: &[u8], needle: &[u8]) -> Vec<usize> {
    if needle.is_empty() { Vec::new() } else { memchr::memmem::find_iter(hay, needle).collect() }
}

/// A FAT file system labelled BOOT in a new file, `offset` bytes into it and `len` bytes long; the file goes on a
/// little behind it.
///
/// # Errors
/// When there is such a file already or it cannot be written.
#[cfg(any(test, feature = "fake"))]
#[allow(clippy::disallowed_methods)] // a test's own file
pub fn formatted_for_tests(path: &Path, offset: u64, len: u64) -> Result<BootPartition> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    file.set_len(offset + len + (1 << 20))?;
    let mut slice = StreamSlice::new(file, offset, offset + len)?;
    fatfs::format_volume(&mut slice, fatfs::FormatVolumeOptions::new().volume_label(*b"BOOT       "))?;
    BootPartition::open(path, offset, len)
}

#[cfg(test)]
mod tests;
