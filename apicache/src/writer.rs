// SPDX-License-Identifier: Apache-2.0
//! The one thread that writes the store, and what it begins with.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use redb::{Database, Durability, ReadableTable, TableDefinition, WriteTransaction};
use tokio::sync::mpsc;

use crate::kept::{
    ANSWERS, Answer, CONTACT, FACTS, HEADS, Head, Heads, Id, KEPT, News, OBJECTS, OUTAGE, Op, QUEUE, STAGED, Source,
    TOKENS, USE_STEP, is_secret, locked, mark, now, read_answer,
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
        // Their ends will not come.
        write.delete_table(STAGED)?;
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
            remove(&write, OBJECTS, &id, |_| true)?;
        }
    }
    write.commit()?;
    Ok(heads)
}

/// Objects by collection and key.
type Objects = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Places of the objects of a collection.
fn places(
    objects: &impl ReadableTable<&'static [u8], &'static [u8]>,
    id: &Id,
    which: impl Fn(&str) -> bool,
) -> Result<Vec<Vec<u8>>, redb::Error> {
    let mut found = Vec::new();
    for entry in objects.range(&id[..]..)? {
        let (place, _) = entry?;
        let Some(key) = place.value().strip_prefix(&id[..]) else { break };
        if which(&String::from_utf8_lossy(key)) {
            found.push(place.value().to_vec());
        }
    }
    Ok(found)
}

/// Removes objects of a collection; says whether there were any.
fn remove(write: &WriteTransaction, from: Objects, id: &Id, which: impl Fn(&str) -> bool) -> Result<bool, redb::Error> {
    let mut objects = write.open_table(from)?;
    let gone = places(&objects, id, which)?;
    for place in &gone {
        objects.remove(&place[..])?;
    }
    Ok(!gone.is_empty())
}

/// Puts the objects of a list that has come to its end in place; says whether there were any.
fn put_staged(write: &WriteTransaction, id: &Id) -> Result<bool, redb::Error> {
    let mut staged = write.open_table(STAGED)?;
    let mut objects = write.open_table(OBJECTS)?;
    let all = places(&staged, id, |_| true)?;
    for place in &all {
        if let Some(bytes) = staged.remove(&place[..])? {
            objects.insert(&place[..], bytes.value())?;
        }
    }
    Ok(!all.is_empty())
}

/// Heads that a batch of changes has touched, and whether they are to be written.
type Touched = HashMap<Id, (Head, bool)>;

/// The one thread that writes.
pub(crate) struct Writer {
    db: Arc<Database>,
    heads: Heads,
    /// The list of each collection of which objects are staged, by its number.
    lists: HashMap<Id, u64>,
    dirty: bool,
}

impl Writer {
    pub(crate) fn new(db: Arc<Database>, heads: Heads) -> Self {
        Writer { db, heads, lists: HashMap::new(), dirty: false }
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
                Op::Seen { to, list, kind, key, bytes } => {
                    self.seen(&write, &mut touched, &to, list, kind, &key, &bytes)?
                }
                Op::Complete { of, list, kind, version, seen } => {
                    self.complete(&write, &mut touched, &of, list, kind, version, &seen)?
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
            };
            (known.unwrap_or_else(new), false)
        });
        if !kind.kind.is_empty() && entry.0.kind != kind {
            *entry = (Head { kind, ..entry.0.clone() }, true);
        }
        entry
    }

    /// An object of a whole whose end is still to come. Of a collection that is not complete it is kept at once. One that
    /// is complete stays what it is: what is new waits apart. Of two lists at a time that which began last counts.
    #[allow(clippy::too_many_arguments)]
    fn seen(
        &mut self,
        write: &WriteTransaction,
        touched: &mut Touched,
        to: &Source,
        list: u64,
        kind: Kind,
        key: &str,
        bytes: &[u8],
    ) -> Result<bool, redb::Error> {
        let id = to.id();
        let place = [&id[..], key.as_bytes()].concat();
        let mut objects = write.open_table(OBJECTS)?;
        let known = objects.get(&place[..])?.is_some_and(|old| old.value() == bytes);
        if !self.head(touched, &id).is_some_and(|(head, _)| head.complete) {
            if !known {
                objects.insert(&place[..], bytes)?;
                self.head_of(touched, to, kind).1 = true;
            }
            return Ok(!known);
        }
        let mut cleared = false;
        match self.lists.get(&id) {
            Some(last) if *last > list => return Ok(false),
            Some(last) if *last == list => {}
            other => {
                if other.is_some() {
                    cleared = remove(write, STAGED, &id, |_| true)?;
                }
                self.lists.insert(id, list);
            }
        }
        let mut staged = write.open_table(STAGED)?;
        let before = match known {
            true => staged.remove(&place[..])?,
            false => staged.insert(&place[..], bytes)?,
        };
        Ok(cleared || !known || before.is_some())
    }

    #[allow(clippy::too_many_arguments)]
    fn complete(
        &mut self,
        write: &WriteTransaction,
        touched: &mut Touched,
        of: &Source,
        list: u64,
        kind: Kind,
        version: u64,
        seen: &HashSet<u64>,
    ) -> Result<bool, redb::Error> {
        let id = of.id();
        let last = self.lists.get(&id).copied();
        if last.is_some_and(|last| last > list) {
            return Ok(false);
        }
        self.lists.remove(&id);
        let changed = match last {
            Some(last) if last == list => put_staged(write, &id)?,
            Some(_) => remove(write, STAGED, &id, |_| true)?,
            None => false,
        };
        let gone = remove(write, OBJECTS, &id, |key| !seen.contains(&mark(key)))?;
        let (head, to_write) = self.head_of(touched, of, kind);
        *to_write |= changed || gone || !head.complete || version < head.version || head.used + USE_STEP <= now();
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

    fn prune(&mut self, write: &WriteTransaction, touched: &mut Touched) -> Result<bool, redb::Error> {
        let mut heads = locked(&self.heads);
        let newest = heads.values().chain(touched.values().map(|(h, _)| h)).map(|h| h.used).max().unwrap_or_default();
        let old: Vec<Id> = heads.iter().filter(|(_, h)| h.used + KEPT < newest).map(|(id, _)| *id).collect();
        for id in &old {
            heads.remove(id);
            touched.remove(id);
            self.lists.remove(id);
            write.open_table(HEADS)?.remove(&id[..])?;
            for table in [OBJECTS, STAGED] {
                remove(write, table, id, |_| true)?;
            }
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
