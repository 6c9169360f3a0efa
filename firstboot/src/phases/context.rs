// SPDX-License-Identifier: Apache-2.0
//! What the phases share: the machine, its input, and where the seed is.

use crate::boot_partition::BootPartition;
use crate::bundle::installed::Installed;
use crate::host::Host;
use crate::image::ImageInfo;
use crate::journal::facts::Fact;
use crate::preflight::check::Outcome;
use crate::seed::Seed;
use std::cell::OnceCell;

/// What the phases share: the machine, its input, and where the seed is.
pub struct PhaseContext {
    /// The machine.
    pub host: Host,
    /// The seed.
    pub seed: Seed,
    /// What the image says of itself.
    pub image: ImageInfo,
    /// The bundle in the image.
    pub bundle: Installed,
    /// The FAT partition that holds the seed.
    pub boot: BootPartition,
    /// The device's own boot partition: the same one, unless the seed is on a stick.
    pub card: Option<BootPartition>,
    /// Path of the seed file.
    pub seed_name: String,
    /// Whether the seed is on a removable medium, which goes on to the next device: it is read and left alone.
    pub removable: bool,
    /// What preflight found in this try.
    pub preflight: OnceCell<Vec<Outcome>>,
}

impl PhaseContext {
    /// Whether this device has joined by this very seed. Then its name and its certificate are for that cluster.
    pub(super) fn has_joined_by_seed(&self) -> bool {
        self.host.journal().fact(Fact::JoinedBy) == Some(self.seed.digest())
    }
}
