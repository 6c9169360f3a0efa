// SPDX-License-Identifier: Apache-2.0
//! The journal, by way of the door: under the lock, repaired before it is written, and damage noted as a fact.

use super::Host;
use crate::journal::Record;
use crate::journal::facts::Fact;
use anyhow::Result;

/// How many lines of it are kept: a card that goes bad must not fill the disk.
const DAMAGE_LINES: usize = 16;

impl Host {
    /// Adds to the journal.
    pub fn record(&self, record: Record) -> Result<()> {
        self.effect("journal", || "write the journal".to_owned())?;
        let _lock = self.lock()?;
        self.repair_journal()?;
        self.journal.borrow_mut().append(record)
    }

    /// Makes both copies of the journal whole, says what was damaged, and keeps that as a fact.
    ///
    /// # Errors
    /// When a copy cannot be written.
    fn repair_journal(&self) -> Result<()> {
        let mut journal = self.journal.borrow_mut();
        journal.refresh()?;
        let damage = journal.take_damage();
        for line in &damage {
            self.sys.say(&format!("firstboot: repaired: {line}"));
        }
        match damaged_with(journal.fact(Fact::Damage).unwrap_or_default(), &damage) {
            Some(value) => journal.append(Record::Fact { name: Fact::Damage, value }),
            None => Ok(()),
        }
    }

    /// Notes damage that was found on this device, for status, Event and support archive.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn note_damage(&self, line: &str) -> Result<()> {
        self.sys.say(&format!("firstboot: repaired: {line}"));
        let value = damaged_with(self.journal().fact(Fact::Damage).unwrap_or_default(), &[line.to_owned()]);
        value.map_or(Ok(()), |value| self.record(Record::Fact { name: Fact::Damage, value }))
    }

    /// Takes these records for true without a write: see [`crate::journal::Journal::assume`].
    pub fn assume(&self, records: Vec<Record>) {
        self.journal.borrow_mut().assume(records);
    }

    /// Brings the journal's files up to date, where that is needed.
    ///
    /// # Errors
    /// When a copy cannot be written.
    pub fn settle_journal(&self) -> Result<()> {
        if self.journal().is_settled() {
            return Ok(());
        }
        self.effect("journal", || "write the journal".to_owned())?;
        let _lock = self.lock()?;
        self.repair_journal()
    }

    /// Records a fact, unless it is on record; one that is not counts as empty.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn note(&self, fact: Fact, value: &str) -> Result<()> {
        let known = self.journal().fact(fact.clone()).unwrap_or_default() == value;
        if known { Ok(()) } else { self.record(Record::Fact { name: fact, value: value.into() }) }
    }

    /// Puts a journal with these records in the place of the one that there is.
    pub fn renew_journal(&self, records: &[Record]) -> Result<()> {
        self.effect("journal", || "write the journal".to_owned())?;
        let _lock = self.lock()?;
        self.journal.borrow_mut().replace(records)
    }

    /// Reads the journal again: another process may have written to it.
    pub fn reread_journal(&self) {
        self.journal.borrow_mut().reread();
    }
}

/// The fact of all damage with more lines; none when nothing is new. The last [`DAMAGE_LINES`] are kept.
fn damaged_with(before: &str, lines: &[String]) -> Option<String> {
    let new: Vec<&str> = lines.iter().map(String::as_str).filter(|line| !before.lines().any(|b| b == *line)).collect();
    if new.is_empty() {
        return None;
    }
    let all: Vec<&str> = before.lines().chain(new).collect();
    Some(all[all.len().saturating_sub(DAMAGE_LINES)..].join("\n"))
}
