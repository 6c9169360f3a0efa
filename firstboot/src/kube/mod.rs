// SPDX-License-Identifier: Apache-2.0
//! The cluster's side of a join: what `kubeadm join` and kubelet's TLS bootstrap do, in this process.
//!
//! [`join::obtain`] goes from a seed to a signed client certificate without touching the device; [`files::files`]
//! says what has to be written then; [`node`] speaks as the node itself. Behaviour follows kubeadm 1.36.3; where it
//! is stricter or kinder, the module says so. Async code is only here and in `cri`, on one thread.
//! Nothing here writes a file, and the token leaves this process only towards a server whose CA is proven.

pub mod answer;
pub mod client;
pub mod clock;
pub mod config;
pub mod csr;
pub mod discovery;
pub mod edge_info;
pub mod error;
pub mod event;
pub mod files;
pub mod join;
pub mod jws;
pub mod kubeconfig;
pub mod kubelet;
pub mod leave;
pub mod node;
pub mod pin;
mod published;
pub mod resolve;
pub mod tls;

#[cfg(test)]
mod clock_tests;
#[cfg(test)]
pub(crate) mod wire_tests;

use std::future::Future;

use crate::fault::{Fault, OwnedBy, Owner};

/// Runs one piece of network work to its end on this thread.
pub(crate) fn run<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().owned_by(Owner::Host)?;
    let result = runtime.block_on(work);
    // A name that does not resolve holds a helper thread for as long as the resolver likes; do not wait for it.
    runtime.shutdown_background();
    result
}
