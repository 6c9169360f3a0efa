// SPDX-License-Identifier: Apache-2.0
//! The end of the seed: its token is overwritten as soon as the certificate works, the file is destroyed when the node
//! is Ready, and the partition is searched for what may be left of it.

use super::context::PhaseContext;
use super::events;
use crate::boot_partition::copies::{is_copy, is_editor_backup};
use crate::boot_partition::{BootPartition, Free, SEED_NAMES, SecretDigest, encodings, secret_digests, seed_id};
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::host::kept::RECEIPT;
use crate::journal::Record;
use crate::journal::facts::{self, Fact};
use crate::node::events::create_event;
use crate::node::{credential, repair};
use crate::seed::preseed::PRESEED;
use crate::seed::{CertificateKey, JoinToken};
use crate::text::unix_seconds;
use anyhow::{Context, Result};
use serde_json::json;
use std::collections::BTreeSet;

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    Ok(cx.host.journal().sealed())
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    events::joined(cx)?;
    if cx.removable {
        // They are for other devices, and this one is a node now.
        let card = cx.card.as_ref();
        let work = || card.map_or(Ok(()), |card| destroy_seeds(&cx.host, card, None));
        work().owned_by(Owner::Host).map_err(|fault| undone(&cx.host, fault))?;
    } else {
        destroy(&cx.host, &cx.boot, Some(&cx.seed_name)).map_err(|fault| undone(&cx.host, fault))?;
    }
    finish(&cx.host, &cx.bundle.id, cx.seed.digest(), cx.removable).owned_by(Owner::Host)
}

/// Overwrites the token's secret in place, in the seed file and in the copies that programs made of it, and destroys the
/// seeds of other devices: from here on the card is worthless to a thief.
///
/// Other files that hold it are a person's, and are named when the seed is destroyed.
pub fn erase_token(cx: &PhaseContext) -> Result<(), Fault> {
    let Some(token) = cx.seed.token() else { return Ok(()) };
    if cx.removable || token.secret() == JoinToken::ERASED {
        return Ok(());
    }
    let work = || -> Result<()> {
        let others = note_seeds(cx, token)?;
        destroy_seeds(&cx.host, &cx.boot, Some(&cx.seed_name))?;
        let found = match others {
            false => cx.boot.files_with(token.secret())?,
            true => cx.boot.files_with_secret(&noted_secrets(&cx.host).unwrap_or_default())?,
        };
        let found = found.into_iter().filter(|name| !name.eq_ignore_ascii_case(&cx.seed_name) && is_copy(name));
        // Those of a try that was cut off hold the token no more, and are still to be destroyed.
        let before = cx.host.journal().fact(Fact::TokenCopies).unwrap_or_default().to_owned();
        let copies: BTreeSet<String> = found.chain(before.lines().map(str::to_owned)).collect();
        cx.host.note(Fact::TokenCopies, &facts::lines(&copies))?;
        // The key first, and the seed comes last: as long as its token is there, all of this is done again.
        let key = cx.seed.joins_control_plane().map(|(_, key)| (key.expose(), CertificateKey::ERASED));
        let secrets = key.into_iter().chain([(token.secret(), JoinToken::ERASED)]);
        let marks: Vec<_> =
            secrets.flat_map(|(secret, mark)| encodings(secret).into_iter().zip(encodings(mark))).collect();
        for name in copies.iter().map(String::as_str).chain([cx.seed_name.as_str()]) {
            if cx.boot.read(name)?.is_none() {
                continue;
            }
            for (secret, mark) in &marks {
                let overwrite = || cx.boot.overwrite(name, secret, mark);
                cx.host.change_boot("overwrite the token in", name, overwrite)?;
            }
        }
        Ok(())
    };
    work().owned_by(Owner::Host).map_err(|fault| undone(&cx.host, fault))
}

/// Notes the secrets of all seeds on the card and how many seeds there are, before the first is destroyed: later the texts
/// to search for are gone. Whether there are, or were, others than the device's own.
fn note_seeds(cx: &PhaseContext, token: &JoinToken) -> Result<bool> {
    let (mut count, mut found) = (0, BTreeSet::new());
    cx.boot.each_seed(&mut |path, bytes| {
        if !path.eq_ignore_ascii_case(&cx.seed_name) {
            count += usize::from(path.rsplit('/').next().and_then(seed_id).is_some());
            found.extend(secret_digests(bytes));
        }
    })?;
    let before = cx.host.journal().fact(Fact::TokenDigest).unwrap_or_default().to_owned();
    let mut before = before.lines();
    let own = match token.is_erased() {
        // Of a part that is left the whole was noted before.
        true => before.next().map(str::to_owned),
        false => {
            let own = SecretDigest::of_secret(token.secret());
            // What was noted for another seed is over.
            before = if before.next() == Some(own.as_str()) { before } else { "".lines() };
            Some(own)
        }
    };
    // Of a try that was cut off: those seeds are gone.
    found.extend(before.map(str::to_owned));
    found.retain(|digest| Some(digest) != own.as_ref());
    cx.host.note(Fact::TokenDigest, &facts::lines(own.iter().chain(&found)))?;
    let noted = seeds_on_card(&cx.host, cx.seed.digest());
    if count > 0 && noted == 0 {
        cx.host.note(Fact::SeedsOnCard, &format!("{} {}", cx.seed.digest(), count + 1))?;
    }
    Ok(count > 0 || noted > 0)
}

/// How many seeds were on the card, where it had more than the one of this digest; else 0.
fn seeds_on_card(host: &Host, seed: &str) -> usize {
    let journal = host.journal();
    let count = journal.fact(Fact::SeedsOnCard).and_then(|fact| fact.strip_prefix(seed)?.trim().parse().ok());
    count.unwrap_or_default()
}

/// How many seeds a device destroyed that has joined, where its card had more than its own; else 0.
pub(crate) fn seeds_destroyed(host: &Host) -> usize {
    let seed = host.journal().seed().unwrap_or_default().to_owned();
    if host.journal().sealed() { seeds_on_card(host, &seed) } else { 0 }
}

fn noted_secrets(host: &Host) -> Option<SecretDigest> {
    host.journal().fact(Fact::TokenDigest).map(SecretDigest::from_digests)
}

/// Destroys all seeds of the directory but the device's own: all are overwritten, then all are removed.
fn destroy_seeds(host: &Host, boot: &BootPartition, but: Option<&str>) -> Result<()> {
    let (mut there, other) = (boot.has_seeds()?, but.filter(|own| own.contains('/')));
    if other.is_some() {
        there = false;
        boot.each_seed(&mut |path, _| there |= !other.is_some_and(|own| own.eq_ignore_ascii_case(path)))?;
    }
    if there {
        host.change_boot("overwrite", "the seeds in seeds", || boot.zero_seeds(but))?;
        host.change_boot("remove", "the seeds in seeds", || boot.remove_seeds(but))?;
    }
    Ok(())
}

/// Destroys the seed and every copy that a program made of it, and looks for what is left of its token.
fn destroy(host: &Host, boot: &BootPartition, seed: Option<&str>) -> Result<(), Fault> {
    let noted = host.journal().fact(Fact::TokenCopies).unwrap_or_default().to_owned();
    let work = || -> Result<Free> {
        // It has the password of the Wi-Fi, and that of an account.
        erase(host, boot, PRESEED)?;
        for name in boot.list()?.iter().filter(|name| is_editor_backup(name)) {
            erase(host, boot, name)?;
        }
        for name in noted.lines().filter(|name| is_copy(name)).chain(seed) {
            erase(host, boot, name)?;
        }
        for name in SEED_NAMES {
            if boot.read(name)?.is_some_and(|bytes| is_half_erased(&bytes)) {
                erase(host, boot, name)?;
            }
        }
        destroy_seeds(host, boot, None)?;
        host.change_boot("zero", "free clusters", || boot.zero_free_clusters())
    };
    let free = work().owned_by(Owner::Host)?;
    noted_secrets(host).map_or(Ok(()), |secret| nothing_left(host, boot, &secret, &free))
}

/// Overwrites a file on the boot partition with zeros, and removes it when that is durable. Nothing happens when it is
/// not there.
pub(crate) fn erase(host: &Host, boot: &BootPartition, name: &str) -> Result<()> {
    if !boot.has(name)? {
        return Ok(());
    }
    host.change_boot("overwrite", name, || boot.zero(name))?;
    host.change_boot("remove", name, || boot.remove(name))
}

/// Whether a file is one of which the power left only a part, or nothing, when it was being overwritten: a medium writes
/// whole sectors, and no text has one of zeros.
pub(crate) fn is_half_erased(bytes: &[u8]) -> bool {
    bytes.chunks(512).any(|sector| sector.iter().all(|b| *b == 0))
}

/// Overwrites what is left of the token outside of files. A fault that names the files in which it still stands.
fn nothing_left(host: &Host, boot: &BootPartition, secret: &SecretDigest, free: &Free) -> Result<(), Fault> {
    let places = boot.scan_for_secret(secret, free).owned_by(Owner::Host)?;
    if places.is_empty() {
        return Ok(());
    }
    let files = boot.files_with_secret(secret).owned_by(Owner::Host)?;
    if !files.is_empty() {
        let files = files.join(", ");
        let text = format!("destroy the seed: the token also stands in {files}; remove it from the boot partition");
        return Err(Fault::new(Code::TokenLeft, text));
    }
    host.change_boot("overwrite", "what is left", || boot.erase(&places)).owned_by(Owner::Host)?;
    match boot.scan_for_secret(secret, free).owned_by(Owner::Host)?.len() {
        0 => Ok(()),
        left => {
            let text = format!(
                "destroy the seed: the token still stands at {left} places outside any file; reformat the boot partition"
            );
            Err(Fault::new(Code::TokenLeft, text))
        }
    }
}

/// The seed is not destroyed, or that cannot be checked: an Event is created, once a boot, and the fault names the cause.
fn undone(host: &Host, fault: Fault) -> Fault {
    let text = fault.to_string();
    let text = if text.starts_with("destroy the seed: ") { text } else { format!("destroy the seed: {text}") };
    let boot = host.boot_id().ok().flatten().unwrap_or_default();
    create_event(host, "SeedNotDestroyed", true, text.clone(), &boot);
    let code = if fault.code == Code::TokenLeft { fault.code } else { Code::SeedNotDestroyed };
    Fault::new(code, text)
}

/// The power went between the destruction of the seed and the last record, or something is left of its token: it is
/// looked for again.
pub fn finish_without_seed(host: &Host, boot: &BootPartition, bundle: &str) -> Result<(), Fault> {
    destroy(host, boot, None).map_err(|fault| undone(host, fault))?;
    let seed = host.journal().seed().unwrap_or_default().to_owned();
    finish(host, bundle, &seed, false).owned_by(Owner::Host)
}

/// Leaves the receipt and seals the device.
fn finish(host: &Host, bundle: &str, seed: &str, removable: bool) -> Result<()> {
    let boot_id = host.boot_id()?;
    let receipt = json!({
        "version": 1,
        "firstboot": env!("CARGO_PKG_VERSION"),
        "node": host.journal().fact(Fact::Node),
        "cluster_version": host.journal().fact(Fact::ClusterVersion),
        "seed": seed,
        "seed_left_on_stick": removable,
        "seeds_destroyed": if removable { 0 } else { seeds_on_card(host, seed).max(1) },
        "bundle": bundle,
        "boot": boot_id,
        "sealed": unix_seconds(host.now()),
        "phases": host.journal().seconds(),
    });
    let bytes = serde_json::to_vec_pretty(&receipt).context("encode the receipt")?;
    host.keep(RECEIPT, &bytes)?;
    repair::keep(host)?;
    credential::keep_copy(host)?;
    host.record(Record::Sealed)
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
