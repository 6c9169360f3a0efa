// SPDX-License-Identifier: Apache-2.0
//! The verified root: an EROFS file system, and behind it, in the same partition, a dm-verity superblock and hash tree.
//!
//! Format 1 with SHA-256, blocks of 4096 bytes and no salt (kernel: admin-guide/device-mapper/verity.rst; cryptsetup: "on
//! disk format"). After the superblock the levels follow from the top down, so the first block of the tree is the one
//! whose digest is the root hash, and the root can be recognised by its content.

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes of a block, of the data and of the tree.
pub const BLOCK: u64 = 4096;
/// Digests in a block of the tree.
const PER_BLOCK: u64 = BLOCK / 32;
/// Bytes of a sector, as the device mapper counts.
const SECTOR: u64 = 512;

/// Which root is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// SHA-256 of the top block of the tree.
    pub hash: [u8; 32],
    /// Blocks of the file system.
    pub blocks: u64,
}

impl Root {
    /// Reads the two values as text: 64 hexadecimal digits, and a decimal number above 0.
    ///
    /// # Errors
    /// When either is not of that form.
    pub fn parse(hash: &str, blocks: &str) -> Result<Root> {
        ensure!(hash.len() == 64 && hash.is_ascii(), "read a root hash: it is not 64 hexadecimal digits");
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            let digits = &hash[2 * at..2 * at + 2];
            *byte = u8::from_str_radix(digits, 16).context("read a root hash: it is not hexadecimal")?;
        }
        let blocks: u64 = blocks.parse().context("read the number of blocks")?;
        ensure!((1..1 << 40).contains(&blocks), "read the number of blocks: {blocks} is out of range");
        Ok(Root { hash: bytes, blocks })
    }

    /// Where the tree's top block is, in bytes from the start of the partition.
    pub fn top(&self) -> u64 {
        (self.blocks + 1) * BLOCK
    }

    /// Bytes that the partition needs for file system, superblock and tree.
    pub fn length(&self) -> u64 {
        let (mut level, mut tree) = (self.blocks, 0);
        loop {
            level = level.div_ceil(PER_BLOCK);
            tree += level;
            if level == 1 {
                return (self.blocks + 1 + tree) * BLOCK;
            }
        }
    }

    /// Whether this root is at byte `offset` of `disk`, in a partition of `length` bytes. A block that cannot be read
    /// is not the root's.
    pub fn is_at(&self, disk: &File, offset: u64, length: u64) -> bool {
        let mut block = [0; BLOCK as usize];
        self.length() <= length
            && disk.read_exact_at(&mut block, offset + self.top()).is_ok()
            && Sha256::digest(block)[..] == self.hash
    }

    /// Sectors of the file system, of 512 bytes.
    pub fn sectors(&self) -> u64 {
        self.blocks * (BLOCK / SECTOR)
    }

    /// Parameters of the device mapper's target `verity` for a partition.
    pub fn table(&self, device: &str) -> String {
        let (blocks, start) = (self.blocks, self.blocks + 1);
        format!("1 {device} {device} {BLOCK} {BLOCK} {blocks} {start} sha256 {} -", self.hex())
    }

    /// The root hash, in hexadecimal.
    pub fn hex(&self) -> String {
        self.hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Number of data blocks by the superblock at byte `offset` of `disk`.
///
/// # Errors
/// When there is none, or its parameters are others than ours.
pub fn superblock(disk: &File, offset: u64) -> Result<u64> {
    let mut block = [0; 512];
    disk.read_exact_at(&mut block, offset).context("read a dm-verity superblock")?;
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    if &block[..8] != b"verity\0\0" {
        bail!("read a dm-verity superblock: its signature is missing");
    }
    let ours = (word(8), word(12), word(64), word(68)) == (1, 1, BLOCK as u32, BLOCK as u32);
    ensure!(ours && block[32..39] == *b"sha256\0", "read a dm-verity superblock: its parameters are not ours");
    Ok(u64::from(word(72)) | u64::from(word(76)) << 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_as_long_as_the_kernel_expects() {
        let root = |blocks| Root { hash: [0; 32], blocks };
        assert_eq!(root(1).length(), 3 * BLOCK);
        assert_eq!(root(128).length(), (128 + 1 + 1) * BLOCK);
        assert_eq!(root(129).length(), (129 + 1 + 1 + 2) * BLOCK);
        assert_eq!(root(128 * 128 + 1).length(), (16385 + 1 + 129 + 2 + 1) * BLOCK);
    }

    #[test]
    fn a_root_is_found_by_its_content() {
        let file = tempfile::tempfile().unwrap();
        let (offset, top) = (1 << 20, [7; BLOCK as usize]);
        let root = Root { hash: Sha256::digest(top).into(), blocks: 9 };
        file.set_len(offset + root.length()).unwrap();
        assert!(!root.is_at(&file, offset, root.length()));
        file.write_all_at(&top, offset + 10 * BLOCK).unwrap();
        assert!(root.is_at(&file, offset, root.length()));
        assert!(!root.is_at(&file, offset, root.length() - 1));
        assert!(!root.is_at(&file, offset + (1 << 30), root.length()));
        file.write_all_at(&[8], offset + root.top() + 4095).unwrap();
        assert!(!root.is_at(&file, offset, root.length()));
        assert_eq!(root.table("/dev/vda3"), format!("1 /dev/vda3 /dev/vda3 4096 4096 9 10 sha256 {} -", root.hex()));
    }
}
