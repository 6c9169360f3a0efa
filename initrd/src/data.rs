// SPDX-License-Identifier: Apache-2.0
//! What is done with the data partition: a ladder of steps from the least to the most that is lost, tried until one
//! brings a writable `/var` and `/etc`.

use crate::ext4::Content;
use crate::report::State;
use anyhow::{Error, Result};
use rustix::io::Errno;

/// A way to get a writable `/var` and `/etc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Mount what is there.
    Use,
    /// Check and repair it first.
    Check,
    /// Make a new file system.
    Make,
    /// Changes go to memory, on top of what is there.
    ReadOnly,
    /// Everything is in memory.
    Memory,
}

/// How the layers are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// On the data partition.
    ReadWrite,
    /// In memory, over the data partition.
    ReadOnly,
    /// In memory.
    Memory,
}

/// What came of putting the layers together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attached {
    /// `/var` was not there before: it was filled.
    pub filled: bool,
    /// What the status should say.
    pub notes: Vec<String>,
}

/// What the ladder does to the machine.
pub trait Actions {
    /// Writes to the partition what it holds already.
    fn write_back(&mut self) -> Result<()>;
    /// Checks and repairs the file system; how it went, in words. An error is [`BeyondRepair`] or [`Unchecked`], or
    /// says nothing about the file system.
    fn check(&mut self) -> Result<String>;
    /// Makes a new file system.
    fn make(&mut self) -> Result<()>;
    /// Mounts; after an error nothing is mounted.
    fn attach(&mut self, how: How) -> Result<Attached>;
}

/// The file system cannot be repaired.
#[derive(Debug)]
pub struct BeyondRepair(pub String);

impl std::fmt::Display for BeyondRepair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BeyondRepair {}

/// The file system cannot be checked: it is damaged too much, or the machine has no memory for it, or the medium fails.
#[derive(Debug)]
pub struct Unchecked(pub String);

impl std::fmt::Display for Unchecked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unchecked {}

/// Context of an error: this program did not run to its end. Whatever number is behind it, as that of a read error of
/// the root, says nothing about the data partition.
#[derive(Debug)]
pub struct NotRun(pub String);

impl std::fmt::Display for NotRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "run {}", self.0)
    }
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What became of the data.
    pub state: State,
    /// Why, when it is not simply kept or created.
    pub reason: Option<String>,
    /// What was repaired.
    pub repaired: Vec<String>,
}

/// The steps for what a partition holds; `None` for a disk without one.
fn ladder(content: Option<Content>, writable: bool) -> &'static [Step] {
    use Step::*;
    match content {
        None => &[Memory],
        Some(Content::Blank) if !writable => &[Memory],
        Some(_) if !writable => &[ReadOnly, Memory],
        Some(Content::Blank | Content::Unknown) => &[Make, Memory],
        Some(Content::Sound) => &[Use, Check, Make, Memory],
        Some(Content::Faulty | Content::OnlyCopy) => &[Check, Make, Memory],
    }
}

/// Climbs the ladder. `trouble` is what is wrong with the disk whatever comes of the data.
///
/// # Errors
/// When not even memory does it.
pub fn decide(
    actions: &mut impl Actions,
    content: Option<Content>,
    writable: bool,
    trouble: Option<String>,
) -> Result<Outcome> {
    let mut reasons = Vec::new();
    if content == Some(Content::Unknown) {
        reasons.push("the data partition holds no file system".to_owned());
    }
    let mut repaired = Vec::new();
    let mut steps = ladder(content, writable);
    let mut written = false;
    while let [step, rest @ ..] = steps {
        steps = rest;
        // A worn medium refuses writes, or says it has none to refuse: then it is not to be repaired or made anew.
        if matches!(step, Step::Check | Step::Make) && !written {
            if let Err(error) = actions.write_back() {
                reasons.push(format!("{error:#}"));
                steps = ladder(content, false);
                continue;
            }
            written = true;
        }
        let result = match step {
            Step::Use => actions.attach(How::ReadWrite),
            Step::Check => actions.check().and_then(|said| {
                let attached = actions.attach(How::ReadWrite)?;
                repaired.push(format!("data partition: {said}"));
                Ok(attached)
            }),
            Step::Make => actions.make().and_then(|()| actions.attach(How::ReadWrite)),
            Step::ReadOnly => actions.attach(How::ReadOnly),
            Step::Memory => actions.attach(How::Memory),
        };
        match result {
            Ok(attached) => {
                let state = state(*step, content, attached.filled);
                // Why it was checked is no news once it is repaired.
                if matches!(state, State::Kept | State::Created) {
                    reasons.clear();
                }
                let reasons: Vec<String> = trouble.into_iter().chain(reasons).chain(attached.notes).collect();
                let reason = (!reasons.is_empty()).then(|| reasons.join("; "));
                return Ok(Outcome { state, reason, repaired });
            }
            Err(error) if steps.is_empty() => return Err(error),
            Err(error) => {
                // Only damage is a reason to lose what is there; a driver that is missing is none, and a medium that
                // takes no writes keeps what it has. What could not be checked may be sound all the same.
                let tried = matches!(step, Step::Use | Step::Check);
                if tried && !error.is::<NotRun>() && error_number(&error) == Some(Errno::ROFS) {
                    steps = ladder(content, false);
                } else if tried && error.is::<Unchecked>() {
                    steps = &[Step::ReadOnly, Step::Make, Step::Memory];
                } else if (tried || *step == Step::ReadOnly) && !is_damage(&error) {
                    steps = &[Step::Memory];
                }
                reasons.push(format!("{error:#}"));
            }
        }
    }
    unreachable!("the last step ends the loop")
}

/// What became of the data by the step that worked.
fn state(step: Step, content: Option<Content>, filled: bool) -> State {
    match step {
        // Its filling was cut off.
        Step::Use | Step::Check if filled => State::Created,
        Step::Use | Step::Check => State::Kept,
        Step::Make if content == Some(Content::Blank) => State::Created,
        Step::Make => State::Recreated,
        Step::ReadOnly => State::ReadOnly,
        Step::Memory => State::Memory,
    }
}

/// Whether an error speaks of the file system, not of the machine around it.
fn is_damage(error: &Error) -> bool {
    if error.is::<NotRun>() {
        return false;
    }
    if error.chain().any(|cause| cause.is::<BeyondRepair>()) {
        return true;
    }
    error_number(error).is_some_and(|number| {
        // Not "no such device", "no memory", "not permitted", "in use", "no such file".
        let damage = [Errno::UCLEAN, Errno::IO, Errno::INVAL, Errno::BADMSG, Errno::NOTDIR, Errno::ISDIR];
        let more = [Errno::EXIST, Errno::LOOP, Errno::STALE, Errno::OVERFLOW, Errno::NAMETOOLONG];
        damage.contains(&number) || more.contains(&number)
    })
}

/// The number of the system error that is behind an error.
pub(crate) fn error_number(error: &Error) -> Option<Errno> {
    error.chain().find_map(|cause| {
        let own = cause.downcast_ref::<Errno>().copied();
        own.or_else(|| cause.downcast_ref::<std::io::Error>().and_then(Errno::from_io_error))
    })
}
