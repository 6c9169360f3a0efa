// SPDX-License-Identifier: Apache-2.0
//! The image to write: raw or compressed, its size before it is unpacked, and its line in `SHA256SUMS`.

use crate::digest;
use crate::packing::{ZSTD_WINDOW_LOG_MAX, fill};
use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
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

/// An image that was opened: its content is read in order, once.
pub struct Image {
    path: PathBuf,
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
    /// When it is missing, empty, damaged in its first bytes, or packed in another way.
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
                // One frame may say how long it is; an image of several is not made by any tool that we know of.
                size = zstd::zstd_safe::get_frame_content_size(magic).ok().flatten();
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
        let content = Box::new(Cursor::new(head.clone()).chain(content));
        Ok(Image { path: path.to_owned(), head, size, least, sector, content })
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

/// What a file is by its first bytes. What would be written as it is, and is surely no disk, is refused.
fn packing(magic: &[u8]) -> Result<Packing> {
    let starts = |with: &[u8]| magic.starts_with(with);
    Ok(match () {
        () if starts(&[0x28, 0xb5, 0x2f, 0xfd]) => Packing::Zstd,
        () if starts(&[0x1f, 0x8b]) => Packing::Gzip,
        () if starts(b"\xfd7zXZ\0") => bail!("it is packed with xz: unpack it first (xz --decompress --keep)"),
        () if starts(b"BZh") => bail!("it is packed with bzip2: unpack it first (bzip2 --decompress --keep)"),
        () if starts(b"PK\x03\x04") => bail!("it is a zip archive: unpack it first (unzip)"),
        () if starts(b"QFI\xfb") => bail!("it is a disk of QEMU: convert it first (qemu-img convert -O raw)"),
        () => Packing::Raw,
    })
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
    if head.get(510..512) != Some(&[0x55, 0xaa]) {
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

/// Compares a file with its line in `SHA256SUMS` beside it. Returns whether there is such a line.
///
/// # Errors
/// When the digests differ, or either file cannot be read.
pub fn check_sum(path: &Path) -> Result<bool> {
    let sums = path.with_file_name("SHA256SUMS");
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else { return Ok(false) };
    let text = match std::fs::read_to_string(&sums) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e).with_context(|| format!("read {}", sums.display())),
    };
    let Some((wanted, _)) = digest::lines(&text).find(|(_, other)| *other == name) else { return Ok(false) };
    let found = digest::file(path)?;
    ensure!(
        found.eq_ignore_ascii_case(wanted),
        "check {}: its SHA-256 is {found}, and {} has {wanted}: get it again",
        path.display(),
        sums.display()
    );
    Ok(true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "image_tests.rs"]
mod tests;
