// SPDX-License-Identifier: Apache-2.0
//! How the parts of nft's answer are read; the whole of it is held against a real nft in tests/tests/firewall.

use super::*;
use crate::finding::Verdict;
use serde_json::json;

#[test]
fn values_read_as_people_write_them() {
    assert_eq!(element(&json!("10.0.0.1")), "10.0.0.1");
    assert_eq!(element(&json!({"prefix": {"addr": "10.0.0.0", "len": 24}})), "10.0.0.0/24");
    assert_eq!(element(&json!({"range": [30000, 30010]})), "30000-30010");
    assert_eq!(values(&json!({"set": [80, {"range": [1, 2]}]})), ["80", "1-2"]);
    assert_eq!(joined([]), "nobody");
}

#[test]
fn a_table_that_holds_nothing_is_drift_everywhere() {
    let rules = [json!({"table": {"family": "inet", "name": "firstboot"}})];
    let found = findings(&Table(&rules), &SeedOverrides::default(), &Known::default());
    assert_eq!(found.len(), 7);
    assert!(found.iter().all(|f| f.state == Verdict::Drift), "{found:#?}");
}
