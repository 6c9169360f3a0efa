// SPDX-License-Identifier: Apache-2.0
//! What `/etc/fstab` of a base says of its partitions (fstab(5)).

use super::partitions::Partition;
use anyhow::{Context, Result};
use std::fs::File;

/// Whether fstab names a partition by a device file with this number.
pub fn is_by_number(spec: &str, number: u32) -> bool {
    spec.starts_with("/dev/")
        && spec.trim_end_matches(|c: char| c.is_ascii_digit()).len() + number.to_string().len() == spec.len()
        && spec.ends_with(&number.to_string())
}

/// What fstab calls the UUID of a FAT: its serial number, at byte 67 of a FAT32 and 39 of others.
pub fn fat_id(file: &File, partition: &Partition) -> Result<String> {
    use std::os::unix::fs::FileExt;
    let mut sector = [0; 512];
    file.read_exact_at(&mut sector, partition.offset).context("read the first sector of the FAT partition")?;
    let at = if sector[82..87] == *b"FAT32" { 67 } else { 39 };
    let id = u32::from_le_bytes([sector[at], sector[at + 1], sector[at + 2], sector[at + 3]]);
    Ok(format!("{:04x}-{:04x}", id >> 16, id & 0xffff))
}

/// Lines of fstab: what is mounted and where.
pub fn fstab(text: &str) -> Vec<(String, String)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (spec, point) = (words.next()?, words.next()?);
        (!spec.starts_with('#') && point.starts_with('/')).then(|| (spec.replace('"', ""), point.to_owned()))
    };
    text.lines().filter_map(line).collect()
}
