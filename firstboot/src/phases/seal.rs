// SPDX-License-Identifier: Apache-2.0
//! The end of the seed: its token is overwritten as soon as the certificate works, the file is destroyed when the node
//! is Ready, and the partition is searched for what may be left of it.

use super::{Cx, events};
use crate::boot_partition::{BootPartition, encodings};
use crate::fault::{Fault, OwnedBy, Owner};
use crate::host::{Host, STATE_DIR};
use crate::journal::Record;
use crate::report::unix_seconds;
use crate::seed::JoinToken;
use anyhow::{Context, Result};
use serde_json::json;

/// Fact: files besides the seed that hold the token, one a line.
const COPIES: &str = "token-copies";

pub(super) fn check(cx: &Cx) -> Result<bool, Fault> {
    Ok(cx.host.journal().sealed())
}

pub(super) fn apply(cx: &Cx) -> Result<(), Fault> {
    events::joined(cx)?;
    if !cx.carried {
        no_copies(&cx.host, &cx.boot)?;
        cx.boot.destroy(cx.seed_name).owned_by(Owner::Host)?;
        cx.boot.zero_free_clusters().owned_by(Owner::Host)?;
        let token = &cx.seed.cluster.token;
        if !token.is_spent() {
            nothing_left(&cx.boot, token)?;
        }
    }
    finish(&cx.host, &cx.bundle.id, cx.seed.digest(), cx.carried).owned_by(Owner::Host)
}

/// Overwrites the token's secret in the seed file, in place: from here on the seed is worthless to a thief.
///
/// Other files that hold it, an editor's copy for instance, are noted first: later nobody knows what to look for.
pub fn spend(cx: &Cx) -> Result<()> {
    if cx.carried || cx.seed.cluster.token.is_spent() {
        return Ok(());
    }
    let secret = cx.seed.cluster.token.secret();
    let mut copies = cx.boot.files_with(secret)?;
    copies.retain(|name| !name.eq_ignore_ascii_case(cx.seed_name));
    if !copies.is_empty() {
        cx.host.record(Record::Fact { name: COPIES.into(), value: copies.join("\n") })?;
    }
    for (secret, mark) in encodings(secret).iter().zip(&encodings(JoinToken::SPENT)) {
        cx.boot.overwrite(cx.seed_name, secret, mark)?;
    }
    Ok(())
}

/// A fault that names the copies of the token which are still on the partition.
fn no_copies(host: &Host, boot: &BootPartition) -> Result<(), Fault> {
    let noted = host.journal().fact(COPIES).unwrap_or_default().to_owned();
    let mut left = Vec::new();
    for name in noted.lines() {
        if boot.read(name).owned_by(Owner::Host)?.is_some() {
            left.push(name);
        }
    }
    match left.as_slice() {
        [] => Ok(()),
        left => Err(Fault::new(
            Owner::Host,
            format!(
                "destroy the seed: the token also stands in {}; remove it from the boot partition",
                left.join(", ")
            ),
        )),
    }
}

/// The power went between the destruction of the seed and the last record: only that record is missing.
pub fn finish_without_seed(host: &Host, boot: &BootPartition, bundle: &str) -> Result<(), Fault> {
    no_copies(host, boot)?;
    boot.zero_free_clusters().owned_by(Owner::Host)?;
    let seed = host.journal().seed().unwrap_or_default().to_owned();
    finish(host, bundle, &seed, false).owned_by(Owner::Host)
}

fn nothing_left(boot: &BootPartition, token: &JoinToken) -> Result<(), Fault> {
    let places = boot.scan(token.secret()).owned_by(Owner::Host)?;
    if places.is_empty() {
        return Ok(());
    }
    let text = format!(
        "destroy the seed: the token still stands at {} places outside any file; reformat the boot partition",
        places.len()
    );
    Err(Fault::new(Owner::Host, text))
}

/// Leaves the receipt and seals the device.
fn finish(host: &Host, bundle: &str, seed: &str, carried: bool) -> Result<()> {
    let boot_id = host.boot_id()?;
    let receipt = json!({
        "version": 1,
        "firstboot": env!("CARGO_PKG_VERSION"),
        "node": host.journal().fact("node"),
        "cluster_version": host.journal().fact("cluster-version"),
        "seed": seed,
        "seed_left_on_stick": carried,
        "bundle": bundle,
        "boot": boot_id,
        "sealed": unix_seconds(host.now()),
        "phases": host.journal().seconds(),
    });
    let bytes = serde_json::to_vec_pretty(&receipt).context("encode the receipt")?;
    host.write(&format!("{STATE_DIR}/receipt.json"), &bytes, 0o600)?;
    host.record(Record::Sealed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    #[test]
    fn a_copy_of_the_token_keeps_the_device_from_being_sealed_until_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        let boot = crate::boot_partition::formatted_for_tests(&dir.path().join("boot.img"), 0, 16 << 20).unwrap();
        host.record(Record::Fact { name: COPIES.into(), value: "seed.toml~\nold/seed.txt".into() }).unwrap();
        boot.write("seed.toml~", b"token").unwrap();
        let fault = finish_without_seed(&host, &boot, "bundle").unwrap_err();
        assert_eq!(
            fault.to_string(),
            "destroy the seed: the token also stands in seed.toml~; remove it from the boot partition"
        );
        assert!(!host.journal().sealed());
        boot.remove("seed.toml~").unwrap();
        finish_without_seed(&host, &boot, "bundle").unwrap();
        assert!(host.journal().sealed());
    }
}
