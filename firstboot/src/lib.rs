// SPDX-License-Identifier: Apache-2.0
//! firstboot turns a flashed device into a Kubernetes node without anyone logging in.
//!
//! It reads a seed (join token, CA pin, API server address) from the device's boot partition, installs the
//! bundled container runtime and kubelet, joins as `kubeadm join` would, waits until the node is Ready and
//! destroys the seed. The order of that work is one table: [`phases::PHASES`].
//!
//! Words used throughout: *seed* (the file a person drops), *bundle* (the components inside the image),
//! *phase* (one row of the table), *journal* (what was done, on disk), *fault* (what failed, and who must act).

// The build machine reads the tables; what applies and audits them is then unused.
#![cfg_attr(not(feature = "device"), allow(dead_code, unused_imports))]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods))]

// Formats, tables and access to a machine: the build machine uses these, too.
mod backoff;
pub mod boot_partition;
pub mod boot_report;
pub mod boot_slot;
pub mod bundle;
mod certificate;
pub mod check;
pub mod fault;
pub mod firewall;
mod flush;
pub mod harden;
pub mod hardware_id;
pub mod host;
pub mod image;
pub mod journal;
pub mod leds;
mod names;
pub mod paths;
pub mod proxy;
pub mod secret;
pub mod seed;
pub mod status;
pub mod status_page;
pub mod text;
mod unescape;

// The protocol of the join: the build machine speaks to the same clusters.
#[cfg(feature = "cluster")]
pub mod kube;

// The device alone.
#[cfg(feature = "device")]
pub mod audit;
#[cfg(feature = "device")]
pub mod clock;
#[cfg(feature = "device")]
pub mod containerd;
#[cfg(feature = "device")]
pub mod control_plane;
#[cfg(feature = "device")]
pub mod identity;
#[cfg(feature = "device")]
pub mod join_worker;
#[cfg(feature = "device")]
mod network;
#[cfg(feature = "device")]
pub mod node;
#[cfg(feature = "device")]
pub mod offline;
#[cfg(feature = "device")]
pub mod phase;
#[cfg(feature = "device")]
pub mod phases;
#[cfg(feature = "device")]
pub mod preflight;
#[cfg(feature = "device")]
pub mod report;
#[cfg(feature = "device")]
pub mod reset;
#[cfg(feature = "device")]
pub mod run;
#[cfg(feature = "device")]
pub mod sandbox;
#[cfg(feature = "device")]
pub mod support;
#[cfg(feature = "device")]
pub mod versions;

#[cfg(test)]
mod test_files;
#[cfg(test)]
mod test_namespaces;
