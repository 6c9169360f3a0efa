// SPDX-License-Identifier: Apache-2.0
//! The FAT partition with the seed and the status file; firstboot never mounts it.
//!
//! One user-space library (`fatfs`) reads and writes it on the device and on the build machine. The device opens the
//! partition's block device (`/dev/vda1`, offset 0); a build machine opens a disk image at the partition's offset.

mod bounded;
mod cached;
pub mod capacity;
pub mod copies;
mod dates;
mod encodings;
mod locate;
mod many;
mod partition;
mod raw;
mod token_digest;
mod volume;

pub use dates::FIXED_DATE;
pub use encodings::{SEED_NAMES, SIGNATURE_SUFFIX, encodings, find_all};
pub use locate::{Place, STICK_LABEL, SeedLocator, internal_partition, locate, on_root_disk, root_disk_name};
pub use many::{DeviceIds, MOST_SEEDS, SEEDS, SeedFound, secret_digests, seed_id};
pub use partition::BootPartition;
#[cfg(any(test, feature = "fake"))]
pub use partition::formatted_for_tests;
pub use raw::Free;
pub use token_digest::SecretDigest;
pub use volume::Volume;

/// The seed for the next device, which the creator of a cluster leaves on its boot partition.
pub const JOIN_SEED: &str = "join-edge.toml";
/// The seed for one more control plane, which it leaves there where that is asked for.
pub const JOIN_CONTROL_PLANE_SEED: &str = "join-control-plane.toml";
/// The administrator's kubeconfig without its key, which the creator of a cluster leaves there, too.
pub const ADMIN_KUBECONFIG: &str = "admin.kubeconfig";
