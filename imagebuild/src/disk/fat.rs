// SPDX-License-Identifier: Apache-2.0
//! FAT32 file systems inside a disk image.

use super::Placed;
use anyhow::{Context, Result, ensure};
use fatfs::{Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};
use fscommon::{BufStream, StreamSlice};
use std::fs::File;
use std::io::Write;

/// Clusters that a FAT32 has at least (Microsoft FAT specification, "FAT Type Determination"), and some to spare for
/// what stands before them.
const LEAST_CLUSTERS: u64 = 65_525 + 75;

/// The date of every file: valid, for firmware renames no file whose month is 0, and the same in each build.
#[derive(Debug)]
struct Fixed;
const DAY: Date = Date { year: 1980, month: 1, day: 1 };

impl TimeProvider for Fixed {
    fn get_current_date(&self) -> Date {
        DAY
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: DAY, time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

/// The largest clusters with which a file system of this size is a FAT32: firmware follows their chains one by one.
fn cluster(size: u64) -> Result<u32> {
    let is_enough = |cluster: &u32| size / u64::from(cluster + 8) >= LEAST_CLUSTERS;
    [4096, 2048, 1024, 512].into_iter().find(is_enough).with_context(|| format!("{size} bytes are too few for a FAT32"))
}

/// Makes a FAT32 at a partition's place, with these files and the directories above them.
///
/// # Errors
/// When the partition is too small for a FAT32, for the files, or for `free` bytes besides.
pub fn fill<'a>(
    disk: &File,
    place: &Placed,
    volume: u32,
    files: impl Iterator<Item = (&'a str, &'a [u8])>,
    free: u64,
) -> Result<()> {
    let what = || format!("fill partition {}", place.label);
    let slice = || -> Result<_> {
        Ok(BufStream::new(StreamSlice::new(disk.try_clone()?, place.offset, place.offset + place.length)?))
    };
    ensure!(place.label.len() <= 11, "{}: the label is longer than 11 bytes", what());
    let mut label = [b' '; 11];
    label[..place.label.len()].copy_from_slice(place.label.as_bytes());
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .bytes_per_cluster(cluster(place.length).with_context(what)?)
        .volume_id(volume)
        .volume_label(label);
    let mut stream = slice()?;
    fatfs::format_volume(&mut stream, options).with_context(what)?;
    stream.flush().with_context(what)?;
    let system = FileSystem::new(slice()?, FsOptions::new().time_provider(&Fixed)).with_context(what)?;
    for (path, bytes) in files {
        let what = || format!("write {path} to partition {}", place.label);
        let root = system.root_dir();
        for (at, _) in path.match_indices('/') {
            root.create_dir(&path[..at]).with_context(what)?;
        }
        let mut file = root.create_file(path).with_context(what)?;
        file.truncate().with_context(what)?;
        file.write_all(bytes).with_context(what)?;
        file.flush().with_context(what)?;
    }
    let stats = system.stats().with_context(what)?;
    let left = u64::from(stats.free_clusters()) * u64::from(stats.cluster_size());
    ensure!(left >= free, "{}: {free} bytes must stay free, {left} are", what());
    system.unmount().with_context(what)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::disk::{Ids, partitions};
    use crate::target::Target;

    #[test]
    fn clusters_are_as_large_as_fat32_allows() {
        let mib = |mib: u64| cluster(mib << 20).map_err(|e| e.to_string());
        assert_eq!((mib(40), mib(64), mib(96), mib(256)), (Ok(512), Ok(512), Ok(1024), Ok(2048)));
        assert_eq!(mib(32), Err("33554432 bytes are too few for a FAT32".to_owned()));
    }

    #[test]
    fn files_have_a_date_that_firmware_accepts() {
        let (target, dir) = (Target::load("generic-arm64").unwrap(), tempfile::tempdir().unwrap());
        let path = dir.path().join("disk");
        let boot = crate::disk::testing::fats_only(&target, &Ids::new("k"), &path).unwrap();
        assert_eq!(partitions(&path).unwrap()[&1].offset, boot.offset);
        let disk = File::options().read(true).write(true).open(&path).unwrap();
        fill(&disk, &boot, 1, [("dir/a.conf", b"hello".as_slice())].into_iter(), 0).unwrap();
        let slice = StreamSlice::new(disk, boot.offset, boot.offset + boot.length).unwrap();
        let system = FileSystem::new(slice, FsOptions::new()).unwrap();
        assert_eq!(system.fat_type(), FatType::Fat32);
        let directory = system.root_dir().iter().map(Result::unwrap).find(|e| e.file_name() == "dir").unwrap();
        let file = directory.to_dir().iter().map(Result::unwrap).find(|e| e.file_name() == "a.conf").unwrap();
        for entry in [&directory, &file] {
            for date in [entry.created().date, entry.modified().date, entry.accessed()] {
                assert_eq!((date.year, date.month, date.day), (1980, 1, 1));
            }
        }
    }
}
