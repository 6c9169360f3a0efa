// SPDX-License-Identifier: Apache-2.0
//! What a check is given, and what it finds.

use crate::bundle::installed::Installed;
use crate::fault::{Code, Fault};
use crate::host::Host;
use crate::image::ImageInfo;
use crate::seed::Seed;
use anyhow::Result;
use std::cell::OnceCell;

/// One row of the list.
pub struct Check {
    /// Its name; kubeadm's where kubeadm has such a check.
    pub id: &'static str,
    /// Whether the phase `preflight` looks at it, too.
    pub early: bool,
    pub(super) look: fn(&CheckContext<'_>) -> Result<Finding>,
}

/// What one check found, with words for it and, unless all is well, its code.
pub enum Finding {
    /// All is well.
    Fine(String),
    /// The join may work; a person should know.
    Warning(Code, String),
    /// The join will not work.
    Error(Code, String),
}

/// Why there is no seed that can be used: code and text.
pub type Refusal = (Code, String);

/// What each API server said: `host:port`; how far it is ahead of this device's clock in seconds, or why not.
pub(super) type Times = Vec<(String, Result<i64, Fault>)>;

/// What the checks look at.
pub struct CheckContext<'a> {
    /// The machine.
    pub host: &'a Host,
    /// What the image says of itself.
    pub image: &'a ImageInfo,
    /// The bundle in the image.
    pub bundle: &'a Installed,
    /// The seed, if there is one; why it is refused, if it is.
    pub seed: Option<Result<&'a Seed, Refusal>>,
    /// What the API servers said, once they were asked.
    pub(super) times: OnceCell<Times>,
}

impl<'a> CheckContext<'a> {
    /// What the checks look at, nothing of it asked for yet.
    pub fn new(
        host: &'a Host,
        image: &'a ImageInfo,
        bundle: &'a Installed,
        seed: Option<Result<&'a Seed, Refusal>>,
    ) -> Self {
        CheckContext { host, image, bundle, seed, times: OnceCell::new() }
    }

    /// The seed, when it can be used.
    pub(super) fn good_seed(&self) -> Option<&'a Seed> {
        self.seed.as_ref().and_then(|s| s.as_ref().ok()).copied()
    }

    /// Whether this phase is behind us.
    pub(super) fn done(&self, phase: &str) -> bool {
        self.host.journal().done(phase)
    }
}
