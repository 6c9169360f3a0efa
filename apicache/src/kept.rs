// SPDX-License-Identifier: Apache-2.0
//! What the store holds, and how it is changed.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use redb::TableDefinition;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::object::{Encoding, Kind};
use crate::request::Place;
use crate::selector::Selector;

/// Longest time between a change and the medium.
pub const FLUSH: Duration = Duration::from_secs(5);
/// What was not used for so long, by the newest use of anything, is removed.
pub(crate) const KEPT: u64 = 7 * 24 * 3600;
/// How stale the time of the last use may be on disk.
pub(crate) const USE_STEP: u64 = 24 * 3600;
/// Memory for pages of the database, bytes.
pub(crate) const PAGES: usize = 1 << 20;
/// Changes that may wait for the writing thread.
pub(crate) const QUEUE: usize = 256;

pub(crate) const HEADS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("collections-1");
pub(crate) const OBJECTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("objects-1");
/// Objects of lists of which the end has not come, under the same keys. Nothing is answered from here.
pub(crate) const STAGED: TableDefinition<&[u8], &[u8]> = TableDefinition::new("staged-1");
pub(crate) const ANSWERS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("answers-1");
/// Whose those answers are that were read by GET: the start stands for the identity, the rest is the answer's key.
/// Answers to questions of kubelet have none.
pub(crate) const OWNERS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("answer-owners-1");
pub(crate) const TOKENS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("tokens-1");
/// When a token was last issued or accepted, seconds since 1970.
pub(crate) const TOKEN_USES: TableDefinition<&[u8], u64> = TableDefinition::new("token-uses-1");
pub(crate) const FACTS: TableDefinition<&str, u64> = TableDefinition::new("facts-1");
/// The last time when an API server answered, seconds since 1970.
pub(crate) const CONTACT: &str = "contact";
/// Since when none answers, seconds since 1970; 0 while one does, or once that was reported.
pub(crate) const OUTAGE: &str = "outage";

/// The identity of this node.
pub const NODE: &str = "node";

/// Key of a collection.
pub type Id = [u8; 16];

/// Whose a collection is and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Whose: `node`, or the user of a token, as [`crate::identity::claims`] has it.
    pub identity: String,
    /// Which resource, in which namespace.
    pub place: Place,
    /// Which of its objects.
    pub selector: Selector,
    /// How its objects are kept.
    pub encoding: Encoding,
}

impl Source {
    /// Key of this collection. Parts cannot contain the separator, so that no two collections have one key.
    pub fn id(&self) -> Id {
        let Place { group, resource, namespace } = &self.place;
        let encoding = format!("{:?}", self.encoding);
        let parts = [self.identity.as_str(), group, resource, namespace, &encoding, &self.selector.text()];
        let digest = digest(&parts.map(str::as_bytes));
        let mut id = Id::default();
        id.copy_from_slice(&digest[..16]);
        id
    }
}

/// SHA-256 over parts, each with its length before it.
pub fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// What is known of a collection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Head {
    pub(crate) identity: String,
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) namespace: String,
    pub(crate) selector: String,
    /// How its objects are kept.
    pub encoding: Encoding,
    /// Type of its objects.
    pub kind: Kind,
    /// The state of the cluster that it shows.
    pub version: u64,
    /// Whether the store may answer for it.
    pub complete: bool,
    /// When it was last read from an API server, seconds since 1970.
    pub(crate) used: u64,
}

/// An answer that is kept as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// `Content-Type`.
    pub content_type: String,
    /// Body.
    pub body: Vec<u8>,
}

/// What a watch says.
pub enum News {
    /// An object is there: its type, key (`NAMESPACE/NAME`) and form.
    Put(Kind, String, Vec<u8>),
    /// The object with this key is gone.
    Gone(String),
    /// Nothing has changed up to here.
    Nothing,
}

/// A change of the store.
pub enum Op {
    /// An object of a list, or of the initial events of a watch: part of a whole that has not been seen to its end.
    Seen {
        /// In which collection.
        to: Arc<Source>,
        /// Of which list: each has a number, greater than those that began before.
        list: u64,
        /// Its type.
        kind: Kind,
        /// `NAMESPACE/NAME`.
        key: String,
        /// As it is kept.
        bytes: Vec<u8>,
    },
    /// A collection was seen as a whole: what is not in `seen` ([`mark`]) is gone.
    Complete {
        /// Which.
        of: Arc<Source>,
        /// By which list.
        list: u64,
        /// Type of its objects.
        kind: Kind,
        /// The state that it shows.
        version: u64,
        /// What it holds.
        seen: HashSet<u64>,
    },
    /// A watch went on. It counts only where it continues what is kept: everything up to `after` is in the collection.
    Event {
        /// In which collection.
        of: Arc<Source>,
        /// Up to where this watch had come before.
        after: u64,
        /// Up to where it is now.
        version: u64,
        /// What happened.
        news: News,
    },
    /// An answer as a whole: whose, if it was read by GET; its key.
    Answer(Option<String>, [u8; 32], Answer),
    /// An answer that no longer holds.
    Forget([u8; 32]),
    /// A token that the API server has issued or accepted: whose, and until when.
    Token([u8; 32], String, u64),
    /// A token that the API server has refused.
    Refused([u8; 32]),
    /// An API server answered at this time.
    Contact(u64),
    /// None answers since then; 0 once that is over and reported.
    Outage(u64),
    /// What was not used for [`KEPT`] is removed.
    Prune,
    /// How far each collection has come is written, even where nothing has changed. Otherwise the next process, which goes
    /// by the last change, would have clients list anew.
    Positions,
    /// All that was said before is in the store when this is answered, and on the medium later.
    Applied(oneshot::Sender<()>),
    /// All that was said before is on the medium when this is answered.
    Flush(Option<oneshot::Sender<()>>),
}

/// Mark of an object in a set of those that were seen.
pub fn mark(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

pub(crate) type Heads = Arc<Mutex<HashMap<Id, Head>>>;

pub(crate) fn failed(what: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{what}: {error}"))
}

/// Whether a store fails because of what is in its file. A full medium or a missing right is none of the file's fault.
pub(crate) fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) => true,
        redb::Error::TableTypeMismatch { .. } | redb::Error::TableIsMultimap(_) => true,
        // What is no store at all, and what ends too early.
        redb::Error::Io(error) => matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof),
        _ => false,
    }
}

/// The same as [`failed`]; of the kind `InvalidData` where the file is damaged or of an unknown format.
pub(crate) fn failed_by(what: &str, error: &redb::Error) -> io::Error {
    let kind = if is_damage(error) { io::ErrorKind::InvalidData } else { io::ErrorKind::Other };
    io::Error::new(kind, format!("{what}: {error}"))
}

pub(crate) fn locked(heads: &Heads) -> MutexGuard<'_, HashMap<Id, Head>> {
    heads.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn is_secret(group: &str, resource: &str) -> bool {
    group == "/api/v1" && resource == "secrets"
}

pub(crate) fn read_answer(value: &[u8]) -> Option<(u64, Answer)> {
    let (used, rest) = value.split_at_checked(8)?;
    let end = rest.iter().position(|b| *b == b'\n')?;
    let content_type = String::from_utf8_lossy(&rest[..end]).into_owned();
    Some((u64::from_be_bytes(used.try_into().ok()?), Answer { content_type, body: rest[end + 1..].to_vec() }))
}
