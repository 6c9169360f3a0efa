// SPDX-License-Identifier: Apache-2.0
//! What clients have read, on disk, by identity.
//!
//! A *collection* is what one identity gets for one resource, namespace, selector and encoding. It is *complete* once a
//! list, or the initial events of a watch, were seen to their end; only then does the store answer for it, and only then
//! are objects removed that the API server no longer has. Until then objects are replaced one by one: a mixture of old
//! and new objects, none of them torn.
//!
//! redb keeps the file whole through power cuts (copy on write, checksums). All writes go through one thread; each is
//! visible at once and on the medium after at most [`FLUSH`], so that a burst of changes costs one flush. What does not
//! change is not written.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

use crate::object::{self, Encoding, Kind};
use crate::request::Place;
use crate::selector::Selector;

/// Longest time between a change and the medium.
pub const FLUSH: Duration = Duration::from_secs(5);
/// What was not used for so long, by the newest use of anything, is removed.
const KEPT: u64 = 7 * 24 * 3600;
/// How stale the time of the last use may be on disk.
const USE_STEP: u64 = 24 * 3600;
/// Memory for pages of the database, bytes.
const PAGES: usize = 1 << 20;
/// Changes that may wait for the writing thread.
const QUEUE: usize = 256;

const HEADS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("collections-1");
const OBJECTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("objects-1");
const ANSWERS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("answers-1");
const TOKENS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("tokens-1");
const FACTS: TableDefinition<&str, u64> = TableDefinition::new("facts-1");
/// The last time when an API server answered, seconds since 1970.
const CONTACT: &str = "contact";

/// Key of a collection.
pub type Id = [u8; 16];

/// Whose a collection is and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Whose; see [`crate::identity::Identity::text`].
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
    identity: String,
    group: String,
    resource: String,
    namespace: String,
    selector: String,
    /// How its objects are kept.
    pub encoding: Encoding,
    /// Type of its objects.
    pub kind: Kind,
    /// The state of the cluster that it shows.
    pub version: u64,
    /// Whether the store may answer for it.
    pub complete: bool,
    /// When it was last read from an API server, seconds since 1970.
    used: u64,
}

/// An answer that is kept as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// `Content-Type`.
    pub content_type: String,
    /// Body.
    pub body: Vec<u8>,
}

/// A change of the store.
pub enum Op {
    /// An object is there.
    Put {
        /// In which collection.
        to: Arc<Source>,
        /// Its type.
        kind: Kind,
        /// Its resourceVersion.
        version: u64,
        /// `NAMESPACE/NAME`.
        key: String,
        /// As it is kept.
        bytes: Vec<u8>,
    },
    /// An object is gone.
    Delete {
        /// From which collection.
        from: Arc<Source>,
        /// The resourceVersion of its end.
        version: u64,
        /// `NAMESPACE/NAME`.
        key: String,
    },
    /// A collection was seen as a whole: what is not in `seen` ([`mark`]) is gone.
    Complete {
        /// Which.
        of: Arc<Source>,
        /// Type of its objects.
        kind: Kind,
        /// The state that it shows.
        version: u64,
        /// What it holds.
        seen: HashSet<u64>,
    },
    /// An answer as a whole.
    Answer([u8; 32], Answer),
    /// An answer that no longer holds.
    Forget([u8; 32]),
    /// A token that the API server has issued or accepted: whose, and until when.
    Token([u8; 32], String, u64),
    /// An API server answered at this time.
    Contact(u64),
    /// What was not used for [`KEPT`] is removed.
    Prune,
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

type Heads = Arc<Mutex<HashMap<Id, Head>>>;

/// The store. A clone is the same store.
#[derive(Clone)]
pub struct Store {
    db: Arc<Database>,
    heads: Heads,
    queue: mpsc::Sender<Op>,
    without_secrets: bool,
}

fn failed(what: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{what}: {error}"))
}

fn locked(heads: &Heads) -> MutexGuard<'_, HashMap<Id, Head>> {
    heads.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Opens the store at `path`, or makes it. `without_secrets` keeps no Secrets, and removes those that are there.
    ///
    /// # Errors
    /// The file cannot be read or is damaged, or the thread that writes cannot be started.
    pub fn open(path: &Path, without_secrets: bool) -> io::Result<Self> {
        let mut builder = Database::builder();
        builder.set_cache_size(PAGES);
        let db = Arc::new(builder.create(path).map_err(|e| failed("open the store", e))?);
        let heads = load(&db, without_secrets).map_err(|e| failed("read the store", e))?;
        let heads = Arc::new(Mutex::new(heads));
        let (queue, changes) = mpsc::channel(QUEUE);
        let writer = Writer { db: db.clone(), heads: heads.clone(), dirty: false };
        std::thread::Builder::new().name("store".into()).spawn(move || writer.run(changes))?;
        Ok(Store { db, heads, queue, without_secrets })
    }

    /// Whether objects of this place are kept.
    pub fn keeps(&self, place: &Place) -> bool {
        // Leases change every few seconds and Events are never read by a node: flash is better spent.
        let never = matches!(place.resource.as_str(), "events" | "leases");
        !(never || self.without_secrets && is_secret(&place.group, &place.resource))
    }

    /// Makes a change, soon. False once the store can no longer be written.
    pub async fn change(&self, op: Op) -> bool {
        self.queue.send(op).await.is_ok()
    }

    /// Writes everything to the medium.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.change(Op::Flush(Some(done))).await {
            let _ = wait.await;
        }
    }

    /// The complete collection of an identity with exactly this content, if there is one.
    pub fn exact(&self, source: &Source) -> Option<Head> {
        locked(&self.heads).get(&source.id()).filter(|h| h.complete).cloned()
    }

    /// The complete collections of an identity that hold all of what is asked, with what is to be selected from them; the
    /// narrowest first.
    pub fn covering(&self, source: &Source) -> Vec<(Id, Head, Selector)> {
        let heads = locked(&self.heads);
        let mut found: Vec<(Id, Head, Selector)> = heads
            .iter()
            .filter(|(_, h)| h.complete && h.identity == source.identity && h.encoding == source.encoding)
            .filter(|(_, h)| h.group == source.place.group && h.resource == source.place.resource)
            .filter(|(_, h)| h.namespace.is_empty() || h.namespace == source.place.namespace)
            .filter_map(|(id, h)| Some((*id, h.clone(), source.selector.beyond(&Selector::parse(&h.selector))?)))
            .filter(|(.., rest)| rest.selects(&object::Meta::default()).is_some())
            .collect();
        found.sort_by_key(|(_, h, rest)| (rest.len(), h.namespace.is_empty(), u64::MAX - h.version));
        found
    }

    /// An object in any collection of this identity and resource, complete or not: the newest that is known.
    pub fn find(&self, identity: &str, place: &Place, name: &str, encoding: Encoding) -> Option<(Head, u64, Vec<u8>)> {
        let key = format!("{}/{name}", place.namespace);
        let heads: Vec<(Id, Head)> = locked(&self.heads)
            .iter()
            .filter(|(_, h)| h.identity == identity && h.encoding == encoding)
            .filter(|(_, h)| h.group == place.group && h.resource == place.resource)
            .map(|(id, h)| (*id, h.clone()))
            .collect();
        let read = self.db.begin_read().ok()?;
        let objects = read.open_table(OBJECTS).ok()?;
        let found = heads.into_iter().filter_map(|(id, head)| {
            let bytes = objects.get(&[&id[..], key.as_bytes()].concat()[..]).ok()??.value().to_vec();
            let version = object::meta(encoding, &bytes)?.version;
            Some((head, version, bytes))
        });
        found.max_by_key(|(_, version, _)| *version)
    }

    /// Whether a complete collection of this identity has the object, so that it stays up to date by itself.
    pub fn follows(&self, identity: &str, place: &Place, name: &str, encoding: Encoding) -> bool {
        self.find(identity, place, name, encoding).is_some_and(|(head, ..)| head.complete)
    }

    /// At most `count` objects of a collection after the key `after`, with their keys.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn page(&self, id: &Id, after: Option<&str>, count: usize) -> io::Result<Vec<(String, Vec<u8>)>> {
        let read = self.db.begin_read().map_err(|e| failed("read the store", e))?;
        let objects = read.open_table(OBJECTS).map_err(|e| failed("read the store", e))?;
        let start = [&id[..], after.unwrap_or_default().as_bytes()].concat();
        let range = objects.range(&start[..]..).map_err(|e| failed("read the store", e))?;
        let mut page = Vec::new();
        for entry in range {
            let (key, value) = entry.map_err(|e| failed("read the store", e))?;
            let Some(name) = key.value().strip_prefix(&id[..]) else { break };
            let name = String::from_utf8_lossy(name).into_owned();
            if after == Some(name.as_str()) {
                continue;
            }
            page.push((name, value.value().to_vec()));
            if page.len() == count {
                break;
            }
        }
        Ok(page)
    }

    /// An answer that was kept as a whole.
    pub fn answer(&self, key: &[u8; 32]) -> Option<Answer> {
        let read = self.db.begin_read().ok()?;
        let value = read.open_table(ANSWERS).ok()?.get(&key[..]).ok()??;
        read_answer(value.value()).map(|(_, answer)| answer)
    }

    /// Whose a token is that the API server has issued or accepted and that has not ended.
    pub fn token(&self, digest: &[u8; 32]) -> Option<String> {
        let read = self.db.begin_read().ok()?;
        let value = read.open_table(TOKENS).ok()?.get(&digest[..]).ok()??;
        let (until, subject) = value.value().split_at_checked(8)?;
        let until = u64::from_be_bytes(until.try_into().ok()?);
        (until > now()).then(|| String::from_utf8_lossy(subject).into_owned())
    }

    /// When an API server last answered, seconds since 1970; 0 if none ever did.
    pub fn contact(&self) -> u64 {
        let read = || Some(self.db.begin_read().ok()?.open_table(FACTS).ok()?.get(CONTACT).ok()??.value());
        read().unwrap_or_default()
    }

    /// How many objects are kept.
    pub fn objects(&self) -> u64 {
        use redb::ReadableTableMetadata;
        let read = || self.db.begin_read().ok()?.open_table(OBJECTS).ok()?.len().ok();
        read().unwrap_or_default()
    }
}

fn is_secret(group: &str, resource: &str) -> bool {
    group == "/api/v1" && resource == "secrets"
}

fn read_answer(value: &[u8]) -> Option<(u64, Answer)> {
    let (used, rest) = value.split_at_checked(8)?;
    let end = rest.iter().position(|b| *b == b'\n')?;
    let content_type = String::from_utf8_lossy(&rest[..end]).into_owned();
    Some((u64::from_be_bytes(used.try_into().ok()?), Answer { content_type, body: rest[end + 1..].to_vec() }))
}

/// All heads; a store that may hold no Secrets loses them here.
fn load(db: &Database, without_secrets: bool) -> Result<HashMap<Id, Head>, redb::Error> {
    let write = db.begin_write()?;
    let mut heads = HashMap::new();
    {
        let mut table = write.open_table(HEADS)?;
        write.open_table(OBJECTS)?;
        write.open_table(ANSWERS)?;
        write.open_table(TOKENS)?;
        write.open_table(FACTS)?;
        let mut gone = Vec::new();
        for entry in table.iter()? {
            let (key, value) = entry?;
            let Ok(id) = Id::try_from(key.value()) else { continue };
            match serde_json::from_slice::<Head>(value.value()) {
                Ok(head) if !(without_secrets && is_secret(&head.group, &head.resource)) => {
                    heads.insert(id, head);
                }
                _ => gone.push(id),
            }
        }
        for id in gone {
            table.remove(&id[..])?;
            remove_objects(&write, &id, |_| true)?;
        }
    }
    write.commit()?;
    Ok(heads)
}

/// Removes objects of a collection; says whether there were any.
fn remove_objects(write: &WriteTransaction, id: &Id, which: impl Fn(&str) -> bool) -> Result<bool, redb::Error> {
    let mut objects = write.open_table(OBJECTS)?;
    let mut gone = Vec::new();
    for entry in objects.range(&id[..]..)? {
        let (key, _) = entry?;
        let Some(name) = key.value().strip_prefix(&id[..]) else { break };
        if which(&String::from_utf8_lossy(name)) {
            gone.push(key.value().to_vec());
        }
    }
    for key in &gone {
        objects.remove(&key[..])?;
    }
    Ok(!gone.is_empty())
}

/// The one thread that writes.
struct Writer {
    db: Arc<Database>,
    heads: Heads,
    dirty: bool,
}

impl Writer {
    fn run(mut self, mut changes: mpsc::Receiver<Op>) {
        while let Some(first) = changes.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < QUEUE
                && let Ok(next) = changes.try_recv()
            {
                batch.push(next);
            }
            if let Err(error) = self.apply(batch) {
                // The channel closes: clients are served from the API server, and what comes is not kept. The program
                // sees it and ends, so that the next one starts from what is on the medium.
                eprintln!("firstboot cache: write the store: {error}");
                return;
            }
        }
    }

    fn apply(&mut self, batch: Vec<Op>) -> Result<(), redb::Error> {
        let mut write = self.db.begin_write()?;
        let flush = batch.iter().any(|op| matches!(op, Op::Flush(_)));
        let mut waiting = Vec::new();
        let mut touched: HashMap<Id, Head> = HashMap::new();
        let mut changed = false;
        for op in batch {
            changed |= match op {
                Op::Put { to, kind, version, key, bytes } => {
                    self.put(&write, &mut touched, &to, kind, version, &key, &bytes)?
                }
                Op::Delete { from, version, key } => {
                    let id = from.id();
                    let gone = write.open_table(OBJECTS)?.remove(&[&id[..], key.as_bytes()].concat()[..])?.is_some();
                    if gone && let Some(head) = self.head(&mut touched, &id) {
                        head.version = head.version.max(version);
                    }
                    gone
                }
                Op::Complete { of, kind, version, seen } => {
                    self.complete(&write, &mut touched, &of, kind, version, &seen)?
                }
                Op::Answer(key, answer) => keep_answer(&write, &key, &answer)?,
                Op::Forget(key) => write.open_table(ANSWERS)?.remove(&key[..])?.is_some(),
                Op::Token(digest, subject, until) => {
                    let value = [&until.to_be_bytes(), subject.as_bytes()].concat();
                    let old = write.open_table(TOKENS)?.insert(&digest[..], &value[..])?.map(|v| v.value().to_vec());
                    old.as_ref() != Some(&value)
                }
                Op::Contact(at) => {
                    write.open_table(FACTS)?.insert(CONTACT, at)?;
                    true
                }
                Op::Prune => self.prune(&write, &mut touched)?,
                Op::Flush(done) => {
                    waiting.extend(done);
                    false
                }
            };
        }
        if !touched.is_empty() {
            let mut table = write.open_table(HEADS)?;
            for (id, head) in &touched {
                let text = serde_json::to_vec(head).unwrap_or_default();
                table.insert(&id[..], &text[..])?;
            }
            changed = true;
        }
        match (changed, flush) {
            (false, false) => write.abort()?,
            (false, true) if !self.dirty => write.abort()?,
            (_, true) => {
                write.commit()?;
                self.dirty = false;
            }
            (true, false) => {
                // Never refused: there are no savepoints.
                let _ = write.set_durability(Durability::None);
                write.commit()?;
                self.dirty = true;
            }
        }
        locked(&self.heads).extend(touched);
        for done in waiting {
            // Who asked may have gone.
            let _ = done.send(());
        }
        Ok(())
    }

    /// The head of a collection that is to change.
    fn head<'t>(&self, touched: &'t mut HashMap<Id, Head>, id: &Id) -> Option<&'t mut Head> {
        if !touched.contains_key(id) {
            touched.insert(*id, locked(&self.heads).get(id)?.clone());
        }
        touched.get_mut(id)
    }

    /// The same, which is made if there is none yet.
    fn head_of<'t>(&self, touched: &'t mut HashMap<Id, Head>, source: &Source, kind: Kind) -> &'t mut Head {
        let id = source.id();
        let known = locked(&self.heads).get(&id).cloned();
        let head = touched.entry(id).or_insert_with(|| {
            known.unwrap_or_else(|| Head {
                identity: source.identity.clone(),
                group: source.place.group.clone(),
                resource: source.place.resource.clone(),
                namespace: source.place.namespace.clone(),
                selector: source.selector.text(),
                encoding: source.encoding,
                kind: kind.clone(),
                version: 0,
                complete: false,
                used: now(),
            })
        });
        if !kind.kind.is_empty() {
            head.kind = kind;
        }
        head
    }

    #[allow(clippy::too_many_arguments)]
    fn put(
        &self,
        write: &WriteTransaction,
        touched: &mut HashMap<Id, Head>,
        to: &Source,
        kind: Kind,
        version: u64,
        key: &str,
        bytes: &[u8],
    ) -> Result<bool, redb::Error> {
        let id = to.id();
        let place = [&id[..], key.as_bytes()].concat();
        let mut objects = write.open_table(OBJECTS)?;
        if objects.get(&place[..])?.is_some_and(|old| old.value() == bytes) {
            return Ok(false);
        }
        objects.insert(&place[..], bytes)?;
        let head = self.head_of(touched, to, kind);
        head.version = head.version.max(version);
        Ok(true)
    }

    fn complete(
        &self,
        write: &WriteTransaction,
        touched: &mut HashMap<Id, Head>,
        of: &Source,
        kind: Kind,
        version: u64,
        seen: &HashSet<u64>,
    ) -> Result<bool, redb::Error> {
        let id = of.id();
        let gone = remove_objects(write, &id, |key| !seen.contains(&mark(key)))?;
        let known = locked(&self.heads).get(&id).cloned();
        let fresh = known.is_some_and(|h| h.complete && h.used + USE_STEP > now());
        if fresh && !gone && !touched.contains_key(&id) {
            return Ok(false);
        }
        let head = self.head_of(touched, of, kind);
        // A cluster that was restored from a backup begins again at a lower one.
        head.version = version;
        head.complete = true;
        head.used = now();
        Ok(true)
    }

    fn prune(&self, write: &WriteTransaction, touched: &mut HashMap<Id, Head>) -> Result<bool, redb::Error> {
        let mut heads = locked(&self.heads);
        let newest = heads.values().chain(touched.values()).map(|h| h.used).max().unwrap_or_default();
        let old: Vec<Id> = heads.iter().filter(|(_, h)| h.used + KEPT < newest).map(|(id, _)| *id).collect();
        for id in &old {
            heads.remove(id);
            touched.remove(id);
            write.open_table(HEADS)?.remove(&id[..])?;
            remove_objects(write, id, |_| true)?;
        }
        let stale = |value: &[u8]| read_answer(value).is_none_or(|(used, _)| used + KEPT < newest);
        write.open_table(ANSWERS)?.retain(|_, value| !stale(value))?;
        write
            .open_table(TOKENS)?
            .retain(|_, value| value.first_chunk().is_some_and(|until| u64::from_be_bytes(*until) + KEPT > newest))?;
        Ok(true)
    }
}

fn keep_answer(write: &WriteTransaction, key: &[u8; 32], answer: &Answer) -> Result<bool, redb::Error> {
    let mut answers = write.open_table(ANSWERS)?;
    let known = answers.get(&key[..])?.and_then(|value| read_answer(value.value()));
    if known.is_some_and(|(used, old)| old == *answer && used + USE_STEP > now()) {
        return Ok(false);
    }
    let value = [&now().to_be_bytes(), answer.content_type.as_bytes(), b"\n", &answer.body].concat();
    answers.insert(&key[..], &value[..])?;
    Ok(true)
}
