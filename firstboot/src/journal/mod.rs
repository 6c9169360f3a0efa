// SPDX-License-Identifier: Apache-2.0
//! The append-only record of what firstboot did to this device: resume and `--reset` both come from it.
//!
//! One record a line ([`frame`]), in two copies ([`store`]), each record flushed to the medium before what it announces is
//! done. A torn last line (power cut) is dropped, and a damaged one is taken from the other copy. It holds no secret.

mod frame;
mod store;

pub use store::JOURNAL_COPY;

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where the journal lies on the device.
pub const JOURNAL: &str = "/var/lib/firstboot/journal";

/// A change to the machine, recorded before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// A file or symbolic link that was not there before.
    Created {
        /// Absolute path on the device.
        path: String,
    },
    /// A file or link that was there before; what it was is kept under `backup`.
    Replaced {
        /// Absolute path on the device.
        path: String,
        /// Absolute path of the copy.
        backup: String,
    },
    /// A directory that was not there before.
    Directory {
        /// Absolute path on the device.
        path: String,
    },
    /// A directory that belongs to firstboot with everything in it.
    Tree {
        /// Absolute path on the device.
        path: String,
    },
    /// A systemd unit that was enabled by a link.
    Enabled {
        /// Unit name.
        unit: String,
        /// Absolute path of the link on the device.
        path: String,
    },
    /// A systemd unit that was started.
    Started {
        /// Unit name.
        unit: String,
    },
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Record {
    /// A run began.
    Begun {
        /// Version of firstboot.
        version: String,
        /// [`crate::seed::Seed`]'s digest: tells seeds apart, reveals nothing.
        seed: String,
        /// The kernel's boot id.
        boot: String,
    },
    /// A change about to be made.
    Effect(Effect),
    /// A phase whose check held after it was applied.
    Done {
        /// Name of the phase.
        phase: String,
        /// How long it took, seconds.
        seconds: f64,
    },
    /// A fact that a phase found and must not find differently later, such as the node's name.
    Fact {
        /// Name of the fact.
        name: String,
        /// Its value.
        value: String,
    },
    /// This journal replaced another one: records before this one are void, in whichever copy they still stand.
    Restarted,
    /// The node is Ready and the seed is gone.
    Sealed,
    /// This device is being reset: whatever else is on record, the reset goes on until the journal itself is replaced.
    Resetting {
        /// Paths that are left alone.
        keep: Vec<String>,
        /// Digest of the seed that asked for it; none when a person did.
        seed: Option<String>,
    },
}

/// The journal in memory, and where its two copies lie ([`store`]).
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    copy: PathBuf,
    records: Vec<Record>,
    /// The number of each record.
    numbers: Vec<u64>,
    next: u64,
    /// Inode and length of the first copy when it was last read or written.
    seen: Option<(u64, u64)>,
    /// Whether a copy has to be written anew before the next record.
    stale: bool,
    damage: Vec<String>,
}

impl Journal {
    /// Every record, oldest first.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The records of this life of the node: those after the last [`Record::Sealed`] that another seed was begun after.
    fn life(&self) -> &[Record] {
        let begun = self.records.iter().rposition(|r| matches!(r, Record::Begun { .. })).unwrap_or(0);
        let before = self.records[..begun].iter().rposition(|r| *r == Record::Sealed);
        &self.records[before.map_or(0, |sealed| sealed + 1)..]
    }

    /// Whether a run with this seed, version and boot is on record in this life of the node.
    pub fn begun(&self, begun: &Record) -> bool {
        !self.sealed() && self.life().contains(begun)
    }

    /// Whether this phase was completed in this life of the node.
    pub fn done(&self, phase: &str) -> bool {
        self.life().iter().any(|r| matches!(r, Record::Done { phase: p, .. } if p == phase))
    }

    /// The latest value of a fact.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.records.iter().rev().find_map(|r| match r {
            Record::Fact { name: n, value } if n == name => Some(value.as_str()),
            _ => None,
        })
    }

    /// Whether the device is sealed: Ready once, seed destroyed, and no other seed begun since.
    pub fn sealed(&self) -> bool {
        self.life().contains(&Record::Sealed) && self.resetting().is_none()
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

    /// Seconds that each phase took when it was last applied in this life, in the order of first completion.
    pub fn seconds(&self) -> Vec<(String, f64)> {
        let mut all: Vec<(String, f64)> = Vec::new();
        for record in self.life() {
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

#[cfg(test)]
mod tests;
