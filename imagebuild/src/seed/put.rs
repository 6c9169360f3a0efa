// SPDX-License-Identifier: Apache-2.0
//! Writes a seed to the boot partition of a disk, image or stick.

use crate::disk;
use anyhow::{Context, Result, anyhow, bail};
use firstboot::boot_partition::{BootPartition, SEED_NAMES};
use std::path::Path;

/// Labels of file systems that a device reads seeds from: its own boot partition, and a stick.
const LABELS: [&str; 2] = ["BOOT", "SEED"];

/// Writes a seed, replacing what was there, and reads it back.
pub fn put(seed: &[u8], disk: &Path) -> Result<()> {
    let boot = find(disk)?;
    let failed = |what: &str, e: &dyn std::fmt::Display| anyhow!("{what} {} on {}: {e}", SEED_NAMES[0], disk.display());
    for old in SEED_NAMES {
        boot.destroy(old).map_err(|e| failed("replace", &e))?;
    }
    boot.write(SEED_NAMES[0], seed).map_err(|e| failed("write", &e))?;
    match boot.read(SEED_NAMES[0]).map_err(|e| failed("read back", &e))? {
        Some(found) if found == seed => Ok(()),
        _ => bail!("read back {} on {}: it differs", SEED_NAMES[0], disk.display()),
    }
}

/// The boot partition of a partitioned disk, or the file system of an unpartitioned one.
fn find(disk: &Path) -> Result<BootPartition> {
    if disk.extension().is_some_and(|e| e == "zst") {
        bail!("open {}: unpack it first (zstd --decompress)", disk.display());
    }
    std::fs::metadata(disk).with_context(|| format!("open {}", disk.display()))?;
    let mut seen = Vec::new();
    for partition in disk::partitions(disk).unwrap_or_default().into_values() {
        match BootPartition::open(disk, partition.offset, partition.length).and_then(|p| Ok((p.label()?, p))) {
            Ok((label, partition)) if LABELS.contains(&label.as_str()) => return Ok(partition),
            _ => seen.push(partition.name),
        }
    }
    if seen.is_empty()
        && let Ok(partition) = BootPartition::open_whole(disk)
        && partition.label().is_ok_and(|l| LABELS.contains(&l.as_str()))
    {
        return Ok(partition);
    }
    let seen = if seen.is_empty() { "none".to_owned() } else { seen.join(", ") };
    bail!("find a FAT partition labelled BOOT or SEED on {}; other partitions: {seen}", disk.display())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::disk::{Ids, testing};
    use crate::target::Target;

    #[test]
    fn a_seed_lands_on_the_boot_partition_and_replaces_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        let target = Target::load("generic-amd64").unwrap();
        let boot = testing::fats_only(&target, &Ids::new("t"), &path).unwrap();
        put(b"version = 1\n# a longer one\n", &path).unwrap();
        put(b"version = 1\n", &path).unwrap();
        let partition = BootPartition::open(&path, boot.offset, boot.length).unwrap();
        assert_eq!(partition.read("seed.toml").unwrap().as_deref(), Some(&b"version = 1\n"[..]));
        assert_eq!(partition.files_with("a longer one").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_disk_without_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty.img");
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        assert_eq!(
            put(b"x", &path).unwrap_err().to_string(),
            format!("find a FAT partition labelled BOOT or SEED on {}; other partitions: none", path.display())
        );
        let zst = dir.path().join("a.img.zst");
        assert_eq!(
            put(b"x", &zst).unwrap_err().to_string(),
            format!("open {}: unpack it first (zstd --decompress)", zst.display())
        );
    }
}
