// SPDX-License-Identifier: Apache-2.0
//! FAT32 file systems inside a disk image.

use super::Placed;
use anyhow::{Context, Result, ensure};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use fscommon::{BufStream, StreamSlice};
use std::fs::File;
use std::io::Write;

/// A FAT being filled.
pub struct Fat {
    label: String,
    system: FileSystem<BufStream<StreamSlice<File>>>,
}

impl Fat {
    /// Makes an empty FAT32 at a partition's place.
    pub fn format(disk: &File, place: &Placed, volume: u32, cluster: u32) -> Result<Fat> {
        let what = || format!("format partition {}", place.label);
        let slice = || -> Result<_> {
            Ok(BufStream::new(StreamSlice::new(disk.try_clone()?, place.offset, place.offset + place.length)?))
        };
        ensure!(place.label.len() <= 11, "{}: the label is longer than 11 bytes", what());
        let mut label = [b' '; 11];
        label[..place.label.len()].copy_from_slice(place.label.as_bytes());
        let options = FormatVolumeOptions::new()
            .fat_type(FatType::Fat32)
            .bytes_per_cluster(cluster)
            .volume_id(volume)
            .volume_label(label);
        let mut stream = slice()?;
        fatfs::format_volume(&mut stream, options).with_context(what)?;
        stream.flush().with_context(what)?;
        let system = FileSystem::new(slice()?, FsOptions::new()).with_context(what)?;
        Ok(Fat { label: place.label.clone(), system })
    }

    /// Writes a file, with the directories above it.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let what = || format!("write {path} to partition {}", self.label);
        let root = self.system.root_dir();
        for (at, _) in path.match_indices('/') {
            root.create_dir(&path[..at]).with_context(what)?;
        }
        let mut file = root.create_file(path).with_context(what)?;
        file.truncate().with_context(what)?;
        file.write_all(bytes).with_context(what)?;
        file.flush().with_context(what)
    }

    /// Writes out what is still in memory.
    pub fn close(self) -> Result<()> {
        let label = self.label;
        self.system.unmount().with_context(|| format!("close partition {label}"))
    }
}
