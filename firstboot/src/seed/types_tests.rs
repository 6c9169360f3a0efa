// SPDX-License-Identifier: Apache-2.0
//! Good and bad lists for the seed's types.

use super::types::*;

#[test]
fn labels_that_a_kubelet_may_set() {
    for key in [
        "a",
        "superedge.io/node-edge",
        "superedge.io.hostname",
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
        "node.kubernetes.io/anything",
        "x.kubelet.kubernetes.io/anything",
        "notkubernetes.io/a",
    ] {
        assert!(NodeLabel::parse(key, "v").is_ok(), "{key}");
    }
    for key in [
        "kubernetes.io/x",
        "node-role.kubernetes.io/edge",
        "node-restriction.kubernetes.io/a",
        "topology.kubernetes.io/rack",
        "k8s.io/a",
        "a.k8s.io/a",
    ] {
        let why = NodeLabel::parse(key, "v").unwrap_err();
        assert!(why.ends_with(&format!("kubectl label node NAME {key}=VALUE")), "{why}");
    }
    for key in ["", "/a", "a/", "a/b/c", "-a", "A.b/c", "a b"] {
        assert!(NodeLabel::parse(key, "v").is_err(), "{key}");
    }
    assert!(NodeLabel::parse("a", &"v".repeat(63)).is_ok());
    assert!(NodeLabel::parse("a", &"v".repeat(64)).is_err());
}

#[test]
fn names() {
    let some = |key: &str| Some(if key == "mac" { "02AB".to_owned() } else { "S 1".to_owned() });
    assert_eq!(NodeName::parse("Shop.{mac}-x").unwrap().render(some).unwrap(), "shop.02ab-x");
    assert_eq!(
        NodeName::parse("{serial}").unwrap().render(some).unwrap_err(),
        "expected a node name: at most 63 characters a-z, 0-9, - and ."
    );
    assert_eq!(
        NodeName::parse("e-{serial}").unwrap().render(|_| None).unwrap_err(),
        "this device has no {serial}; use {mac} or {machine-id}"
    );
    for bad in ["", "-a", "a.", "a..b", "é", &"a".repeat(64)] {
        assert!(NodeName::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn endpoints() {
    for (text, want) in [
        ("10.0.0.1", "10.0.0.1:6443"),
        ("API.example.org:443", "api.example.org:443"),
        ("[::1]", "[::1]:6443"),
        ("localhost:1", "localhost:1"),
    ] {
        assert_eq!(Endpoint::parse(text).unwrap().to_string(), want);
    }
    for bad in ["", ":6443", "a:b", "a:0", "a:+1", "[a]:1", "[::1", "1.2.3.4.5", "999.1.1.1", "a b", "a/b"] {
        assert!(Endpoint::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_may_be_shown() {
    assert!(may_show("ca-cert-hashes") && may_show("node-role.kubernetes.io/edge"));
    assert!(!may_show("q7w2e9r4t1y6u8i3") && !may_show("abcdef.q7w2e9r4t1y6u8i3") && !may_show("a b"));
}
