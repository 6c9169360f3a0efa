// SPDX-License-Identifier: Apache-2.0
//! The cluster's side of a join: what `kubeadm join` and kubelet's TLS bootstrap do, in this process.
//!
//! [`join::obtain`] goes from a seed to a signed client certificate without touching the device; [`files::files`]
//! says what has to be written then; [`node`] speaks as the node itself. Behaviour follows kubeadm 1.36.3; where it
//! is stricter or kinder, the module says so. Async code runs on one thread. Nothing here
//! writes a file, and the token leaves this process only towards a server whose CA and dates are proven.

#[cfg(feature = "device")]
pub mod admin;
pub mod algorithms;
pub mod chain;
pub mod client;
pub mod clock;
mod cluster_config_maps;
pub mod cluster_networks;
pub mod config;
pub mod confirm;
pub mod contract;
pub mod csr;
pub mod discovery;
pub mod error;
pub mod event;
pub mod files;
pub mod go_yaml;
pub mod join;
pub mod jws;
#[cfg(feature = "device")]
pub mod key;
pub mod kubeconfig;
pub mod kubelet;
pub mod leave;
#[cfg(feature = "device")]
pub mod livez;
pub mod node;
pub mod pin;
pub mod resolve;
pub mod response;
pub(crate) mod runtime;
pub mod survey;
pub mod tls;
mod tls_error;
mod verified;

#[cfg(test)]
pub(crate) mod wire_tests;
