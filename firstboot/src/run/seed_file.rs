// SPDX-License-Identifier: Apache-2.0
//! A seed file as it was found.

use crate::boot_partition::{BootPartition, Place, internal_partition};
use crate::fault::{Fault, OwnedBy, Owner};
use zeroize::Zeroizing;

/// A seed file as it was found.
pub(super) struct SeedFile {
    pub(super) place: Place,
    /// The device's own boot partition, which may be another one: status goes there.
    pub(super) boot: Option<BootPartition>,
    pub(super) name: &'static str,
    /// The text, with the token in it: zeroed when it is dropped.
    pub(super) bytes: Zeroizing<Vec<u8>>,
    /// The signature beside it, on a stick.
    pub(super) signature: Option<Vec<u8>>,
}

/// Every seed among the places where one may lie, and the first fault of those that could not be read.
pub(super) fn look_at_all(places: Vec<Place>) -> (Vec<SeedFile>, Option<Fault>) {
    let boot = internal_partition(&places);
    let (mut found, mut failed) = (Vec::new(), None);
    for place in places {
        match place.partition.seed().owned_by(Owner::Seed) {
            Ok(Some((name, bytes))) => {
                // One that cannot be read proves as much as one that is missing.
                let signature = || place.partition.signature(name).ok().flatten();
                let signature = place.removable.then(signature).flatten();
                found.push(SeedFile { place, boot: boot.clone(), name, bytes: bytes.into(), signature });
            }
            Ok(None) => {}
            Err(fault) => {
                failed.get_or_insert(fault);
            }
        }
    }
    (found, failed)
}
