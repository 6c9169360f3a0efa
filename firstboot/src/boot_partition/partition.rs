// SPDX-License-Identifier: Apache-2.0
//! A FAT file system in a file or block device: read, write, destroy and search files.

use super::encodings::{encodings, find_all};
use super::raw::{self, Free};
use super::token_digest::{self, SecretDigest};
use super::volume::{Directory, FileOnFat, Volume};
use crate::flush::{self, FlushSite};
use anyhow::{Context, Result};
use fatfs::ReadWriteSeek;
use fscommon::StreamSlice;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A FAT file system in a file or block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootPartition {
    path: PathBuf,
    offset: u64,
    len: u64,
}

impl BootPartition {
    /// Opens the file system that starts at byte `offset` of `path` and is `len` bytes long.
    ///
    /// # Errors
    /// When there is no FAT file system.
    pub fn open(path: &Path, offset: u64, len: u64) -> Result<Self> {
        let partition = BootPartition { path: path.to_owned(), offset, len };
        partition.glance()?;
        Ok(partition)
    }

    /// Opens the FAT file system of a whole block device, or of an image of one partition.
    pub fn open_whole(path: &Path) -> Result<Self> {
        let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let len = file.seek(SeekFrom::End(0)).with_context(|| format!("measure {}", path.display()))?;
        Self::open(path, 0, len)
    }

    /// Path of the block device or image.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that it has.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    #[allow(clippy::disallowed_methods)] // not through `Host`: the build machine opens disk images with it too
    fn file(&self, write: bool) -> Result<File> {
        let verb = if write { "open for writing" } else { "open" };
        OpenOptions::new()
            .read(true)
            .write(write)
            .open(&self.path)
            .with_context(|| format!("{verb} {}", self.path.display()))
    }

    fn slice(&self, write: bool) -> Result<StreamSlice<File>> {
        StreamSlice::new(self.file(write)?, self.offset, self.offset + self.len)
            .with_context(|| format!("open the boot partition in {}", self.path.display()))
    }

    pub(super) fn volume(&self, write: bool) -> Result<Volume<File>> {
        Volume::open(self.slice(write)?, self.len)
            .with_context(|| format!("read a FAT file system from {}", self.path.display()))
    }

    /// For a look at what may be anyone's.
    pub(super) fn glance(&self) -> Result<Volume<File>> {
        Volume::glance(self.slice(false)?, self.len)
            .with_context(|| format!("read a FAT file system from {}", self.path.display()))
    }

    /// Runs `change` on the root directory, then makes the change durable.
    pub(super) fn change<T>(&self, change: impl FnOnce(&Directory<'_, File>) -> Result<T>) -> Result<T> {
        let volume = self.volume(true)?;
        let done = change(&volume.root());
        let closed = self.settle(volume);
        let done = done?;
        closed.map(|()| done)
    }

    /// Makes what was changed durable.
    pub(super) fn settle(&self, volume: Volume<File>) -> Result<()> {
        let closed = volume.close();
        flush::file(FlushSite::BootChanged, self.file(true)?)
            .with_context(|| format!("flush {}", self.path.display()))?;
        closed.with_context(|| format!("close the file system on {}", self.path.display()))
    }

    /// Volume label, without padding.
    pub fn label(&self) -> Result<String> {
        self.glance()?.label()
    }

    /// Names in the root directory.
    pub fn list(&self) -> Result<Vec<String>> {
        self.volume(false)?.list()
    }

    /// Names in a directory: see [`Volume::list_in`].
    pub fn list_in(&self, directory: &str) -> Result<Option<Vec<String>>> {
        self.glance()?.list_in(directory)
    }

    /// Content of a file in the root directory: see [`Volume::read`].
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.volume(false)?.read(name)
    }

    /// The same of a file that has at most so many bytes: see [`Volume::read_at_most`].
    pub fn read_at_most(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>> {
        self.volume(false)?.read_at_most(name, most)
    }

    /// The seed, as (name, bytes): see [`Volume::seed`].
    pub fn seed(&self) -> Result<Option<(&'static str, Vec<u8>)>> {
        self.glance()?.seed()
    }

    /// The signature beside the seed with this name: see [`Volume::signature`].
    pub fn signature(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.glance()?.signature(name)
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

    /// Creates a directory in the root directory.
    #[cfg(test)]
    pub(crate) fn make_directory_for_tests(&self, name: &str) -> Result<()> {
        self.change(|root| Ok(root.create_dir(name).map(drop)?))
    }

    /// Overwrites every occurrence of `from` in a file with `to` (of the same length), in place.
    /// Returns the number of occurrences.
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

    /// Whether there is a file of this name.
    pub fn has(&self, name: &str) -> Result<bool> {
        Ok(self.volume(false)?.read_up_to(name, 0)?.is_some())
    }

    /// Overwrites a file with zeros, however large it is, and makes that durable. A missing file is no error.
    pub fn zero(&self, name: &str) -> Result<()> {
        if !self.has(name)? {
            return Ok(());
        }
        self.change(|root| {
            let mut file = root.open_file(name).with_context(|| format!("open {name} on the boot partition"))?;
            zero(&mut file, self.len).with_context(|| format!("overwrite {name} on the boot partition"))
        })
    }

    /// The same, then removes the file.
    pub fn destroy(&self, name: &str) -> Result<()> {
        self.zero(name)?;
        self.remove(name)
    }

    /// Removes a file from the root directory. A missing file is no error.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.change(|root| match root.remove(name) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e).with_context(|| format!("remove {name} on the boot partition")),
        })
    }

    /// Zeroes every free cluster that is not zero already.
    pub fn zero_free_clusters(&self) -> Result<Free> {
        raw::zero_free_clusters(&mut self.file(true)?, self.offset, self.len)
            .with_context(|| format!("zero the free clusters of {}", self.path.display()))
    }

    /// Byte offsets in the partition at which `needle` occurs in UTF-8 or UTF-16, read past the page cache.
    pub fn scan(&self, needle: &str) -> Result<Vec<u64>> {
        let needles = encodings(needle);
        let longest = needles.iter().map(Vec::len).max().unwrap_or(1);
        let places = self.scan_by(&[], longest, &|bytes| {
            let all = |n: &Vec<u8>| find_all(bytes, n).into_iter().map(|at| (at, n.len())).collect::<Vec<_>>();
            needles.iter().flat_map(all).collect()
        })?;
        Ok(places.into_iter().map(|(at, _)| at).collect())
    }

    /// Like [`BootPartition::scan`] for a secret of which only the digest is known: offset and length in bytes. What
    /// [`BootPartition::zero_free_clusters`] found to be zero is not read once more.
    pub fn scan_for_secret(&self, secret: &SecretDigest, free: &Free) -> Result<Vec<(u64, usize)>> {
        self.scan_by(&free.zero, token_digest::LONGEST, &|bytes| secret.places(bytes))
    }

    /// Overwrites places that [`BootPartition::scan_for_secret`] has found. They must be outside of all files. The
    /// slack after the end of a file, in its last cluster, is outside and still contains earlier content.
    pub fn erase(&self, places: &[(u64, usize)]) -> Result<()> {
        raw::erase(&self.file(true)?, self.offset, places)
            .with_context(|| format!("overwrite what is left on {}", self.path.display()))
    }

    fn scan_by(&self, zero: &[Range<u64>], longest: usize, find: raw::Find<'_>) -> Result<Vec<raw::Span>> {
        raw::scan(&self.file(false)?, self.offset, self.len, zero, longest, find)
            .with_context(|| format!("search {}", self.path.display()))
    }

    /// Paths of the files whose content contains `needle` in UTF-8 or UTF-16.
    pub fn files_with(&self, needle: &str) -> Result<Vec<String>> {
        self.volume(false)?.files_with(needle)
    }

    /// Like [`BootPartition::files_with`] for a secret of which only the digest is known.
    pub fn files_with_secret(&self, secret: &SecretDigest) -> Result<Vec<String>> {
        self.volume(false)?.files_that(token_digest::LONGEST, &|bytes| !secret.places(bytes).is_empty())
    }
}

/// Zeros over a file, whatever its size in the directory: over the bytes that it has, `most` of them.
pub(super) fn zero<T: ReadWriteSeek>(file: &mut FileOnFat<'_, T>, most: u64) -> std::io::Result<()> {
    let length = std::io::copy(&mut Read::by_ref(file).take(most), &mut std::io::sink())?;
    file.seek(SeekFrom::Start(0))?;
    std::io::copy(&mut std::io::repeat(0).take(length), file)?;
    file.flush()
}

/// Creates a FAT file system labelled BOOT in a new file, at byte `offset` and `len` bytes long; the file is 1 MiB
/// longer than that.
///
/// # Errors
/// When the file exists already or cannot be written.
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
#[path = "partition_tests.rs"]
mod tests;
