// SPDX-License-Identifier: Apache-2.0
//! What the initrd does with a disk, done from outside by its own library: partitions laid out and repaired, an empty data
//! partition made. So tests can put files on a device that was never on, and go on with a disk that lost its power.

use super::data::CheckedData;
use super::view::UPPER;
use super::{DATA, DiskImage};
use anyhow::{Context, Result};
use imagebuild::cmd::{run, tool};
use imagebuild::disk::GptEntry;
use initrd::command_line::CommandLine;
use initrd::layers::{MAKE, MAKE_EXTENDED};
use initrd::partitions;
use std::fs::File;
use std::process::Command;

/// A disk as the next boot would have it, but for what that boot writes to files.
pub struct Settled {
    /// Whether the data partition is new: there was none, or one that cannot be repaired.
    pub created: bool,
    pub(super) data: CheckedData,
}

impl DiskImage {
    /// Gives a disk that was never booted the partitions of a first boot, and an empty file system for data. The first
    /// boot keeps it, and fills /var. Nothing where there is a data partition.
    ///
    /// The disk must have its final size.
    ///
    /// # Errors
    /// When there is no room for a data partition, or the disk cannot be written.
    pub fn prepare_data(&self) -> Result<()> {
        if self.named(DATA)?.is_some() {
            return Ok(());
        }
        self.lay_out()?;
        make(&self.path().display().to_string(), &self.data()?)?;
        // As the initrd makes them: the names of what is changed in /etc, and what an overlay needs beside it.
        for directory in ["/etc", UPPER, "/etc/work"] {
            self.debugfs(true, &format!("mkdir \"{directory}\""))?;
        }
        Ok(())
    }

    /// Brings the disk to where the next boot begins to write files: its table repaired and complete, its data partition
    /// checked, in a file of its own, or made anew.
    ///
    /// # Errors
    /// When a boot would not get so far.
    pub fn settle(&self) -> Result<Settled> {
        self.lay_out()?;
        if let Ok(data) = self.check_data() {
            return Ok(Settled { created: false, data });
        }
        let data = self.data()?;
        let directory = self.path().parent().context("find the directory of a disk")?;
        let alone = tempfile::NamedTempFile::new_in(directory).context("create a file for a data partition")?;
        alone.as_file().set_len(data.length).context("size a file for a data partition")?;
        make(&alone.path().display().to_string(), &GptEntry { offset: 0, ..data })?;
        Ok(Settled { created: true, data: CheckedData(alone) })
    }

    /// Repairs and completes the partition table.
    fn lay_out(&self) -> Result<()> {
        let line = CommandLine::parse(&self.command_line()?)?;
        let disk = File::options().read(true).write(true).open(self.path());
        let mut disk = disk.with_context(|| format!("open {}", self.path().display()))?;
        partitions::prepare(&mut disk, line.slot).map(drop)
    }
}

/// Makes the file system of a data partition at `place` of a file, with the options that the initrd has.
fn make(path: &str, place: &GptEntry) -> Result<()> {
    let mut command = Command::new(tool("mkfs.ext4"));
    command.args(MAKE).args(["-E", &format!("{MAKE_EXTENDED},offset={}", place.offset)]);
    run(command.arg(path).arg(format!("{}k", place.length >> 10))).context("make a data partition")
}
