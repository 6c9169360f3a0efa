// SPDX-License-Identifier: Apache-2.0
//! The append-only record of what firstboot did to this device: resume and `--reset` both come from it.
//!
//! One JSON record a line, each flushed to the medium before what it announces is done. A torn last line (power
//! cut) is dropped. It holds no secret.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

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
    /// A folder that was not there before.
    Folder {
        /// Absolute path on the device.
        path: String,
    },
    /// A folder that belongs to firstboot with everything in it.
    Tree {
        /// Absolute path on the device.
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

/// The journal in memory and on disk; the two never differ by more than the record being written.
pub struct Journal {
    file: File,
    records: Vec<Record>,
    /// Bytes of whole records; none while nothing is behind them.
    torn: Option<u64>,
}

impl Journal {
    /// Opens the journal at `path` (its folder must exist), creating it with mode 0600.
    ///
    /// # Errors
    /// When it cannot be read, or a whole line is not a record.
    #[allow(clippy::disallowed_methods)] // the door needs the journal first
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("open journal {shown}"))?;
        let bytes = std::fs::read(path).with_context(|| format!("read journal {shown}"))?;
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        let mut records = Vec::new();
        for (number, line) in bytes[..whole].split(|b| *b == b'\n').enumerate().filter(|(_, l)| !l.is_empty()) {
            let record =
                serde_json::from_slice(line).with_context(|| format!("read journal {shown}:{}", number + 1))?;
            records.push(record);
        }
        // Only when there is one: a start that has nothing to write must not touch the flash.
        if whole < bytes.len() {
            file.set_len(whole as u64).with_context(|| format!("drop the torn last line of journal {shown}"))?;
        }
        Ok(Journal { file, records, torn: None })
    }

    /// Adds a record and flushes it to the medium.
    pub fn append(&mut self, record: Record) -> Result<()> {
        let mut line = serde_json::to_vec(&record).context("encode a journal record")?;
        line.push(b'\n');
        self.write(&line).context("write the journal")?;
        self.records.push(record);
        Ok(())
    }

    /// What a write that failed has left (of a full disk for instance) goes before the next one: two records on one line
    /// would be none.
    fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        if let Some(whole) = self.torn {
            self.file.set_len(whole)?;
            self.torn = None;
        }
        let whole = self.file.metadata()?.len();
        let written = self.file.write_all(line).and_then(|()| self.file.sync_data());
        if written.is_err() {
            // Now, if it can be: whoever reads it meanwhile finds whole records.
            self.torn = self.file.set_len(whole).is_err().then_some(whole);
        }
        written
    }

    /// Puts another journal at `path`, in place of this one and in one step, and goes on with it.
    ///
    /// # Errors
    /// When it cannot be written; then the old one is still there.
    #[allow(clippy::disallowed_methods)] // the door needs the journal first
    pub fn replace(&mut self, path: &Path, records: &[Record]) -> Result<()> {
        let shown = path.display();
        let mut text = Vec::new();
        for record in records {
            serde_json::to_writer(&mut text, record).context("encode a journal record")?;
            text.push(b'\n');
        }
        let beside = path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&beside).with_context(|| format!("create {}", beside.display()))?;
        file.write_all(&text).and_then(|()| file.sync_all()).context("write the journal")?;
        std::fs::rename(&beside, path).with_context(|| format!("rename to {shown}"))?;
        if let Some(folder) = path.parent() {
            File::open(folder).and_then(|f| f.sync_all()).with_context(|| format!("flush {}", folder.display()))?;
        }
        *self = Journal::open(path)?;
        Ok(())
    }

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
                | Effect::Folder { path: p }
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
mod tests {
    use super::*;

    fn done(phase: &str) -> Record {
        Record::Done { phase: phase.into(), seconds: 1.5 }
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_the_next_record_stands_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path).unwrap();
        journal.append(done("identity")).unwrap();
        journal.append(Record::Fact { name: "node".into(), value: "edge-1".into() }).unwrap();
        drop(journal);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}{{\"done\":{{\"pha")).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.records().len(), 2);
        journal.append(Record::Sealed).unwrap();
        drop(journal);
        let journal = Journal::open(&path).unwrap();
        assert!(journal.done("identity") && !journal.done("join") && journal.sealed());
        assert_eq!(journal.fact("node"), Some("edge-1"));
        assert_eq!(journal.seconds(), [("identity".to_owned(), 1.5)]);
    }

    #[test]
    fn what_a_failed_write_has_left_is_gone_before_the_next_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path).unwrap();
        journal.append(done("identity")).unwrap();
        let whole = std::fs::metadata(&path).unwrap().len();
        // As on a disk that was full after half a line, and took no other size either.
        let good = std::mem::replace(&mut journal.file, File::open(&path).unwrap());
        assert_eq!(journal.append(done("join")).unwrap_err().to_string(), "write the journal");
        journal.file = good;
        journal.file.write_all(b"{\"done\":{\"pha").unwrap();
        assert_eq!(journal.torn, Some(whole));
        journal.append(Record::Sealed).unwrap();
        assert_eq!(Journal::open(&path).unwrap().records(), journal.records());
        assert!(journal.sealed() && !journal.done("join"));
    }

    #[test]
    fn another_seed_after_the_seal_begins_another_life() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&dir.path().join("journal")).unwrap();
        let begun = |seed: &str| Record::Begun { version: "1".into(), seed: seed.into(), boot: "b".into() };
        let fact = Record::Fact { name: "node".into(), value: "edge-1".into() };
        for record in [begun("s1"), fact, done("ready"), Record::Sealed] {
            journal.append(record).unwrap();
        }
        assert!(journal.sealed() && journal.done("ready") && !journal.begun(&begun("s1")));
        // The very same seed, dropped again, is another life as well.
        journal.append(begun("s1")).unwrap();
        assert!(!journal.sealed() && !journal.done("ready") && journal.begun(&begun("s1")));
        assert_eq!((journal.fact("node"), journal.seconds()), (Some("edge-1"), vec![]));
        journal.append(done("ready")).unwrap();
        journal.append(begun("s2")).unwrap();
        assert!(journal.done("ready") && !journal.sealed());
        journal.append(Record::Sealed).unwrap();
        assert!(journal.sealed());
    }

    #[test]
    fn a_reset_holds_until_another_journal_takes_the_place_of_this_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path).unwrap();
        journal.append(Record::Begun { version: "1".into(), seed: "s".into(), boot: "b".into() }).unwrap();
        journal.append(Record::Sealed).unwrap();
        assert!(journal.sealed() && journal.used() && journal.resetting().is_none());
        journal.append(Record::Resetting { keep: vec!["/srv".into()], seed: None }).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.resetting(), Some(&["/srv".to_owned()][..]));
        assert!(!journal.sealed());
        let fact = Record::Fact { name: "node-before".into(), value: "edge-1".into() };
        journal.replace(&path, &[fact]).unwrap();
        journal.append(done("identity")).unwrap();
        let journal = Journal::open(&path).unwrap();
        assert!(journal.resetting().is_none() && !journal.used() && journal.done("identity"));
        assert_eq!(journal.fact("node-before"), Some("edge-1"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        std::fs::write(&path, "\"sealed\"\nrubbish\n\"sealed\"\n").unwrap();
        let error = Journal::open(&path).err().unwrap();
        assert_eq!(error.to_string(), format!("read journal {}:2", path.display()));
    }
}
