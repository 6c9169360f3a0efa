// SPDX-License-Identifier: Apache-2.0
//! firstboot turns a flashed device into a Kubernetes node without anyone logging in.
//!
//! It reads a seed (join token, CA pin, API server address) from the device's boot partition, installs the
//! bundled container runtime and kubelet, joins as `kubeadm join` would, waits until the node is Ready and
//! destroys the seed. The order of that work is one table: [`phases::PHASES`].
//!
//! Words used throughout: *seed* (the file a person drops), *bundle* (the components inside the image),
//! *phase* (one row of the table), *journal* (what was done, on disk), *fault* (what failed, and whose move it is).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods))]

pub mod audit;
pub mod boot_partition;
pub mod bundle;
pub mod clock;
pub mod credential;
pub mod cri;
mod escapes;
pub mod fault;
pub mod firewall;
pub mod guard;
pub mod harden;
pub mod host;
pub mod image;
pub mod journal;
pub mod kube;
pub mod leds;
pub mod network_part;
pub mod phase;
pub mod phases;
pub mod preflight;
pub mod proxy;
pub mod repair;
pub mod report;
pub mod reset;
pub mod run;
pub mod sandbox;
mod sealed;
pub mod secret;
pub mod seed;
pub mod serving;
pub mod status;
pub mod support;
#[cfg(test)]
mod test_namespaces;
pub mod unpack;
pub mod versions;
