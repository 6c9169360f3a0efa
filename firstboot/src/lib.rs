// SPDX-License-Identifier: Apache-2.0
//! firstboot turns a flashed device into a Kubernetes node without anyone logging in.
//!
//! It reads a seed (join token, CA pin, API server address) from the device's boot partition, installs the
//! bundled container runtime and kubelet, joins as `kubeadm join` would, waits until the node is Ready and
//! destroys the seed. The order of that work is one table: [`phases::PHASES`].
//!
//! Words used throughout: *seed* (the file a person drops), *bundle* (the components inside the image),
//! *phase* (one row of the table), *journal* (what was done, on disk), *fault* (what failed, and who must act).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods))]

pub mod audit;
mod backoff;
pub mod boot_partition;
pub mod bundle;
pub mod clock;
pub mod containerd;
pub mod fault;
pub mod finding;
pub mod firewall;
mod flush;
pub mod harden;
pub mod host;
mod identity;
pub mod image;
pub mod journal;
pub mod kube;
pub mod leds;
mod names;
mod network;
pub mod network_part;
pub mod node;
pub mod phase;
pub mod phases;
pub mod preflight;
pub mod proxy;
pub mod report;
pub mod reset;
pub mod run;
pub mod sandbox;
pub mod secret;
pub mod seed;
pub mod status;
pub mod support;
#[cfg(test)]
mod test_files;
#[cfg(test)]
mod test_namespaces;
pub mod text;
mod unescape;
pub mod unpack;
pub mod versions;
