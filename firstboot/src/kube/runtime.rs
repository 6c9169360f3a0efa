// SPDX-License-Identifier: Apache-2.0
//! Where the async code of this module runs: one thread, for as long as one piece of work takes.

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
