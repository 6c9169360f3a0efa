// SPDX-License-Identifier: Apache-2.0
//! Result of an audit: one setting, read back and compared with its required value.

use crate::text::one_line;
use serde::Serialize;

/// Verdict on one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As required.
    Ok,
    /// As in the seed, which overrides the hardened host.
    Exception,
    /// Not as required.
    Drift,
    /// Cannot be checked, for a reason that is no fault of this host.
    Unchecked,
}

/// One setting, read back: a row of the JSON that docs/operations.md describes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `area/setting`.
    pub id: String,
    /// Verdict on the setting.
    pub state: Verdict,
    /// Required value.
    pub wanted: String,
    /// Actual value.
    pub found: String,
    /// Reason of the required value.
    pub why: String,
}

impl Finding {
    /// Compares `found` with `wanted`, or with the seed's `exception`, which replaces `wanted`.
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
