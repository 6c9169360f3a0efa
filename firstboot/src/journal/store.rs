// SPDX-License-Identifier: Apache-2.0
//! The journal on disk: two copies, so that no damaged byte of either loses a record.
//!
//! A record is flushed in the first copy before what it announces is done; the second is written after it and reaches the
//! medium when the kernel flushes it, or at once for a record that ends something. Reading never writes and never fails:
//! what cannot be read is damage, and the other copy stands in. The first write repairs both copies; a damaged file is
//! kept beside as `NAME.damaged`. The writer holds the lock of [`crate::host`], for two services may run at once.
#![allow(clippy::disallowed_methods)] // the door needs the journal first

use super::frame::{self, Parsed};
use super::log::Journal;
use super::record::Record;
use crate::flush::{self, FlushSite};
use anyhow::{Context, Result};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where the journal is on the device.
pub const JOURNAL: &str = "/var/lib/firstboot/journal";
/// Path of the second copy on the device.
pub const JOURNAL_COPY: &str = "/var/lib/firstboot/journal.copy";

/// One copy on disk.
#[derive(Debug, Default)]
struct Copy {
    parsed: Parsed,
    /// Inode and length in bytes when it was read; none when there was none.
    stat: Option<(u64, u64)>,
    /// Why it could not be read at all.
    unreadable: Option<String>,
}

impl Copy {
    fn read(path: &Path) -> Copy {
        let read = || -> std::io::Result<Option<(Vec<u8>, u64)>> {
            match std::fs::read(path) {
                Ok(bytes) => Ok(Some((bytes, std::fs::metadata(path)?.ino()))),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        match read() {
            Ok(None) => Copy::default(),
            Ok(Some((bytes, inode))) => {
                Copy { parsed: frame::parse(&bytes), stat: Some((inode, bytes.len() as u64)), unreadable: None }
            }
            Err(error) => Copy { unreadable: Some(error.to_string()), ..Copy::default() },
        }
    }

    /// Whether it ends in a record whose write was cut off.
    fn is_torn(&self) -> bool {
        self.stat.is_some_and(|(_, length)| length > self.parsed.whole)
    }

    /// Whether it has lines that are no record, or cannot be read.
    fn is_damaged(&self) -> bool {
        self.parsed.damaged > 0 || self.unreadable.is_some()
    }

    /// Whether it holds exactly these records, each on a line of its own.
    fn is_whole(&self, numbers: &[u64]) -> bool {
        let same = self.parsed.records.keys().copied().eq(numbers.iter().copied());
        same && !self.is_damaged()
    }
}

impl Journal {
    /// Reads the journal below the directory `root`. Nothing is written, and nothing fails: a device without one has an
    /// empty one, and damage is reported by [`Journal::damage`].
    pub fn read(root: &Path) -> Journal {
        let path = |path: &str| root.join(path.trim_start_matches('/'));
        let mut journal = Journal::at(path(JOURNAL), path(JOURNAL_COPY));
        journal.reread();
        journal
    }

    fn at(path: PathBuf, copy: PathBuf) -> Journal {
        Journal {
            path,
            copy,
            records: Vec::new(),
            numbers: Vec::new(),
            next: 1,
            seen: None,
            stale: false,
            damage: Vec::new(),
        }
    }

    /// Reads both copies again: another process may have written to them.
    pub fn reread(&mut self) {
        // The second one first: another process that writes meanwhile writes it last.
        let second = Copy::read(&self.copy);
        let first = Copy::read(&self.path);
        let (all, missing) = frame::merge(&first.parsed, &second.parsed);
        let last = all.keys().next_back().copied();
        self.next = last.map_or(1, |last| last + 1);
        (self.numbers, self.records) = all.into_iter().unzip();
        self.seen = first.stat;
        self.damage.clear();
        for (path, copy) in [(JOURNAL, &first), (JOURNAL_COPY, &second)] {
            match &copy.unreadable {
                Some(why) => self.damage.push(format!("read {path}: {why}")),
                None if copy.parsed.damaged > 0 => {
                    self.damage.push(format!("read {path}: damaged records: {}", copy.parsed.damaged));
                }
                None => {}
            }
        }
        // The second copy may lag behind; the first is flushed before anything is done.
        let lost =
            second.parsed.records.keys().any(|n| self.numbers.contains(n) && !first.parsed.records.contains_key(n));
        if lost && first.unreadable.is_none() && first.parsed.damaged == 0 {
            self.damage.push(format!("read {JOURNAL}: it lacks records that its copy holds"));
        }
        if missing > 0 {
            self.damage.push(format!("read {JOURNAL} and its copy: records that are in neither: {missing}"));
        }
        self.stale = [&first, &second].iter().any(|copy| !copy.is_whole(&self.numbers) || copy.is_torn());
    }

    /// Whether a record between the first and the last is in neither copy.
    fn has_gap(&self) -> bool {
        self.numbers.windows(2).any(|pair| pair[1] != pair[0] + 1)
    }

    /// What is wrong with the files, one line each; empty when nothing is.
    pub fn damage(&self) -> &[String] {
        &self.damage
    }

    /// [`Journal::damage`], once.
    pub(crate) fn take_damage(&mut self) -> Vec<String> {
        std::mem::take(&mut self.damage)
    }

    /// Whether both files hold what is in memory, as far as this process knows, and nothing is to be reported.
    pub(crate) fn is_settled(&self) -> bool {
        !self.stale && self.damage.is_empty()
    }

    /// Adds a record and flushes it to the medium. The caller holds the lock.
    ///
    /// # Errors
    /// When it cannot be written; the journal is then as before.
    pub fn append(&mut self, record: Record) -> Result<()> {
        self.refresh()?;
        let line = frame::encode(self.next, &record)?;
        write(&self.path, &line, Some(FlushSite::JournalRecord), FlushSite::JournalCreated)
            .context("write the journal")?;
        // A copy that cannot be written now is written anew by the next record.
        let ends = matches!(record, Record::Sealed | Record::Resetting { .. } | Record::Restarted);
        let flushed = ends.then_some(FlushSite::JournalCopyRecord);
        self.stale = write(&self.copy, &line, flushed, FlushSite::JournalCopyCreated).is_err();
        self.records.push(record);
        self.numbers.push(self.next);
        self.next += 1;
        self.seen = stat(&self.path);
        Ok(())
    }

    /// Records that are not on disk: what was found out about a device whose journal is lost, and whose disk takes no
    /// writes.
    pub fn assume(&mut self, records: Vec<Record>) {
        for record in records {
            self.records.push(record);
            self.numbers.push(self.next);
            self.next += 1;
        }
        self.stale = true;
    }

    /// Takes in what other processes wrote, and makes both copies whole. Records that are in neither copy are reported
    /// once: the others get new numbers without a gap.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn refresh(&mut self) -> Result<()> {
        if stat(&self.path) != self.seen {
            let damage = std::mem::take(&mut self.damage);
            self.reread();
            self.damage.extend(damage);
            self.damage.dedup();
        }
        if self.has_gap() {
            let damaged = [&self.path, &self.copy].map(|path| Copy::read(path).is_damaged());
            // A leading marker, if there is one, is written anew by `replace`.
            let marked = self.records.first() == Some(&Record::Restarted);
            let records = self.records[usize::from(marked)..].to_vec();
            self.replace_and_keep(&records, damaged)?;
            self.stale = false;
        }
        if self.stale {
            for path in [self.path.clone(), self.copy.clone()] {
                let copy = Copy::read(&path);
                if copy.is_whole(&self.numbers) {
                    if copy.is_torn() {
                        let file = OpenOptions::new().write(true).open(&path);
                        file.and_then(|file| file.set_len(copy.parsed.whole))
                            .context("cut off a torn journal record")?;
                    }
                    continue;
                }
                // Behind, as after a power cut, is no damage worth keeping.
                self.write_all(&path, copy.is_damaged())?;
            }
            self.stale = false;
            self.seen = stat(&self.path);
        }
        Ok(())
    }

    /// Writes a copy of the journal anew. A `damaged` one is kept beside, once its successor is on the medium: where that
    /// cannot be written, what is left of the damaged one must stay.
    fn write_all(&self, path: &Path, damaged: bool) -> Result<()> {
        let mut text = String::new();
        for (number, record) in self.numbers.iter().zip(&self.records) {
            text += &frame::encode(*number, record)?;
        }
        let beside = path.with_extension(if path == self.path { "new" } else { "copy.new" });
        let write = || -> std::io::Result<()> {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            file.write_all(text.as_bytes())?;
            flush::file(FlushSite::JournalRewritten, &file)?;
            if damaged {
                quarantine(path);
            }
            std::fs::rename(&beside, path)?;
            flush_directory(FlushSite::JournalRenamed, path)
        };
        write().context("write the journal")
    }

    /// Puts another journal in the place of this one, in one step. The caller holds the lock.
    ///
    /// # Errors
    /// When it cannot be written; then the old one is still there.
    pub fn replace(&mut self, records: &[Record]) -> Result<()> {
        self.replace_and_keep(records, [false; 2])
    }

    /// The same; files that are `damaged`, the first copy and the second, are kept beside.
    fn replace_and_keep(&mut self, records: &[Record], damaged: [bool; 2]) -> Result<()> {
        let all: Vec<Record> = std::iter::once(Record::Restarted).chain(records.iter().cloned()).collect();
        let next = self.next + all.len() as u64;
        let (numbers, old) = ((self.next..next).collect(), self.next);
        let before = (std::mem::replace(&mut self.numbers, numbers), std::mem::replace(&mut self.records, all));
        if let Err(error) = self.write_all(&self.path, damaged[0]) {
            (self.numbers, self.records, self.next) = (before.0, before.1, old);
            return Err(error);
        }
        self.next = next;
        self.seen = stat(&self.path);
        self.write_all(&self.copy, damaged[1])
    }
}

/// Inode and length in bytes.
fn stat(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|m| (m.ino(), m.len()))
}

/// Appends a line; what a write that failed has left (of a full disk for instance) is cut off again.
fn write(path: &Path, line: &str, flushed: Option<FlushSite>, created: FlushSite) -> std::io::Result<()> {
    let new = !path.exists();
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let before = file.metadata()?.len();
    let mut written = file.write_all(line.as_bytes());
    if let Some(site) = flushed {
        written = written.and_then(|()| flush::data(site, &file));
    }
    if written.is_err() {
        // If this fails too, the next reader finds a record that was cut off, and the next writer removes it.
        let _ = file.set_len(before);
    }
    written?;
    if new { flush_directory(created, path) } else { Ok(()) }
}

/// Keeps a damaged file under another name, the last one of its name. By a link, so that its successor can take its place in
/// one step; a directory cannot be linked and is renamed.
fn quarantine(path: &Path) {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".damaged");
    let to = path.with_file_name(name);
    let _ = std::fs::remove_file(&to).or_else(|_| std::fs::remove_dir_all(&to));
    if std::fs::hard_link(path, &to).is_err() {
        let _ = std::fs::rename(path, &to);
    }
}

fn flush_directory(site: FlushSite, path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |directory| flush::directory(site, File::open(directory)?))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
