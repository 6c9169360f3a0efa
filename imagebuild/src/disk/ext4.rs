// SPDX-License-Identifier: Apache-2.0
//! The root file system inside a disk image, made by mke2fs from a directory, without mounting.

use super::{Ids, MIB, Placed};
use crate::cmd;
use crate::owner::Owner;
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const BLOCK: u64 = 4096;
/// Journal of the file system: enough for the large disk that it will grow to.
const JOURNAL_MIB: u64 = 32;
/// Bytes per inode, mke2fs's own choice for file systems of this size.
const INODE_RATIO: u64 = 16384;
const INODE_SIZE: u64 = 256;

/// Bytes that the partition needs: the content of `tree`, the file system's own structures, and `slack`.
pub fn size(tree: &Path, slack: u64) -> Result<u64> {
    let (bytes, inodes) = content(tree)?;
    let plain = bytes + JOURNAL_MIB * MIB + slack;
    let tables = (plain / INODE_RATIO).max(inodes) * INODE_SIZE;
    Ok((plain + tables + plain / 50).next_multiple_of(4 * MIB))
}

/// Bytes in whole blocks, and number of files, below a directory.
fn content(dir: &Path) -> Result<(u64, u64)> {
    let (mut bytes, mut inodes) = (BLOCK, 1);
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry?;
        let meta =
            entry.path().symlink_metadata().with_context(|| format!("read the size of {}", entry.path().display()))?;
        if meta.is_dir() {
            let (b, i) = content(&entry.path())?;
            bytes += b;
            inodes += i;
        } else {
            bytes += meta.size().next_multiple_of(BLOCK);
            inodes += 1;
        }
    }
    Ok((bytes, inodes))
}

/// Makes the file system at its place in the image.
pub fn write(owner: &Owner, ids: &Ids, tree: &Path, image: &Path, place: &Placed) -> Result<()> {
    let uuid = ids.root_file_system();
    let mut command = owner.command("mke2fs");
    command.args(["-q", "-F", "-t", "ext4", "-b", &BLOCK.to_string(), "-i", &INODE_RATIO.to_string(), "-m", "1"]);
    command.args(["-L", &place.label, "-U", &uuid.to_string(), "-J", &format!("size={JOURNAL_MIB}")]);
    command.args(["-E", &format!("offset={},hash_seed={uuid},nodiscard", place.offset)]);
    command.arg("-d").arg(tree).arg(image).arg((place.length / BLOCK).to_string());
    cmd::run(&mut command).with_context(|| format!("make the root file system in {}", image.display()))
}
