// SPDX-License-Identifier: Apache-2.0
//! The one thread that writes the store, and what it begins with.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use redb::{Database, Durability, ReadableTable, WriteTransaction};
use tokio::sync::mpsc;

use crate::kept::{
    ANSWERS, Answer, CONTACT, FACTS, HEADS, Head, Heads, Id, KEPT, News, OBJECTS, OUTAGE, Op, QUEUE, Source, TOKENS,
    USE_STEP, is_secret, locked, mark, now, read_answer,
};
use crate::object::{self, Kind};

/// All heads; a store that may hold no Secrets loses them here.
pub(crate) fn load(db: &Database, without_secrets: bool) -> Result<HashMap<Id, Head>, redb::Error> {
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

/// Heads that a batch of changes has touched, and whether they are to be written.
type Touched = HashMap<Id, (Head, bool)>;

/// The one thread that writes.
pub(crate) struct Writer {
    db: Arc<Database>,
    heads: Heads,
    dirty: bool,
}

impl Writer {
    pub(crate) fn new(db: Arc<Database>, heads: Heads) -> Self {
        Writer { db, heads, dirty: false }
    }

    pub(crate) fn run(mut self, mut changes: mpsc::Receiver<Op>) {
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
        let mut touched = Touched::new();
        let mut changed = false;
        for op in batch {
            changed |= match op {
                Op::Seen { to, kind, version, key, bytes } => {
                    self.seen(&write, &mut touched, &to, kind, version, &key, &bytes)?
                }
                Op::Complete { of, kind, version, seen } => {
                    self.complete(&write, &mut touched, &of, kind, version, &seen)?
                }
                Op::Event { of, after, version, news } => {
                    self.event(&write, &mut touched, &of.id(), after, version, news)?
                }
                Op::Answer(key, answer) => keep_answer(&write, &key, &answer)?,
                Op::Forget(key) => write.open_table(ANSWERS)?.remove(&key[..])?.is_some(),
                Op::Token(digest, subject, until) => {
                    let value = [&until.to_be_bytes(), subject.as_bytes()].concat();
                    let old = write.open_table(TOKENS)?.insert(&digest[..], &value[..])?.map(|v| v.value().to_vec());
                    old.as_ref() != Some(&value)
                }
                Op::Contact(at) => note(&write, CONTACT, at)?,
                Op::Outage(at) => note(&write, OUTAGE, at)?,
                Op::Positions => {
                    let all: Vec<Id> = locked(&self.heads).keys().copied().collect();
                    for id in &all {
                        if let Some((_, to_write)) = self.head(&mut touched, id) {
                            *to_write = true;
                        }
                    }
                    !all.is_empty()
                }
                Op::Prune => self.prune(&write, &mut touched)?,
                Op::Applied(done) => {
                    waiting.push(done);
                    false
                }
                Op::Flush(done) => {
                    waiting.extend(done);
                    false
                }
            };
        }
        // How far a watch came is written with what it changed: from an older version on it only says more.
        if touched.values().any(|(_, write)| *write) {
            let mut table = write.open_table(HEADS)?;
            for (id, (head, _)) in touched.iter().filter(|(_, (_, write))| *write) {
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
        locked(&self.heads).extend(touched.into_iter().map(|(id, (head, _))| (id, head)));
        for done in waiting {
            // Who asked may have gone.
            let _ = done.send(());
        }
        Ok(())
    }

    /// The head of a collection that is known.
    fn head<'t>(&self, touched: &'t mut Touched, id: &Id) -> Option<&'t mut (Head, bool)> {
        if !touched.contains_key(id) {
            touched.insert(*id, (locked(&self.heads).get(id)?.clone(), false));
        }
        touched.get_mut(id)
    }

    /// The same, which is made if there is none yet.
    fn head_of<'t>(&self, touched: &'t mut Touched, source: &Source, kind: Kind) -> &'t mut (Head, bool) {
        let id = source.id();
        let known = locked(&self.heads).get(&id).cloned();
        let entry = touched.entry(id).or_insert_with(|| {
            let new = || Head {
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
                behind: false,
            };
            (known.unwrap_or_else(new), false)
        });
        if !kind.kind.is_empty() && entry.0.kind != kind {
            *entry = (Head { kind, ..entry.0.clone() }, true);
        }
        entry
    }

    /// An object of a whole whose end is still to come. Until then the collection holds old and new objects, and says that
    /// it is as old as before: a client that goes on from there hears of all that happened since. Where the new whole is older
    /// (a cluster that was restored, an API server that lags behind), that would be untrue: nothing is answered from it
    /// until the end.
    #[allow(clippy::too_many_arguments)]
    fn seen(
        &self,
        write: &WriteTransaction,
        touched: &mut Touched,
        to: &Source,
        kind: Kind,
        version: u64,
        key: &str,
        bytes: &[u8],
    ) -> Result<bool, redb::Error> {
        let place = [&to.id()[..], key.as_bytes()].concat();
        let mut objects = write.open_table(OBJECTS)?;
        let known = match objects.get(&place[..])? {
            Some(old) if old.value() == bytes => return Ok(false),
            Some(old) => object::meta(to.encoding, old.value()).map(|meta| meta.version),
            None => None,
        };
        objects.insert(&place[..], bytes)?;
        let (head, to_write) = self.head_of(touched, to, kind);
        if head.complete && version <= head.version && known != Some(version) {
            head.complete = false;
        }
        // The list that it is of may end in another batch, which then has to say how far it goes.
        head.behind |= version > head.version;
        *to_write = true;
        Ok(true)
    }

    fn complete(
        &self,
        write: &WriteTransaction,
        touched: &mut Touched,
        of: &Source,
        kind: Kind,
        version: u64,
        seen: &HashSet<u64>,
    ) -> Result<bool, redb::Error> {
        let gone = remove_objects(write, &of.id(), |key| !seen.contains(&mark(key)))?;
        let (head, to_write) = self.head_of(touched, of, kind);
        *to_write |= std::mem::take(&mut head.behind)
            || gone
            || !head.complete
            || version < head.version
            || head.used + USE_STEP <= now();
        head.version = version;
        head.complete = true;
        if *to_write {
            head.used = now();
        }
        Ok(*to_write)
    }

    fn event(
        &self,
        write: &WriteTransaction,
        touched: &mut Touched,
        id: &Id,
        after: u64,
        version: u64,
        news: News,
    ) -> Result<bool, redb::Error> {
        let Some((head, to_write)) = self.head(touched, id) else { return Ok(false) };
        // What another watch has brought already is not taken back; and a gap is never jumped over.
        if !head.complete || after > head.version || version <= head.version {
            return Ok(false);
        }
        head.version = version;
        let place = |key: &str| [&id[..], key.as_bytes()].concat();
        let changed = match news {
            News::Put(kind, key, bytes) => {
                write.open_table(OBJECTS)?.insert(&place(&key)[..], &bytes[..])?;
                head.kind = kind;
                true
            }
            News::Gone(key) => write.open_table(OBJECTS)?.remove(&place(&key)[..])?.is_some(),
            News::Nothing => false,
        };
        *to_write |= changed;
        Ok(changed)
    }

    fn prune(&self, write: &WriteTransaction, touched: &mut Touched) -> Result<bool, redb::Error> {
        let mut heads = locked(&self.heads);
        let newest = heads.values().chain(touched.values().map(|(h, _)| h)).map(|h| h.used).max().unwrap_or_default();
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

/// Whether that is new.
fn note(write: &WriteTransaction, fact: &str, at: u64) -> Result<bool, redb::Error> {
    let old = write.open_table(FACTS)?.insert(fact, at)?.map(|old| old.value());
    Ok(old != Some(at))
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
