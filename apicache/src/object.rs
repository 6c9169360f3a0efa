// SPDX-License-Identifier: Apache-2.0
//! Objects, lists and watch events as the API server sends them, in JSON and in protobuf: what of them identifies an
//! object is read, the rest stays as it came.
//!
//! Protobuf: `k8s.io/apimachinery/pkg/runtime/serializer/protobuf` (the envelope `k8s\0` and `runtime.Unknown`),
//! `pkg/apis/meta/v1/generated.proto` (fields of ObjectMeta, ListMeta, WatchEvent). All built-in objects have their
//! ObjectMeta in field 1, all lists their ListMeta in field 1 and their items in field 2.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::wire;

/// How bodies are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// First bytes of an object in protobuf.
pub(crate) const MAGIC: &[u8] = b"k8s\0";
/// The annotation of the bookmark at the end of the initial events (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

impl Encoding {
    /// By a value of `Content-Type`; none for another form, such as a table.
    pub fn of_content_type(value: &str) -> Option<Self> {
        let mut parts = value.split(';').map(str::trim);
        let kind = parts.next()?;
        let plain = parts.all(|p| p.is_empty() || p.eq_ignore_ascii_case("charset=utf-8") || p == "stream=watch");
        match kind {
            _ if !plain => None,
            PROTOBUF => Some(Encoding::Protobuf),
            "application/json" => Some(Encoding::Json),
            _ => None,
        }
    }

    /// All that a value of `Accept` takes, in its order; empty where another form comes first.
    pub fn accepted(value: &str) -> Vec<Self> {
        let mut all = Vec::new();
        for entry in value.split(',').map(str::trim) {
            match Encoding::of_content_type(entry.split(";q=").next().unwrap_or(entry)) {
                Some(encoding) if !all.contains(&encoding) => all.push(encoding),
                None if all.is_empty() && matches!(entry, "*/*" | "application/*" | "") => all.push(Encoding::Json),
                None if all.is_empty() => return all,
                _ => {}
            }
        }
        all
    }

    /// The `Content-Type` of an answer.
    pub fn content_type(self, watch: bool) -> &'static str {
        match (self, watch) {
            (Encoding::Json, _) => "application/json",
            (Encoding::Protobuf, false) => PROTOBUF,
            (Encoding::Protobuf, true) => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }
}

/// What identifies an object and selects it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Name.
    pub name: String,
    /// Namespace; empty for objects of the cluster.
    pub namespace: String,
    /// Changes with each change of the object.
    pub version: u64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether this is the bookmark after the initial events.
    pub initial_events_end: bool,
}

impl Meta {
    /// `NAMESPACE/NAME`, as the key of the object in its collection.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// The type of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kind {
    /// `v1`, `apps/v1` …
    pub api_version: String,
    /// `Pod` …
    pub kind: String,
}

/// An object as it is kept. JSON: with `apiVersion` and `kind`. Protobuf: the message without its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object<'a> {
    /// What identifies it.
    pub meta: Meta,
    /// The object.
    pub bytes: Cow<'a, [u8]>,
}

/// A list.
pub struct List<'a> {
    /// Type of its items.
    pub kind: Kind,
    /// The state of the cluster that it shows.
    pub version: u64,
    /// Where the next page begins, if there is one.
    pub next: String,
    /// Its items.
    pub items: Vec<Object<'a>>,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// `ADDED`.
    Added,
    /// `MODIFIED`.
    Modified,
    /// `DELETED`.
    Delete,
    /// `BOOKMARK`.
    Bookmark,
    /// `ERROR`, and whatever later versions add.
    Other,
}

/// One event of a watch.
pub struct Event<'a> {
    /// What happened.
    pub change: Change,
    /// Type of the object.
    pub kind: Kind,
    /// The object.
    pub object: Object<'a>,
}

#[derive(Deserialize)]
pub(crate) struct JsonMeta {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default, rename = "resourceVersion")]
    pub(crate) version: String,
    #[serde(default, rename = "continue")]
    pub(crate) next: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
pub(crate) struct JsonHead {
    #[serde(default, rename = "apiVersion")]
    pub(crate) api_version: String,
    #[serde(default)]
    pub(crate) kind: String,
    pub(crate) metadata: JsonMeta,
}

#[derive(Deserialize)]
pub(crate) struct JsonItems<'a> {
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct JsonEvent<'a> {
    #[serde(rename = "type")]
    change: String,
    #[serde(borrow)]
    object: &'a RawValue,
}

pub(crate) fn json_object(bytes: &[u8], of_list: Option<&Kind>) -> Option<(Kind, Object<'static>)> {
    let head: JsonHead = serde_json::from_slice(bytes).ok()?;
    let mut kind = Kind { api_version: head.api_version, kind: head.kind };
    let bytes = match of_list {
        Some(of_list) if kind.kind.is_empty() => {
            let rest = bytes.trim_ascii_start().strip_prefix(b"{")?;
            let text = format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", of_list.kind, of_list.api_version);
            kind = of_list.clone();
            [text.as_bytes(), rest].concat()
        }
        _ => bytes.trim_ascii().to_vec(),
    };
    let meta = head.metadata;
    let end = meta.annotations.is_some_and(|a| a.get(INITIAL_EVENTS_END).is_some_and(|v| v == "true"));
    let meta = Meta {
        name: meta.name,
        namespace: meta.namespace,
        version: meta.version.parse().unwrap_or_default(),
        labels: meta.labels.unwrap_or_default(),
        initial_events_end: end,
    };
    Some((kind, Object { meta, bytes: Cow::Owned(bytes) }))
}

pub(crate) fn protobuf_object(message: &[u8]) -> Option<Object<'_>> {
    let meta = wire::field(message, 1)?;
    wire::fields(meta)?;
    let end = wire::map(meta, 12).iter().any(|(key, value)| key == INITIAL_EVENTS_END && value == "true");
    let meta = Meta {
        name: wire::text(meta, 1).to_owned(),
        namespace: wire::text(meta, 3).to_owned(),
        version: wire::text(meta, 6).parse().unwrap_or_default(),
        labels: wire::map(meta, 11).into_iter().collect(),
        initial_events_end: end,
    };
    Some(Object { meta, bytes: Cow::Borrowed(message) })
}

/// Type and message of what is in the envelope. None where it is none, or one that is compressed.
pub fn envelope(body: &[u8]) -> Option<(Kind, &[u8])> {
    let unknown = body.strip_prefix(MAGIC)?;
    let kind = wire::field(unknown, 1)?;
    if !wire::text(unknown, 3).is_empty() {
        return None;
    }
    let kind = Kind { api_version: wire::text(kind, 1).to_owned(), kind: wire::text(kind, 2).to_owned() };
    Some((kind, wire::field(unknown, 2).unwrap_or_default()))
}

/// The kind of the items of a list, which Kubernetes names `KINDList`.
pub(crate) fn item_kind(list: Kind) -> Option<Kind> {
    Some(Kind { kind: list.kind.strip_suffix("List")?.to_owned(), ..list })
}

/// The meta of a kept object; none where it is none.
pub fn meta(encoding: Encoding, kept: &[u8]) -> Option<Meta> {
    Some(match encoding {
        Encoding::Json => json_object(kept, None)?.1.meta,
        Encoding::Protobuf => protobuf_object(kept)?.meta,
    })
}

/// Reads the answer to a GET of one object. None where it is none.
pub fn read(encoding: Encoding, body: &[u8]) -> Option<(Kind, Object<'_>)> {
    match encoding {
        Encoding::Json => json_object(body, None),
        Encoding::Protobuf => {
            let (kind, message) = envelope(body)?;
            Some((kind, protobuf_object(message)?))
        }
    }
}

/// Items of a list that have a name and a version; what has none is no object (a table has rows instead).
fn proper(items: Vec<Object<'_>>) -> Option<Vec<Object<'_>>> {
    items.iter().all(|item| !item.meta.name.is_empty() && item.meta.version > 0).then_some(items)
}

/// Reads a list. None where it is none: what is empty, cut short or of another kind is no list without items.
pub fn read_list(encoding: Encoding, body: &[u8]) -> Option<List<'_>> {
    match encoding {
        Encoding::Json => {
            let head: JsonHead = serde_json::from_slice(body).ok()?;
            let kind = item_kind(Kind { api_version: head.api_version, kind: head.kind })?;
            let JsonItems { items } = serde_json::from_slice(body).ok()?;
            let items = items.unwrap_or_default();
            let items = items.iter().map(|item| Some(json_object(item.get().as_bytes(), Some(&kind))?.1));
            let items: Option<Vec<_>> = items.collect();
            let version = head.metadata.version.parse().ok()?;
            Some(List { kind, version, next: head.metadata.next, items: proper(items?)? })
        }
        Encoding::Protobuf => {
            let (kind, message) = envelope(body)?;
            let kind = item_kind(kind)?;
            let meta = wire::field(message, 1)?;
            let items = wire::fields(message)?.into_iter().filter(|(number, _)| *number == 2);
            let items: Option<Vec<_>> = items.map(|(_, item)| protobuf_object(item.bytes()?)).collect();
            let version = wire::text(meta, 2).parse().ok()?;
            Some(List { kind, version, next: wire::text(meta, 3).to_owned(), items: proper(items?)? })
        }
    }
}

/// Reads one event of a watch, without the length before it or the line end after it. None where it is none.
pub fn read_event(encoding: Encoding, frame: &[u8]) -> Option<Event<'_>> {
    let change = |text: &str| match text {
        "ADDED" => Change::Added,
        "MODIFIED" => Change::Modified,
        "DELETED" => Change::Delete,
        "BOOKMARK" => Change::Bookmark,
        _ => Change::Other,
    };
    match encoding {
        Encoding::Json => {
            let event: JsonEvent = serde_json::from_slice(frame).ok()?;
            let (kind, object) = json_object(event.object.get().as_bytes(), None)?;
            Some(Event { change: change(&event.change), kind, object })
        }
        Encoding::Protobuf => {
            let change = change(wire::text(frame, 1));
            let (kind, message) = envelope(wire::field(wire::field(frame, 2)?, 1)?)?;
            let object = match change {
                Change::Other => Object { meta: Meta::default(), bytes: Cow::Borrowed(message) },
                _ => protobuf_object(message)?,
            };
            Some(Event { change, kind, object })
        }
    }
}

fn protobuf_envelope(kind: &Kind, message: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    wire::push(&mut head, 1, kind.api_version.as_bytes());
    wire::push(&mut head, 2, kind.kind.as_bytes());
    let mut body = MAGIC.to_vec();
    wire::push(&mut body, 1, &head);
    wire::push(&mut body, 2, message);
    wire::push(&mut body, 3, b"");
    wire::push(&mut body, 4, b"");
    body
}

/// The answer to a GET of one object that was kept.
pub fn write(encoding: Encoding, kind: &Kind, kept: &[u8]) -> Vec<u8> {
    match encoding {
        Encoding::Json => kept.to_vec(),
        Encoding::Protobuf => protobuf_envelope(kind, kept),
    }
}

/// One event of a watch, framed.
pub fn write_event(encoding: Encoding, change: &str, kind: &Kind, kept: &[u8]) -> Vec<u8> {
    match encoding {
        Encoding::Json => {
            framed(encoding, &[b"{\"type\":\"", change.as_bytes(), b"\",\"object\":", kept.trim_ascii(), b"}"].concat())
        }
        Encoding::Protobuf => {
            let mut raw = Vec::new();
            wire::push(&mut raw, 1, &protobuf_envelope(kind, kept));
            let mut event = Vec::new();
            wire::push(&mut event, 1, change.as_bytes());
            wire::push(&mut event, 2, &raw);
            framed(encoding, &event)
        }
    }
}

/// An event with what frames it: the line end after it, or the length before it.
pub fn framed(encoding: Encoding, event: &[u8]) -> Vec<u8> {
    let length = u32::try_from(event.len()).unwrap_or(u32::MAX);
    match encoding {
        Encoding::Json => [event, b"\n"].concat(),
        Encoding::Protobuf => [&length.to_be_bytes(), event].concat(),
    }
}

/// The bookmark that ends the initial events, framed.
pub fn write_initial_events_end(encoding: Encoding, kind: &Kind, version: u64) -> Vec<u8> {
    let object = match encoding {
        Encoding::Json => format!(
            "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{{\"resourceVersion\":\"{version}\",\
             \"annotations\":{{\"{INITIAL_EVENTS_END}\":\"true\"}}}}}}",
            kind.kind, kind.api_version
        )
        .into_bytes(),
        Encoding::Protobuf => {
            let mut entry = Vec::new();
            wire::push(&mut entry, 1, INITIAL_EVENTS_END.as_bytes());
            wire::push(&mut entry, 2, b"true");
            let mut meta = Vec::new();
            wire::push(&mut meta, 6, version.to_string().as_bytes());
            wire::push(&mut meta, 12, &entry);
            let mut message = Vec::new();
            wire::push(&mut message, 1, &meta);
            message
        }
    };
    write_event(encoding, "BOOKMARK", kind, &object)
}

/// Splits a watch into its frames as bytes come in.
pub struct Frames {
    encoding: Encoding,
    pending: Vec<u8>,
}

/// Longest event that is kept; etcd takes objects of 1.5 MiB, and JSON adds to them.
pub(crate) const MAX_FRAME: usize = 4 << 20;

impl Frames {
    /// At the start of a watch.
    pub fn new(encoding: Encoding) -> Self {
        Frames { encoding, pending: Vec::new() }
    }

    /// Adds bytes, and hands over each frame that they complete. None when a frame is too long.
    pub fn push(&mut self, bytes: &[u8], mut see: impl FnMut(&[u8])) -> Option<()> {
        self.pending.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let rest = &self.pending[at..];
            let (skip, length, after) = match self.encoding {
                Encoding::Json => match rest.iter().position(|b| *b == b'\n') {
                    Some(end) => (0, end, 1),
                    None => break,
                },
                Encoding::Protobuf => match rest.first_chunk::<4>() {
                    Some(head) => (4, usize::try_from(u32::from_be_bytes(*head)).ok()?, 0),
                    None => break,
                },
            };
            if length > MAX_FRAME {
                return None;
            }
            let Some(frame) = rest.get(skip..skip + length) else { break };
            see(frame);
            at += skip + length + after;
        }
        self.pending.drain(..at);
        (self.pending.len() <= MAX_FRAME + 4).then_some(())
    }
}
