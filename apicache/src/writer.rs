// SPDX-License-Identifier: Apache-2.0
//! The one thread that writes the store, and what it begins with.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Database, Durability, ReadableTable, TableDefinition, WriteTransaction};
use tokio::sync::mpsc;

use crate::kept::{
    ANSWERS, CONTACT, FACTS, HEADS, Head, Heads, Id, NODE, News, OBJECTS, OUTAGE, OWNERS, Op, QUEUE, STAGED, Source,
    TOKEN_USES, TOKENS, USE_STEP, is_damage, is_secret, locked, mark, now,
};
use crate::object::Kind;
use crate::prune::{self, OTHERS};

/// All heads; a store that may hold no Secrets loses them here.
pub(crate) fn load(db: &Database, without_secrets: bool) -> Result<HashMap<Id, Head>, redb::Error> {
    let write = db.begin_write()?;
    let mut heads = HashMap::new();
    {
        let mut table = write.open_table(HEADS)?;
        write.open_table(OBJECTS)?;
        write.open_table(ANSWERS)?;
        write.open_table(OWNERS)?;
        write.open_table(TOKENS)?;
        write.open_table(TOKEN_USES)?;
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
pub(crate) fn places(
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
    /// The last list of each collection that counts, by its number; it may have come to its end.
    lists: HashMap<Id, u64>,
    dirty: bool,
    /// Whether the file is damaged; also where writing to it panicked.
    damaged: Arc<AtomicBool>,
}

impl Writer {
    pub(crate) fn new(db: Arc<Database>, heads: Heads, damaged: Arc<AtomicBool>) -> Self {
        Writer { db, heads, lists: HashMap::new(), dirty: false, damaged }
    }

    pub(crate) fn run(mut self, mut changes: mpsc::Receiver<Op>) {
        while let Some(first) = changes.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < QUEUE
                && let Ok(next) = changes.try_recv()
            {
                batch.push(next);
            }
            self.damaged.store(true, Ordering::Release);
            let applied = self.apply(batch);
            self.damaged.store(applied.as_ref().is_err_and(is_damage), Ordering::Release);
            if let Err(error) = applied {
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
                Op::Answer(whose, key, answer) => prune::keep_answer(&write, whose.as_deref(), &key, &answer)?,
                Op::Forget(key) => write.open_table(ANSWERS)?.remove(&key[..])?.is_some(),
                Op::Token(digest, subject, until) => prune::keep_token(&write, &digest, &subject, until)?,
                Op::Refused(digest) => write.open_table(TOKENS)?.remove(&digest[..])?.is_some(),
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

    /// Makes room for a collection that is not known yet: clients other than the node may each have a few. Says whether
    /// another one was removed.
    fn make_room(&mut self, write: &WriteTransaction, touched: &mut Touched, to: &Source) -> Result<bool, redb::Error> {
        if to.identity == NODE || self.head(touched, &to.id()).is_some() {
            return Ok(false);
        }
        let mut all = locked(&self.heads).clone();
        all.extend(touched.iter().map(|(id, (head, _))| (*id, head.clone())));
        let own = all.iter().filter(|(_, head)| head.identity == to.identity);
        let mut own: Vec<(bool, u64, Id)> = own.map(|(id, head)| (head.complete, head.used, *id)).collect();
        own.sort_unstable();
        let over = (own.len() + 1).saturating_sub(OTHERS);
        for (.., id) in own.iter().take(over) {
            self.forget(write, touched, id)?;
        }
        Ok(over > 0)
    }

    /// Removes a collection.
    fn forget(&mut self, write: &WriteTransaction, touched: &mut Touched, id: &Id) -> Result<(), redb::Error> {
        locked(&self.heads).remove(id);
        touched.remove(id);
        self.lists.remove(id);
        write.open_table(HEADS)?.remove(&id[..])?;
        for table in [OBJECTS, STAGED] {
            remove(write, table, id, |_| true)?;
        }
        Ok(())
    }

    /// An object of a whole whose end is still to come. Of a collection that is not complete it is kept at once. One that
    /// is complete stays what it is: what is new waits apart. Of two lists at a time that which began last counts, also
    /// after its end: what an older one still brings may have been deleted since.
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
        let last = self.lists.get(&id).copied();
        if last.is_some_and(|last| last > list) {
            return Ok(false);
        }
        let mut cleared = false;
        if last != Some(list) {
            if last.is_some() {
                cleared = remove(write, STAGED, &id, |_| true)?;
            }
            cleared |= self.make_room(write, touched, to)?;
            self.lists.insert(id, list);
        }
        let place = [&id[..], key.as_bytes()].concat();
        let mut objects = write.open_table(OBJECTS)?;
        let known = objects.get(&place[..])?.is_some_and(|old| old.value() == bytes);
        if !self.head(touched, &id).is_some_and(|(head, _)| head.complete) {
            if !known {
                objects.insert(&place[..], bytes)?;
                self.head_of(touched, to, kind).1 = true;
            }
            return Ok(cleared || !known);
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
        let moved = self.make_room(write, touched, of)?;
        self.lists.insert(id, list);
        let changed = match last {
            Some(last) if last == list => put_staged(write, &id)?,
            // It is of one that was cut off.
            Some(_) => remove(write, STAGED, &id, |_| true)?,
            None => false,
        };
        let gone = remove(write, OBJECTS, &id, |key| !seen.contains(&mark(key)))?;
        let (head, to_write) = self.head_of(touched, of, kind);
        // The collection was removed while this list came: part of the list went with it.
        if !head.complete && places(&write.open_table(OBJECTS)?, &id, |_| true)?.len() < seen.len() {
            return Ok(moved || changed || gone);
        }
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
        // A gap is never jumped over.
        if !head.complete || after > head.version {
            return Ok(false);
        }
        // A client that watches may not list again for months.
        if head.used + USE_STEP <= now() {
            head.used = now();
            *to_write = true;
        }
        // What another watch has brought already is not taken back.
        if version <= head.version {
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
        // What this batch says of their use counts.
        let mut heads = locked(&self.heads).clone();
        heads.extend(touched.iter().map(|(id, (head, _))| (*id, head.clone())));
        let newest = heads.values().map(|head| head.used).max().unwrap_or_default();
        for id in prune::unused(write, &heads, newest)? {
            self.forget(write, touched, &id)?;
        }
        prune::answers(write, newest)?;
        prune::tokens(write, newest)?;
        Ok(true)
    }
}

/// Whether that is new.
fn note(write: &WriteTransaction, fact: &str, at: u64) -> Result<bool, redb::Error> {
    let old = write.open_table(FACTS)?.insert(fact, at)?.map(|old| old.value());
    Ok(old != Some(at))
}
