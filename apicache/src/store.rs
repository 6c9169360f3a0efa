// SPDX-License-Identifier: Apache-2.0
//! What clients have read, on disk, by identity.
//!
//! A *collection* is what one identity gets for one resource, namespace, selector and encoding. It is *complete* once a
//! list, or the initial events of a watch, were seen to their end; only then does the store answer for it, and only then
//! are objects removed that the API server no longer has. A collection that is complete stays as it is until then: a
//! list that is cut off changes nothing of it.
//!
//! redb keeps the file whole through power cuts (copy on write, checksums). All writes go through one thread; each is
//! visible at once and on the medium after at most [`FLUSH`], so that a burst of changes costs one flush. What does not
//! change is not written.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, ReadOnlyTable, ReadableDatabase, StorageBackend};
use tokio::sync::{mpsc, oneshot};

use crate::kept::{
    ANSWERS, CONTACT, FACTS, Heads, OBJECTS, OUTAGE, PAGES, QUEUE, TOKEN_USES, TOKENS, USE_STEP, failed, failed_by,
    is_secret, locked, read_answer,
};
pub use crate::kept::{Answer, FLUSH, Head, Id, NODE, News, Op, Source, digest, mark, now};
use crate::object::{self, Encoding};
use crate::request::Place;
use crate::selector::Selector;
use crate::writer::{Writer, load};

/// Of the file.
const MODE: u32 = 0o600;
/// A page of a snapshot ends after so many bytes, whatever its objects are: it is in memory once for each client.
const PAGE: usize = 256 << 10;

/// The store. A clone is the same store.
#[derive(Clone)]
pub struct Store {
    db: Arc<Database>,
    heads: Heads,
    queue: mpsc::Sender<Op>,
    without_secrets: bool,
    damaged: Arc<AtomicBool>,
}

impl Store {
    /// Opens the store at `path`, or makes it. `without_secrets` keeps no Secrets, and removes those that are there.
    ///
    /// # Errors
    /// The file cannot be read, or the thread that writes cannot be started. The kind is `InvalidData` where the file is
    /// damaged or of an unknown format, and only there.
    pub fn open(path: &Path, without_secrets: bool) -> io::Result<Self> {
        let opening = |e: io::Error| failed("open the store", e);
        // Secrets and tokens are in it: it is its owner's alone, whatever the directory and the umask say.
        let mut file = File::options();
        let file = file.read(true).write(true).create(true).truncate(false).mode(MODE).open(path).map_err(opening)?;
        // One of before had the umask's mode.
        file.set_permissions(Permissions::from_mode(MODE)).map_err(opening)?;
        let file = FileBackend::new(file).map_err(|e| failed("open the store", e))?;
        Self::begin(|builder| builder.create_with_backend(file), without_secrets)
    }

    /// The same, on something other than a file.
    ///
    /// # Errors
    /// As for [`Store::open`].
    pub fn open_on(medium: impl StorageBackend, without_secrets: bool) -> io::Result<Self> {
        Self::begin(|builder| builder.create_with_backend(medium), without_secrets)
    }

    fn begin(
        open: impl FnOnce(&mut Builder) -> Result<Database, DatabaseError>,
        without_secrets: bool,
    ) -> io::Result<Self> {
        let mut builder = Database::builder();
        builder.set_cache_size(PAGES);
        let db = Arc::new(open(&mut builder).map_err(|e| failed_by("open the store", &e.into()))?);
        let heads = load(&db, without_secrets).map_err(|e| failed_by("read the store", &e))?;
        let heads = Arc::new(Mutex::new(heads));
        let (queue, changes) = mpsc::channel(QUEUE);
        let damaged = Arc::new(AtomicBool::new(false));
        let writer = Writer::new(db.clone(), heads.clone(), damaged.clone());
        std::thread::Builder::new().name("store".into()).spawn(move || writer.run(changes))?;
        Ok(Store { db, heads, queue, without_secrets, damaged })
    }

    /// Whether the file is damaged, once the store can no longer be written.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
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

    /// Waits until all that was said before is in the store.
    pub async fn applied(&self) {
        let (done, wait) = oneshot::channel();
        if self.change(Op::Applied(done)).await {
            let _ = wait.await;
        }
    }

    /// Up to which resourceVersion everything of a collection is kept; 0 where the store does not answer for it.
    pub fn version(&self, source: &Source) -> u64 {
        locked(&self.heads).get(&source.id()).filter(|h| h.complete).map_or(0, |h| h.version)
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

    /// All objects as they are now.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn snapshot(&self) -> io::Result<Snapshot> {
        let read = self.db.begin_read().map_err(|e| failed("read the store", e))?;
        read.open_table(OBJECTS).map(Snapshot).map_err(|e| failed("read the store", e))
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

    /// Whether it is time to note that a token was accepted.
    pub fn token_is_stale(&self, digest: &[u8; 32]) -> bool {
        let read = || Some(self.db.begin_read().ok()?.open_table(TOKEN_USES).ok()?.get(&digest[..]).ok()??.value());
        self.token(digest).is_none() || read().unwrap_or_default() + USE_STEP <= now()
    }

    fn fact(&self, name: &str) -> u64 {
        let read = || Some(self.db.begin_read().ok()?.open_table(FACTS).ok()?.get(name).ok()??.value());
        read().unwrap_or_default()
    }

    /// When an API server last answered, as far as noted, seconds since 1970; 0 if none ever did.
    pub fn contact(&self) -> u64 {
        self.fact(CONTACT)
    }

    /// Since when none answers, as far as noted and not yet reported; 0 otherwise.
    pub fn outage(&self) -> u64 {
        self.fact(OUTAGE)
    }

    /// How many objects are kept.
    pub fn objects(&self) -> u64 {
        use redb::ReadableTableMetadata;
        let read = || self.db.begin_read().ok()?.open_table(OBJECTS).ok()?.len().ok();
        read().unwrap_or_default()
    }
}

/// All objects as they were at one moment. What it shows stays in the file until it is dropped.
pub struct Snapshot(ReadOnlyTable<&'static [u8], &'static [u8]>);

impl Snapshot {
    /// At most `count` objects of a collection after the key `after`, with their keys; fewer of large ones, but one at
    /// least if there is one.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn page(&self, id: &Id, after: Option<&str>, count: usize) -> io::Result<Vec<(String, Vec<u8>)>> {
        let start = [&id[..], after.unwrap_or_default().as_bytes()].concat();
        let range = self.0.range(&start[..]..).map_err(|e| failed("read the store", e))?;
        let (mut page, mut bytes) = (Vec::new(), 0);
        for entry in range {
            let (key, value) = entry.map_err(|e| failed("read the store", e))?;
            let Some(name) = key.value().strip_prefix(&id[..]) else { break };
            let name = String::from_utf8_lossy(name).into_owned();
            if after == Some(name.as_str()) {
                continue;
            }
            bytes += value.value().len();
            page.push((name, value.value().to_vec()));
            if page.len() == count || bytes >= PAGE {
                break;
            }
        }
        Ok(page)
    }
}
