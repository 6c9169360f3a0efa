// SPDX-License-Identifier: Apache-2.0
//! The end of the seed: its token is overwritten as soon as the certificate works, the file is destroyed when the node
//! is Ready, and the partition is searched for what may be left of it.

use super::Cx;
use crate::boot_partition::{BootPartition, encodings};
use crate::fault::{Fault, OwnedBy, Owner};
use crate::host::{Host, STATE_DIR};
use crate::journal::Record;
use crate::seed::JoinToken;
use anyhow::{Context, Result};
use serde_json::json;

pub(super) fn check(cx: &Cx) -> Result<bool, Fault> {
    Ok(cx.host.journal().sealed())
}

pub(super) fn apply(cx: &Cx) -> Result<(), Fault> {
    if !cx.carried {
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
pub fn spend(cx: &Cx) -> Result<()> {
    if cx.carried || cx.seed.cluster.token.is_spent() {
        return Ok(());
    }
    let secrets = encodings(cx.seed.cluster.token.secret());
    let marks = encodings(JoinToken::SPENT);
    for (secret, mark) in secrets.iter().zip(&marks) {
        cx.boot.overwrite(cx.seed_name, secret, mark)?;
    }
    Ok(())
}

/// The power went between the destruction of the seed and the last record: only that record is missing.
pub fn finish_without_seed(host: &Host, boot: &BootPartition, bundle: &str) -> Result<()> {
    boot.zero_free_clusters()?;
    let seed = host.journal().seed().unwrap_or_default().to_owned();
    finish(host, bundle, &seed, false)
}

fn nothing_left(boot: &BootPartition, token: &JoinToken) -> Result<(), Fault> {
    let places = boot.scan(token.secret()).owned_by(Owner::Host)?;
    if places.is_empty() {
        return Ok(());
    }
    let files = boot.files_with(token.secret()).owned_by(Owner::Host)?;
    let text = match files.as_slice() {
        [] => format!(
            "destroy the seed: the token still stands at {} places outside any file; reformat the boot partition",
            places.len()
        ),
        files => format!(
            "destroy the seed: the token also stands in {}; remove it from the boot partition",
            files.join(", ")
        ),
    };
    Err(Fault::new(Owner::Host, text))
}

/// Leaves the receipt and seals the device.
fn finish(host: &Host, bundle: &str, seed: &str, carried: bool) -> Result<()> {
    let boot_id = host.read_text("/proc/sys/kernel/random/boot_id")?;
    let receipt = json!({
        "version": 1,
        "firstboot": env!("CARGO_PKG_VERSION"),
        "node": host.journal().fact("node"),
        "cluster_version": host.journal().fact("cluster-version"),
        "seed": seed,
        "seed_left_on_stick": carried,
        "bundle": bundle,
        "boot": boot_id,
        "sealed": host.now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
        "phases": host.journal().seconds(),
    });
    let bytes = serde_json::to_vec_pretty(&receipt).context("encode the receipt")?;
    host.write(&format!("{STATE_DIR}/receipt.json"), &bytes, 0o600)?;
    host.record(Record::Sealed)
}
