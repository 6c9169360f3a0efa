// SPDX-License-Identifier: Apache-2.0
//! What of an answer is kept, while it passes.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flate2::write::GzDecoder;

use crate::identity::{self, token_digest};
use crate::object::{self, Change, Encoding, Event, Frames};
use crate::questions;
use crate::request::Question;
use crate::store::{Answer, Id, News, Op, Source, Store, mark, now};

/// Largest answer that is kept as a whole, bytes; a larger list passes unrecorded.
const LARGEST: usize = 4 << 20;
/// Bytes that are unpacked at once: deflate makes at most about a thousand of one.
const PORTION: usize = 512;
/// Lists in pages that may be on their way at once.
const PAGED: usize = 16;

/// Lists whose pages are still coming, and watches that were refused.
#[derive(Default)]
pub struct Progress {
    pages: Mutex<HashMap<(Id, String), HashSet<u64>>>,
    refused: Mutex<HashMap<Id, u64>>,
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
    /// One object, or a document.
    Whole([u8; 32]),
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
    frames: Option<Frames>,
    whole: Option<Buffer>,
    seen: HashSet<u64>,
}

enum Buffer {
    Plain(Vec<u8>),
    Gzip(Box<GzDecoder<Vec<u8>>>),
}

impl Recording {
    /// Of an answer with this `Content-Type`, and `Content-Encoding: gzip` or none.
    pub fn new(store: &Store, progress: &Arc<Progress>, plan: Plan, content_type: &str, gzip: bool) -> Option<Self> {
        let encoding = Encoding::of_content_type(content_type);
        let (frames, whole) = match (&plan, encoding) {
            (Plan::Watch { .. }, Some(encoding)) if !gzip => (Some(Frames::new(encoding)), None),
            (Plan::Watch { .. }, _) | (Plan::List { .. } | Plan::Question { .. }, None) => return None,
            _ if gzip => (None, Some(Buffer::Gzip(Box::new(GzDecoder::new(Vec::new()))))),
            _ => (None, Some(Buffer::Plain(Vec::new()))),
        };
        let (store, progress, content_type) = (store.clone(), progress.clone(), content_type.to_owned());
        Some(Recording { store, progress, plan, encoding, content_type, frames, whole, seen: HashSet::new() })
    }

    /// Takes bytes of the answer. False once nothing more is recorded of it.
    pub async fn bytes(&mut self, bytes: &[u8]) -> bool {
        if let Some(buffer) = &mut self.whole {
            let length = match buffer {
                Buffer::Plain(all) => {
                    all.extend_from_slice(bytes);
                    all.len()
                }
                // In portions: what is packed tightly is given up before it fills the memory.
                Buffer::Gzip(decoder) => bytes.chunks(PORTION).fold(0, |length, portion| {
                    if length > LARGEST {
                        return length;
                    }
                    decoder.write_all(portion).map_or(usize::MAX, |()| decoder.get_ref().len())
                }),
            };
            return length <= LARGEST;
        }
        let Some(mut frames) = self.frames.take() else { return false };
        let mut changes = Vec::new();
        let mut good = true;
        let whole = frames.push(bytes, |frame| match self.event(frame) {
            Some(change) => changes.extend(change),
            None => good = false,
        });
        for change in changes {
            good &= self.store.change(change).await;
        }
        self.frames = Some(frames);
        good && whole.is_some()
    }

    /// What an event changes. None where it is no event, or says that the watch failed.
    fn event(&mut self, frame: &[u8]) -> Option<Option<Op>> {
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
                    Some(Op::Seen { to: of, kind, version, key, bytes: object.bytes.into_owned() })
                }
                Change::Bookmark if object.meta.initial_events_end => {
                    *from = Some(version);
                    let seen = std::mem::take(&mut self.seen);
                    Some(Op::Complete { of, kind, version, seen })
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
    pub async fn end(self) {
        let bytes = match self.whole {
            Some(Buffer::Plain(all)) => all,
            Some(Buffer::Gzip(decoder)) => match decoder.finish() {
                Ok(all) => all,
                Err(_) => return,
            },
            None => return,
        };
        match self.plan {
            Plan::Watch { .. } => {}
            Plan::List { source, page } => {
                let Some(list) = object::read_list(source.encoding, &bytes) else { return };
                let id = source.id();
                let mut seen = match page.is_empty() {
                    true => HashSet::new(),
                    false => match locked(&self.progress.pages).remove(&(id, page)) {
                        Some(seen) => seen,
                        None => return,
                    },
                };
                for item in list.items {
                    let (key, version, bytes) = (item.meta.key(), item.meta.version, item.bytes.into_owned());
                    seen.insert(mark(&key));
                    let (to, kind) = (source.clone(), list.kind.clone());
                    self.store.change(Op::Seen { to, kind, version, key, bytes }).await;
                }
                if list.next.is_empty() {
                    let (kind, version) = (list.kind, list.version);
                    self.store.change(Op::Complete { of: source, kind, version, seen }).await;
                } else {
                    let mut pages = locked(&self.progress.pages);
                    if pages.len() < PAGED {
                        pages.insert((id, list.next), seen);
                    }
                }
            }
            Plan::Whole(key) => {
                let valid = match self.encoding {
                    Some(Encoding::Protobuf) => object::envelope(&bytes).is_some(),
                    Some(Encoding::Json) => serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok(),
                    // Discovery and OpenAPI have forms of their own; what a person is to read is none of them.
                    None => !bytes.is_empty() && !self.content_type.starts_with("text/"),
                };
                if valid {
                    let answer = Answer { content_type: self.content_type, body: bytes };
                    self.store.change(Op::Answer(key, answer)).await;
                }
            }
            Plan::Question { key, question, counts } => {
                let Some(encoding) = self.encoding else { return };
                let Some(body) = questions::kept(question, encoding, &bytes) else { return };
                if counts && let Some(token) = questions::token(encoding, &bytes) {
                    let (user, until) = identity::claims(&token, now());
                    self.store.change(Op::Token(token_digest(&token), user, until)).await;
                }
                self.store.change(Op::Answer(key, Answer { content_type: self.content_type, body })).await;
            }
        }
    }
}
