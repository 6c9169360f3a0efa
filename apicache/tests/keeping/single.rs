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
use apicache::store::{Store, now};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::bench::*;

async fn keep(bench: &Bench, path: &str, content_type: &str, body: &str) {
    let encoding = Encoding::of_content_type(content_type);
    let plan = Plan::Whole(whole_key("node", path, encoding));
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
