// SPDX-License-Identifier: Apache-2.0
//! Reads a FAT file system in a block device, in an image, or in memory under the fuzzer. Every operation ends and uses
//! no more memory than the file system has bytes, even if the file system is broken; a look at a stick, which anyone may
//! have made, reads one MiB of it. Nothing here writes.

use super::bounded::Bounded;
use super::cached::Cached;
use super::dates::FIXED_DATE;
use super::encodings::{SEED_NAMES, SIGNATURE_SUFFIX, encodings, find_all};
use crate::seed::{MAX_SIZE, ssh_signature};
use anyhow::{Context, Result, ensure};
use fatfs::{FileSystem, FsOptions, ReadWriteSeek};
use fscommon::StreamSlice;
use std::io::Read;

type Medium<T> = Bounded<Cached<StreamSlice<T>>>;
pub(super) type Directory<'a, T> = fatfs::Dir<'a, Medium<T>>;
pub(super) type FileOnFat<'a, T> = fatfs::File<'a, Medium<T>>;

/// Most that a look for a label, a seed or a signature reads, bytes: a directory of 30000 entries of 32 bytes, and the file.
/// A stick may claim 2 TB, and lead in a circle.
pub(super) const LOOK: u64 = 1 << 20;
/// How much of a file is searched at once, bytes.
const PIECE: usize = 64 << 10;
/// Greatest depth of nested directories in a search.
pub(super) const MAX_DEPTH: usize = 32;

/// An open FAT file system, for one operation: the number of bytes that it may read is bounded.
#[allow(missing_debug_implementations)] // the library's type has none
pub struct Volume<T: ReadWriteSeek> {
    inner: FileSystem<Medium<T>>,
    len: u64,
}

impl<T: ReadWriteSeek> Volume<T> {
    /// Opens the file system that fills `slice`, which is `len` bytes long.
    ///
    /// # Errors
    /// When there is no FAT file system.
    pub fn open(slice: StreamSlice<T>, len: u64) -> std::io::Result<Self> {
        // No operation reads everything more than a few times.
        Self::bounded(slice, len, (1 << 20) + len.saturating_mul(4))
    }

    /// The same for a look: what is read of it is bounded however large it is.
    ///
    /// # Errors
    /// When there is no FAT file system.
    pub fn glance(slice: StreamSlice<T>, len: u64) -> std::io::Result<Self> {
        Self::bounded(slice, len, LOOK)
    }

    fn bounded(slice: StreamSlice<T>, len: u64, most: u64) -> std::io::Result<Self> {
        let medium = Bounded::new(Cached::new(slice), most);
        Ok(Volume { inner: FileSystem::new(medium, FsOptions::new().time_provider(&FIXED_DATE))?, len })
    }

    pub(super) fn root(&self) -> Directory<'_, T> {
        self.inner.root_dir()
    }

    pub(super) fn close(self) -> std::io::Result<()> {
        self.inner.unmount()
    }

    /// Volume label, without padding.
    pub fn label(&self) -> Result<String> {
        let from_directory = self.inner.read_volume_label_from_root_dir().context("read the volume label")?;
        Ok(from_directory.unwrap_or_else(|| self.inner.volume_label()).trim().to_owned())
    }

    /// Names in the root directory.
    pub fn list(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.root().iter() {
            names.push(entry.context("list the boot partition")?.file_name());
        }
        Ok(names)
    }

    /// Names in a directory, as a path from the root with `/` between its parts; `None` when there is no such directory.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn list_in(&self, directory: &str) -> Result<Option<Vec<String>>> {
        let found = match self.root().open_dir(directory) {
            Ok(found) => found,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("open directory {directory}")),
        };
        let mut names = Vec::new();
        for entry in found.iter() {
            let name = entry.with_context(|| format!("list directory {directory}"))?.file_name();
            names.extend((name != "." && name != "..").then_some(name));
        }
        Ok(Some(names))
    }

    /// Content of a file in the root directory; `None` when there is none of this name (case is ignored, as FAT does).
    ///
    /// # Errors
    /// When the file cannot be read, or claims to be larger than the partition.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(bytes) = self.read_up_to(name, self.len)? else { return Ok(None) };
        ensure!(bytes.len() as u64 <= self.len, "read {name} on the boot partition: it is larger than the partition");
        Ok(Some(bytes))
    }

    /// The first bytes of a file: at most `limit + 1`, so that the caller detects a longer file.
    pub(super) fn read_up_to(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let root = self.root();
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

    /// Content of a file that has at most so many bytes; `None` when there is none of this name.
    ///
    /// # Errors
    /// When the file cannot be read, or is larger.
    pub fn read_at_most(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>> {
        let bytes = self.read_up_to(name, most as u64)?;
        let fits = bytes.as_ref().is_none_or(|bytes| bytes.len() <= most);
        ensure!(fits, "read {name}: it has more than the {most} bytes allowed");
        Ok(bytes)
    }

    /// The seed, as (name, bytes): the first of [`SEED_NAMES`] that exists.
    ///
    /// # Errors
    /// When the seed cannot be read or is larger than [`MAX_SIZE`].
    pub fn seed(&self) -> Result<Option<(&'static str, Vec<u8>)>> {
        for name in SEED_NAMES {
            if let Some(bytes) = self.read_at_most(name, MAX_SIZE)? {
                return Ok(Some((name, bytes)));
            }
        }
        Ok(None)
    }

    /// The signature of the seed with this name: the content of `NAME.sig` beside it, if there is one.
    ///
    /// # Errors
    /// When it cannot be read or is larger than [`ssh_signature::MAX_SIZE`].
    pub fn signature(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.read_at_most(&format!("{name}{SIGNATURE_SUFFIX}"), ssh_signature::MAX_SIZE)
    }

    /// Paths of the files whose content contains `needle` in UTF-8 or UTF-16.
    pub fn files_with(&self, needle: &str) -> Result<Vec<String>> {
        let needles = encodings(needle);
        let longest = needles.iter().map(Vec::len).max().unwrap_or(1);
        self.files_that(longest, &|bytes| needles.iter().any(|n| !find_all(bytes, n).is_empty()))
    }

    /// Paths of the files of which a piece satisfies `matches`, which looks for something of at most `longest` bytes.
    pub(super) fn files_that(&self, longest: usize, matches: &dyn Fn(&[u8]) -> bool) -> Result<Vec<String>> {
        let mut found = Vec::new();
        search(&self.root(), "", MAX_DEPTH, &|file| contains(file, longest, matches), &mut found)?;
        Ok(found)
    }
}

/// Whether a piece of a file satisfies `matches`. Pieces overlap, so that what is looked for lies in one of them as a whole.
fn contains(file: &mut dyn Read, longest: usize, matches: &dyn Fn(&[u8]) -> bool) -> std::io::Result<bool> {
    let mut piece = Vec::new();
    loop {
        let kept = piece.len().min(longest.saturating_sub(1));
        piece.drain(..piece.len() - kept);
        if file.take(PIECE as u64).read_to_end(&mut piece)? == 0 {
            return Ok(false);
        }
        if matches(&piece) {
            return Ok(true);
        }
    }
}

fn search<T: ReadWriteSeek>(
    dir: &Directory<'_, T>,
    prefix: &str,
    depth: usize,
    contains: &dyn Fn(&mut dyn Read) -> std::io::Result<bool>,
    found: &mut Vec<String>,
) -> Result<()> {
    ensure!(depth > 0, "search the boot partition: more than {MAX_DEPTH} nested directories");
    for entry in dir.iter() {
        let entry = entry.context("list the boot partition")?;
        let path = format!("{prefix}{}", entry.file_name());
        if entry.is_dir() {
            if !matches!(entry.file_name().as_str(), "." | "..") {
                search(&entry.to_dir(), &format!("{path}/"), depth - 1, contains, found)?;
            }
        } else if contains(&mut entry.to_file()).with_context(|| format!("read {path} on the boot partition"))? {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "volume_tests.rs"]
mod tests;
