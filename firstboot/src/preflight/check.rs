// SPDX-License-Identifier: Apache-2.0
//! The input and the result of a check.

use crate::bundle::installed::Installed;
use crate::fault::{Code, Fault};
use crate::host::Host;
use crate::image::ImageInfo;
use crate::seed::Seed;
use anyhow::Result;
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
