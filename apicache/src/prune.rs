// SPDX-License-Identifier: Apache-2.0
//! What the store forgets: what was not used for [`KEPT`], and of clients other than the node what is too much.

use std::collections::{HashMap, HashSet};

use redb::{ReadableTable, WriteTransaction};

use crate::kept::{
    ANSWERS, Answer, Head, Id, KEPT, NODE, OBJECTS, OWNERS, TOKEN_USES, TOKENS, USE_STEP, digest, now, read_answer,
};
use crate::writer::places;

/// Collections, and answers kept as a whole, of each identity other than the node at most. A pod that asks for ever new
/// ones must not fill the medium.
pub(crate) const OTHERS: usize = 64;
/// Answers of the node to GET, which do not age: kubelet reads some only when it starts, or a pod.
const OF_NODE: usize = 1024;

/// Collections that were not used for long. ConfigMaps and Secrets of pods of this node stay: kubelet reads an immutable
/// one, and one that is only in a pod's environment, once.
pub(crate) fn unused(write: &WriteTransaction, heads: &HashMap<Id, Head>, newest: u64) -> Result<Vec<Id>, redb::Error> {
    let of_node =
        |head: &Head, resource: &str| head.identity == NODE && head.group == "/api/v1" && head.resource == resource;
    let objects = write.open_table(OBJECTS)?;
    let mut namespaces = HashSet::new();
    for (id, _) in heads.iter().filter(|(_, head)| of_node(head, "pods")) {
        for place in places(&objects, id, |_| true)? {
            let key = String::from_utf8_lossy(place.get(id.len()..).unwrap_or_default()).into_owned();
            namespaces.extend(key.split_once('/').map(|(namespace, _)| namespace.to_owned()));
        }
    }
    let needed =
        |head: &Head| (of_node(head, "configmaps") || of_node(head, "secrets")) && namespaces.contains(&head.namespace);
    let old = heads.iter().filter(|(_, head)| head.used.saturating_add(KEPT) < newest && !needed(head));
    Ok(old.map(|(id, _)| *id).collect())
}

/// Start of the keys by which answers of an identity are found.
fn owner(identity: &str) -> Id {
    let mut id = Id::default();
    id.copy_from_slice(&digest(&[b"owner", identity.as_bytes()])[..16]);
    id
}

/// When an answer was last used.
fn used(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|used| u64::from_be_bytes(*used))
}

/// Keeps an answer; of too many of one identity the least recently used goes. Says whether anything changed.
pub(crate) fn keep_answer(
    write: &WriteTransaction,
    whose: Option<&str>,
    key: &[u8; 32],
    answer: &Answer,
) -> Result<bool, redb::Error> {
    let mut answers = write.open_table(ANSWERS)?;
    let known = answers.get(&key[..])?.and_then(|value| read_answer(value.value()));
    if known.is_some_and(|(used, old)| old == *answer && used + USE_STEP > now()) {
        return Ok(false);
    }
    let value = [&now().to_be_bytes(), answer.content_type.as_bytes(), b"\n", &answer.body].concat();
    answers.insert(&key[..], &value[..])?;
    let Some(whose) = whose else { return Ok(true) };
    let mut owners = write.open_table(OWNERS)?;
    let id = owner(whose);
    owners.insert(&[&id[..], &key[..]].concat()[..], &b""[..])?;
    let all = places(&owners, &id, |_| true)?;
    let over = all.len().saturating_sub(if whose == NODE { OF_NODE } else { OTHERS });
    if over == 0 {
        return Ok(true);
    }
    let mut by_use = Vec::new();
    for place in all {
        let key = place.get(id.len()..).unwrap_or_default();
        let used = answers.get(key)?.and_then(|value| used(value.value())).unwrap_or_default();
        by_use.push((used, place));
    }
    // The new one is not the oldest, also where the clock stands still.
    by_use.retain(|(_, place)| !place.ends_with(key));
    by_use.sort_unstable();
    for (_, place) in by_use.iter().take(over) {
        answers.remove(place.get(id.len()..).unwrap_or_default())?;
        owners.remove(&place[..])?;
    }
    Ok(true)
}

/// Removes old answers.
pub(crate) fn answers(write: &WriteTransaction, newest: u64) -> Result<(), redb::Error> {
    let mut answers = write.open_table(ANSWERS)?;
    let mut owners = write.open_table(OWNERS)?;
    let id = owner(NODE);
    let of_node = places(&owners, &id, |_| true)?;
    let of_node: HashSet<&[u8]> = of_node.iter().filter_map(|place| place.get(id.len()..)).collect();
    answers.retain(|key, value| {
        of_node.contains(key) || used(value).is_some_and(|used| used.saturating_add(KEPT) >= newest)
    })?;
    owners.retain(|place, _| place.get(id.len()..).is_some_and(|key| matches!(answers.get(key), Ok(Some(_)))))?;
    Ok(())
}

/// Keeps whose a token is, and that it was used. Says whether anything changed.
pub(crate) fn keep_token(
    write: &WriteTransaction,
    digest: &[u8; 32],
    subject: &str,
    until: u64,
) -> Result<bool, redb::Error> {
    let value = [&until.to_be_bytes(), subject.as_bytes()].concat();
    let old = write.open_table(TOKENS)?.insert(&digest[..], &value[..])?.map(|old| old.value().to_vec());
    let mut uses = write.open_table(TOKEN_USES)?;
    let used = uses.get(&digest[..])?.map_or(0, |used| used.value());
    let stale = used + USE_STEP <= now();
    if stale {
        uses.insert(&digest[..], now())?;
    }
    Ok(stale || old.as_ref() != Some(&value))
}

/// Removes tokens that have ended, or that no API server has issued or accepted for long: pods come and go, and API
/// servers give their tokens a year.
pub(crate) fn tokens(write: &WriteTransaction, newest: u64) -> Result<(), redb::Error> {
    let mut tokens = write.open_table(TOKENS)?;
    let mut uses = write.open_table(TOKEN_USES)?;
    // Of a store of before no use is known: it counts from now on.
    let mut unknown = Vec::new();
    for entry in tokens.iter()? {
        let (digest, _) = entry?;
        if uses.get(digest.value())?.is_none() {
            unknown.push(digest.value().to_vec());
        }
    }
    for digest in &unknown {
        uses.insert(&digest[..], newest)?;
    }
    tokens.retain(|digest, value| {
        let until = value.first_chunk().map_or(0, |until| u64::from_be_bytes(*until));
        let used = uses.get(digest).ok().flatten().map_or(0, |used| used.value());
        until.saturating_add(KEPT) > newest && used.saturating_add(KEPT) > newest
    })?;
    uses.retain(|digest, _| matches!(tokens.get(digest), Ok(Some(_))))?;
    Ok(())
}
