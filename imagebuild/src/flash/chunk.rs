// SPDX-License-Identifier: Apache-2.0
//! Pieces of an image in memory that the kernel can write without copying them.

use sha2::{Digest, Sha256};

/// Bytes of a piece: what flash cards write at once is smaller, and 100 pieces fit into the memory of any laptop.
pub const CHUNK: usize = 4 << 20;
/// What direct input and output requires memory, places and lengths to be multiples of; open(2), O_DIRECT. Sectors are
/// smaller or as long.
pub const ALIGNMENT: usize = 4096;

/// Memory that begins at a multiple of [`ALIGNMENT`].
#[derive(Debug)]
pub struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Aligned {
        let bytes = vec![0; len + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        Aligned { bytes, start, len }
    }

    /// The first `len` bytes, at most as many as there are.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The bytes.
    pub fn get(&self) -> &[u8] {
        &self.bytes[self.start..][..self.len]
    }

    /// The bytes, to be changed.
    pub fn get_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.len]
    }
}

/// What a piece must be when it is read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// First byte in the image.
    pub offset: u64,
    /// Bytes.
    pub len: usize,
    /// SHA-256; `None` where all bytes are 0.
    pub digest: Option<[u8; 32]>,
}

impl Sum {
    /// The sum of these bytes of an image.
    pub fn of(offset: u64, bytes: &[u8]) -> Sum {
        let digest = (!is_zero(bytes)).then(|| Sha256::digest(bytes).into());
        Sum { offset, len: bytes.len(), digest }
    }
}

/// A piece of an image.
#[derive(Debug)]
pub struct Chunk {
    /// Its bytes; [`Sum::len`] of them.
    pub bytes: Aligned,
    /// Its place and digest.
    pub sum: Sum,
}

/// Whether all bytes are 0.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|b| *b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_has_its_length() {
        for len in [1, 512, CHUNK] {
            let mut memory = Aligned::zeros(len);
            memory.get_mut().fill(7);
            assert_eq!((memory.get().as_ptr().align_offset(ALIGNMENT), memory.get().len()), (0, len));
            memory.truncate(1);
            assert_eq!(memory.get(), [7]);
        }
    }

    #[test]
    fn zeros_have_no_digest_and_one_bit_gives_one() {
        let mut bytes = vec![0; 100_003];
        assert_eq!(Sum::of(9, &bytes), Sum { offset: 9, len: 100_003, digest: None });
        for at in [0, 50_000, 100_002] {
            bytes[at] = 1;
            assert!(Sum::of(0, &bytes).digest.is_some(), "{at}");
            bytes[at] = 0;
        }
    }
}
