// SPDX-License-Identifier: Apache-2.0
//! A client as client-go has it since Kubernetes 1.35, and as it was before: what it knows, and how it came to it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use apicache::object::{Change, Encoding, Frames, envelope, read_event, read_list};
use apicache::wire;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use serde_json::Value;

use super::beside_bench::Hub;
use super::cache_bench::*;

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// A watch that ends sooner, without an event, is taken for one that is not supported.
const SHORT: Duration = Duration::from_secs(1);

/// The settings of a list.
pub const LIST: &str = "limit=500&resourceVersion=0";

/// What a client asks for, to know all of it and each change.
#[derive(Clone)]
pub struct Question {
    pub of: &'static str,
    pub what: &'static str,
    pub path: String,
    /// Field and label selectors, as in an address, with a `&` at the end of each.
    pub selectors: String,
    pub agent: &'static str,
    pub token: Option<String>,
    pub as_node: bool,
}

impl Question {
    /// A request with these settings.
    pub fn ask(&self, query: &str) -> Ask {
        let Question { agent, as_node, .. } = *self;
        let path = format!("{}?{}{query}", self.path, self.selectors);
        Ask { agent, as_node, token: self.token.clone(), ..Ask::get(&path, PROTOBUF) }
    }
}

/// How a watch ended.
enum End {
    /// The client knows enough.
    Content,
    /// It goes on from where it was.
    Over,
    /// There was nothing in it.
    Short,
    /// It begins anew: its version is too old, or what came cannot be read.
    Anew,
}

/// The client: client-go's reflector.
pub struct Reflector {
    pub question: Question,
    /// Whether it lists and then watches, as before Kubernetes 1.35, instead of watching from nothing.
    lists: bool,
    /// Name and version of each object, once it knew all.
    pub known: Option<BTreeMap<String, u64>>,
    /// Where a watch goes on.
    version: Option<u64>,
    /// The last refusal.
    pub refused: Option<u16>,
    /// Whether it came to know by a list.
    pub by_list: bool,
}

impl Reflector {
    pub fn new(question: &Question, lists: bool) -> Self {
        Reflector { question: question.clone(), lists, known: None, version: None, refused: None, by_list: false }
    }

    /// Asks, and goes on asking, until then or until the client is content, which it looks at whenever it knows more.
    pub async fn run(&mut self, hub: &Hub, until: Instant, mut content: impl FnMut(&BTreeMap<String, u64>) -> bool) {
        let asking = async {
            loop {
                if self.step(hub, &mut content).await {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        let _ = tokio::time::timeout(until.saturating_duration_since(Instant::now()), asking).await;
    }

    /// One way through the reflector's loop. Says whether the client is content.
    async fn step(&mut self, hub: &Hub, content: &mut impl FnMut(&BTreeMap<String, u64>) -> bool) -> bool {
        if self.version.is_none() && !self.lists {
            let query = "allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&sendInitialEvents=true\
                         &timeoutSeconds=300&watch=true";
            let Ok((_connection, response)) = hub.open(&self.question.ask(query)).await else { return false };
            let status = response.status().as_u16();
            if status == 200 {
                self.refused = None;
                match self.follow(response, true, content).await {
                    End::Content => return true,
                    End::Over => return false,
                    End::Short | End::Anew => {}
                }
            } else {
                self.refused = Some(status);
                if status == 429 {
                    return false;
                }
            }
            // No watch will bring more: it lists.
        }
        if self.version.is_none() {
            let Ok((_connection, response)) = hub.open(&self.question.ask(LIST)).await else {
                return false;
            };
            if !self.listed(response).await {
                return false;
            }
            if content(self.known.as_ref().unwrap()) {
                return true;
            }
        }
        let version = self.version.unwrap();
        let query = format!("allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds=300&watch=true");
        let Ok((_connection, response)) = hub.open(&self.question.ask(&query)).await else { return false };
        match response.status().as_u16() {
            200 => match self.follow(response, false, content).await {
                End::Content => return true,
                End::Over | End::Short => {}
                End::Anew => self.version = None,
            },
            410 => self.version = None,
            other => self.refused = Some(other),
        }
        false
    }

    /// Takes a list. Says whether it could be read.
    async fn listed(&mut self, response: Response<Incoming>) -> bool {
        let status = response.status().as_u16();
        let encoding = encoding(&response);
        let Ok(body) = response.into_body().collect().await.map(http_body_util::Collected::to_bytes) else {
            return false;
        };
        let list = encoding.filter(|_| status == 200).and_then(|encoding| list_of(encoding, &body));
        let Some((known, version)) = list else {
            self.refused = Some(status);
            return false;
        };
        self.known = Some(known);
        (self.version, self.by_list) = (Some(version), true);
        true
    }

    /// Reads the events of a watch.
    async fn follow(
        &mut self,
        mut response: Response<Incoming>,
        initial: bool,
        content: &mut impl FnMut(&BTreeMap<String, u64>) -> bool,
    ) -> End {
        let began = Instant::now();
        let Some(encoding) = encoding(&response) else { return End::Anew };
        let mut frames = Frames::new(encoding);
        let mut coming = initial.then(BTreeMap::new);
        let mut any = false;
        while let Some(Ok(frame)) = response.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            let mut ready = Vec::new();
            if frames.push(&data, |frame| ready.push(frame.to_vec())).is_none() {
                return End::Anew;
            }
            for frame in ready {
                any = true;
                let Some(event) = read_event(encoding, &frame) else { return End::Anew };
                let (key, version) = (event.object.meta.key(), event.object.meta.version);
                match (event.change, &mut coming) {
                    (Change::Added | Change::Modified, Some(all)) => drop(all.insert(key, version)),
                    (Change::Bookmark, Some(_)) if event.object.meta.initial_events_end => {
                        (self.known, self.version, self.by_list) = (coming.take(), Some(version), false);
                    }
                    (Change::Other, _) => return End::Anew,
                    (_, Some(_)) => {}
                    (change, None) => {
                        let known = self.known.get_or_insert_default();
                        match change {
                            Change::Added | Change::Modified => drop(known.insert(key, version)),
                            Change::Delete => drop(known.remove(&key)),
                            Change::Bookmark | Change::Other => {}
                        }
                        self.version = Some(version);
                    }
                }
                if coming.is_none() && content(self.known.as_ref().unwrap()) {
                    return End::Content;
                }
            }
        }
        if began.elapsed() < SHORT && !any { End::Short } else { End::Over }
    }
}

/// The objects of a list and its version: 0 for an empty one that names none, which client-go takes as well.
fn list_of(encoding: Encoding, body: &[u8]) -> Option<(BTreeMap<String, u64>, u64)> {
    if let Some(list) = read_list(encoding, body) {
        return Some((list.items.iter().map(|item| (item.meta.key(), item.meta.version)).collect(), list.version));
    }
    let empty = match encoding {
        Encoding::Json => {
            let list: Value = serde_json::from_slice(body).ok()?;
            list["kind"].as_str()?.ends_with("List") && list["items"].as_array().is_none_or(Vec::is_empty)
        }
        Encoding::Protobuf => {
            let (kind, message) = envelope(body)?;
            kind.kind.ends_with("List") && wire::fields(message)?.iter().all(|(number, _)| *number != 2)
        }
    };
    empty.then(|| (BTreeMap::new(), 0))
}

fn encoding(response: &Response<Incoming>) -> Option<Encoding> {
    Encoding::of_content_type(response.headers().get("content-type")?.to_str().ok()?)
}

/// Clients ask; once each knows all, or then, comes `after`, while they go on watching. Gives when each knew all.
pub async fn together<T>(
    hub: &Hub,
    clients: &mut [Reflector],
    until: Instant,
    after: impl Future<Output = T>,
) -> (Vec<Option<Instant>>, T) {
    let came: Vec<Cell<Option<Instant>>> = clients.iter().map(|_| Cell::new(None)).collect();
    let ever = until + Duration::from_secs(3600);
    let mut asking: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
    for (client, came) in clients.iter_mut().zip(&came) {
        asking.push(Box::pin(client.run(hub, ever, |_| {
            came.set(came.get().or_else(|| Some(Instant::now())));
            false
        })));
    }
    let asking = poll_fn(move |context| {
        asking.retain_mut(|one| one.as_mut().poll(context).is_pending());
        if asking.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    });
    let answered = async {
        while came.iter().any(|came| came.get().is_none()) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        after.await
    };
    let after = tokio::select! {
        () = asking => panic!("clients ended"),
        after = answered => after,
    };
    (came.iter().map(Cell::get).collect(), after)
}
