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
}

/// The first seed among the places where one may lie.
pub(super) fn look(places: Vec<Place>) -> Result<Option<SeedFile>, Fault> {
    let boot = internal_partition(&places);
    for place in places {
        if let Some((name, bytes)) = place.partition.seed().owned_by(Owner::Seed)? {
            return Ok(Some(SeedFile { place, boot, name, bytes: bytes.into() }));
        }
    }
    Ok(None)
}
