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
use crate::reset::by_seed::{Decision, ResetRequest, decide};
use crate::reset::ends_cluster;
use crate::seed::{self, CaPin, Seed, SeedRequest, SshKey, Trust, ssh_signature};

/// Whether this device may take this seed.
///
/// # Errors
/// Why not, and what to do.
pub(super) fn admit(host: &Host, found: &SeedFile) -> Result<(), Fault> {
    let (sealed, ready) = (host.journal().was_sealed(), host.journal().done("ready"));
    // A stick meets a node as soon as it is Ready: that its seed is still being destroyed may last for days.
    if !(sealed || ready && found.place.removable) {
        return Ok(());
    }
    let request = seed::parse_request(&found.bytes);
    let digest = request.as_ref().ok().map(SeedRequest::digest);
    let is_its_own = digest.is_some() && host.journal().seed() == digest;
    if found.place.removable && (sealed || !is_its_own) {
        is_the_owners(host, found)?;
    }
    // What is no seed is reported with its line by the one who obeys it.
    let Ok(request) = request else { return Ok(()) };
    if !sealed && is_its_own {
        return Ok(());
    }
    let decision = decide(&host.journal(), request, found.place.removable);
    match decision {
        Decision::Join(seed) => is_the_clusters(host, &found.name, &seed),
        Decision::Reset(request) => may_reset(host, &found.name, &request),
        Decision::NothingToReset => Ok(()),
    }
}

/// Whether this device may be reset by a seed: with the last control plane the cluster ends, and that has to be said.
///
/// # Errors
/// It is not said.
pub(super) fn may_reset(host: &Host, name: &str, request: &ResetRequest) -> Result<(), Fault> {
    if request.destroys_cluster || !ends_cluster(host, BOOT) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot_partition::{Place, formatted_for_tests};
    use crate::host::fake::Fake;
    use crate::journal::Record;
    use zeroize::Zeroizing;

    fn joins(token: &str) -> String {
        let pin = "0".repeat(64);
        format!(
            "version = 1\n[cluster]\napiserver = \"a\"\ntoken = \"{token}.0123456789abcdef\"\nca-cert-hashes = \"sha256:{pin}\"\n"
        )
    }

    /// The seed of a node may take days to be destroyed, where a copy of it has to be removed by hand.
    #[test]
    fn a_stick_meets_a_node_from_its_first_ready_on() {
        let dir = tempfile::tempdir().unwrap();
        let partition = formatted_for_tests(&dir.path().join("stick.img"), 0, 16 << 20).unwrap();
        let found = |text: &str, removable| SeedFile {
            place: Place { partition: partition.clone(), removable },
            boot: None,
            name: "seed.toml".into(),
            bytes: Zeroizing::new(text.as_bytes().to_vec()),
            signature: None,
        };
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        let (own, other, reset) = (joins("aaaaaa"), joins("bbbbbb"), "version = 1\nreset = true\n");
        let seed = seed::parse_request(own.as_bytes()).unwrap().digest().to_owned();
        host.record(Record::Begun { version: "1".into(), seed, boot: "b".into() }).unwrap();
        for text in [own.as_str(), &other, reset] {
            assert!(admit(&host, &found(text, true)).is_ok(), "it is no node yet: {text}");
        }
        host.record(Record::Done { phase: "ready".into(), seconds: 1.0 }).unwrap();
        for text in [other.as_str(), reset, "no seed"] {
            assert_eq!(admit(&host, &found(text, true)).unwrap_err().code, Code::StickNotSigned, "{text}");
            assert!(admit(&host, &found(text, false)).is_ok(), "its own card: {text}");
        }
        admit(&host, &found(&own, true)).unwrap();
    }
}
