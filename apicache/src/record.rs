// SPDX-License-Identifier: Apache-2.0
//! What of an answer is kept, while it passes.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flate2::write::GzDecoder;

use crate::identity::{self, token_digest};
use crate::list::ListReader;
use crate::object::{self, Change, Encoding, Event, Frames};
use crate::questions;
use crate::request::Question;
use crate::store::{Answer, Id, News, Op, Source, Store, mark, now};

/// Largest answer that is kept as a whole, bytes.
const LARGEST: usize = 4 << 20;
/// Bytes that are unpacked at once: deflate makes at most about a thousand of one.
const PORTION: usize = 512;
/// Lists in pages that may be on their way at once.
const PAGED: usize = 16;

/// Lists whose pages are still coming, and watches that were refused.
#[derive(Default)]
pub struct Progress {
    pages: Mutex<HashMap<(Id, String), Pages>>,
    /// How many lists have begun.
    lists: AtomicU64,
    refused: Mutex<HashMap<Id, u64>>,
}

/// What the pages up to one had.
#[derive(Clone)]
struct Pages {
    /// Number of the list.
    list: u64,
    seen: HashSet<u64>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Progress {
    /// Whether a watch that begins at `version` would leave a gap: what happened between the end of what was recorded
    /// and `version` is unknown, deletions above all. A client that is refused lists anew, and the gap is closed. It is
    /// refused at most once in ten minutes, so that one whose list cannot be recorded is not held up.
    pub fn gap(&self, store: &Store, source: &Source, version: u64) -> bool {
        if version == 0 || store.version(source) >= version {
            return false;
        }
        let mut refused = locked(&self.refused);
        let last = refused.insert(source.id(), now()).unwrap_or_default();
        last + 600 < now()
    }
}

/// What kind of answer comes.
pub enum Plan {
    /// A list, or the page of one that `page` asked for.
    List {
        /// Of which collection.
        source: Arc<Source>,
        /// `continue` of the request.
        page: String,
    },
    /// A watch.
    Watch {
        /// Of which collection.
        source: Arc<Source>,
        /// Where it begins; none where all objects come first.
        from: Option<u64>,
    },
    /// One object, or a document: for whom, and its key.
    Whole(String, [u8; 32]),
    /// The answer to a question of kubelet.
    Question {
        /// Its key.
        key: [u8; 32],
        /// Which.
        question: Question,
        /// Whether the token in it is one for the API server.
        counts: bool,
    },
}

/// An answer that is being recorded.
pub struct Recording {
    store: Store,
    progress: Arc<Progress>,
    plan: Plan,
    encoding: Option<Encoding>,
    content_type: String,
    /// What is packed, until it has come to its end.
    unpacking: Option<Box<GzDecoder<Vec<u8>>>>,
    taking: Taking,
    /// Number of the list that it is, or that it begins with.
    list: u64,
    seen: HashSet<u64>,
}

/// How an answer is taken: a watch and a list piece by piece.
enum Taking {
    Watch(Frames),
    List(ListReader),
    Whole(Vec<u8>),
}

impl Recording {
    /// Of an answer with this `Content-Type`, and `Content-Encoding: gzip` or none.
    pub fn new(store: &Store, progress: &Arc<Progress>, plan: Plan, content_type: &str, gzip: bool) -> Option<Self> {
        let encoding = Encoding::of_content_type(content_type);
        let begin = || Pages { list: progress.lists.fetch_add(1, Ordering::Relaxed), seen: HashSet::new() };
        let mut before = None;
        let taking = match (&plan, encoding) {
            (Plan::Watch { .. }, Some(encoding)) if !gzip => Taking::Watch(Frames::new(encoding)),
            (Plan::Watch { .. }, _) | (Plan::List { .. } | Plan::Question { .. }, None) => return None,
            (Plan::List { source, page }, Some(encoding)) => {
                if !page.is_empty() {
                    before = Some(locked(&progress.pages).get(&(source.id(), page.clone()))?.clone());
                }
                Taking::List(ListReader::new(encoding))
            }
            _ => Taking::Whole(Vec::new()),
        };
        let Pages { list, seen } = before.unwrap_or_else(begin);
        let unpacking = gzip.then(|| Box::new(GzDecoder::new(Vec::new())));
        let (store, progress, content_type) = (store.clone(), progress.clone(), content_type.to_owned());
        Some(Recording { store, progress, plan, encoding, content_type, unpacking, taking, list, seen })
    }

    /// Takes bytes of the answer. False once nothing more is recorded of it.
    pub async fn bytes(&mut self, bytes: &[u8]) -> bool {
        let Some(mut unpacking) = self.unpacking.take() else { return self.plain(bytes).await };
        // In portions: what is packed tightly is given up before it fills the memory.
        for portion in bytes.chunks(PORTION) {
            let unpacked = unpacking.write_all(portion).map(|()| std::mem::take(unpacking.get_mut()));
            let Ok(unpacked) = unpacked else { return false };
            if !self.plain(&unpacked).await {
                return false;
            }
        }
        self.unpacking = Some(unpacking);
        true
    }

    async fn plain(&mut self, bytes: &[u8]) -> bool {
        let mut taking = std::mem::replace(&mut self.taking, Taking::Whole(Vec::new()));
        let (mut changes, mut good) = (Vec::new(), true);
        match &mut taking {
            Taking::Whole(all) => {
                all.extend_from_slice(bytes);
                good = all.len() <= LARGEST;
            }
            Taking::Watch(frames) => {
                let see = |frame: &[u8]| match self.event(frame) {
                    Some(change) => changes.extend(change),
                    None => good = false,
                };
                let framed = frames.push(bytes, see).is_some();
                good &= framed;
            }
            Taking::List(list) => {
                let Plan::List { source, .. } = &self.plan else { return false };
                let (seen, number) = (&mut self.seen, self.list);
                let read = list.push(bytes, |kind, item| {
                    let key = item.meta.key();
                    seen.insert(mark(&key));
                    let bytes = item.bytes.into_owned();
                    changes.push(Op::Seen { to: source.clone(), list: number, kind, key, bytes });
                });
                good = read.is_some();
            }
        }
        for change in changes {
            good &= self.store.change(change).await;
        }
        self.taking = taking;
        good
    }

    /// What an event changes. None where it is no event, or says that the watch failed.
    fn event(&mut self, frame: &[u8]) -> Option<Option<Op>> {
        let list = self.list;
        let Plan::Watch { source, from } = &mut self.plan else { return None };
        let Event { change, kind, object } = object::read_event(source.encoding, frame)?;
        let (version, key, of) = (object.meta.version, object.meta.key(), source.clone());
        // Without a version that can be compared nothing is known.
        if version == 0 || change != Change::Bookmark && object.meta.name.is_empty() {
            return None;
        }
        let Some(position) = from else {
            return Some(match change {
                Change::Added | Change::Modified => {
                    self.seen.insert(mark(&key));
                    Some(Op::Seen { to: of, list, kind, key, bytes: object.bytes.into_owned() })
                }
                Change::Bookmark if object.meta.initial_events_end => {
                    *from = Some(version);
                    let seen = std::mem::take(&mut self.seen);
                    Some(Op::Complete { of, list, kind, version, seen })
                }
                Change::Bookmark => None,
                Change::Delete | Change::Other => return None,
            });
        };
        let after = std::mem::replace(position, version);
        let news = match change {
            Change::Added | Change::Modified => News::Put(kind, key, object.bytes.into_owned()),
            Change::Delete => News::Gone(key),
            Change::Bookmark => News::Nothing,
            Change::Other => return None,
        };
        Some(Some(Op::Event { of, after, version, news }))
    }

    /// Takes note that the answer came to its proper end. What was cut off is never given here.
    pub async fn end(mut self) {
        if let Some(mut unpacking) = self.unpacking.take() {
            let whole = unpacking.try_finish().map(|()| std::mem::take(unpacking.get_mut()));
            let Ok(rest) = whole else { return };
            if !self.plain(&rest).await {
                return;
            }
        }
        let bytes = match self.taking {
            Taking::Watch(_) => return,
            Taking::List(reader) => {
                let (Plan::List { source, page }, Some(head)) = (self.plan, reader.end()) else { return };
                if !page.is_empty() {
                    locked(&self.progress.pages).remove(&(source.id(), page));
                }
                if head.next.is_empty() {
                    let (list, kind, version, seen) = (self.list, head.kind, head.version, self.seen);
                    self.store.change(Op::Complete { of: source, list, kind, version, seen }).await;
                } else {
                    let mut pages = locked(&self.progress.pages);
                    if pages.len() < PAGED {
                        pages.insert((source.id(), head.next), Pages { list: self.list, seen: self.seen });
                    }
                }
                return;
            }
            Taking::Whole(all) => all,
        };
        match self.plan {
            Plan::Watch { .. } | Plan::List { .. } => {}
            Plan::Whole(whose, key) => {
                let valid = match self.encoding {
                    Some(Encoding::Protobuf) => object::envelope(&bytes).is_some(),
                    Some(Encoding::Json) => serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok(),
                    // Discovery and OpenAPI have forms of their own; what a person is to read is none of them.
                    None => !bytes.is_empty() && !self.content_type.starts_with("text/"),
                };
                if valid {
                    let answer = Answer { content_type: self.content_type, body: bytes };
                    self.store.change(Op::Answer(Some(whose), key, answer)).await;
                }
            }
            Plan::Question { key, question, counts } => {
                let Some(encoding) = self.encoding else { return };
                let Some(body) = questions::kept(question, encoding, &bytes) else {
                    // A no takes back an earlier yes.
                    self.store.change(Op::Forget(key)).await;
                    return;
                };
                if counts && let Some(token) = questions::token(encoding, &bytes) {
                    let (user, until) = identity::claims(&token, now());
                    self.store.change(Op::Token(token_digest(&token), user, until)).await;
                }
                self.store.change(Op::Answer(None, key, Answer { content_type: self.content_type, body })).await;
            }
        }
    }
}
