// SPDX-License-Identifier: Apache-2.0
//! Under which names, and in which bytes, a seed may lie on a partition.

/// Names under which a seed is looked for, in this order; Windows hides known endings, so people save the second.
pub const SEED_NAMES: [&str; 2] = ["seed.toml", "seed.toml.txt"];

/// `text` as the bytes that editors may have saved: UTF-8, UTF-16 little endian, UTF-16 big endian.
pub fn encodings(text: &str) -> [Vec<u8>; 3] {
    [
        text.as_bytes().to_vec(),
        text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
    ]
}

/// Offsets of every occurrence of `needle`, overlapping ones counted once.
pub fn find_all(hay: &[u8], needle: &[u8]) -> Vec<usize> {
    if needle.is_empty() { Vec::new() } else { memchr::memmem::find_iter(hay, needle).collect() }
}
