// SPDX-License-Identifier: Apache-2.0
//! dm-verity: the hash tree over a file system, in the form that `veritysetup` writes and the kernel reads
//! (<https://gitlab.com/cryptsetup/cryptsetup/-/wikis/DMVerity>, Documentation/admin-guide/device-mapper/verity.rst).
//!
//! Format 1, SHA-256, blocks of 4096 bytes, no salt: a salt would only make equal blocks of two images differ. A device
//! finds its root by content, for which it needs no more than the root hash and the number of blocks.

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

/// Bytes of a block, of data and of the tree.
pub const BLOCK: usize = 4096;
const HASH: usize = 32;
/// Blocks that a thread reads at a time.
const CHUNK: usize = 256;

/// A tree over the content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// SHA-256 of the topmost block, hex: what the kernel is given.
    pub root_hash: String,
    /// Data blocks of 4096 bytes.
    pub blocks: u64,
    /// What follows the data: the superblock in a block of its own, then the levels, the topmost first.
    pub bytes: Vec<u8>,
}

/// Computes the tree over a file whose length is a multiple of [`BLOCK`]; `uuid` goes into the superblock.
///
/// # Errors
/// When the file cannot be read, or has less than two blocks: such a tree has no topmost block to find it by.
pub fn tree(data: &Path, uuid: uuid::Uuid) -> Result<Tree> {
    let file = File::open(data).with_context(|| format!("open {}", data.display()))?;
    let length = file.metadata().with_context(|| format!("read the size of {}", data.display()))?.len();
    ensure!(
        length % BLOCK as u64 == 0 && length >= 2 * BLOCK as u64,
        "hash {}: {length} bytes are not two or more blocks of {BLOCK}",
        data.display()
    );
    let blocks = length / BLOCK as u64;
    let mut levels = vec![hash_file(&file, blocks).with_context(|| format!("read {}", data.display()))?];
    while let Some(level) = levels.last().filter(|level| level.len() > BLOCK) {
        let hashes = level.chunks(BLOCK).flat_map(Sha256::digest).collect();
        levels.push(padded(hashes));
    }
    let top = levels.last().context("hash the topmost block")?;
    let root_hash = crate::digest::hex(Sha256::digest(top));
    let mut bytes = padded(superblock(blocks, uuid));
    levels.iter().rev().for_each(|level| bytes.extend_from_slice(level));
    Ok(Tree { root_hash, blocks, bytes })
}

/// The lowest level: a hash for each block of the file.
fn hash_file(file: &File, blocks: u64) -> std::io::Result<Vec<u8>> {
    let mut hashes = vec![0; blocks as usize * HASH];
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = (blocks as usize).div_ceil(threads) * HASH;
    thread::scope(|scope| {
        let workers: Vec<_> = hashes
            .chunks_mut(share)
            .enumerate()
            .map(|(worker, part)| scope.spawn(move || hash_blocks(file, worker * (share / HASH), part)))
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| std::io::ErrorKind::Other)?)
    })?;
    Ok(padded(hashes))
}

/// Fills `hashes` with those of the blocks from number `first` on.
fn hash_blocks(file: &File, first: usize, hashes: &mut [u8]) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK * BLOCK];
    for (number, part) in hashes.chunks_mut(CHUNK * HASH).enumerate() {
        let data = &mut buffer[..part.len() / HASH * BLOCK];
        file.read_exact_at(data, ((first + number * CHUNK) * BLOCK) as u64)?;
        for (block, hash) in data.chunks(BLOCK).zip(part.chunks_mut(HASH)) {
            hash.copy_from_slice(&Sha256::digest(block));
        }
    }
    Ok(())
}

/// In whole blocks.
fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// The superblock, 512 bytes, numbers in little-endian order.
fn superblock(blocks: u64, uuid: uuid::Uuid) -> Vec<u8> {
    let mut bytes = b"verity\0\0".to_vec();
    for number in [1u32, 1] {
        // Versions of the superblock and of the hash format.
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(uuid.as_bytes());
    let mut algorithm = [0; 32];
    algorithm[..6].copy_from_slice(b"sha256");
    bytes.extend_from_slice(&algorithm);
    for size in [BLOCK as u32, BLOCK as u32] {
        bytes.extend_from_slice(&size.to_le_bytes());
    }
    bytes.extend_from_slice(&blocks.to_le_bytes());
    // No salt: its size and its 256 bytes are zero.
    bytes.resize(512, 0);
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cmd;
    use std::process::Command;

    const UUID: uuid::Uuid = uuid::Uuid::from_u128(0x0011_2233_4455_8677_8899_aabb_ccdd_eeff);

    /// Bytes in which no two blocks are alike.
    fn data(blocks: usize) -> Vec<u8> {
        (0..blocks * BLOCK / 4).flat_map(|n| (n as u32).wrapping_mul(2_654_435_761).to_le_bytes()).collect()
    }

    fn tree_of(bytes: &[u8]) -> (Tree, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        (tree(file.path(), UUID).unwrap(), file)
    }

    #[test]
    fn one_level_is_a_block_of_hashes() {
        let bytes = data(2);
        let (tree, _file) = tree_of(&bytes);
        assert_eq!(tree.bytes.len(), 2 * BLOCK);
        let mut top = [Sha256::digest(&bytes[..BLOCK]), Sha256::digest(&bytes[BLOCK..])].concat();
        top.resize(BLOCK, 0);
        assert_eq!(tree.bytes[BLOCK..], top);
        assert_eq!(tree.root_hash, crate::digest::bytes(&top));
    }

    /// `veritysetup format --salt - --uuid … --hash-offset …` of cryptsetup 2.6.1 gave these for 16,385 blocks of zeros:
    /// three levels, of which the lower two have one block more than 128 and 16,384 hashes fill.
    #[test]
    fn a_tree_of_three_levels_is_that_of_veritysetup() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(16_385 * BLOCK as u64).unwrap();
        let tree = tree(file.path(), UUID).unwrap();
        assert_eq!(tree.bytes.len(), (1 + 1 + 2 + 129) * BLOCK);
        assert_eq!(tree.root_hash, ROOT_OF_ZEROS);
        assert_eq!(crate::digest::bytes(&tree.bytes), TREE_OF_ZEROS);
    }
    const ROOT_OF_ZEROS: &str = "b2a15c3af78d8202a3ad4464f14f1a09a52c3cfcfd9b5ba3a2febf5647978f7f";
    const TREE_OF_ZEROS: &str = "334ede7c5a01f3da7cdee666cded96e6e0e07d8aaaea9bd69c593c890da0c58d";

    #[test]
    fn veritysetup_verifies_it_and_refuses_a_changed_byte() {
        let program = cmd::tool("veritysetup");
        if !cmd::found("veritysetup") && !Path::new(&program).exists() {
            crate::skip::skip_unless_ci("veritysetup is not installed");
            return;
        }
        let mut bytes = data(300);
        let (tree, file) = tree_of(&bytes);
        let offset = bytes.len();
        bytes.extend_from_slice(&tree.bytes);
        let verify = |bytes: &[u8]| {
            std::fs::write(file.path(), bytes).unwrap();
            let mut command = Command::new(&program);
            command.args(["verify", "--hash-offset", &offset.to_string()]).args([file.path(), file.path()]);
            cmd::run(command.arg(&tree.root_hash))
        };
        verify(&bytes).unwrap();
        for place in [7, offset - 1, offset + BLOCK, bytes.len() - 2 * BLOCK] {
            bytes[place] ^= 1;
            assert!(verify(&bytes).is_err(), "byte {place} was changed");
            bytes[place] ^= 1;
        }
    }

    #[test]
    fn what_is_no_two_blocks_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for length in [0, BLOCK, 2 * BLOCK + 1] {
            file.as_file().set_len(length as u64).unwrap();
            let error = tree(file.path(), UUID).unwrap_err().to_string();
            assert!(error.ends_with(&format!("{length} bytes are not two or more blocks of 4096")), "{error}");
        }
    }
}
