// SPDX-License-Identifier: Apache-2.0
//! Where the async code of this module runs: one thread, for as long as one piece of work takes.

use std::future::Future;
use std::pin::{Pin, pin};

use tokio::runtime::{Builder, Runtime};

use crate::fault::{Code, Fault, OwnedBy, Owner};

/// A runtime for one thread.
pub(crate) fn new() -> Result<Runtime, Fault> {
    Builder::new_current_thread().enable_all().build().owned_by(Owner::Host)
}

/// Runs one piece of network work to its end on this thread.
pub(crate) fn run<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let runtime = new()?;
    let result = block_on(&runtime, work);
    // A name that does not resolve holds a helper thread for as long as the resolver likes; do not wait for it.
    runtime.shutdown_background();
    result
}

/// The same in a runtime that lasts.
pub(crate) fn block_on<T>(runtime: &Runtime, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let mut result = None;
    drive(runtime, pin!(async { result = Some(work.await) }));
    result.unwrap_or_else(|| Err(Fault::new(Code::Host, "run network work: it did not end")))
}

/// Outside of the generic functions, which the compiler copies for each piece of work with all of the scheduler:
/// several KiB of the device binary each.
#[inline(never)]
fn drive(runtime: &Runtime, work: Pin<&mut dyn Future<Output = ()>>) {
    runtime.block_on(work);
}
