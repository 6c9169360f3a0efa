// SPDX-License-Identifier: Apache-2.0
//! What the journal says of this device.

use super::facts::Fact;
use super::record::{Effect, Record};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// The journal in memory, and where its two copies lie ([`super::store`]).
#[derive(Debug)]
pub struct Journal {
    pub(super) path: PathBuf,
    pub(super) copy: PathBuf,
    pub(super) records: Vec<Record>,
    /// The number of each record.
    pub(super) numbers: Vec<u64>,
    pub(super) next: u64,
    /// Inode and length of the first copy when it was last read or written.
    pub(super) seen: Option<(u64, u64)>,
    /// Whether a copy has to be written anew before the next record.
    pub(super) stale: bool,
    pub(super) damage: Vec<String>,
}

impl Journal {
    /// Every record, oldest first.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The records of this installation: those after the last [`Record::Sealed`] that another seed was begun after.
    fn installation(&self) -> &[Record] {
        let begun = self.records.iter().rposition(|r| matches!(r, Record::Begun { .. })).unwrap_or(0);
        let before = self.records[..begun].iter().rposition(|r| *r == Record::Sealed);
        &self.records[before.map_or(0, |sealed| sealed + 1)..]
    }

    /// Whether a run with this seed, version and boot is on record in this installation.
    pub fn begun(&self, begun: &Record) -> bool {
        !self.sealed() && self.installation().contains(begun)
    }

    /// Whether this phase was completed in this installation.
    pub fn done(&self, phase: &str) -> bool {
        self.installation().iter().any(|r| matches!(r, Record::Done { phase: p, .. } if p == phase))
    }

    /// The latest value of a fact.
    pub fn fact(&self, fact: Fact) -> Option<&str> {
        self.records.iter().rev().find_map(|r| match r {
            Record::Fact { name, value } if *name == fact => Some(value.as_str()),
            _ => None,
        })
    }

    /// Whether a flag is set; one that is not on record is not.
    pub fn is_set(&self, fact: Fact) -> bool {
        self.fact(fact) == Some("true")
    }

    /// Lines of a fact; none when it is not on record.
    pub fn lines(&self, fact: Fact) -> Vec<String> {
        self.fact(fact).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// A time on record, whole seconds; `None` when it is missing or no time.
    pub fn time(&self, fact: Fact) -> Option<SystemTime> {
        let seconds = self.fact(fact)?.parse().ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    }

    /// Whether the device is sealed: Ready once, seed destroyed, and no other seed begun since.
    pub fn sealed(&self) -> bool {
        self.installation().contains(&Record::Sealed) && self.resetting().is_none()
    }

    /// Whether this device has been a node since it was flashed or reset, whatever became of it: it holds a node's data.
    pub fn was_sealed(&self) -> bool {
        self.records.contains(&Record::Sealed)
    }

    /// Whether a reset has begun and not ended: which paths it leaves alone, by the latest word.
    pub fn resetting(&self) -> Option<&[String]> {
        self.records.iter().rev().find_map(|r| match r {
            Record::Resetting { keep, .. } => Some(keep.as_slice()),
            _ => None,
        })
    }

    /// Whether any seed was ever begun: whether there is anything that a reset could take back.
    pub fn used(&self) -> bool {
        self.records.iter().any(|r| matches!(r, Record::Begun { .. }))
    }

    /// Whether an effect on this path is already on record, so that its first state is known.
    pub fn knows(&self, path: &str) -> bool {
        self.records.iter().any(|r| match r {
            Record::Effect(
                Effect::Created { path: p }
                | Effect::Replaced { path: p, .. }
                | Effect::Directory { path: p }
                | Effect::Enabled { path: p, .. }
                | Effect::Tree { path: p },
            ) => p == path,
            _ => false,
        })
    }

    /// Digest of the seed of the last run.
    pub fn seed(&self) -> Option<&str> {
        self.records.iter().rev().find_map(|r| match r {
            Record::Begun { seed, .. } => Some(seed.as_str()),
            _ => None,
        })
    }

    /// Seconds that each phase took when it was last applied in this installation, in the order of first completion.
    pub fn seconds(&self) -> Vec<(String, f64)> {
        let mut all: Vec<(String, f64)> = Vec::new();
        for record in self.installation() {
            if let Record::Done { phase, seconds } = record {
                match all.iter_mut().find(|(p, _)| p == phase) {
                    Some(entry) => entry.1 = *seconds,
                    None => all.push((phase.clone(), *seconds)),
                }
            }
        }
        all
    }
}
