// SPDX-License-Identifier: Apache-2.0
//! What an audit finds: one setting, read back, beside what it should be.

use crate::text::one_line;
use serde::Serialize;

/// What a setting was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// As the seed wants it, which is not what the hardened host has.
    Exception,
    /// Not as it should be.
    Drift,
    /// Cannot be looked at from here, for a reason that is no fault of this host.
    Unchecked,
}

/// One setting, read back: a row of the JSON that docs/operations.md describes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `area/setting`.
    pub id: String,
    /// What it was found to be.
    pub state: Verdict,
    /// What it should be.
    pub wanted: String,
    /// What it is.
    pub found: String,
    /// Why it should be so.
    pub why: String,
}

impl Finding {
    /// A setting that is to be `wanted`, found as `found`. An `exception` of the seed takes the place of `wanted`.
    pub fn compare(id: String, wanted: &str, exception: Option<&str>, found: Option<String>, why: &str) -> Self {
        let found = found.unwrap_or_else(|| "missing".to_owned());
        let state = match exception {
            Some(other) if other == found => Verdict::Exception,
            None if wanted == found => Verdict::Ok,
            _ => Verdict::Drift,
        };
        let wanted = exception.unwrap_or(wanted).to_owned();
        Finding { id, state, wanted, found: one_line(&found), why: why.to_owned() }
    }
}
