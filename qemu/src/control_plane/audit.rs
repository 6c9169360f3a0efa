// SPDX-License-Identifier: Apache-2.0
//! Reading kube-apiserver's audit log: who requested what.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::Path;

/// One line of the log: one stage of one request.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Identifies the request; a WATCH logs two lines with the same one.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// `ResponseComplete`, `ResponseStarted`, `Panic`.
    pub stage: String,
    /// `get`, `create`, `watch` …
    pub verb: String,
    /// Path and query.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// The client's identity.
    pub user: User,
    /// The client's user agent.
    #[serde(default)]
    pub user_agent: String,
    /// When the request arrived, RFC 3339.
    #[serde(default)]
    pub request_received_timestamp: String,
    /// What was answered.
    #[serde(default)]
    pub response_status: Status,
}

/// The identity of a request.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct User {
    /// `system:anonymous`, `system:bootstrap:abcdef`, `system:node:edge-1` …
    #[serde(default)]
    pub username: String,
}

/// The answer to a request.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Status {
    /// HTTP status code; 0 when none was logged.
    #[serde(default)]
    pub code: u16,
}

/// All events so far. The server may be writing: an unfinished last line is left out.
pub fn read(log: &Path) -> Result<Vec<Event>> {
    let text = std::fs::read_to_string(log).with_context(|| format!("read audit log {}", log.display()))?;
    parse(&text)
}

fn parse(text: &str) -> Result<Vec<Event>> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).context("parse a line of the audit log")).collect()
}

/// Distinct requests by identities that `who` accepts.
pub fn requests(events: &[Event], who: impl Fn(&str) -> bool) -> BTreeSet<&str> {
    events.iter().filter(|e| who(&e.user.username)).map(|e| e.audit_id.as_str()).collect()
}

/// Whether this is an identity of a device that has no certificate yet, apart from the server's own health probes.
pub fn is_joining(username: &str) -> bool {
    username == "system:anonymous" || username.starts_with("system:bootstrap:")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = concat!(
        r#"{"auditID":"a","stage":"ResponseStarted","verb":"watch","requestURI":"/x","user":{"username":"system:bootstrap:abcdef"}}"#,
        "\n",
        r#"{"auditID":"a","stage":"ResponseComplete","verb":"watch","requestURI":"/x","user":{"username":"system:bootstrap:abcdef"},"responseStatus":{"code":200}}"#,
        "\n",
        r#"{"auditID":"b","stage":"ResponseComplete","verb":"get","requestURI":"/y","user":{"username":"system:anonymous"}}"#,
        "\n",
        r#"{"auditID":"c","stage":"ResponseComplete","verb":"get","requestURI":"/z","user":{"username":"system:node:n"}}"#,
        "\n",
        r#"{"auditID":"d","sta"#
    );

    #[test]
    fn a_watch_is_one_request_and_a_torn_line_none() {
        let events = parse(LOG).unwrap();
        assert_eq!(events.len(), 4);
        assert_eq!(requests(&events, is_joining), BTreeSet::from(["a", "b"]));
        assert_eq!(events[1].response_status.code, 200);
    }
}
