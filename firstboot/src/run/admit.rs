// SPDX-License-Identifier: Apache-2.0
//! Whose seed a device takes that has been a node. The table is in docs/operations.md, "Which seed is accepted when".
//!
//! The card of a device is its owner's: a seed on the boot partition is taken as it is. A USB port may be anyone's, so a
//! stick needs the signature of a key that the first seed brought. And no seed gives the data of one cluster's node to
//! another cluster: that takes a reset.

use super::seed_file::SeedFile;
use crate::control_plane::others::BOOT;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::journal::facts::Fact;
use crate::kube::pin;
use crate::node::repair::cluster_ca;
use crate::reset::by_seed::{Decision, decide};
use crate::reset::ends_cluster;
use crate::seed::{self, CaPin, Seed, SshKey, Trust, ssh_signature};

/// Whether this device may take this seed.
///
/// # Errors
/// Why not, and what to do.
pub(super) fn admit(host: &Host, found: &SeedFile) -> Result<(), Fault> {
    if !host.journal().was_sealed() {
        return Ok(());
    }
    if found.place.removable {
        is_the_owners(host, found)?;
    }
    // What is no seed is reported with its line by the one who obeys it.
    let Ok(request) = seed::parse_request(&found.bytes) else { return Ok(()) };
    let destroys = request.destroys_cluster();
    let decision = decide(&host.journal(), request, found.place.removable);
    match decision {
        Decision::Join(seed) => is_the_clusters(host, &found.name, &seed),
        Decision::Reset(_) => may_reset(host, &found.name, destroys),
        Decision::NothingToReset => Ok(()),
    }
}

/// Whether this device may be reset by a seed: with the last control plane the cluster ends, and that has to be said.
///
/// # Errors
/// It is not said.
pub(super) fn may_reset(host: &Host, name: &str, destroys: bool) -> Result<(), Fault> {
    if destroys || !ends_cluster(host, BOOT) {
        return Ok(());
    }
    let text = format!(
        "reset this device by {name}: it is the last control plane of its cluster that answers, which would end with all its \
         objects; write reset = \"destroy-cluster\" where that is meant"
    );
    Err(Fault::new(Code::SettingDoesNotFit, text))
}

/// Whether a seed on a stick is signed by a key of this device's owner.
pub(super) fn is_the_owners(host: &Host, found: &SeedFile) -> Result<(), Fault> {
    const CARD: &str = "put the seed on the boot partition";
    let refused = |text: String| Err(Fault::new(Code::StickNotSigned, text));
    let (name, lines) = (&found.name, host.journal().lines(Fact::OwnerKeys));
    let keys: Vec<SshKey> = lines.iter().filter_map(|line| SshKey::parse(line).ok()).collect();
    if keys.is_empty() {
        return refused(format!(
            "take {name} on the stick: this device has joined and obeys no stick, because its seed has no keys in [owner]; \
             {CARD}"
        ));
    }
    let Some(signature) = &found.signature else {
        return refused(format!(
            "find {name}.sig on the stick: a device that has joined obeys a stick only with its owner's signature; sign the \
             seed with imagebuild seed sign, or {CARD}"
        ));
    };
    ssh_signature::verify(&keys, &found.bytes, signature).or_else(|why| {
        refused(format!("verify {name}.sig on the stick: {why}; sign the seed with imagebuild seed sign, or {CARD}"))
    })
}

/// Whether a seed that keeps the data names the cluster whose node this device was, and no other beside it: a server that
/// any of its pins names would be believed.
fn is_the_clusters(host: &Host, name: &str, seed: &Seed) -> Result<(), Fault> {
    let refused = |text: String| Err(Fault::new(Code::OtherCluster, text));
    let Some(ca) = cluster_ca(host).owned_by(Owner::Host)? else {
        return refused(format!(
            "take {name}: this device holds a node's data, and no CA certificate by which to recognize its cluster; add \
             reset = true to remove the data and join"
        ));
    };
    let ours = pins(&ca);
    let theirs = match seed.join().map(|cluster| &cluster.trust) {
        Some(Trust::Pins(pins)) => pins.clone(),
        Some(Trust::Ca(pem)) => pins(pem),
        None => {
            return refused(format!(
                "take {name}: it creates a cluster, and this device holds the data of a node of another; add reset = true to \
                 remove the data"
            ));
        }
    };
    match !theirs.is_empty() && theirs.iter().all(|pin| ours.contains(pin)) {
        true => Ok(()),
        false => refused(format!(
            "take {name}: it trusts another CA than that of the cluster whose data is on this device, so nothing was done; \
             add reset = true to remove the data and join, or give this cluster's CA alone"
        )),
    }
}

/// The pins of all certificates of a PEM text.
fn pins(pem: &str) -> Vec<CaPin> {
    pin::certificates(pem).unwrap_or_default().iter().filter_map(|der| pin::pin_of(der)).collect()
}
