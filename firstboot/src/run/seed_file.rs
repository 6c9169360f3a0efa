// SPDX-License-Identifier: Apache-2.0
//! A seed file as it was found.

use crate::boot_partition::{BootPartition, Place, SEEDS, SeedFound, internal_partition};
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::identity::device_ids;
use crate::seed::preseed::{PRESEED, Preseed};
use crate::seed::{MAX_SIZE, Seed};
use zeroize::Zeroizing;

/// A seed file as it was found.
pub(super) struct SeedFile {
    pub(super) place: Place,
    /// The device's own boot partition, which may be another one: status goes there.
    pub(super) boot: Option<BootPartition>,
    /// Its path on that partition.
    pub(super) name: String,
    /// The text, with the token in it: zeroed when it is dropped.
    pub(super) bytes: Zeroizing<Vec<u8>>,
    /// The signature beside it, on a stick.
    pub(super) signature: Option<Vec<u8>>,
}

impl SeedFile {
    /// Adds to its seed what Raspberry Pi Imager wrote beside it. A stick is no card that Imager prepared.
    ///
    /// # Errors
    /// What is wrong with that file, or why it cannot be read.
    pub(super) fn complete(&self, seed: &mut Seed) -> Result<(), Fault> {
        if self.place.removable {
            return Ok(());
        }
        let bytes = self.place.partition.read_at_most(PRESEED, MAX_SIZE).owned_by(Owner::Seed)?.map(Zeroizing::new);
        if let Some(bytes) = bytes {
            Preseed::parse(&bytes)?.complete(seed);
        }
        Ok(())
    }
}

/// Every seed for this device among the places where one may lie, and the first fault of those that could not be read or
/// that have seeds for other devices alone.
pub(super) fn look_at_all(host: &Host, places: Vec<Place>) -> (Vec<SeedFile>, Option<Fault>) {
    let boot = internal_partition(&places);
    let (mut found, mut failed) = (Vec::new(), None);
    let ids = device_ids(host);
    for place in places {
        match place.partition.seed_for(&ids).owned_by(Owner::Seed) {
            Ok(SeedFound::Own(name, bytes)) => {
                // One that cannot be read proves as much as one that is missing.
                let signature = || place.partition.signature(&name).ok().flatten();
                let signature = place.removable.then(signature).flatten();
                found.push(SeedFile { place, boot: boot.clone(), name, bytes, signature });
            }
            Ok(SeedFound::Others(count)) => {
                let at = if place.removable { "the stick" } else { "the boot partition" };
                let text = format!(
                    "find a seed for this device on {at}: {SEEDS} has {count} for other devices and none for this one \
                     ({ids}); add {}",
                    ids.path()
                );
                failed.get_or_insert(Fault::new(Code::SeedForAnother, text));
            }
            Ok(SeedFound::None) => {}
            Err(fault) => {
                failed.get_or_insert(fault);
            }
        }
    }
    (found, failed)
}
