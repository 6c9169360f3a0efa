// SPDX-License-Identifier: Apache-2.0
//! `/run/firstboot/boot.json`: what the initrd found and did, for firstboot and for tests.

use crate::command_line::Slot;
use serde::{Deserialize, Serialize};

/// Where it is, once the root runs.
pub const PATH: &str = "/run/firstboot/boot.json";
/// The version of the format.
pub const VERSION: u32 = 1;

/// A boot, as the initrd saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// [`VERSION`]
    pub version: u32,
    /// The slot that was started.
    pub slot: Slot,
    /// The partition of the root, as `/dev/vda3`.
    pub root: String,
    /// The partition that `/var` and `/etc` are on; none when they are in memory.
    pub data: Option<String>,
    /// What became of the data.
    pub state: State,
    /// Why data is not simply kept or created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was damaged and is whole again, one line for each.
    pub repaired: Vec<String>,
    /// Whether the disk has a second slot.
    pub slot_b: bool,
}

/// What became of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The file system was there.
    Kept,
    /// It was made: the first boot of a disk.
    Created,
    /// It was made anew because it could not be used; what it held is lost.
    Recreated,
    /// The medium cannot be written: changes are in memory, on top of what it holds.
    ReadOnly,
    /// There is no usable data partition: everything is in memory.
    Memory,
}

impl State {
    /// As in the file.
    pub fn name(self) -> &'static str {
        match self {
            State::Kept => "kept",
            State::Created => "created",
            State::Recreated => "recreated",
            State::ReadOnly => "read-only",
            State::Memory => "memory",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_the_file() {
        let mut boot = Boot {
            version: VERSION,
            slot: Slot::A,
            root: "/dev/vda3".into(),
            data: Some("/dev/vda5".into()),
            state: State::Kept,
            reason: None,
            repaired: vec!["partition table: backup copy".into()],
            slot_b: true,
        };
        let text = r#"{"version":1,"slot":"a","root":"/dev/vda3","data":"/dev/vda5","state":"kept","repaired":["partition table: backup copy"],"slot_b":true}"#;
        assert_eq!(serde_json::to_string(&boot).unwrap(), text);
        assert_eq!(serde_json::from_str::<Boot>(text).unwrap(), boot);
        boot = Boot { data: None, state: State::ReadOnly, reason: Some("r".into()), repaired: vec![], ..boot };
        let text = r#"{"version":1,"slot":"a","root":"/dev/vda3","data":null,"state":"read-only","reason":"r","repaired":[],"slot_b":true}"#;
        assert_eq!(serde_json::to_string(&boot).unwrap(), text);
        assert_eq!(serde_json::from_str::<Boot>(text).unwrap(), boot);
    }

    #[test]
    fn names_are_those_of_the_file() {
        for state in [State::Kept, State::Created, State::Recreated, State::ReadOnly, State::Memory] {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{}\"", state.name()));
        }
    }
}
