// SPDX-License-Identifier: Apache-2.0
//! The root file system of a disk or image, EROFS: read in place, without root and without a mount. It never changes, so
//! there is no writing.

use anyhow::{Context, Result, ensure};
use erofs_rs::r#async::EroFS;
use erofs_rs::backend::AsyncImage;
use erofs_rs::types::{Inode, Layout};
use std::fs::File;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

/// A partition of a disk, or a whole file.
struct Extent {
    disk: File,
    offset: u64,
    length: u64,
    /// Where on the disk was read last.
    last: Arc<AtomicU64>,
}

impl AsyncImage for Extent {
    async fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> erofs_rs::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.length);
        end.ok_or_else(|| erofs_rs::Error::OutOfBounds(format!("{} bytes at {offset}", buf.len())))?;
        self.last.store(self.offset + offset, Ordering::Relaxed);
        Ok(self.disk.read_exact_at(buf, self.offset + offset)?)
    }
}

/// Bytes from one inode number to the next (kernel: fs/erofs/erofs_fs.h, `EROFS_ISLOTBITS`).
const INODE_SLOT: u64 = 32;
/// Where an inode, of either size, has the number of blocks of its compressed data (the same, `erofs_inode_i_u`).
const COMPRESSED_BLOCKS: u64 = 16;

/// The root file system.
pub struct Root {
    files: EroFS<Extent>,
    last: Arc<AtomicU64>,
    disk: File,
    offset: u64,
}

impl Root {
    /// Opens the one at `offset` of `disk`, in a partition of `length` bytes.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(disk: &Path, offset: u64, length: u64) -> Result<Root> {
        let file = File::open(disk).with_context(|| format!("open {}", disk.display()))?;
        let last = Arc::new(AtomicU64::new(0));
        let own = file.try_clone().with_context(|| format!("open {}", disk.display()))?;
        let opened = done(EroFS::new(Extent { disk: file, offset, length, last: Arc::clone(&last) }));
        let files = opened.with_context(|| format!("read the root file system of {}", disk.display()))?;
        Ok(Root { files, last, disk: own, offset })
    }

    /// What an absolute path is; no link in it is followed.
    pub fn find(&self, path: &str) -> Result<Option<Inode>> {
        let mut node =
            done(self.files.get_inode(self.files.super_block().root_inode_id())).context("read the root directory")?;
        let mut at = String::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if !node.is_dir() {
                return Ok(None);
            }
            let found = self.names(&at)?.into_iter().find(|(other, _)| other == name);
            let Some((_, next)) = found else { return Ok(None) };
            node = next;
            at = format!("{at}/{name}");
        }
        Ok(Some(node))
    }

    /// What is in a directory. No link in its path is followed.
    ///
    /// # Errors
    /// When it is no directory.
    pub fn names(&self, directory: &str) -> Result<Vec<(String, Inode)>> {
        let directory = if directory.is_empty() { "/" } else { directory };
        let shown = || format!("list {directory} of the root file system");
        let mut entries = done(self.files.read_dir(directory)).with_context(shown)?;
        let mut names = Vec::new();
        while let Some(entry) = done(entries.next_entry()) {
            let entry = entry.with_context(shown)?;
            let name = String::from_utf8_lossy(entry.dir_entry.file_name()).into_owned();
            if name != "." && name != ".." {
                names.push((name, entry.inode));
            }
        }
        Ok(names)
    }

    /// Bytes that the content of a file occupies: whole blocks where it is compressed. Nothing is unpacked.
    ///
    /// # Errors
    /// When its inode cannot be read.
    pub fn stored(&self, node: &Inode) -> Result<u64> {
        match node.layout() {
            Some(Layout::CompressedFull | Layout::CompressedCompact) => {
                let head = self.files.super_block();
                let inode = (u64::from(head.meta_blk_addr) << head.blk_size_bits) + node.id() * INODE_SLOT;
                let mut blocks = [0; 4];
                let read = self.disk.read_exact_at(&mut blocks, self.offset + inode + COMPRESSED_BLOCKS);
                read.context("read an inode of the root file system")?;
                Ok(u64::from(u32::from_le_bytes(blocks)) << head.blk_size_bits)
            }
            _ => Ok(node.data_size()),
        }
    }

    /// The bytes of a file.
    pub fn read(&self, node: Inode) -> Result<Vec<u8>> {
        let mut file = self.files.open_inode_file(node).context("open a file of the root file system")?;
        let mut bytes = vec![0; usize::try_from(file.size()).context("measure a file")?];
        let mut at = 0;
        while at < bytes.len() {
            match done(file.read(&mut bytes[at..])).context("read a file of the root file system")? {
                0 => anyhow::bail!("read a file of the root file system: it ends after {at} bytes"),
                n => at += n,
            }
        }
        Ok(bytes)
    }

    /// Offset on the disk of what the beginning of a file is read from: compressed, and maybe with others' data.
    pub fn place(&self, node: Inode) -> Result<u64> {
        let file = self.files.open_inode_file(node).context("open a file of the root file system")?;
        let read = done(file.read_at(&mut [0], 0)).context("read a file of the root file system")?;
        ensure!(read == 1, "find the first byte of a file: it is empty");
        // What says where the data is was read before it.
        Ok(self.last.load(Ordering::Relaxed))
    }

    /// Where a symbolic link leads.
    pub fn target(&self, node: Inode) -> Result<String> {
        let target = done(self.files.read_link_inode(node)).context("read a link of the root file system")?;
        Ok(target.to_string_lossy().into_owned())
    }
}

/// Permissions, as in `st_mode`, without the type.
pub fn permissions(node: &Inode) -> u16 {
    // 12 bits.
    u16::try_from(node.permissions().mode() & 0o7777).unwrap_or_default()
}

/// The result of a future that waits for nothing: [`Extent`] reads when it is asked.
fn done<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = std::task::Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}
