// SPDX-License-Identifier: Apache-2.0
//! Answers without an API server: docs/offline.md has the table, request by request.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Frame;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use tokio::sync::watch;

use crate::body::{Body, Sender, pieces, whole};
use crate::identity::Identity;
use crate::list::ListWriter;
use crate::object::{self, Encoding};
use crate::questions;
use crate::request::{Place, Query, Question, Target};
use crate::rewrite::Rewrite;
use crate::selector::Selector;
use crate::store::{Head, Id, NODE, Snapshot, Source, Store, digest, now};
use crate::upstream::Link;

/// Objects that are read from the store at once.
const PAGE: usize = 32;
/// Longest time for a client to take a list: what it is read from stays in the store until then.
const READER: Duration = Duration::from_secs(60);
/// How long a watch lasts whose client does not say.
const WATCH: u64 = 1800;

/// A failure as the API server reports it (`metav1.Status`), without `Retry-After`: client-go would repeat the request
/// by itself, ten times, before its caller hears of it.
pub fn failure(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    });
    answer(code, Encoding::Json.content_type(false), whole(status.to_string()))
}

/// The answer to what cannot be done now.
pub fn unavailable(message: &str) -> Response<Body> {
    failure(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", &format!("firstboot cache: {message}"))
}

/// The answer to a client that has to list anew.
pub fn expired(message: &str) -> Response<Body> {
    failure(StatusCode::GONE, "Expired", &format!("firstboot cache: {message}"))
}

fn answer(code: StatusCode, content_type: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    if let Ok(value) = content_type.parse() {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    response
}

/// Key of an answer that is kept as a whole.
pub fn whole_key(identity: &str, path: &str, encoding: Option<Encoding>) -> [u8; 32] {
    digest(&[b"GET", identity.as_bytes(), path.as_bytes(), format!("{encoding:?}").as_bytes()])
}

/// Key of the answer to a question.
pub fn question_key(identity: &str, path: &str, encoding: Encoding, body: &[u8]) -> [u8; 32] {
    let body = digest(&[body]);
    digest(&[b"POST", identity.as_bytes(), path.as_bytes(), format!("{encoding:?}").as_bytes(), &body])
}

/// What answers come from.
pub struct Offline<'a> {
    /// The store.
    pub store: &'a Store,
    /// Watches end when an API server answers.
    pub link: watch::Receiver<Link>,
    /// What is changed in the answer to this request.
    pub rewrite: Option<Arc<Rewrite>>,
}

impl Offline<'_> {
    /// Whose store a client may read; none where it proves nothing that is known here.
    fn identity(&self, identity: &Identity) -> Option<String> {
        match identity {
            Identity::Node => Some(NODE.to_owned()),
            Identity::Token(digest) => self.store.token(digest),
            Identity::Unknown => None,
        }
    }

    /// Answers a request; `body` is that of a POST.
    pub fn answer(&self, who: &Identity, parts: &Parts, target: &Target, query: &Query, body: &[u8]) -> Response<Body> {
        let Some(identity) = self.identity(who) else {
            let text = "firstboot cache: no API server answers, and this client is not known here";
            return failure(StatusCode::UNAUTHORIZED, "Unauthorized", text);
        };
        let accept = parts.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
        let encodings = Encoding::accepted(accept);
        let found = match (&parts.method, target) {
            (&Method::GET, _) if query.altered || query.exact => None,
            (&Method::GET, Target::Collection(place)) => self.collection(&identity, place, query, &encodings),
            (&Method::GET, Target::Object(place, name)) if !query.watch => {
                self.object(&identity, place, name, parts.uri.path(), &encodings)
            }
            (&Method::GET, Target::Document) => self.document(&identity, parts.uri.path(), &encodings),
            (&Method::POST, Target::Collection(place)) if place.resource == "nodes" && *who == Identity::Node => {
                self.registration(place, parts, body)
            }
            (&Method::POST, _) => self.question(&identity, parts, target, &encodings, body),
            _ => None,
        };
        found.unwrap_or_else(|| {
            unavailable(&format!("no API server answers, and {} {} is not kept", parts.method, parts.uri.path()))
        })
    }

    fn source(identity: &str, place: &Place, selector: &Selector, encoding: Encoding) -> Source {
        Source { identity: identity.to_owned(), place: place.clone(), selector: selector.clone(), encoding }
    }

    fn collection(&self, who: &str, place: &Place, query: &Query, encodings: &[Encoding]) -> Option<Response<Body>> {
        if !query.page.is_empty() {
            // The first pages came from an API server. What is kept as a whole is no page that continues them.
            return Some(expired("the pages of this list cannot go on without an API server: list again"));
        }
        encodings.iter().find_map(|encoding| {
            let wanted = Offline::source(who, place, &query.selector, *encoding);
            let (id, head, rest) = self.store.covering(&wanted).into_iter().next()?;
            let resumed = query.watch && !query.initial_events && query.version > 0;
            // What the client knows already must not be taken back.
            if !resumed && query.version > head.version {
                return None;
            }
            // It has missed something, maybe a deletion, of which nothing is left here.
            if resumed && query.version < head.version {
                return Some(expired("what happened since that resourceVersion is not kept: list again"));
            }
            let part = Part { id, head, rest, namespace: place.namespace.clone(), rewrite: self.rewrite.clone() };
            match query.watch {
                true => Some(self.watch(part, query)),
                false => part.list(self.store).ok(),
            }
        })
    }

    /// Sends what is kept, then nothing until an API server answers. Then the watch ends, and the client goes on from its
    /// last resourceVersion there.
    fn watch(&self, part: Part, query: &Query) -> Response<Body> {
        let (sender, body) = pieces();
        let (store, mut link, query) = (self.store.clone(), self.link.clone(), query.clone());
        let content_type = part.head.encoding.content_type(true);
        tokio::spawn(async move {
            if part.stream(&store, &query, &sender).await.is_none() {
                return;
            }
            let limit = Duration::from_secs(query.timeout.unwrap_or(WATCH));
            let connected = link.wait_for(|link| matches!(link, Link::Connected(_)));
            tokio::select! {
                _ = connected => {}
                () = tokio::time::sleep(limit) => {}
                () = sender.closed() => {}
            }
        });
        answer(StatusCode::OK, content_type, body)
    }

    fn object(&self, who: &str, at: &Place, name: &str, path: &str, encodings: &[Encoding]) -> Option<Response<Body>> {
        let new =
            |encoding, body: Vec<u8>| self.rewrite.as_ref().and_then(|all| all.body(encoding, &body)).unwrap_or(body);
        encodings.iter().find_map(|encoding| {
            let kept = self.store.answer(&whole_key(who, path, Some(*encoding)));
            let kept_version = kept.as_ref().and_then(|a| Some(object::read(*encoding, &a.body)?.1.meta.version));
            if let Some((head, version, bytes)) = self.store.find(who, at, name, *encoding) {
                if kept_version.is_none_or(|kept| version >= kept) {
                    let body = new(*encoding, object::write(*encoding, &head.kind, &bytes));
                    return Some(answer(StatusCode::OK, encoding.content_type(false), whole(body)));
                }
            } else if kept_version.is_some_and(|kept| self.was_deleted(who, at, name, *encoding, kept)) {
                return None;
            }
            kept.map(|kept| answer(StatusCode::OK, &kept.content_type, whole(new(*encoding, kept.body))))
        })
    }

    /// Whether a collection that must hold the object, and shows a later state than `version`, is known not to hold it.
    fn was_deleted(&self, who: &str, at: &Place, name: &str, encoding: Encoding, version: u64) -> bool {
        let by_name = Selector::new(&format!("metadata.name={name}"), "");
        let covering = self.store.covering(&Offline::source(who, at, &by_name, encoding));
        covering.iter().any(|(_, head, _)| head.version >= version)
    }

    fn document(&self, who: &str, path: &str, encodings: &[Encoding]) -> Option<Response<Body>> {
        let all = encodings.iter().copied().map(Some).chain([None]);
        let kept = all.into_iter().find_map(|encoding| self.store.answer(&whole_key(who, path, encoding)))?;
        Some(answer(StatusCode::OK, &kept.content_type, whole(kept.body)))
    }

    /// A node that is known exists already: that is what an API server would say, and kubelet goes on with what it reads
    /// (`tryRegisterWithAPIServer`).
    fn registration(&self, place: &Place, parts: &Parts, body: &[u8]) -> Option<Response<Body>> {
        let content_type = parts.headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let (_, node) = object::read(Encoding::of_content_type(content_type)?, body)?;
        let name = node.meta.name;
        let known = |encoding| {
            let path = format!("{}/nodes/{name}", place.group);
            self.store.find(NODE, place, &name, encoding).is_some()
                || self.store.answer(&whole_key(NODE, &path, Some(encoding))).is_some()
        };
        [Encoding::Protobuf, Encoding::Json].into_iter().any(known).then(|| {
            let text = format!("nodes \"{name}\" already exists");
            failure(StatusCode::CONFLICT, "AlreadyExists", &text)
        })
    }

    fn question(
        &self,
        who: &str,
        parts: &Parts,
        target: &Target,
        encodings: &[Encoding],
        body: &[u8],
    ) -> Option<Response<Body>> {
        let question = crate::request::question(&parts.method, target)?;
        if question == Question::TokenReview && !questions::lives(body, now()) {
            return None;
        }
        encodings.iter().find_map(|encoding| {
            let kept = self.store.answer(&question_key(who, parts.uri.path(), *encoding, body))?;
            let body = match question {
                Question::Token => questions::renewed(*encoding, &kept.body, now())?,
                Question::TokenReview | Question::AccessReview => kept.body,
            };
            Some(answer(StatusCode::CREATED, &kept.content_type, whole(body)))
        })
    }
}

/// A part of a collection that is kept.
struct Part {
    id: Id,
    head: Head,
    rest: Selector,
    namespace: String,
    rewrite: Option<Arc<Rewrite>>,
}

impl Part {
    /// The next objects after a key, with the last key that was looked at; none at the end.
    fn page(&self, snapshot: &Snapshot, after: Option<&str>) -> io::Result<Option<(String, Vec<Vec<u8>>)>> {
        let page = snapshot.page(&self.id, after, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(None) };
        let last = last.clone();
        let wanted = page.into_iter().filter_map(|(_, bytes)| {
            let meta = object::meta(self.head.encoding, &bytes)?;
            let here = self.namespace.is_empty() || meta.namespace == self.namespace;
            let wanted = here && self.rest.selects(&meta)?;
            let new = self.rewrite.as_ref().filter(|_| wanted).and_then(|all| all.object(self.head.encoding, &bytes));
            wanted.then(|| new.unwrap_or(bytes))
        });
        Ok(Some((last, wanted.collect())))
    }

    /// A list, of which never more than a page is in memory. A store that cannot be read is no list without items; where that
    /// is found out on the way, the answer is broken off.
    fn list(self, store: &Store) -> io::Result<Response<Body>> {
        let snapshot = store.snapshot()?;
        let mut list = ListWriter::new(self.head.encoding);
        let mut after = None;
        while let Some((last, page)) = self.page(&snapshot, after.as_deref())? {
            page.iter().for_each(|item| list.announce(item));
            after = Some(last);
        }
        let content_type = self.head.encoding.content_type(false);
        let (sender, body) = pieces();
        tokio::spawn(async move {
            let sent = tokio::time::timeout(READER, self.send(&snapshot, list, &sender)).await;
            if let Err(error) = sent.unwrap_or_else(|late| Err(late.into())) {
                // A client that is gone does not hear it.
                let _ = sender.send(Err(error)).await;
            }
        });
        Ok(answer(StatusCode::OK, content_type, body))
    }

    async fn send(&self, snapshot: &Snapshot, mut list: ListWriter, sender: &Sender) -> io::Result<()> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        let piece = |bytes: Vec<u8>| sender.send(Ok(Frame::data(Bytes::from(bytes))));
        piece(list.start(&self.head.kind, self.head.version)).await.map_err(gone)?;
        let mut after = None;
        while let Some((last, page)) = self.page(snapshot, after.as_deref())? {
            let items: Vec<u8> = page.iter().flat_map(|item| list.item(item)).collect();
            // A page without items would end the body.
            if !items.is_empty() {
                piece(items).await.map_err(gone)?;
            }
            after = Some(last);
        }
        piece(list.end()).await.map_err(gone)
    }

    /// Sends what the watch begins with; none where the client is gone, or the store cannot be read: then the watch is
    /// broken off.
    async fn stream(&self, store: &Store, query: &Query, sender: &Sender) -> Option<()> {
        if query.initial_events || query.version == 0 {
            self.all(store, sender).await?;
        }
        if query.initial_events {
            let end = object::write_initial_events_end(self.head.encoding, &self.head.kind, self.head.version);
            sender.send(Ok(Frame::data(Bytes::from(end)))).await.ok()?;
        }
        Some(())
    }

    async fn all(&self, store: &Store, sender: &Sender) -> Option<()> {
        let mut after = None;
        loop {
            let page = store.snapshot().and_then(|snapshot| self.page(&snapshot, after.as_deref()));
            let (last, page) = match page {
                Ok(Some(page)) => page,
                Ok(None) => return Some(()),
                Err(error) => {
                    let _ = sender.send(Err(error)).await;
                    return None;
                }
            };
            for bytes in page {
                let event = object::write_event(self.head.encoding, "ADDED", &self.head.kind, &bytes);
                sender.send(Ok(Frame::data(Bytes::from(event)))).await.ok()?;
            }
            after = Some(last);
        }
    }
}
