// SPDX-License-Identifier: Apache-2.0
//! Parsing of parts of nft's answer; tests/tests/firewall compares the whole with a real nft.

use super::*;
use crate::check::Verdict;
use serde_json::json;

#[test]
fn values_are_shown_in_common_notation() {
    assert_eq!(element(&json!("10.0.0.1")), "10.0.0.1");
    assert_eq!(element(&json!({"prefix": {"addr": "10.0.0.0", "len": 24}})), "10.0.0.0/24");
    assert_eq!(element(&json!({"range": [30000, 30010]})), "30000-30010");
    assert_eq!(values(&json!({"set": [80, {"range": [1, 2]}]})), ["80", "1-2"]);
    assert_eq!(joined([]), "none");
}

#[test]
fn empty_table_is_drift_in_every_finding() {
    let rules = [json!({"table": {"family": "inet", "name": "firstboot"}})];
    let found = findings(&Table(&rules), &SeedOverrides::default(), &ClusterPeers::default());
    assert_eq!(found.len(), 10);
    assert!(found.iter().all(|f| f.state == Verdict::Drift), "{found:#?}");
}
