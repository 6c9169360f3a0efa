// SPDX-License-Identifier: Apache-2.0
//! The FAT partition of a disk, image or stick from which a device reads its seed.

use super::{GptEntry, partitions, table};
use anyhow::{Result, anyhow, bail, ensure};
use firstboot::boot_partition::{BootPartition, STICK_LABEL};
use firstboot::status::STATUS_NAME;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Labels of file systems that a device reads seeds from: the boot partition of our own images, and a stick.
const LABELS: [&str; 2] = ["BOOT", STICK_LABEL];
/// What is said of a card reader without a card.
const NO_CARD: &str = "there is no card in it";

/// It, and where it is.
#[derive(Debug)]
pub struct SeedPartition {
    /// The file system.
    pub partition: BootPartition,
    /// Its label.
    pub label: String,
    /// Its place in the table; `None` where the file system is all there is.
    pub entry: Option<GptEntry>,
}

/// Finds it by its label. In an image that firstboot was baked into, the label is its maker's: there it is the FAT with the
/// status file.
///
/// # Errors
/// When there is none, with the names of the partitions that are there; or when the disk or its table cannot be read.
pub fn seed_partition(disk: &Path) -> Result<SeedPartition> {
    if disk.extension().is_some_and(|e| e == "zst") {
        bail!("open {}: unpack it first (zstd --decompress)", disk.display());
    }
    let file = open(disk)?;
    let (table, unreadable) = match partitions(disk) {
        Ok(table) => (table, None),
        // Without a table the disk may be one file system.
        Err(error) => (BTreeMap::new(), table::is_there(&file).unwrap_or(true).then_some(error)),
    };
    let mut names = Vec::new();
    let mut fats = Vec::new();
    for entry in table.into_values() {
        names.push(entry.name.clone());
        let fat = BootPartition::open(disk, entry.offset, entry.length);
        if let Ok((label, partition)) = fat.and_then(|fat| Ok((fat.label()?, fat))) {
            fats.push(SeedPartition { partition, label, entry: Some(entry) });
        }
    }
    if names.is_empty()
        && let Ok(partition) = BootPartition::open_whole(disk)
        && let Ok(label) = partition.label()
    {
        fats.push(SeedPartition { partition, label, entry: None });
    }
    let labelled = fats.iter().position(|fat| LABELS.contains(&fat.label.as_str()));
    let has_status =
        |fat: &SeedPartition| fat.partition.list().is_ok_and(|names| names.iter().any(|n| n == STATUS_NAME));
    match labelled.or_else(|| fats.iter().position(has_status)) {
        Some(at) => Ok(fats.swap_remove(at)),
        None => {
            if let Some(error) = unreadable {
                return Err(error);
            }
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            bail!(
                "find a FAT partition labelled BOOT or SEED, or one with {STATUS_NAME}, on {}; partitions: {names}",
                disk.display()
            )
        }
    }
}

/// Opens a disk or image to read it.
fn open(disk: &Path) -> Result<File> {
    let what = format!("open {}", disk.display());
    let mut file = File::open(disk).map_err(|error| not_opened(&what, error))?;
    if file.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device()) {
        let size = file.seek(SeekFrom::End(0)).map_err(|error| not_opened(&what, error))?;
        ensure!(size > 0, "{what}: {NO_CARD}");
    }
    Ok(file)
}

/// Why a disk or image cannot be opened, and what to do about it.
pub(crate) fn not_opened(what: &str, error: io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::PermissionDenied => anyhow!("{what}: {error}: run this as root (sudo)"),
        _ if error.raw_os_error() == Some(Errno::NOMEDIUM.raw_os_error()) => anyhow!("{what}: {NO_CARD}"),
        _ => anyhow::Error::from(error).context(what.to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::disk::mbr::{self, Record};
    use crate::disk::{Ids, testing};
    use crate::target::Target;
    use std::os::unix::fs::FileExt;

    /// A disk with an MBR and two FAT partitions; the second one has the status file when it is baked.
    fn disk(dir: &Path, baked: bool) -> std::path::PathBuf {
        const LENGTH: u64 = 8 << 20;
        let path = dir.join("card.img");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(32 << 20).unwrap();
        let record = |number| Record { number, kind: 0x0c, offset: u64::from(number) * LENGTH, length: LENGTH };
        file.write_all_at(&mbr::for_tests(0, &[1, 2].map(record)), 0).unwrap();
        for (number, label) in [(1, b"RECOVERY   "), (2, b"bootfs     ")] {
            let offset = record(number).offset;
            let part = fscommon::StreamSlice::new(file.try_clone().unwrap(), offset, offset + LENGTH).unwrap();
            let options = fatfs::FormatVolumeOptions::new().volume_label(*label);
            fatfs::format_volume(fscommon::BufStream::new(part), options).unwrap();
            if baked && number == 2 {
                BootPartition::open(&path, offset, LENGTH).unwrap().write(STATUS_NAME, b"state: new\n").unwrap();
            }
        }
        path
    }

    #[test]
    fn a_baked_image_with_an_mbr_has_it_where_the_status_file_is() {
        let dir = tempfile::tempdir().unwrap();
        let found = seed_partition(&disk(dir.path(), true)).unwrap();
        assert_eq!((found.label.as_str(), found.entry.unwrap().name.as_str()), ("bootfs", "2"));
        let path = disk(dir.path(), false);
        let error = seed_partition(&path).unwrap_err().to_string();
        let wanted = format!(
            "find a FAT partition labelled BOOT or SEED, or one with firstboot-status.txt, on {}; partitions: 1, 2",
            path.display()
        );
        assert_eq!(error, wanted);
    }

    #[test]
    fn a_damaged_table_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        testing::fats_only(&Target::load("generic-amd64").unwrap(), &Ids::new("t"), &path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let size = file.metadata().unwrap().len();
        // The GUID of the disk, in both headers.
        for header in [512, size - 512] {
            file.write_all_at(&[0xa5; 8], header + 56).unwrap();
        }
        let why = "read the partition table: its header has a wrong checksum";
        let error = format!("{:#}", seed_partition(&path).unwrap_err());
        assert_eq!(error, format!("read the partition table of {}: {why}", path.display()));
    }

    #[test]
    fn why_a_disk_is_not_opened_is_said_with_what_to_do() {
        let text = |code| format!("{:#}", not_opened("open /dev/sdb", io::Error::from_raw_os_error(code)));
        assert_eq!(text(13), "open /dev/sdb: Permission denied (os error 13): run this as root (sudo)");
        assert_eq!(text(123), "open /dev/sdb: there is no card in it");
        assert_eq!(text(5), "open /dev/sdb: Input/output error (os error 5)");
        let error = format!("{:#}", seed_partition(Path::new("none")).unwrap_err());
        assert_eq!(error, "open none: No such file or directory (os error 2)");
    }
}
