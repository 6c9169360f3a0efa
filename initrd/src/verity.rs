// SPDX-License-Identifier: Apache-2.0
//! dm-verity as `veritysetup format --salt - --hash sha256` makes it: where its parts are, and how the kernel is asked
//! to verify with it (kernel: Documentation/admin-guide/device-mapper/verity.rst; cryptsetup: lib/verity/verity.c).
//!
//! A partition of a root holds, in blocks of 4096 bytes: the data, one block with the superblock, and the tree, its top
//! block first. Nothing in the superblock is signed, so nothing that it says is used to open a root.

use crate::command_line::Root;
use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;
use uuid::Uuid;

/// Bytes of a block, of data as of hashes.
pub const BLOCK: u64 = 4096;
/// Digests in a block of the tree.
const DIGESTS: u64 = BLOCK / 32;

/// Byte of a partition at which the top block of the tree is, when the data has `blocks` blocks.
pub fn top(blocks: u64) -> u64 {
    (blocks + 1) * BLOCK
}

/// Blocks of the whole tree over `blocks` blocks of data, without the superblock.
pub fn tree_blocks(blocks: u64) -> u64 {
    let (mut level, mut sum) = (blocks, 0);
    while level > 1 {
        level = level.div_ceil(DIGESTS);
        sum += level;
    }
    sum
}

/// Whether `partition` (a device or file that starts with the partition's first byte plus `offset`) holds the root: its
/// top block has the root hash. Everything below is verified by the kernel as it is read.
///
/// # Errors
/// When the block cannot be read; also when it is beyond the end.
pub fn holds(partition: &File, offset: u64, root: &Root) -> std::io::Result<bool> {
    let mut block = [0; BLOCK as usize];
    partition.read_exact_at(&mut block, offset + top(root.blocks))?;
    Ok(Sha256::digest(block)[..] == root.hash)
}

/// Whether all of the data is what the root hash says, by reading all of it: for kernels without dm-verity. The tree in the
/// file is not used.
///
/// # Errors
/// When the data cannot be read; also when it ends too early.
pub fn is_whole(file: &File, root: &Root) -> std::io::Result<bool> {
    let padded = |mut hashes: Vec<u8>| {
        hashes.resize(hashes.len().next_multiple_of(BLOCK as usize), 0);
        hashes
    };
    let (mut level, mut buffer, mut at) = (Vec::new(), vec![0; (DIGESTS * BLOCK) as usize], 0);
    while at < root.blocks {
        let count = (root.blocks - at).min(DIGESTS);
        let data = &mut buffer[..(count * BLOCK) as usize];
        file.read_exact_at(data, at * BLOCK)?;
        level.extend(data.chunks(BLOCK as usize).flat_map(Sha256::digest));
        at += count;
    }
    level = padded(level);
    while level.len() as u64 > BLOCK {
        level = padded(level.chunks(BLOCK as usize).flat_map(Sha256::digest).collect());
    }
    Ok(Sha256::digest(&level)[..] == root.hash)
}

/// The parameters of a dm-verity target over the device `number` (`MAJOR:MINOR`). No salt; a block that does not match
/// is an I/O error.
pub fn parameters(root: &Root, number: &str) -> String {
    let blocks = root.blocks;
    format!("1 {number} {number} {BLOCK} {BLOCK} {blocks} {} sha256 {} -", blocks + 1, root.hex())
}

/// The superblock, for those who look at an image from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Identifier of the tree.
    pub uuid: Uuid,
    /// Blocks of data.
    pub blocks: u64,
}

impl Superblock {
    /// Reads the block after the data: at least 512 bytes.
    ///
    /// # Errors
    /// When it is no superblock, or of another kind than ours: type 1, SHA-256, blocks of 4096 bytes, no salt.
    pub fn parse(block: &[u8]) -> Result<Superblock> {
        let number = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        ensure!(
            block.len() >= 512 && block.starts_with(b"verity\0\0"),
            "read the superblock of dm-verity: there is none"
        );
        let ours = number(8) == 1
            && number(12) == 1
            && block[32..64] == *b"sha256\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
            && u64::from(number(64)) == BLOCK
            && u64::from(number(68)) == BLOCK
            && block[80..82] == [0, 0];
        ensure!(ours, "read the superblock of dm-verity: not type 1, SHA-256, blocks of {BLOCK} bytes, no salt");
        let uuid = Uuid::from_slice(&block[16..32])?;
        Ok(Superblock { uuid, blocks: u64::from(number(72)) | u64::from(number(76)) << 32 })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;
    use crate::command_line::Slot;
    use std::process::Command;

    /// A partition with `blocks` blocks of data, and what its kernel's command line would say.
    pub fn partition(blocks: u64, slot: Slot) -> (Vec<u8>, Root) {
        let data: Vec<u8> = (0..blocks * BLOCK).map(|i| (i * 31 / 7) as u8).collect();
        let mut tree: Vec<Vec<u8>> = vec![];
        let mut level = data.clone();
        while level.len() as u64 > BLOCK {
            let mut up: Vec<u8> = level.chunks(BLOCK as usize).flat_map(Sha256::digest).collect();
            up.resize(up.len().next_multiple_of(BLOCK as usize), 0);
            tree.insert(0, up.clone());
            level = up;
        }
        let mut bytes = data;
        bytes.resize(bytes.len() + BLOCK as usize, 0);
        bytes.extend(tree.concat());
        let hash = Sha256::digest(&bytes[top(blocks) as usize..][..BLOCK as usize]).into();
        (bytes, Root { hash, blocks, slot })
    }

    #[test]
    fn the_top_block_decides() {
        let (mut bytes, root) = partition(300, Slot::A);
        assert_eq!(bytes.len() as u64, top(300) + tree_blocks(300) * BLOCK);
        let mut shifted = vec![7; 512];
        shifted.extend(&bytes);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let holds = |bytes: &[u8], offset, root: &Root| {
            std::fs::write(&path, bytes).unwrap();
            holds(&File::open(&path).unwrap(), offset, root)
        };
        assert!(holds(&shifted, 512, &root).unwrap());
        assert!(!holds(&shifted, 0, &root).unwrap());
        for at in [0, 1, 31, 4095] {
            bytes[top(300) as usize + at] ^= 1;
            assert!(!holds(&bytes, 0, &root).unwrap(), "{at}");
            bytes[top(300) as usize + at] ^= 1;
        }
        assert!(holds(&bytes[..top(300) as usize + 4095], 0, &root).is_err());
    }

    #[test]
    fn a_changed_byte_anywhere_in_the_data_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        for blocks in [2, 128, 129, 300] {
            let (mut bytes, root) = partition(blocks, Slot::A);
            let whole = |bytes: &[u8]| {
                std::fs::write(&path, bytes).unwrap();
                is_whole(&File::open(&path).unwrap(), &root)
            };
            assert!(whole(&bytes).unwrap(), "{blocks}");
            for at in [0, BLOCK, blocks * BLOCK - 1] {
                bytes[at as usize] ^= 1;
                assert!(!whole(&bytes).unwrap(), "{blocks}: {at}");
                bytes[at as usize] ^= 1;
            }
            assert!(whole(&bytes[..(blocks * BLOCK) as usize - 1]).is_err());
        }
    }

    #[test]
    fn the_table_line_is_as_the_kernel_documents_it() {
        let root = Root { hash: [0xab; 32], blocks: 1000, slot: Slot::A };
        let hash = "ab".repeat(32);
        assert_eq!(parameters(&root, "254:3"), format!("1 254:3 254:3 4096 4096 1000 1001 sha256 {hash} -"));
    }

    /// veritysetup is the other side of the format.
    #[test]
    fn veritysetup_makes_what_is_read_here() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        for blocks in [2u64, 127, 128, 129, 20_000] {
            std::fs::write(&path, vec![5; (blocks * BLOCK) as usize]).unwrap();
            let size = (blocks * BLOCK).to_string();
            let mut command = Command::new("/usr/sbin/veritysetup");
            command.args(["format", "--salt", "-", "--uuid", "01020304-0506-0708-090a-0b0c0d0e0f10"]);
            command.args(["--data-blocks", &blocks.to_string(), "--hash-offset", &size]).arg(&path).arg(&path);
            let Ok(out) = command.output() else {
                println!("SKIPPED: the format of veritysetup: it is not installed");
                return;
            };
            let text = String::from_utf8(out.stdout).unwrap();
            let hash = text.lines().find_map(|l| l.strip_prefix("Root hash:")).unwrap().trim();
            let hash = crate::command_line::parse_hash(hash).unwrap();
            let file = File::open(&path).unwrap();
            assert!(holds(&file, 0, &Root { hash, blocks, slot: Slot::A }).unwrap(), "{blocks}");
            assert_eq!(file.metadata().unwrap().len(), top(blocks) + tree_blocks(blocks) * BLOCK, "{blocks}");
            let mut block = [0; 512];
            file.read_exact_at(&mut block, blocks * BLOCK).unwrap();
            let found = Superblock::parse(&block).unwrap();
            assert_eq!((found.blocks, found.uuid.as_bytes()[15]), (blocks, 0x10));
            for at in [0, 8, 12, 33, 64, 68, 80] {
                block[at] ^= 1;
                assert!(Superblock::parse(&block).is_err(), "{at}");
                block[at] ^= 1;
            }
        }
    }
}
