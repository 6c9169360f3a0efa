// SPDX-License-Identifier: Apache-2.0
//! The order of work: one row a phase. A reader learns what firstboot does by reading [`PHASES`].

mod bundle;
mod clock;
pub mod configuration;
pub mod context;
mod control_plane;
mod create;
mod events;
mod harden;
mod identity;
mod images;
mod join;
mod join_seeds;
mod kernel;
mod kubelet;
mod kubelet_config;
mod network;
mod online;
pub(crate) mod pod_network;
mod preflight;
pub(crate) mod ready;
pub mod registries;
mod runtime;
pub mod seal;
#[cfg(test)]
mod tests;

use crate::phase::Phase;
use context::PhaseContext;

/// The order of work. What needs no network comes first, so that a late link costs nothing; network and runtime are started
/// and go on beside the rest, until an API server and then kubelet need them.
pub const PHASES: &[Phase<PhaseContext>] = &[
    Phase { name: "preflight", check: preflight::check, apply: preflight::apply },
    Phase { name: "identity", check: identity::check, apply: identity::apply },
    Phase { name: "kernel", check: kernel::check, apply: kernel::apply },
    Phase { name: "harden", check: harden::check, apply: harden::apply },
    Phase { name: "clock", check: clock::check, apply: clock::apply },
    Phase { name: "network", check: network::check, apply: network::apply },
    Phase { name: "bundle", check: bundle::check, apply: bundle::apply },
    Phase { name: "runtime", check: runtime::check, apply: runtime::apply },
    Phase { name: "online", check: online::check, apply: online::apply },
    Phase { name: "join", check: join::check, apply: join::apply },
    Phase { name: "images", check: images::check, apply: images::apply },
    Phase { name: "create", check: create::check, apply: create::apply },
    Phase { name: "kubelet", check: kubelet::check, apply: kubelet::apply },
    Phase { name: "pod-network", check: pod_network::check, apply: pod_network::apply },
    Phase { name: "ready", check: ready::check, apply: ready::apply },
    Phase { name: "control-plane", check: control_plane::check, apply: control_plane::apply },
    Phase { name: "join-seeds", check: join_seeds::check, apply: join_seeds::apply },
    Phase { name: "seal", check: seal::check, apply: seal::apply },
];
