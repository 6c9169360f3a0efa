// SPDX-License-Identifier: Apache-2.0
//! What the initrd leaves for the system: `/run/firstboot/boot.json`, which firstboot's status, audit and slots read.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// Where the report is, as the system sees it.
pub const PATH: &str = "/run/firstboot/boot.json";

/// What was done at this boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Format of this report; 1.
    pub version: u32,
    /// The slot that runs: `a` or `b`.
    pub slot: char,
    /// Block device of the verified root.
    pub root: String,
    /// Block device of the data partition; none where data is in memory.
    pub data: Option<String>,
    /// What became of the data partition.
    pub state: State,
    /// Why, where it is not as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was repaired, one line each.
    pub repaired: Vec<String>,
    /// Whether the disk has a second slot.
    pub slot_b: bool,
}

/// What became of the data partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is as it was.
    Kept,
    /// This boot made it.
    Created,
    /// It could not be used, so an empty one took its place.
    Recreated,
    /// The medium takes no writes: what changes is in memory.
    ReadOnly,
    /// There is no data partition: everything is in memory.
    Memory,
}

impl State {
    /// The word in the report and on the console.
    pub fn word(self) -> &'static str {
        match self {
            State::Kept => "kept",
            State::Created => "created",
            State::Recreated => "recreated",
            State::ReadOnly => "read-only",
            State::Memory => "memory",
        }
    }
}

impl Boot {
    /// Writes the report below the new root.
    ///
    /// # Errors
    /// When its directory cannot be made or the file not written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string(self).context("encode the boot report")? + "\n";
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        }
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_what_firstboot_reads() {
        let boot = Boot {
            version: 1,
            slot: 'a',
            root: "/dev/vda3".into(),
            data: Some("/dev/vda5".into()),
            state: State::ReadOnly,
            reason: Some("write-protected".into()),
            repaired: vec!["partition table: first copy".into()],
            slot_b: true,
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("firstboot/boot.json");
        boot.write(&path).unwrap();
        let text = fs::read_to_string(path).unwrap();
        assert_eq!(
            text,
            r#"{"version":1,"slot":"a","root":"/dev/vda3","data":"/dev/vda5","state":"read-only","#.to_owned()
                + r#""reason":"write-protected","repaired":["partition table: first copy"],"slot_b":true}"#
                + "\n"
        );
        for state in [State::Kept, State::Created, State::Recreated, State::ReadOnly, State::Memory] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.word());
        }
    }
}
