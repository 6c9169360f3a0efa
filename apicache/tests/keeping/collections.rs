// SPDX-License-Identifier: Apache-2.0
//! Lists: what makes a collection complete, and what never empties one.

use apicache::identity::Identity;
use apicache::object::Encoding;
use apicache::record::Plan;
use apicache::store::{Store, now};

use super::bench::*;

#[tokio::test]
async fn a_list_is_kept_and_replaced_by_the_next() {
    let bench = Bench::new();
    assert_eq!(bench.pods().await, refused(503, "ServiceUnavailable"), "nothing was read yet");
    bench.list(&pods(""), &list("10", "", &["a=3", "b=9"])).await;
    assert_eq!(bench.pods().await, listed(&["a=3", "b=9", "@10"]));
    bench.list(&pods(""), &list("20", "", &["a=3", "c=15"])).await;
    assert_eq!(bench.pods().await, listed(&["a=3", "c=15", "@20"]), "what is no longer there is gone");
    bench.list(&pods(""), &list("30", "", &[])).await;
    assert_eq!(bench.pods().await, listed(&["@30"]), "a list without items is one, too");
}

#[tokio::test]
async fn what_is_no_list_changes_nothing() {
    let bench = Bench::new();
    bench.list(&pods(""), &list("10", "", &["a=3", "b=9"])).await;
    let good = list("20", "", &["a=3"]);
    let pages = r#"<html><body>Please log in</body></html>"#;
    let status = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","code":500}"#;
    let table = r#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"20"},"rows":[]}"#;
    let nameless =
        r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"20"},"items":[{"metadata":{}}]}"#;
    let versionless = r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]}"#;
    let cut = &good[..good.len() - 1];
    let without_items = r#"{"kind":"PodList","apiVersion":"v1"}"#;
    for body in ["", "{}", "null", "[]", pages, status, table, nameless, versionless, cut, without_items] {
        bench.list(&pods(""), body).await;
        assert_eq!(bench.pods().await, listed(&["a=3", "b=9", "@10"]), "{body}");
    }
    // The same bytes, whose end did not come; or come as something else.
    let plan = || Plan::List { source: pods(""), page: String::new() };
    bench.record(plan(), JSON, good.as_bytes(), 16, false).await;
    bench.record(plan(), "text/html", good.as_bytes(), 16, true).await;
    bench.record(plan(), "application/json;as=Table;v=v1;g=meta.k8s.io", good.as_bytes(), 16, true).await;
    assert_eq!(bench.pods().await, listed(&["a=3", "b=9", "@10"]));
    bench.record(plan(), JSON, good.as_bytes(), 16, true).await;
    assert_eq!(bench.pods().await, listed(&["a=3", "@20"]));
}

#[tokio::test]
async fn pages_are_one_list_once_the_last_was_seen() {
    let bench = Bench::new();
    bench.list(&pods(""), &list("10", "", &["a=3", "b=9"])).await;
    let page = async |asked: &str, body: String| {
        let plan = Plan::List { source: pods(""), page: asked.into() };
        bench.record(plan, JSON, body.as_bytes(), 4096, true).await;
    };
    page("", list("20", "second", &["a=3"])).await;
    assert_eq!(bench.pods().await, listed(&["a=3", "b=9", "@10"]));
    page("other", list("20", "", &["c=12"])).await;
    assert_eq!(bench.pods().await, listed(&["a=3", "b=9", "@10"]), "the end of a list whose start was not seen");
    page("second", list("20", "", &["c=12"])).await;
    assert_eq!(bench.pods().await, listed(&["a=3", "c=12", "@20"]));
    let paged = format!("{PODS}?limit=500&continue=second");
    assert_eq!(
        bench.get(&Identity::Node, &paged).await,
        refused(410, "Expired"),
        "no page is answered with a whole list"
    );
}

#[tokio::test]
async fn each_identity_selector_and_encoding_is_apart() {
    let bench = Bench::new();
    let token = Identity::Token([7; 32]);
    bench.list(&pods("spec.nodeName=n"), &list("10", "", &["a=3"])).await;
    bench.list(&of("user:x", "ns", "pods", ""), &list("11", "", &["z=4"])).await;
    let mine = format!("{PODS}?fieldSelector=spec.nodeName%3Dn");
    assert_eq!(bench.get(&Identity::Node, &mine).await, listed(&["a=3", "@10"]));
    assert_eq!(bench.pods().await, refused(503, "ServiceUnavailable"), "more than was read");
    assert_eq!(bench.get(&token, PODS).await, refused(401, "Unauthorized"), "a token that no API server vouched for");
    assert_eq!(bench.get(&Identity::Unknown, PODS).await, refused(401, "Unauthorized"));
    bench.store.change(apicache::store::Op::Token([7; 32], "user:x".into(), now() + 60)).await;
    bench.store.change(apicache::store::Op::Token([8; 32], "user:x".into(), now() - 1)).await;
    bench.store.flush().await;
    assert_eq!(bench.get(&token, PODS).await, listed(&["z=4", "@11"]));
    assert_eq!(bench.get(&token, &format!("{PODS}/a")).await, refused(503, "ServiceUnavailable"), "the node's");
    assert_eq!(bench.get(&Identity::Token([8; 32]), PODS).await, refused(401, "Unauthorized"), "its time is over");
    let protobuf = "application/vnd.kubernetes.protobuf";
    assert_eq!(bench.get_as(&Identity::Node, &mine, protobuf).await, refused(503, "ServiceUnavailable"));
    let both = "application/vnd.kubernetes.protobuf,application/json";
    assert_eq!(bench.get_as(&Identity::Node, &mine, both).await, listed(&["a=3", "@10"]));
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    assert_eq!(bench.get_as(&Identity::Node, &mine, table).await, refused(503, "ServiceUnavailable"));
}

#[tokio::test]
async fn what_was_read_is_narrowed_and_nothing_else() {
    let bench = Bench::new();
    bench.list(&pods("spec.nodeName=n"), &list("10", "", &["a=3", "b=9"])).await;
    let get = async |query: &str| bench.get(&Identity::Node, &format!("{PODS}?{query}")).await;
    let node = "fieldSelector=spec.nodeName%3Dn";
    assert_eq!(get(&format!("{node},metadata.name%3Db")).await, listed(&["b=9", "@10"]));
    assert_eq!(get(&format!("{node}&labelSelector=app%20in%20(a,x)")).await, listed(&["a=3", "@10"]));
    for other in [
        "fieldSelector=spec.nodeName%3Dm".to_owned(),
        format!("{node},status.phase%3DRunning"),
        format!("{node}&labelSelector=app%3E5"),
        format!("{node}&resourceVersion=11"),
        format!("{node}&resourceVersion=10&resourceVersionMatch=Exact"),
        format!("{node}&dryRun=All"),
    ] {
        assert_eq!(get(&other).await, refused(503, "ServiceUnavailable"), "{other}");
    }
    assert_eq!(get(&format!("{node}&resourceVersion=10&limit=1")).await, listed(&["a=3", "b=9", "@10"]));
}

#[tokio::test]
async fn the_file_keeps_it_and_a_store_without_secrets_drops_them() {
    let bench = Bench::new();
    bench.list(&pods(""), &list("10", "", &["a=3"])).await;
    bench.list(&of("node", "ns", "secrets", ""), &list("12", "", &["s=4"])).await;
    let secrets = "/api/v1/namespaces/ns/secrets";
    assert_eq!(bench.get(&Identity::Node, secrets).await, listed(&["s=4", "@12"]));
    // A watch that brought nothing new, noted at the end of the process.
    bench.watch(&pods(""), Some(10), &["BOOKMARK 17"]).await;
    bench.store.change(apicache::store::Op::Positions).await;
    bench.store.flush().await;
    let Bench { dir, store, .. } = bench;
    drop(store);
    let path = dir.path().join("store");
    for (without_secrets, objects) in [(false, 2), (true, 1), (false, 1)] {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        // The thread of the store before lets go of the file when it has heard of its end.
        let store = loop {
            match Store::open(&path, without_secrets) {
                Ok(store) => break store,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
            }
            std::thread::yield_now();
        };
        assert_eq!(store.keeps(&place("ns", "secrets")), !without_secrets);
        assert!(!store.keeps(&place("ns", "events")) && store.keeps(&place("ns", "configmaps")));
        assert_eq!(store.version(&pods("")), 17);
        let there = store.find("node", &place("ns", "secrets"), "s", Encoding::Json).is_some();
        assert_eq!((there, store.objects()), (objects == 2, objects));
    }
}
