// SPDX-License-Identifier: Apache-2.0
//! The last time that containerd's state was set aside, as the journal has it: so that it happens once a boot, continues
//! after a cut, and is reported once.

use crate::host::Host;
use crate::journal::Record;
use crate::journal::facts::Fact;
use crate::paths::CONTAINERD_ROOT;
use anyhow::Result;

/// How far a setting aside has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Begun,
    Moved,
    Rebuilt,
    Reported,
}

/// The last setting aside, as the journal has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RebuildRecord {
    pub(crate) number: u32,
    pub(crate) boot: String,
    pub(crate) stage: Stage,
}

impl RebuildRecord {
    const STAGES: [(Stage, &str); 4] =
        [(Stage::Begun, "begun"), (Stage::Moved, "moved"), (Stage::Rebuilt, "rebuilt"), (Stage::Reported, "told")];

    pub(crate) fn read(host: &Host) -> Option<RebuildRecord> {
        let journal = host.journal();
        let mut words = journal.fact(Fact::RuntimeSetAside)?.split(' ');
        let (number, boot, stage) = (words.next()?.parse().ok()?, words.next()?.to_owned(), words.next()?);
        let (stage, _) = RebuildRecord::STAGES.into_iter().find(|(_, word)| *word == stage)?;
        Some(RebuildRecord { number, boot, stage })
    }

    /// Notes that it has come so far.
    pub(crate) fn reach(&mut self, host: &Host, stage: Stage) -> Result<()> {
        self.stage = stage;
        let word = RebuildRecord::STAGES.into_iter().find(|(s, _)| *s == stage).map_or("", |(_, word)| word);
        let value = format!("{} {} {word}", self.number, self.boot);
        host.record(Record::Fact { name: Fact::RuntimeSetAside, value })
    }

    /// Where the damaged state is kept.
    pub(crate) fn directory(&self) -> String {
        format!("{CONTAINERD_ROOT}.set-aside-{}", self.number)
    }
}
