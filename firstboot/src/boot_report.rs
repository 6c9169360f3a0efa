// SPDX-License-Identifier: Apache-2.0
//! What the initrd did at this boot: which slot runs, and what became of the data partition.
//!
//! The initrd (crate `initrd`, `report.rs`) writes the file; a test there holds both forms together. A device on another
//! operating system's image has none.

use crate::fault::Code;
use crate::host::Host;
use crate::text::one_line;
use serde::Deserialize;

/// Where the initrd leaves its report; gone at power-off.
pub const BOOT_REPORT: &str = "/run/firstboot/boot.json";

/// What the initrd did at this boot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BootReport {
    /// Format of this report; 1.
    pub version: u32,
    /// The slot that runs: `a` or `b`.
    pub slot: String,
    /// Block device of the verified root.
    pub root: String,
    /// Block device of the data partition; none where the data is in memory.
    pub data: Option<String>,
    /// What became of the data partition.
    pub state: DataState,
    /// Why, where it is not as it was.
    #[serde(default)]
    pub reason: Option<String>,
    /// What the initrd repaired, one line each.
    #[serde(default)]
    pub repaired: Vec<String>,
    /// Whether the disk has a second slot.
    #[serde(default)]
    pub slot_b: bool,
}

/// What became of the data partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataState {
    /// It is as it was.
    Kept,
    /// The first boot made it.
    Created,
    /// It could not be used, so an empty one took its place.
    Recreated,
    /// The medium takes no writes: what changes is in memory.
    ReadOnly,
    /// There is no data partition: everything is in memory.
    Memory,
}

impl BootReport {
    /// The report of this boot; `None` where this image has no verified root, or the report cannot be read.
    pub fn read(host: &Host) -> Option<Self> {
        let bytes = host.read(BOOT_REPORT).ok().flatten()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// What is lost at power-off, as a fault of this device; `None` where data is kept.
    pub(crate) fn volatile(&self) -> Option<(Code, String)> {
        let why = one_line(self.reason.as_deref().unwrap_or("no reason was given"));
        match self.state {
            DataState::Kept | DataState::Created | DataState::Recreated => None,
            DataState::ReadOnly => {
                let text = format!("write to the data partition: it is read-only ({why}); replace the medium");
                Some((Code::DiskReadOnly, text))
            }
            DataState::Memory => {
                let text =
                    format!("keep data: /var is in memory and lost at power-off ({why}); use a larger or another disk");
                Some((Code::DiskFull, text))
            }
        }
    }

    /// What a person should know of this boot, one line each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let recreated = (self.state == DataState::Recreated).then(|| {
            let why = one_line(self.reason.as_deref().unwrap_or_default());
            format!("Data: the data partition could not be used, and an empty one took its place: {why}")
        });
        let volatile = self.volatile().map(|(code, text)| format!("Data: {text} ({code})"));
        let repaired = self.repaired.iter().map(|line| format!("Damage: repaired: {}", one_line(line)));
        recreated.into_iter().chain(volatile).chain(repaired).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    fn read(text: &str) -> Option<BootReport> {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        host.write(BOOT_REPORT, text.as_bytes(), 0o644).unwrap();
        BootReport::read(&host)
    }

    fn report(state: &str, reason: &str) -> BootReport {
        let text = format!(
            r#"{{"version":1,"slot":"a","root":"/dev/vda3","data":null,"state":"{state}","reason":"{reason}",
               "repaired":["partition table: first copy"],"slot_b":true}}"#
        );
        read(&text).unwrap()
    }

    #[test]
    fn each_state_says_what_a_person_has_to_know() {
        assert_eq!(report("kept", "").warnings(), ["Damage: repaired: partition table: first copy"]);
        assert_eq!(report("created", "").volatile(), None);
        assert_eq!(
            report("recreated", "no ext4 file system").warnings()[0],
            "Data: the data partition could not be used, and an empty one took its place: no ext4 file system"
        );
        let (code, text) = report("read-only", "write-protected").volatile().unwrap();
        assert_eq!(code, Code::DiskReadOnly);
        assert_eq!(text, "write to the data partition: it is read-only (write-protected); replace the medium");
        let memory = report("memory", "no room on /dev/vda").warnings();
        assert_eq!(
            memory[0],
            "Data: keep data: /var is in memory and lost at power-off (no room on /dev/vda); use a larger or another disk \
             (FB303)"
        );
    }

    #[test]
    fn a_device_without_a_report_has_nothing_to_say() {
        assert_eq!(read("{"), None);
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        assert_eq!(BootReport::read(&host), None);
    }
}
