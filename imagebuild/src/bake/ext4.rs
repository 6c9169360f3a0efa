// SPDX-License-Identifier: Apache-2.0
//! An ext4 inside a disk image: read without a mount by the crate `ext4-view`, written by e2fsprogs.

use super::partitions::Partition;
use anyhow::{Context, Result, bail};
use ext4_view::{Ext4, Ext4Error, Ext4Read, FileType};
use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where the superblock is, and the numbers in it that are used here (kernel: fs/ext4/ext4.h, `struct ext4_super_block`).
const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xef53;
/// `EXT4_VALID_FS`: it was unmounted cleanly.
const CLEAN: u16 = 1;
/// `EXT4_FEATURE_INCOMPAT_RECOVER`: its journal has to be replayed.
const RECOVER: u32 = 4;
/// Largest text file of a base that is read, bytes.
const MOST_TEXT: u64 = 8 << 20;
/// Largest file that is read, bytes; what `bake` adds is smaller. The crate makes room for as much as the inode says,
/// which may be 16 TiB.
const MOST: u64 = 512 << 20;

/// What the superblock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Bytes of a block.
    pub block: u64,
    /// Bytes of the file system.
    pub size: u64,
    /// Bytes that are free, also for accounts other than root.
    pub free: u64,
    /// Whether it was unmounted cleanly and has nothing to replay.
    pub clean: bool,
    /// As `/etc/fstab` names it.
    pub uuid: String,
    /// Label; empty when there is none.
    pub label: String,
}

impl Superblock {
    /// Reads the superblock of the file system that begins at byte `offset`; `None` when it is no ext4 (or ext2, ext3).
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(file: &File, offset: u64) -> Result<Option<Superblock>> {
        let mut bytes = [0; 1024];
        file.read_exact_at(&mut bytes, offset + SUPERBLOCK).context("read a superblock")?;
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u64::from(half(at)) | u64::from(half(at + 2)) << 16;
        if half(0x38) != MAGIC {
            return Ok(None);
        }
        let wide = word(0x60) & 0x80 != 0;
        let count = |low: usize, high: usize| word(low) | if wide { word(high) << 32 } else { 0 };
        let block = 1024u64
            .checked_shl(word(0x18) as u32)
            .filter(|b| *b <= 65536)
            .context("read a superblock: size of blocks")?;
        let (blocks, reserved, free) = (count(0x4, 0x150), count(0x8, 0x154), count(0xc, 0x158));
        let label: Vec<u8> = bytes[0x78..0x88].iter().copied().take_while(|byte| *byte != 0).collect();
        Ok(Some(Superblock {
            block,
            size: blocks.saturating_mul(block),
            free: free.saturating_sub(reserved).saturating_mul(block),
            clean: half(0x3a) & CLEAN != 0 && word(0x60) as u32 & RECOVER == 0,
            uuid: uuid::Uuid::from_slice(&bytes[0x68..0x78])?.to_string(),
            label: String::from_utf8_lossy(&label).into_owned(),
        }))
    }
}

/// A part of a file as `ext4-view` reads it.
struct Part {
    file: File,
    offset: u64,
}

impl Ext4Read for Part {
    fn read(&mut self, at: u64, to: &mut [u8]) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        Ok(self.file.read_exact_at(to, self.offset + at)?)
    }
}

/// A file, directory or link, as a listing has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `d`, `l`, `-`, or `?` for everything else.
    pub kind: char,
    /// Permission bits.
    pub mode: u16,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Bytes.
    pub size: u64,
    /// When its content was changed last, seconds since 1970.
    pub modified: i64,
}

/// An ext4, open for reading.
pub struct Reader(Ext4);

impl Reader {
    /// Opens the file system on a partition of the image at `path`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path, partition: &Partition) -> Result<Reader> {
        Reader::at(path, partition.offset).with_context(|| format!("read the ext4 on partition {}", partition.number))
    }

    /// Opens the file system at a byte of the image.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn at(path: &Path, offset: u64) -> Result<Reader> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        Ok(Reader(Ext4::load(Box::new(Part { file, offset }))?))
    }

    /// Content of a file; links are followed. `None` when there is none, or it is none.
    ///
    /// # Errors
    /// When the file system is damaged, or the file is longer than 512 MiB.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        self.read_at_most(path, MOST)
    }

    /// The same of a file that has at most so many bytes.
    ///
    /// # Errors
    /// When the file system is damaged, or the file is longer.
    pub fn read_at_most(&self, path: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let what = || format!("read {path} of the base");
        match self.0.metadata(path) {
            Ok(meta) if meta.file_type() != FileType::Regular => Ok(None),
            Ok(meta) if meta.len() > most => bail!("{}: it is longer than {most} bytes: use another image", what()),
            Ok(_) => self.0.read(path).map(Some).with_context(what),
            Err(error) => absent(error).with_context(what),
        }
    }

    /// Text of a file, as [`Reader::read`]; what is longer than 8 MiB is no text.
    ///
    /// # Errors
    /// When the file system is damaged, or the file is longer.
    pub fn text(&self, path: &str) -> Result<Option<String>> {
        let bytes = self.read_at_most(path, MOST_TEXT)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Names in a directory, sorted; links are followed. Empty when there is none.
    ///
    /// # Errors
    /// When the file system is damaged.
    pub fn names(&self, directory: &str) -> Result<Vec<String>> {
        let what = || format!("list {directory} of the base");
        let entries = match self.0.read_dir(directory) {
            Ok(entries) => entries,
            Err(Ext4Error::NotADirectory) => return Ok(Vec::new()),
            Err(error) => return absent::<()>(error).map(|_| Vec::new()).with_context(what),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.with_context(what)?;
            let name = entry.file_name().display().to_string();
            names.extend((name != "." && name != "..").then_some(name));
        }
        names.sort();
        Ok(names)
    }

    /// Where a link leads; `None` when it is no link, or not there.
    ///
    /// # Errors
    /// When the file system is damaged.
    pub fn link(&self, path: &str) -> Result<Option<String>> {
        match self.0.read_link(path) {
            Ok(target) => Ok(Some(target.display().to_string())),
            Err(Ext4Error::NotASymlink) => Ok(None),
            Err(error) => absent(error).with_context(|| format!("read link {path} of the base")),
        }
    }

    /// What a path is, without following a link at its end; `None` when there is nothing.
    ///
    /// # Errors
    /// When the file system is damaged.
    pub fn node(&self, path: &str) -> Result<Option<Node>> {
        match self.0.symlink_metadata(path) {
            Ok(meta) => Ok(Some(Node {
                kind: match meta.file_type() {
                    FileType::Directory => 'd',
                    FileType::Symlink => 'l',
                    FileType::Regular => '-',
                    _ => '?',
                },
                mode: meta.mode() & 0o7777,
                owner: (meta.uid(), meta.gid()),
                size: meta.len(),
                modified: meta.modified().seconds(),
            })),
            Err(error) => absent(error).with_context(|| format!("look at {path} of the base")),
        }
    }

    /// Whether there is something at a path; a link that leads nowhere is nothing.
    ///
    /// # Errors
    /// When the file system is damaged.
    pub fn exists(&self, path: &str) -> Result<bool> {
        match self.0.exists(path) {
            Ok(there) => Ok(there),
            Err(error) => absent::<()>(error).map(|_| false).with_context(|| format!("look at {path} of the base")),
        }
    }
}

/// `None` for what says that a path leads nowhere.
fn absent<T>(error: Ext4Error) -> Result<Option<T>> {
    match error {
        Ext4Error::NotFound | Ext4Error::NotADirectory | Ext4Error::TooManySymlinks => Ok(None),
        error => Err(error.into()),
    }
}

/// A file system that is none of ours, by its first bytes; `None` for one that is not known.
///
/// # Errors
/// When the image cannot be read.
pub fn foreign(file: &File, partition: &Partition) -> Result<Option<&'static str>> {
    const KNOWN: [(u64, &[u8], &str); 7] = [
        (0, b"LUKS\xba\xbe", "LUKS"),
        (512, b"LABELONE", "LVM"),
        (65536 + 64, b"_BHRfS_M", "btrfs"),
        (0, b"XFSB", "XFS"),
        (1024, &[0x10, 0x20, 0xf5, 0xf2], "F2FS"),
        (1024, &[0xe2, 0xe1, 0xf5, 0xe0], "EROFS"),
        (0, b"hsqs", "squashfs"),
    ];
    for (at, magic, name) in KNOWN {
        let mut found = vec![0; magic.len()];
        if at + 16 <= partition.length {
            file.read_exact_at(&mut found, partition.offset + at).context("read the beginning of a partition")?;
        }
        if found == magic {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Copies bytes between two files; what is zero stays or becomes zero without being written, where it is already.
///
/// # Errors
/// When either cannot be read or written.
pub fn copy_part(from: &File, from_at: u64, to: &File, to_at: u64, length: u64) -> Result<()> {
    const CHUNK: usize = 1 << 20;
    let (mut new, mut old) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    while at < length {
        let count = (length - at).min(CHUNK as u64) as usize;
        let (new, old) = (&mut new[..count], &mut old[..count]);
        from.read_exact_at(new, from_at + at).context("copy a partition")?;
        to.read_exact_at(old, to_at + at).context("copy a partition")?;
        if *new != *old {
            to.write_all_at(new, to_at + at).context("copy a partition")?;
        }
        at += count as u64;
    }
    Ok(())
}
