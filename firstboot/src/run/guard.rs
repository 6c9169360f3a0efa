// SPDX-License-Identifier: Apache-2.0
//! What runs at every boot before any link is up, and before the runtime and kubelet: quick, without any network.
//!
//! It loads the packet filter, repairs firstboot's own files, raises the clock to its floor, so that no certificate is
//! judged in 1970, restores damaged files of a sealed node, removes what kubelet made and a power cut has torn, and gives
//! containerd the bundle's state where it has none.

use crate::containerd::prepared;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::image::ImageInfo;
use crate::node::recover::recover;
use crate::node::{credential, kubelet_serving_cert, repair};
use crate::{clock, firewall};

/// Guards one boot. What fails of one duty does not keep the others from being done.
///
/// # Errors
/// A host fault when there is no packet filter or the clock cannot be set, an image fault without a description of the
/// image. What cannot be repaired is reported on the console.
pub fn guard(host: &Host) -> Result<(), Fault> {
    // First of all, whatever else is broken: it reads kept files in either copy.
    let filter = firewall::guard(host).coded(Code::PacketFilter);
    let recovered = recover(host).owned_by(Owner::Host);
    let being_reset = host.journal().resetting().is_some();
    // What a reset goes on to remove is not repaired.
    let kept = if being_reset { Ok(()) } else { super::repairs::repair_state(host).coded(Code::StateDamaged) };
    let clock = || clock::raise_to_floor(host, &ImageInfo::read(host)?).owned_by(Owner::Host);
    let clock = clock();
    let torn = if host.journal().sealed() { repair_node(host).owned_by(Owner::Host) } else { Ok(()) };
    // kubelet may have started before the device was sealed.
    let serving =
        if being_reset { Ok(()) } else { kubelet_serving_cert::remove_torn(host).map(drop).owned_by(Owner::Host) };
    let prepared = prepared::place(host).map(drop).owned_by(Owner::Host);
    // A disk that takes no writes is reported, and is no reason to leave the device without a network.
    for fault in [kept, recovered, torn, serving, prepared].into_iter().filter_map(Result::err) {
        host.sys().say(&format!("firstboot: guard ({}): {fault}", fault.tag()));
    }
    filter.and(clock)
}

/// What a power cut or a worn card damaged of a sealed node comes back before anything reads it.
fn repair_node(host: &Host) -> anyhow::Result<()> {
    let credential = credential::repaired(host).map(drop);
    repair::repair(host)?;
    credential
}
