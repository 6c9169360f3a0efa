// SPDX-License-Identifier: Apache-2.0
//! A store, answers of an API server that are recorded into it, and the requests of a client.

use std::sync::Arc;

use apicache::identity::Identity;
use apicache::object::{self, Change, Encoding, Frames};
use apicache::offline::Offline;
use apicache::record::{Plan, Progress, Recording};
use apicache::request::{Place, query, target};
use apicache::selector::Selector;
use apicache::store::{Source, Store};
use apicache::upstream::Link;
use http_body_util::BodyExt;
use hyper::{Method, Request};
use serde_json::{Value, json};
use tokio::sync::watch;

pub const PODS: &str = "/api/v1/namespaces/ns/pods";
pub const JSON: &str = "application/json";

/// A store and what it is asked through.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub store: Store,
    pub progress: Arc<Progress>,
    pub link: watch::Sender<Link>,
}

/// What a client hears.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub code: u16,
    /// `reason` of a refusal.
    pub reason: String,
    /// `NAME=VERSION` of a list's items or a watch's objects, in order; `@VERSION` for the end of the initial events.
    pub objects: Vec<String>,
    /// Whether a watch is still open after that.
    pub open: bool,
}

pub fn refused(code: u16, reason: &str) -> Told {
    Told { code, reason: reason.to_owned(), objects: Vec::new(), open: false }
}

pub fn listed(objects: &[&str]) -> Told {
    let objects = objects.iter().map(|o| (*o).to_owned()).collect();
    Told { code: 200, reason: String::new(), objects, open: false }
}

pub fn watched(objects: &[&str]) -> Told {
    Told { open: true, ..listed(objects) }
}

pub fn place(namespace: &str, resource: &str) -> Place {
    Place { group: "/api/v1".into(), resource: resource.into(), namespace: namespace.into() }
}

/// The node's collection of pods in namespace `ns`.
pub fn pods(selector: &str) -> Arc<Source> {
    of("node", "ns", "pods", selector)
}

pub fn of(identity: &str, namespace: &str, resource: &str, selector: &str) -> Arc<Source> {
    Arc::new(Source {
        identity: identity.into(),
        place: place(namespace, resource),
        selector: Selector::new(selector, ""),
        encoding: Encoding::Json,
    })
}

/// A pod `NAME=VERSION` in `ns`.
pub fn pod(text: &str) -> Value {
    let (name, version) = text.split_once('=').unwrap();
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "ns", "resourceVersion": version, "labels": {"app": name}},
    })
}

/// A list of pods, as an API server sends it: without `kind` in its items.
pub fn list(version: &str, next: &str, pods: &[&str]) -> String {
    let items: Vec<Value> = pods
        .iter()
        .map(|text| {
            let mut item = pod(text);
            item.as_object_mut().unwrap().retain(|key, _| key == "metadata");
            item
        })
        .collect();
    let meta = json!({"resourceVersion": version, "continue": next});
    let items = json!(items);
    format!(r#"{{"kind":"PodList","apiVersion":"v1","metadata":{meta},"items":{items}}}"#)
}

/// Events, each `TYPE NAME=VERSION`; `END VERSION` and `BOOKMARK VERSION` for the two kinds of bookmarks.
pub fn events(all: &[&str]) -> String {
    let event = |text: &&str| {
        let (kind, what) = text.split_once(' ').unwrap();
        let bookmark = |annotations: Value| {
            let meta = json!({"resourceVersion": what, "annotations": annotations});
            json!({"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": meta}})
        };
        let event = match kind {
            "END" => bookmark(json!({"k8s.io/initial-events-end": "true"})),
            "BOOKMARK" => bookmark(json!({})),
            "ERROR" => {
                json!({"type": kind, "object": {"kind": "Status", "apiVersion": "v1", "metadata": {}, "code": 410}})
            }
            kind => json!({"type": kind, "object": pod(what)}),
        };
        event.to_string() + "\n"
    };
    all.iter().map(event).collect()
}

impl Bench {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), false).unwrap();
        Bench { dir, store, progress: Arc::default(), link: watch::Sender::new(Link::Disconnected(1)) }
    }

    fn recording(&self, plan: Plan, content_type: &str, gzip: bool) -> Option<Recording> {
        Recording::new(&self.store, &self.progress, plan, content_type, gzip)
    }

    /// Records an answer that comes in pieces of `piece` bytes; without its `end` it is cut off.
    pub async fn record(&self, plan: Plan, content_type: &str, body: &[u8], piece: usize, end: bool) {
        if let Some(mut recording) = self.recording(plan, content_type, false) {
            for bytes in body.chunks(piece) {
                if !recording.bytes(bytes).await {
                    self.store.flush().await;
                    return;
                }
            }
            if end {
                recording.end().await;
            }
        }
        self.store.flush().await;
    }

    pub async fn list(&self, source: &Arc<Source>, body: &str) {
        let plan = Plan::List { source: source.clone(), page: String::new() };
        self.record(plan, JSON, body.as_bytes(), 4096, true).await;
    }

    /// Records a watch, from a version or from the beginning, in small pieces.
    pub async fn watch(&self, source: &Arc<Source>, from: Option<u64>, all: &[&str]) {
        let plan = Plan::Watch { source: source.clone(), from };
        self.record(plan, JSON, events(all).as_bytes(), 7, false).await;
    }

    /// What `who` hears for a GET of `uri`.
    pub async fn get(&self, who: &Identity, uri: &str) -> Told {
        self.get_as(who, uri, JSON).await
    }

    pub async fn get_as(&self, who: &Identity, uri: &str, accept: &str) -> Told {
        let request = Request::get(uri).header("accept", accept).body(()).unwrap();
        let (parts, ()) = request.into_parts();
        let offline = Offline { store: &self.store, link: self.link.subscribe(), rewrite: None };
        let answer = offline.answer(who, &parts, &target(&parts.uri), &query(&parts.uri), b"");
        let (code, is_watch) = (answer.status().as_u16(), query(&parts.uri).watch);
        let mut body = answer.into_body();
        let mut bytes = Vec::new();
        let mut open = false;
        loop {
            // What comes at all comes at once.
            match tokio::time::timeout(std::time::Duration::from_millis(300), body.frame()).await {
                Ok(Some(frame)) => bytes.extend_from_slice(&frame.unwrap().into_data().unwrap()),
                Ok(None) => break,
                Err(_) => {
                    open = true;
                    break;
                }
            }
        }
        let failure: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let reason = failure["reason"].as_str().filter(|_| code >= 400).unwrap_or_default().to_owned();
        let name = |meta: &object::Meta| format!("{}={}", meta.name, meta.version);
        let mut objects = Vec::new();
        if code == 200 && is_watch {
            let mut frames = Frames::new(Encoding::Json);
            let seen = |frame: &[u8]| {
                let event = object::read_event(Encoding::Json, frame).unwrap();
                objects.push(match event.change {
                    Change::Bookmark => format!("@{}", event.object.meta.version),
                    _ => name(&event.object.meta),
                });
            };
            frames.push(&bytes, seen).unwrap();
        } else if let Some(list) = object::read_list(Encoding::Json, &bytes) {
            objects.extend(list.items.iter().map(|item| name(&item.meta)));
            objects.push(format!("@{}", list.version));
        } else if code == 200 {
            let (_, object) = object::read(Encoding::Json, &bytes).unwrap();
            objects.push(name(&object.meta));
        }
        Told { code, reason, objects, open }
    }

    /// The node's list of pods in `ns`.
    pub async fn pods(&self) -> Told {
        self.get(&Identity::Node, PODS).await
    }

    pub async fn post(&self, who: &Identity, uri: &str, body: &Value) -> (u16, Value) {
        let request = Request::builder().method(Method::POST).uri(uri).header("content-type", JSON);
        let (parts, ()) = request.header("accept", JSON).body(()).unwrap().into_parts();
        let offline = Offline { store: &self.store, link: self.link.subscribe(), rewrite: None };
        let body = body.to_string();
        let answer = offline.answer(who, &parts, &target(&parts.uri), &query(&parts.uri), body.as_bytes());
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }
}
