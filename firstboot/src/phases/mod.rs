// SPDX-License-Identifier: Apache-2.0
//! The order of work: one row a phase. A reader learns what firstboot does by reading [`PHASES`].

mod bundle;
mod clock;
mod events;
mod harden;
mod identity;
mod images;
mod join;
mod kernel;
mod kubelet;
mod kubelet_config;
mod network;
mod online;
mod ours;
mod pod_network;
mod preflight;
mod proxy;
mod ready;
mod rebuild;
pub mod registries;
mod runtime;
mod seal;
#[cfg(test)]
mod tests;

pub(crate) use bundle::room;
pub use bundle::{CURRENT, Installed};
pub(crate) use clock::has_timesyncd;
pub(crate) use identity::{MACHINE_ID, NODE_BEFORE, came_with_image, machine_id, name_by_hardware};
pub(crate) use images::missing as missing_images;
pub(crate) use kernel::{audit as audit_kernel, swaps};
pub(crate) use kubelet::{UNIT as KUBELET_UNIT, WANTED as KUBELET_WANTED};
pub(crate) use network::made_vlan;
pub use pod_network::withdraw as withdraw_pod_network;
pub(crate) use proxy::{NETWORKS, kept as kept_via};
pub use ready::LEFT_TO_DO;
pub(crate) use rebuild::{Ask, Watch, tell as tell_rebuilt, warning as rebuilt};
pub(crate) use seal::{erase, is_half_erased};
pub use seal::{finish_without_seed, spend};

use crate::boot_partition::BootPartition;
use crate::host::Host;
use crate::image::ImageInfo;
use crate::phase::Phase;
use crate::seed::Seed;

/// Writes a file that the kernel would provide below a test's root.
#[cfg(test)]
pub(crate) fn put_for_tests(root: &std::path::Path, path: &str, text: &str) {
    let path = root.join(path);
    #[allow(clippy::disallowed_methods)] // a test's own root
    let put = std::fs::create_dir_all(path.parent().unwrap()).and_then(|()| std::fs::write(path, text));
    put.unwrap();
}

/// What the phases share: the machine, what it was given, and where the seed lies.
pub struct Cx {
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
    /// Name of the seed file on it.
    pub seed_name: &'static str,
    /// Whether the seed lies on a stick that is carried on to the next device: it is read and left alone.
    pub carried: bool,
}

/// The order of work. What needs no network comes first, so that a late link costs nothing.
pub const PHASES: &[Phase<Cx>] = &[
    Phase { name: "preflight", check: preflight::check, apply: preflight::apply },
    Phase { name: "identity", check: identity::check, apply: identity::apply },
    Phase { name: "kernel", check: kernel::check, apply: kernel::apply },
    Phase { name: "harden", check: harden::check, apply: harden::apply },
    Phase { name: "clock", check: clock::check, apply: clock::apply },
    Phase { name: "network", check: network::check, apply: network::apply },
    Phase { name: "bundle", check: bundle::check, apply: bundle::apply },
    Phase { name: "runtime", check: runtime::check, apply: runtime::apply },
    Phase { name: "images", check: images::check, apply: images::apply },
    Phase { name: "online", check: online::check, apply: online::apply },
    Phase { name: "join", check: join::check, apply: join::apply },
    Phase { name: "kubelet", check: kubelet::check, apply: kubelet::apply },
    Phase { name: "pod-network", check: pod_network::check, apply: pod_network::apply },
    Phase { name: "ready", check: ready::check, apply: ready::apply },
    Phase { name: "seal", check: seal::check, apply: seal::apply },
];
