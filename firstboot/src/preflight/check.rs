// SPDX-License-Identifier: Apache-2.0
//! The input and the result of a check of preflight.

use crate::bundle::installed::Installed;
use crate::check::Row;
use crate::fault::{Code, Fault, Owner};
use crate::host::Host;
use crate::image::ImageInfo;
use crate::seed::Seed;
use crate::text::one_line;
use anyhow::Result;
use serde::Serialize;
use std::cell::OnceCell;

/// One row of the list.
pub struct Check {
    /// Name of the check; kubeadm's name where kubeadm has the same check.
    pub id: &'static str,
    /// Whether the phase `preflight` runs it too.
    pub early: bool,
    pub(super) run: fn(&CheckContext<'_>) -> Result<Finding>,
}

/// Result of one check: a text and, unless all is well, the code of the fault.
pub enum Finding {
    /// All is well.
    Fine(String),
    /// The join may work, but a person should know.
    Warning(Code, String),
    /// The join will not work.
    Error(Code, String),
}

/// Why the seed cannot be used: code and text.
pub type Refusal = (Code, String);

/// Reply of each API server: `host:port`, and by how many seconds its clock is ahead of this device's, or the fault.
pub(super) type Times = Vec<(String, Result<i64, Fault>)>;

/// Input of the checks.
pub struct CheckContext<'a> {
    /// The machine.
    pub host: &'a Host,
    /// The image's description of itself.
    pub image: &'a ImageInfo,
    /// The bundle in the image.
    pub bundle: &'a Installed,
    /// The seed, if there is one, or the reason why it is refused.
    pub seed: Option<Result<&'a Seed, Refusal>>,
    /// Replies of the API servers, once they were queried.
    pub(super) times: OnceCell<Times>,
}

impl<'a> CheckContext<'a> {
    /// Input of the checks; API servers are not queried yet.
    pub fn new(
        host: &'a Host,
        image: &'a ImageInfo,
        bundle: &'a Installed,
        seed: Option<Result<&'a Seed, Refusal>>,
    ) -> Self {
        CheckContext { host, image, bundle, seed, times: OnceCell::new() }
    }

    /// The seed, if it can be used.
    pub(super) fn usable_seed(&self) -> Option<&'a Seed> {
        self.seed.as_ref().and_then(|s| s.as_ref().ok()).copied()
    }

    /// Whether this phase is done.
    pub(super) fn done(&self, phase: &str) -> bool {
        self.host.journal().done(phase)
    }
}

/// How serious a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// All is well.
    Ok,
    /// The join may work, but a person should know.
    Warning,
    /// The join will not work.
    Error,
}

/// One row of the result: the JSON that docs/operations.md describes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Name of the check.
    pub id: String,
    /// How serious it is.
    pub level: Level,
    /// Result, one line.
    pub message: String,
    /// Owner of the fault; `null` when all is well.
    pub owner: Option<Owner>,
    /// Code of the fault; `null` when all is well.
    pub code: Option<Code>,
}

impl Outcome {
    pub(super) fn new(id: &str, finding: Finding) -> Self {
        let (level, code, message) = match finding {
            Finding::Fine(message) => (Level::Ok, None, message),
            Finding::Warning(code, message) => (Level::Warning, Some(code), message),
            Finding::Error(code, message) => (Level::Error, Some(code), message),
        };
        Outcome { id: id.to_owned(), level, message: one_line(&message), owner: code.map(Code::owner), code }
    }
}

impl Row for Outcome {
    const LIST: &'static str = "checks";

    fn failed(id: &str, why: String) -> Self {
        Outcome::new(id, Finding::Error(Code::Host, why))
    }

    /// kubeadm's format, with owner and code.
    fn line(&self) -> Option<String> {
        let level = match self.level {
            Level::Ok => "OK",
            Level::Warning => "WARNING",
            Level::Error => "ERROR",
        };
        let tag = self.code.map_or_else(String::new, |code| format!(" ({})", code.tag()));
        Some(format!("[{level} {}]: {}{tag}", self.id, self.message))
    }

    fn summary(_: &[Self]) -> Option<String> {
        None
    }

    fn is_failure(&self) -> bool {
        self.level == Level::Error
    }

    /// With the code of the first error.
    fn fault(failures: &[&Self]) -> Fault {
        let code = failures.iter().find_map(|row| row.code).unwrap_or(Code::Host);
        let texts: Vec<String> = failures.iter().map(|row| format!("{}: {}", row.id, row.message)).collect();
        Fault::new(code, texts.join("; "))
    }
}
