// SPDX-License-Identifier: Apache-2.0
//! Watches: the initial events, what comes after them, and where a client may go on.

use apicache::identity::Identity;
use apicache::object::Encoding;
use apicache::record::Plan;
use apicache::upstream::Link;

use super::bench::*;

const BEGIN: &str = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";

async fn watch(bench: &Bench, query: &str) -> Told {
    bench.get(&Identity::Node, &format!("{PODS}?{query}")).await
}

#[tokio::test]
async fn initial_events_count_once_their_end_was_seen() {
    let bench = Bench::new();
    bench.watch(&pods(""), None, &["ADDED a=3", "ADDED b=9"]).await;
    assert_eq!(bench.pods().await, refused(503, "ServiceUnavailable"), "their end did not come");
    bench.watch(&pods(""), None, &["ADDED b=9", "ADDED a=3", "END 10"]).await;
    assert_eq!(bench.pods().await, listed(&["a=3", "b=9", "@10"]));
    assert_eq!(watch(&bench, BEGIN).await, watched(&["a=3", "b=9", "@10"]));
    // Another bookmark than that of the end ends nothing.
    bench.watch(&pods(""), None, &["ADDED c=12", "BOOKMARK 20"]).await;
    assert_eq!(bench.pods().await, listed(&["a=3", "b=9", "@10"]), "as before");
    bench.watch(&pods(""), None, &["ADDED c=12", "END 20"]).await;
    assert_eq!(bench.pods().await, listed(&["c=12", "@20"]));
}

/// Were old and new objects together, a client that starts offline would take a pod that was deleted and made anew for the
/// new one, and later hear that it was deleted.
#[tokio::test]
async fn what_is_cut_off_changes_nothing() {
    let bench = Bench::new();
    bench.watch(&pods(""), None, &["ADDED gone=3", "ADDED stays=4", "END 10"]).await;
    bench.watch(&pods(""), None, &["ADDED stays=500", "ADDED new=501"]).await;
    assert_eq!(watch(&bench, BEGIN).await, watched(&["gone=3", "stays=4", "@10"]));
    bench.watch(&pods(""), Some(10), &["MODIFIED stays=500", "DELETED gone=501"]).await;
    assert_eq!(watch(&bench, BEGIN).await, watched(&["stays=500", "@501"]));
    // Nor does it later, when another list comes to its end: not even what that one has in the form that is kept.
    bench.watch(&pods(""), None, &["ADDED stays=600", "ADDED new=601"]).await;
    bench.watch(&pods(""), None, &["ADDED stays=500", "END 700"]).await;
    assert_eq!(watch(&bench, BEGIN).await, watched(&["stays=500", "@700"]));
    bench.watch(&pods(""), None, &["ADDED stays=800", "ADDED new=801"]).await;
    bench.list(&pods(""), &list("900", "", &[])).await;
    assert_eq!(watch(&bench, BEGIN).await, watched(&["@900"]));
}

/// Two clients list at once: that which began last counts, to its end.
#[tokio::test]
async fn lists_do_not_mix() {
    let bench = Bench::new();
    bench.list(&pods(""), &list("10", "", &["a=3"])).await;
    let page = async |asked: &str, body: String| {
        let plan = Plan::List { source: pods(""), page: asked.into() };
        bench.record(plan, JSON, body.as_bytes(), 4096, true).await;
    };
    page("", list("20", "second", &["a=15", "b=16"])).await;
    page("", list("30", "later", &["a=25", "b=16"])).await;
    page("second", list("20", "", &["c=17"])).await;
    assert_eq!(bench.pods().await, listed(&["a=3", "@10"]), "the first one ends too late");
    page("later", list("30", "", &[])).await;
    assert_eq!(bench.pods().await, listed(&["a=25", "b=16", "@30"]));
    // The newer one ends first: what comes of the older one may have been deleted since.
    page("", list("40", "slow", &["a=35", "x=36"])).await;
    page("", list("50", "", &["a=45"])).await;
    page("slow", list("40", "", &["y=37"])).await;
    assert_eq!(bench.pods().await, listed(&["a=45", "@50"]));
    bench.list(&pods(""), &list("60", "", &["a=55", "z=56"])).await;
    assert_eq!(bench.pods().await, listed(&["a=55", "z=56", "@60"]), "the next one counts");
}

/// The same, where nothing is kept yet.
#[tokio::test]
async fn first_lists_do_not_mix() {
    for ended in [true, false] {
        let bench = Bench::new();
        let page = async |asked: &str, body: String| {
            let plan = Plan::List { source: pods(""), page: asked.into() };
            bench.record(plan, JSON, body.as_bytes(), 4096, true).await;
        };
        page("", list("20", "older", &["a=15", "x=16"])).await;
        page("", list("30", if ended { "" } else { "newer" }, &["a=25"])).await;
        page("older", list("20", "", &["a=15", "y=17"])).await;
        if !ended {
            assert_eq!(bench.pods().await, refused(503, "ServiceUnavailable"), "neither has ended that counts");
            page("newer", list("30", "", &[])).await;
        }
        assert_eq!(bench.pods().await, listed(&["a=25", "@30"]));
    }
}

#[tokio::test]
async fn a_watch_that_goes_on_changes_what_is_kept() {
    let bench = Bench::new();
    let events = ["ADDED a=3", "END 10", "ADDED b=11", "MODIFIED a=12", "DELETED b=13", "BOOKMARK 20"];
    bench.watch(&pods(""), None, &events).await;
    assert_eq!(bench.pods().await, listed(&["a=12", "@20"]));
    bench.watch(&pods(""), Some(20), &["ADDED c=25", "ERROR x", "ADDED d=26"]).await;
    assert_eq!(bench.pods().await, listed(&["a=12", "c=25", "@25"]), "nothing is taken from after a failure");
}

#[tokio::test]
async fn what_does_not_continue_is_not_kept() {
    let bench = Bench::new();
    bench.list(&pods(""), &list("20", "", &["a=15", "b=18"])).await;
    // Another watch, from an earlier version, brings what is known and has changed since.
    bench.watch(&pods(""), Some(5), &["ADDED a=6", "DELETED a=9", "ADDED a=15", "ADDED b=18"]).await;
    assert_eq!(bench.pods().await, listed(&["a=15", "b=18", "@20"]));
    bench.watch(&pods(""), Some(5), &["ADDED b=18", "MODIFIED b=22"]).await;
    assert_eq!(bench.pods().await, listed(&["a=15", "b=22", "@22"]), "from where it meets what is kept");
    // One from a later version leaves a gap, in which `a` may have been deleted.
    bench.watch(&pods(""), Some(30), &["ADDED c=31", "BOOKMARK 40"]).await;
    assert_eq!(bench.pods().await, listed(&["a=15", "b=22", "@22"]));
    // From no version on nothing is known of deletions.
    bench.watch(&of("node", "ns", "services", ""), Some(3), &["ADDED s=5"]).await;
    assert_eq!(bench.get(&Identity::Node, "/api/v1/namespaces/ns/services").await.code, 503);
}

#[tokio::test]
async fn a_gap_is_refused_once() {
    let bench = Bench::new();
    bench.list(&pods(""), &list("20", "", &["a=15"])).await;
    let gap = |version| bench.progress.gap(&bench.store, &pods(""), version);
    assert_eq!([gap(0), gap(19), gap(20)], [false; 3]);
    assert_eq!([gap(21), gap(21)], [true, false], "a client whose list cannot be recorded is not held up");
}

/// A cluster that was restored from a backup counts from a lower version again.
#[tokio::test]
async fn an_older_whole_replaces_a_newer_one() {
    let bench = Bench::new();
    bench.list(&pods(""), &list("500", "", &["a=400", "b=450"])).await;
    bench.watch(&pods(""), None, &["ADDED a=100"]).await;
    assert_eq!(bench.pods().await, listed(&["a=400", "b=450", "@500"]), "the old one until then");
    bench.watch(&pods(""), None, &["ADDED a=100", "END 120", "ADDED b=121"]).await;
    assert_eq!(bench.pods().await, listed(&["a=100", "b=121", "@121"]));
    // The file says the same.
    assert_eq!(bench.store.version(&pods("")), 121);
}

#[tokio::test]
async fn where_a_client_goes_on() {
    let bench = Bench::new();
    bench.watch(&pods(""), None, &["ADDED a=3", "END 10", "MODIFIED a=12"]).await;
    let from = async |version: u64| watch(&bench, &format!("watch=true&resourceVersion={version}")).await;
    assert_eq!(from(12).await, watched(&[]), "it knows all");
    assert_eq!(from(15).await, watched(&[]), "it knows more, by a bookmark that is not kept");
    assert_eq!(from(11).await, refused(410, "Expired"), "a deletion that it missed would never come");
    assert_eq!(watch(&bench, &format!("{BEGIN}&resourceVersion=12")).await, watched(&["a=12", "@12"]));
    assert_eq!(watch(&bench, &format!("{BEGIN}&resourceVersion=13")).await, refused(503, "ServiceUnavailable"));
    assert_eq!(watch(&bench, "watch=true").await, watched(&["a=12"]), "as the old watches begin");
    let one = bench.get(&Identity::Node, &format!("{PODS}/a?watch=true")).await;
    assert_eq!(one, refused(503, "ServiceUnavailable"), "an object is no watch");
}

#[tokio::test]
async fn a_watch_ends_when_an_api_server_answers_or_its_time_is_over() {
    let bench = Bench::new();
    bench.list(&pods(""), &list("10", "", &["a=3"])).await;
    let ended = watch(&bench, &format!("{BEGIN}&timeoutSeconds=0")).await;
    assert_eq!(ended, listed(&["a=3", "@10"]));
    let open = async { watch(&bench, BEGIN).await };
    let (told, ()) = tokio::join!(open, async {
        tokio::task::yield_now().await;
        bench.link.send_replace(Link::Connected(2));
    });
    assert_eq!(told, listed(&["a=3", "@10"]));
}

#[tokio::test]
async fn all_of_it_in_protobuf() {
    use apicache::object::{Kind, read_event, write_event, write_initial_events_end};
    use apicache::store::Source;
    use apicache::wire::push;

    let bench = Bench::new();
    let source = std::sync::Arc::new(Source { encoding: Encoding::Protobuf, ..(*pods("")).clone() });
    let kind = Kind { api_version: "v1".into(), kind: "Pod".into() };
    let object = |name: &str, version: &str| {
        let (mut meta, mut message) = (Vec::new(), Vec::new());
        push(&mut meta, 1, name.as_bytes());
        push(&mut meta, 3, b"ns");
        push(&mut meta, 6, version.as_bytes());
        push(&mut message, 1, &meta);
        message
    };
    let put = |name, version| write_event(Encoding::Protobuf, "ADDED", &kind, &object(name, version));
    let end = write_initial_events_end(Encoding::Protobuf, &kind, 10);
    let frame = read_event(Encoding::Protobuf, &end[4..]).unwrap();
    assert!(frame.object.meta.initial_events_end && frame.object.meta.version == 10);
    let gone = write_event(Encoding::Protobuf, "DELETED", &kind, &object("a", "14"));
    let body = [put("a", "3"), put("b", "9"), end, gone].concat();
    for piece in [1, 5, body.len()] {
        let plan = Plan::Watch { source: source.clone(), from: None };
        bench.record(plan, "application/vnd.kubernetes.protobuf;stream=watch", &body, piece, false).await;
        assert_eq!(bench.store.version(&source), 14, "{piece}");
        let (id, head, rest) = bench.store.covering(&source).remove(0);
        assert_eq!((head.kind.clone(), rest.len()), (kind.clone(), 0));
        assert_eq!(
            bench.store.snapshot().unwrap().page(&id, None, 9).unwrap(),
            [("ns/b".to_owned(), object("b", "9"))]
        );
    }
    // A length beyond all bounds, and noise, end the recording and change nothing.
    for noise in [&[0xff; 64][..], &[0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]] {
        let plan = Plan::Watch { source: source.clone(), from: None };
        bench.record(plan, "application/vnd.kubernetes.protobuf;stream=watch", noise, 16, true).await;
        assert_eq!(bench.store.version(&source), 14);
    }
}
