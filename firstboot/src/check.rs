// SPDX-License-Identifier: Apache-2.0
//! The framework of `firstboot audit` and `firstboot preflight`: a check gives rows, and a list of rows is printed as
//! text or JSON and judged as one fault.
//!
//! [`Finding`] is the row of the audit. The row of preflight is in `preflight/check.rs`.

use crate::fault::{Code, Fault};
use crate::text::one_line;
use anyhow::{Context, Result};
use serde::{Serialize, Serializer, ser::SerializeMap};

/// Result of one check.
pub trait Row: Serialize + Sized {
    /// Key of the rows in the JSON document.
    const LIST: &'static str;

    /// The row of a check that could not be carried out; `why` is one line.
    fn failed(id: &str, why: String) -> Self;

    /// Line of text; `None` where the text leaves the row out.
    fn line(&self) -> Option<String>;

    /// Last line of the text, which counts the rows; `None` where there is none.
    fn summary(rows: &[Self]) -> Option<String>;

    /// Whether the row makes the list fail.
    fn is_failure(&self) -> bool;

    /// The fault of all rows that fail; there is at least one.
    fn fault(failures: &[&Self]) -> Fault;
}

/// Rows of the check `id`, or the one row of an error.
pub fn rows<R: Row>(id: &str, result: Result<Vec<R>>) -> Vec<R> {
    result.unwrap_or_else(|error| vec![R::failed(id, one_line(&format!("{error:#}")))])
}

/// The rows as JSON (`--json`), or as text: lines, then the summary.
///
/// # Errors
/// Never in practice: every value can be encoded.
pub fn render<R: Row>(rows: &[R], json: bool) -> Result<String> {
    if json {
        return Ok(serde_json::to_string_pretty(&Document(rows)).context("encode the results")? + "\n");
    }
    let lines = rows.iter().filter_map(Row::line).chain(R::summary(rows));
    Ok(lines.map(|line| line + "\n").collect())
}

/// Fails when a row fails.
///
/// # Errors
/// One fault for all rows that fail.
pub fn judge<R: Row>(rows: &[R]) -> Result<(), Fault> {
    let failures: Vec<&R> = rows.iter().filter(|row| row.is_failure()).collect();
    match failures.is_empty() {
        true => Ok(()),
        false => Err(R::fault(&failures)),
    }
}

/// `{"version": 1, LIST: [ROW, …]}`; docs/operations.md describes the rows.
struct Document<'a, R>(&'a [R]);

impl<R: Row> Serialize for Document<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("version", &1)?;
        map.serialize_entry(R::LIST, self.0)?;
        map.end()
    }
}

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

impl Row for Finding {
    const LIST: &'static str = "findings";

    fn failed(id: &str, why: String) -> Self {
        Finding {
            id: id.to_owned(),
            state: Verdict::Drift,
            wanted: "to be read".to_owned(),
            found: why,
            why: "a setting that cannot be read back is not verified".to_owned(),
        }
    }

    fn line(&self) -> Option<String> {
        let Finding { id, wanted, found, why, .. } = self;
        match self.state {
            Verdict::Ok => None,
            Verdict::Drift => Some(format!("drift      {id}: {found}, wanted {wanted} ({why})")),
            Verdict::Unchecked => Some(format!("unchecked  {id}: {found} ({why})")),
            Verdict::Exception => Some(format!("exception  {id}: {found}, by the seed ({why})")),
        }
    }

    fn summary(rows: &[Self]) -> Option<String> {
        let count = |state: Verdict| rows.iter().filter(|row| row.state == state).count();
        let (ok, exceptions, drift) = (count(Verdict::Ok), count(Verdict::Exception), count(Verdict::Drift));
        let unchecked = count(Verdict::Unchecked);
        Some(format!("{ok} ok, {exceptions} excepted by the seed, {unchecked} unchecked, {drift} drifted"))
    }

    fn is_failure(&self) -> bool {
        self.state == Verdict::Drift
    }

    fn fault(failures: &[&Self]) -> Fault {
        let ids: Vec<&str> = failures.iter().map(|row| row.id.as_str()).collect();
        let (number, ids) = (ids.len(), ids.join(", "));
        Fault::new(Code::AuditDrift, format!("audit this device: {number} of its settings drifted: {ids}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        let one = |id: &str, exception, found: Option<&str>| {
            Finding::compare(id.to_owned(), "2", exception, found.map(str::to_owned), "the reason")
        };
        vec![
            one("sysctl/a", None, Some("2")),
            one("sysctl/b", None, Some("1")),
            one("sysctl/c", Some("1"), Some("1")),
            one("sysctl/d", Some("1"), Some("2")),
            one("sysctl/e", None, None),
        ]
    }

    #[test]
    fn drift_is_printed_and_is_a_fault() {
        let text = "drift      sysctl/b: 1, wanted 2 (the reason)\n\
                    exception  sysctl/c: 1, by the seed (the reason)\n\
                    drift      sysctl/d: 2, wanted 1 (the reason)\n\
                    drift      sysctl/e: missing, wanted 2 (the reason)\n\
                    1 ok, 1 excepted by the seed, 0 unchecked, 3 drifted\n";
        assert_eq!(render(&findings(), false).unwrap(), text);
        let fault = judge(&findings()).unwrap_err();
        assert_eq!(fault.code, Code::AuditDrift);
        assert_eq!(fault.to_string(), "audit this device: 3 of its settings drifted: sysctl/b, sysctl/d, sysctl/e");
        assert!(judge(&findings()[..1]).is_ok());
    }

    #[test]
    fn json_has_every_finding() {
        let json: serde_json::Value = serde_json::from_str(&render(&findings(), true).unwrap()).unwrap();
        assert_eq!(json["version"], 1);
        assert_eq!(json["findings"].as_array().unwrap().len(), 5);
        assert_eq!(json["findings"][2]["state"], "exception");
    }
}
