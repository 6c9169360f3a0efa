// SPDX-License-Identifier: Apache-2.0
//! Single objects, documents, and the answers that kubelet needs again.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use apicache::identity::{Identity, claims, token_digest};
use apicache::object::Encoding;
use apicache::offline::{question_key, whole_key};
use apicache::record::{Plan, Recording};
use apicache::request::Question;
use apicache::store::{Answer, Op, Store, now};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::bench::*;

async fn keep(bench: &Bench, path: &str, content_type: &str, body: &str) {
    let encoding = Encoding::of_content_type(content_type);
    let plan = Plan::Whole("node".into(), whole_key("node", path, encoding));
    bench.record(plan, content_type, body.as_bytes(), 11, true).await;
}

/// Also where another umask made it.
#[test]
fn the_file_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let [new, open] = ["new", "open"].map(|name| dir.path().join(name));
    std::fs::write(&open, "").unwrap();
    std::fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
    for path in [new, open] {
        let _store = Store::open(&path, false).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
}

#[tokio::test]
async fn the_newest_of_what_is_known() {
    let bench = Bench::new();
    let path = format!("{PODS}/a");
    keep(&bench, &path, JSON, &pod("a=5").to_string()).await;
    assert_eq!(bench.get(&Identity::Node, &path).await, listed(&["a=5"]));
    bench.list(&pods("spec.nodeName=n"), &list("10", "", &["a=8"])).await;
    assert_eq!(bench.get(&Identity::Node, &path).await, listed(&["a=8"]));
    keep(&bench, &path, JSON, &pod("a=12").to_string()).await;
    assert_eq!(bench.get(&Identity::Node, &path).await, listed(&["a=12"]));
    assert_eq!(bench.get(&Identity::Node, &format!("{PODS}/b")).await, refused(503, "ServiceUnavailable"));
    // Whether a pod without `spec.nodeName` is gone or elsewhere, that list cannot say. One without a selector can.
    bench.list(&pods("spec.nodeName=n"), &list("20", "", &[])).await;
    assert_eq!(bench.get(&Identity::Node, &path).await, listed(&["a=12"]));
    bench.list(&pods(""), &list("20", "", &[])).await;
    assert_eq!(bench.get(&Identity::Node, &path).await, refused(503, "ServiceUnavailable"), "it was deleted");
}

#[tokio::test]
async fn what_is_cut_short_or_no_object_is_not_kept() {
    let bench = Bench::new();
    let path = format!("{PODS}/a");
    for body in ["", "<html>Please log in</html>", r#"{"kind":"Pod""#] {
        keep(&bench, &path, JSON, body).await;
        assert_eq!(bench.get(&Identity::Node, &path).await, refused(503, "ServiceUnavailable"), "{body}");
    }
    keep(&bench, "/version", "text/html", "<html>Please log in</html>").await;
    assert_eq!(bench.get(&Identity::Node, "/version").await, refused(503, "ServiceUnavailable"));
}

#[tokio::test]
async fn what_is_packed() {
    let bench = Bench::new();
    let pack = |body: &[u8]| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(body).unwrap();
        packer.finish().unwrap()
    };
    let record = async |packed: &[u8]| {
        let plan = Plan::List { source: pods(""), page: String::new() };
        let mut recording = Recording::new(&bench.store, &bench.progress, plan, JSON, true).unwrap();
        for piece in packed.chunks(64) {
            if !recording.bytes(piece).await {
                return false;
            }
        }
        recording.end().await;
        bench.store.flush().await;
        true
    };
    let packed = pack(list("10", "", &["a=3"]).as_bytes());
    assert!(record(&packed).await);
    assert_eq!(bench.pods().await, listed(&["a=3", "@10"]));
    assert!(record(&packed[..packed.len() - 3]).await, "its end is missing: it is not kept");
    assert!(!record(&pack(&vec![b'x'; 5 << 20])).await, "what is no list is given up soon");
    let long = format!(r#"{{"kind":"PodList","items":[{{"metadata":{{"name":"{}"#, "x".repeat(5 << 20));
    assert!(!record(&pack(long.as_bytes())).await, "an item is given up at 4 MiB");
    assert!(!record(b"no gzip at all, but long enough to be looked at").await);
    assert_eq!(bench.pods().await, listed(&["a=3", "@10"]));
}

#[tokio::test]
async fn tokens_of_pods_come_again_to_the_node_alone() {
    let bench = Bench::new();
    let path = "/api/v1/namespaces/ns/serviceaccounts/default/token";
    let payload = json!({"iss": "k", "sub": "system:serviceaccount:ns:default", "exp": now() + 3600}).to_string();
    let token = format!("h.{}.s", URL_SAFE_NO_PAD.encode(payload));
    let ask = |uid: &str| json!({"spec": {"expirationSeconds": 3607, "boundObjectRef": {"uid": uid}}});
    let answer = json!({"kind": "TokenRequest", "spec": {"expirationSeconds": 3607}, "status": {"token": token}});
    for (uid, counts) in [("for-another", false), ("1", true)] {
        let key = question_key("node", path, Encoding::Json, ask(uid).to_string().as_bytes());
        let plan = Plan::Question { key, question: Question::Token, counts };
        bench.record(plan, JSON, answer.to_string().as_bytes(), 16, true).await;
        let (code, again) = bench.post(&Identity::Node, path, &ask(uid)).await;
        assert_eq!((code, &again["status"]["token"]), (201, &json!(token)));
        let known = bench.store.token(&token_digest(&token));
        assert_eq!(known, counts.then(|| claims(&token, now()).0), "one for another audience opens nothing");
    }
    assert_eq!(bench.post(&Identity::Node, path, &ask("2")).await.0, 503, "another pod's");
    let holder = Identity::Token(token_digest(&token));
    assert_eq!(bench.post(&holder, path, &ask("1")).await.0, 503, "it is the node's to ask");
}

#[tokio::test]
async fn a_no_takes_back_a_yes() {
    let bench = Bench::new();
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let ask = json!({"spec": {"user": "u"}});
    let key = question_key("node", path, Encoding::Json, ask.to_string().as_bytes());
    let answer = async |allowed: bool, end: bool| {
        let answer = json!({"kind": "SubjectAccessReview", "status": {"allowed": allowed}}).to_string();
        let plan = Plan::Question { key, question: Question::AccessReview, counts: false };
        bench.record(plan, JSON, answer.as_bytes(), 16, end).await;
        bench.post(&Identity::Node, path, &ask).await.0
    };
    assert_eq!([answer(true, true).await, answer(false, false).await], [201, 201], "what is cut off says nothing");
    assert_eq!(answer(false, true).await, 503);
}

#[tokio::test]
async fn a_review_lasts_as_long_as_its_token() {
    let bench = Bench::new();
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    for (end, code) in [(now() + 3600, 201), (now() - 1, 503)] {
        let payload = json!({"iss": "k", "sub": "u", "exp": end}).to_string();
        let ask = json!({"spec": {"token": format!("h.{}.s", URL_SAFE_NO_PAD.encode(payload))}});
        let key = question_key("node", path, Encoding::Json, ask.to_string().as_bytes());
        let plan = Plan::Question { key, question: Question::TokenReview, counts: false };
        let answer = json!({"kind": "TokenReview", "status": {"authenticated": true}}).to_string();
        bench.record(plan, JSON, answer.as_bytes(), 16, true).await;
        assert_eq!(bench.post(&Identity::Node, path, &ask).await.0, code, "{end}");
    }
}

#[tokio::test]
async fn a_token_that_is_refused_opens_nothing() {
    let bench = Bench::new();
    bench.store.change(Op::Token([7; 32], "user:x".into(), now() + 60)).await;
    bench.store.applied().await;
    assert!(bench.store.token(&[7; 32]).is_some() && !bench.store.token_is_stale(&[7; 32]));
    bench.store.change(Op::Refused([7; 32])).await;
    bench.store.applied().await;
    assert!(bench.store.token(&[7; 32]).is_none() && bench.store.token_is_stale(&[7; 32]));
}

/// A pod cannot fill the medium with ever new answers and lists; the node may have as many as it needs.
#[tokio::test]
async fn others_have_a_few_of_each() {
    let bench = Bench::new();
    let answer = |n: u8| Answer { content_type: JSON.into(), body: vec![n] };
    let key = |first: u8, n: u8| -> [u8; 32] { [[first; 16], [n; 16]].concat().try_into().unwrap() };
    for n in 0..100 {
        for (whose, first) in [("node", 1), ("user:x", 2)] {
            bench.store.change(Op::Answer(Some(whose.into()), key(first, n), answer(n))).await;
            bench.list(&of(whose, "ns", "pods", &format!("metadata.name=p{n}")), &list("10", "", &["a=3"])).await;
        }
    }
    let kept = |first: u8| (0..100).filter(|n| bench.store.answer(&key(first, *n)).is_some()).count();
    let lists = |whose: &str| {
        let all = (0..100).map(|n| of(whose, "ns", "pods", &format!("metadata.name=p{n}")));
        all.filter(|source| bench.store.version(source) == 10).count()
    };
    assert_eq!([kept(1), kept(2), lists("node"), lists("user:x")], [100, 64, 100, 64]);
    assert_eq!(bench.store.answer(&key(2, 99)), Some(answer(99)));
}

/// Only damage has a store set aside: not a missing right, nor a full medium.
#[test]
fn damage_has_a_kind_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    std::fs::write(&path, [0; 65_536]).unwrap();
    assert_eq!(Store::open(&path, false).err().unwrap().kind(), std::io::ErrorKind::InvalidData);
    assert_ne!(Store::open(dir.path(), false).err().unwrap().kind(), std::io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_page_of_large_objects_is_short() {
    let bench = Bench::new();
    let label = "x".repeat(100_000);
    let large = |name: &str| {
        let meta = json!({"name": name, "namespace": "ns", "resourceVersion": "3", "labels": {"x": label}});
        json!({ "metadata": meta })
    };
    let items = json!([large("a"), large("b"), large("c"), large("d")]);
    let text =
        format!(r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{"resourceVersion":"9"}},"items":{items}}}"#);
    bench.list(&pods(""), &text).await;
    let (id, ..) = bench.store.covering(&pods("")).remove(0);
    let page = |after| bench.store.snapshot().unwrap().page(&id, after, 32).unwrap().len();
    assert_eq!([page(None), page(Some("ns/c"))], [3, 1]);
    assert_eq!(bench.pods().await, listed(&["a=3", "b=3", "c=3", "d=3", "@9"]));
}

#[tokio::test]
async fn the_node_is_registered_already() {
    let bench = Bench::new();
    let node = |name: &str| json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name}});
    assert_eq!(bench.post(&Identity::Node, "/api/v1/nodes", &node("n")).await.0, 503, "it is not known");
    let known = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n", "resourceVersion": "4"}});
    keep(&bench, "/api/v1/nodes/n", JSON, &known.to_string()).await;
    let (code, answer) = bench.post(&Identity::Node, "/api/v1/nodes", &node("n")).await;
    assert_eq!((code, &answer["reason"]), (409, &json!("AlreadyExists")));
    assert_eq!(bench.post(&Identity::Node, "/api/v1/nodes", &node("m")).await.0, 503);
}
