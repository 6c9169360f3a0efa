// SPDX-License-Identifier: Apache-2.0
//! The one thread that writes the store, and what it begins with.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use redb::{Database, Durability, ReadableTable, WriteTransaction};
use tokio::sync::mpsc;

use crate::kept::{
    ANSWERS, Answer, CONTACT, FACTS, HEADS, Head, Heads, Id, KEPT, OBJECTS, Op, QUEUE, Source, TOKENS, USE_STEP,
    is_secret, locked, mark, now, read_answer,
};
use crate::object::Kind;

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
