// SPDX-License-Identifier: Apache-2.0
//! What is removed because it was not used for long, and what stays all the same.

use std::time::{Duration, Instant};

use apicache::store::{Answer, Op, Store, now};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;

use super::bench::*;

const HEADS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("collections-1");
const DAY: u64 = 24 * 3600;

/// Opens a file as soon as the thread of the store before has let go of it.
fn opened<T, E: std::fmt::Display>(open: impl Fn() -> Result<T, E>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match open() {
            Ok(opened) => return opened,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// All collections were last used so many days ago, or will be.
async fn aged(bench: Bench, days: i64) -> Bench {
    bench.store.flush().await;
    let Bench { dir, store, progress, link } = bench;
    drop(store);
    let path = dir.path().join("store");
    let db = opened(|| Database::create(&path));
    let heads: Vec<(Vec<u8>, Value)> = {
        let read = db.begin_read().unwrap();
        let table = read.open_table(HEADS).unwrap();
        let all = table.iter().unwrap().map(Result::unwrap);
        all.map(|(id, head)| (id.value().to_vec(), serde_json::from_slice(head.value()).unwrap())).collect()
    };
    let write = db.begin_write().unwrap();
    {
        let mut table = write.open_table(HEADS).unwrap();
        for (id, mut head) in heads {
            head["used"] = now().saturating_add_signed(-days * DAY.cast_signed()).into();
            table.insert(&id[..], head.to_string().as_bytes()).unwrap();
        }
    }
    write.commit().unwrap();
    drop(db);
    let store = opened(|| Store::open(&path, false));
    Bench { dir, store, progress, link }
}

async fn prune(bench: &Bench) {
    bench.store.change(Op::Prune).await;
    bench.store.flush().await;
}

#[tokio::test]
async fn what_is_watched_or_needed_stays() {
    let bench = Bench::new();
    bench.list(&pods(""), &list("10", "", &["a=3"])).await;
    for (identity, namespace, resource) in [
        ("node", "ns", "configmaps"),
        ("node", "ns", "secrets"),
        ("node", "other", "configmaps"),
        ("node", "", "services"),
        ("node", "", "nodes"),
        ("user:x", "ns", "configmaps"),
    ] {
        bench.list(&of(identity, namespace, resource, ""), &list("10", "", &[])).await;
    }
    let bench = aged(bench, 8).await;
    prune(&bench).await;
    let version =
        |identity: &str, namespace: &str, resource: &str| bench.store.version(&of(identity, namespace, resource, ""));
    assert_eq!(version("node", "", "nodes"), 10, "nothing was used since: time alone removes nothing");
    // One watch goes on, by a bookmark; another one brings nothing new.
    bench.watch(&of("node", "", "services", ""), Some(10), &["BOOKMARK 20"]).await;
    bench.watch(&pods(""), Some(9), &["BOOKMARK 10"]).await;
    prune(&bench).await;
    assert_eq!([version("node", "", "services"), version("node", "ns", "pods")], [20, 10]);
    assert_eq!([version("node", "ns", "configmaps"), version("node", "ns", "secrets")], [10, 10], "its pods need them");
    assert_eq!([version("node", "other", "configmaps"), version("user:x", "ns", "configmaps")], [0, 0]);
    assert_eq!(version("node", "", "nodes"), 0);
    assert_eq!(bench.store.objects(), 1);
}

/// The list and the prune come in one batch.
#[tokio::test]
async fn what_has_just_been_read_stays() {
    let bench = Bench::new();
    bench.list(&pods(""), &list("10", "", &["a=3"])).await;
    let bench = aged(bench, 8).await;
    let complete = |version| Op::Complete {
        of: of("node", "", "services", ""),
        list: version,
        kind: apicache::object::Kind::default(),
        version,
        seen: std::collections::HashSet::new(),
    };
    for op in [complete(30), Op::Event { of: pods(""), after: 10, version: 11, news: apicache::store::News::Nothing }] {
        bench.store.change(op).await;
    }
    prune(&bench).await;
    assert_eq!([bench.store.version(&pods("")), bench.store.version(&of("node", "", "services", ""))], [11, 30]);
}

#[tokio::test]
async fn answers_and_tokens() {
    let bench = Bench::new();
    bench.list(&pods(""), &list("10", "", &["a=3"])).await;
    let answer = Answer { content_type: JSON.into(), body: b"{}".to_vec() };
    bench.store.change(Op::Answer(Some("node".into()), [1; 32], answer.clone())).await;
    bench.store.change(Op::Answer(Some("user:x".into()), [2; 32], answer.clone())).await;
    bench.store.change(Op::Answer(None, [3; 32], answer)).await;
    bench.store.change(Op::Token([4; 32], "user:x".into(), now() + 300 * DAY)).await;
    prune(&bench).await;
    let there = |bench: &Bench| {
        let answers = [1, 2, 3].map(|key| bench.store.answer(&[key; 32]).is_some());
        (answers, bench.store.token(&[4; 32]).is_some())
    };
    assert_eq!(there(&bench), ([true; 3], true));
    // Everything else is used eight days later.
    let bench = aged(bench, -8).await;
    prune(&bench).await;
    assert_eq!(there(&bench), ([true, false, false], false), "kubelet may read its own only when it starts");
}
