// SPDX-License-Identifier: Apache-2.0
//! The FAT partition below its files: zeroes free clusters and searches every byte.
//!
//! Layout: Microsoft's "FAT: General Overview of On-Disk Format" 1.03, §3 (BPB) and §4 (FAT entries).

use crate::flush::{self, FlushSite};
use anyhow::{Context, Result, ensure};
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Size of one read, bytes.
const WINDOW: usize = 1 << 20;

struct Layout {
    cluster_size: u64,
    data_start: u64,
    clusters: u64,
    fat_start: u64,
    fat32: bool,
}

/// Reads the BIOS parameter block. FAT12 is rejected: no boot partition is that small.
fn layout(sector: &[u8; 512]) -> Result<Layout> {
    let u16_at = |i: usize| u64::from(u16::from_le_bytes([sector[i], sector[i + 1]]));
    let u32_at = |i: usize| u64::from(u32::from_le_bytes([sector[i], sector[i + 1], sector[i + 2], sector[i + 3]]));
    let nonzero = |a: u64, b: u64| if a != 0 { a } else { b };
    let bytes_per_sector = u16_at(11);
    let sectors_per_cluster = u64::from(sector[13]);
    ensure!(
        (512..=4096).contains(&bytes_per_sector) && sectors_per_cluster.is_power_of_two(),
        "read the boot sector: not a FAT file system"
    );
    let reserved = u16_at(14);
    let fats = u64::from(sector[16]);
    let root_sectors = (u16_at(17) * 32).div_ceil(bytes_per_sector);
    let total = nonzero(u16_at(19), u32_at(32));
    let fat_size = nonzero(u16_at(22), u32_at(36));
    let data_sector = reserved + fats * fat_size + root_sectors;
    ensure!(total > data_sector, "read the boot sector: it has no data area");
    let clusters = (total - data_sector) / sectors_per_cluster;
    ensure!(clusters >= 4085, "read the boot sector: FAT12 is not supported");
    Ok(Layout {
        cluster_size: sectors_per_cluster * bytes_per_sector,
        data_start: data_sector * bytes_per_sector,
        clusters,
        fat_start: reserved * bytes_per_sector,
        fat32: clusters >= 65525,
    })
}

/// Whether all bytes are 0; compared by words, because musl's own comparison works byte by byte.
fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().fold(0, |all, word| all | u64::from_ne_bytes(*word)) == 0 && rest.iter().all(|b| *b == 0)
}

/// The free clusters of a file system.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Free {
    /// How many were not zero, and are now.
    pub zeroed: u64,
    /// Those that were zero on the medium: byte ranges in the partition, ascending.
    pub zero: Vec<Range<u64>>,
}

impl Free {
    fn add(&mut self, cluster: Range<u64>) {
        match self.zero.last_mut() {
            Some(last) if last.end == cluster.start => last.end = cluster.end,
            _ => self.zero.push(cluster),
        }
    }
}

/// Zeroes free clusters that are not zero. The file system has `len` bytes from byte `offset` of `file`. The page cache is
/// dropped first, so that a cluster that is found to be zero is so on the medium.
pub(super) fn zero_free_clusters(file: &mut File, offset: u64, len: u64) -> Result<Free> {
    forget(file, offset, len)?;
    let mut sector = [0u8; 512];
    file.read_exact_at(&mut sector, offset).context("read the boot sector")?;
    let layout = layout(&sector)?;
    let width = if layout.fat32 { 4 } else { 2 };
    let mut fat = vec![0u8; (layout.clusters as usize + 2) * width];
    file.read_exact_at(&mut fat, offset + layout.fat_start).context("read the allocation table")?;
    // The upper four bits of a FAT32 entry are reserved (§4).
    let free = |entry: &[u8]| match entry {
        [a, b, c, d] => u32::from_le_bytes([*a, *b, *c, *d]) & 0x0fff_ffff == 0,
        other => other.iter().all(|b| *b == 0),
    };
    let size = layout.cluster_size as usize;
    // Many clusters per read: one read for each cluster would take seconds on a small device.
    let at_once = (WINDOW / size).max(1);
    let zero = vec![0u8; size];
    let mut window = vec![0u8; at_once * size];
    let mut found = Free::default();
    let mut at = layout.data_start;
    for entries in fat[2 * width..].chunks(at_once * width) {
        let window = &mut window[..entries.len() / width * size];
        if entries.chunks_exact(width).any(free) {
            file.read_exact_at(window, offset + at).context("read free clusters")?;
            for (index, cluster) in window.chunks_exact(size).enumerate() {
                let start = at + (index * size) as u64;
                if !free(&entries[index * width..][..width]) {
                    continue;
                }
                if is_zero(cluster) {
                    found.add(start..start + size as u64);
                } else {
                    file.write_all_at(&zero, offset + start).context("zero a free cluster")?;
                    found.zeroed += 1;
                }
            }
        }
        at += window.len() as u64;
    }
    flush::file(FlushSite::BootZeroed, &*file).context("flush")?;
    Ok(found)
}

/// Drops what the page cache has of these bytes, so that the next read is one of the medium.
fn forget(file: &File, offset: u64, len: u64) -> Result<()> {
    flush::file(FlushSite::BootScanned, file)
        .or_else(|e| if e.kind() == std::io::ErrorKind::PermissionDenied { Ok(()) } else { Err(e) })?;
    fadvise(file, offset, NonZeroU64::new(len), Advice::DontNeed).context("drop the page cache")
}

/// Offset in the partition and length, bytes.
pub(super) type Span = (u64, usize);

/// Overwrites these spans with zeros; the file system starts at byte `offset` of `file`.
pub(super) fn erase(file: &File, offset: u64, places: &[Span]) -> Result<()> {
    for (at, length) in places {
        file.write_all_at(&vec![0; *length], offset + at).context("overwrite what is left")?;
    }
    flush::file(FlushSite::BootErased, file).context("flush")
}

/// Finds matches in a piece of the medium: offset in the piece and length, bytes.
pub(super) type Find<'a> = &'a dyn Fn(&[u8]) -> Vec<(usize, usize)>;

/// Searches `len` bytes from `offset` for matches of `find`, which have at most `longest` bytes and neither begin nor end
/// with a zero. What is known to be `zero` (ranges from `offset`, ascending) is not read. The page cache is dropped first,
/// so that the result reflects the content of the medium.
pub(super) fn scan(
    file: &File,
    offset: u64,
    len: u64,
    zero: &[Range<u64>],
    longest: usize,
    find: Find<'_>,
) -> Result<Vec<Span>> {
    forget(file, offset, len)?;
    let overlap = longest.saturating_sub(1);
    let mut found = Vec::new();
    let mut at = 0;
    let mut window = Vec::new();
    let mut zero = zero.iter().peekable();
    while at < len {
        if let Some(known) = zero.next_if(|known| known.start <= at) {
            at = at.max(known.end);
            window.clear();
            continue;
        }
        let end = zero.peek().map_or(len, |known| known.start.min(len));
        let want = (WINDOW as u64).min(end - at) as usize;
        let kept = window.len().min(overlap);
        window.drain(..window.len() - kept);
        window.resize(kept + want, 0);
        let mut reader = file;
        reader.seek(SeekFrom::Start(offset + at)).context("seek")?;
        reader.read_exact(&mut window[kept..]).context("read")?;
        // Most of a boot partition is empty, and the test for zeros is much faster than three searches.
        let places = if is_zero(&window) { Vec::new() } else { find(&window) };
        // A match wholly in the kept part was found in the previous round.
        found.extend(places.into_iter().filter(|(p, n)| p + n > kept).map(|(p, n)| (at + p as u64 - kept as u64, n)));
        at += want as u64;
    }
    found.sort_unstable();
    Ok(found)
}
