// SPDX-License-Identifier: Apache-2.0
//! The image to write: raw or compressed, and its size before it is unpacked.

use crate::packing::{ZSTD_WINDOW_LOG_MAX, fill};
use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;
use std::fs::{File, Metadata};
use std::io::{BufReader, Cursor, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes that [`Image::open`] unpacks to look at the partition table: sector 1 of disks with sectors of 4096 bytes too.
const HEAD: usize = 64 << 10;

/// How an image is packed, by its first bytes: names lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Raw,
    Zstd,
    Gzip,
}

/// By what two paths are known to lead to one file or device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The number of its file system, and its own there.
    File(u64, u64),
    /// The number of a block device, whatever its nodes are called.
    Device(u64),
}

impl Identity {
    /// The identity of what this was read of.
    pub fn of(metadata: &Metadata) -> Identity {
        match metadata.file_type().is_block_device() {
            true => Identity::Device(metadata.rdev()),
            false => Identity::File(metadata.dev(), metadata.ino()),
        }
    }
}

/// An image that was opened: its content is read in order, once.
pub struct Image {
    path: PathBuf,
    /// What must not be written while it is read.
    pub identity: Identity,
    head: Head,
    /// Bytes of the unpacked image, where they are known before it is unpacked.
    pub size: Option<u64>,
    /// Bytes that a disk must have for the partitions in it; 0 without a partition table.
    pub least: u64,
    /// Bytes of a sector that the partition table is written for, where there is a GUID partition table.
    pub sector: Option<u32>,
    content: Box<dyn Read + Send>,
}

/// The first bytes of the unpacked image, at most [`HEAD`].
type Head = Vec<u8>;

impl Image {
    /// Opens an image: raw, zstd (RFC 8878) or gzip (RFC 1952).
    ///
    /// # Errors
    /// When it is missing, empty, damaged in its first bytes, packed in another way, truncated, or no disk image.
    pub fn open(path: &Path) -> Result<Image> {
        let what = || format!("open {}", path.display());
        let file = File::open(path).with_context(what)?;
        let metadata = file.metadata().with_context(what)?;
        ensure!(!metadata.is_dir(), "{}: it is a directory, not an image", what());
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut magic = [0; 18];
        let got = fill(&mut reader, &mut magic).with_context(|| format!("read {}", path.display()))?;
        let magic = &magic[..got];
        ensure!(!magic.is_empty(), "{}: it is empty", what());
        let packing = packing(magic).with_context(what)?;
        let whole = Cursor::new(magic.to_vec()).chain(reader);
        let mut size = None;
        let mut content: Box<dyn Read + Send> = match packing {
            Packing::Raw => {
                size = metadata.is_file().then_some(metadata.len());
                Box::new(whole)
            }
            Packing::Zstd => {
                // A frame may say how long it is. One that is to be skipped says 0.
                size = zstd::zstd_safe::get_frame_content_size(magic).ok().flatten().filter(|size| *size > 0);
                let mut decoder = zstd::Decoder::with_buffer(BufReader::new(whole)).with_context(what)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).with_context(what)?;
                Box::new(decoder)
            }
            Packing::Gzip => Box::new(MultiGzDecoder::new(whole)),
        };
        let mut head = vec![0; HEAD];
        let got = fill(&mut content, &mut head).with_context(|| format!("unpack {}", path.display()))?;
        head.truncate(got);
        ensure!(!head.is_empty(), "{}: it has no content", what());
        let (least, sector) = extent(&head);
        ensure!(
            sector.is_some() || is_boot_sector(&head),
            "{}: it is no disk image: it has no partition table and no boot sector: give a raw image, or one packed with \
             zstd or gzip",
            what()
        );
        if let Some(bytes) = size.filter(|bytes| *bytes < least) {
            ensure!(packing == Packing::Zstd, "{}: {}", what(), truncated(bytes, least));
            // That was the first frame alone. What all of them have is seen when they are unpacked.
            size = None;
        }
        let content = Box::new(Cursor::new(head.clone()).chain(content));
        let identity = Identity::of(&metadata);
        Ok(Image { path: path.to_owned(), identity, head, size, least, sector, content })
    }

    /// The path that it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that a disk needs at least for what is known of the image so far.
    pub fn needs(&self) -> u64 {
        self.size.unwrap_or(self.head.len() as u64).max(self.least)
    }

    /// The unpacked content, from its first byte.
    pub fn content(&mut self) -> &mut (dyn Read + Send) {
        &mut *self.content
    }
}

/// What is said of an image that ends before its last partition, or before the second copy of its partition table.
pub fn truncated(bytes: u64, least: u64) -> String {
    format!("it has {bytes} bytes of the {least} that its partition table names: it is truncated: get it again")
}

/// What a file is by its first bytes. What would be written as it is, and is surely no disk, is refused.
fn packing(magic: &[u8]) -> Result<Packing> {
    let starts = |with: &[u8]| magic.starts_with(with);
    Ok(match () {
        () if starts(&[0x28, 0xb5, 0x2f, 0xfd]) => Packing::Zstd,
        // A frame that is to be skipped (RFC 8878, 3.1.2): pzstd writes one before each of the others.
        () if matches!(magic, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]) => Packing::Zstd,
        () if starts(&[0x1f, 0x8b]) => Packing::Gzip,
        () if starts(b"\xfd7zXZ\0") => bail!("it is packed with xz: unpack it first (xz --decompress --keep)"),
        () if starts(b"BZh") => bail!("it is packed with bzip2: unpack it first (bzip2 --decompress --keep)"),
        () if starts(b"7z\xbc\xaf\x27\x1c") => bail!("it is a 7z archive: unpack it first (7z x)"),
        () if starts(b"PK\x03\x04") => bail!("it is a zip archive: unpack it first (unzip)"),
        () if starts(b"QFI\xfb") => bail!("it is a disk of QEMU: convert it first (qemu-img convert -O raw)"),
        () => Packing::Raw,
    })
}

/// Whether the first sector ends as that of a disk with a partition table, or of a FAT, does.
fn is_boot_sector(head: &[u8]) -> bool {
    head.get(510..512) == Some(&[0x55, 0xaa])
}

/// Bytes that a disk must have for the table in its first sectors, and the sector that it is written for.
///
/// GUID partition table: UEFI 2.10, §5.3.2, where `AlternateLBA` is the last sector. MBR: the ends of the four entries.
fn extent(head: &[u8]) -> (u64, Option<u32>) {
    for sector in [512usize, 4096] {
        if head.get(sector..sector + 8) == Some(b"EFI PART")
            && let Some(bytes) = head.get(sector + 32..sector + 40).and_then(|b| b.try_into().ok())
        {
            let least = u64::from_le_bytes(bytes).saturating_add(1).saturating_mul(sector as u64);
            return (least, Some(sector as u32));
        }
    }
    if !is_boot_sector(head) {
        return (0, None);
    }
    let word = |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    // A boot sector of FAT has the same signature and no table: a type of 0 or a flag that is none says so.
    let entries: Vec<usize> = (0..4).map(|n| 446 + 16 * n).collect();
    if entries.iter().any(|at| head[*at] & 0x7f != 0) {
        return (0, None);
    }
    let used = entries.iter().filter(|at| head[**at + 4] != 0);
    let ends = used.map(|at| (u64::from(word(at + 8)) + u64::from(word(at + 12))) * 512);
    (ends.max().unwrap_or(0), None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "image_tests.rs"]
mod tests;
