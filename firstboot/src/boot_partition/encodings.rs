// SPDX-License-Identifier: Apache-2.0
//! File names and text encodings of a seed on a partition.

/// Names of a seed, in the order of search. Windows hides known extensions, so people save the second one.
pub const SEED_NAMES: [&str; 2] = ["seed.toml", "seed.toml.txt"];

/// What `ssh-keygen -Y sign` appends to the name of a file for the name of its signature. FAT keeps it as a long name.
pub const SIGNATURE_SUFFIX: &str = ".sig";

/// `text` in the encodings that editors save: UTF-8, UTF-16 little endian, UTF-16 big endian.
pub fn encodings(text: &str) -> [Vec<u8>; 3] {
    [
        text.as_bytes().to_vec(),
        text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
    ]
}

/// Offsets of every occurrence of `needle`; overlapping occurrences count once.
pub fn find_all(hay: &[u8], needle: &[u8]) -> Vec<usize> {
    if needle.is_empty() { Vec::new() } else { memchr::memmem::find_iter(hay, needle).collect() }
}
