// SPDX-License-Identifier: Apache-2.0
//! The runtime answers on CRI and knows the bundle's container images, by the state that the bundle brought; nothing is
//! pulled later.

use super::context::PhaseContext;
use crate::containerd::images::{missing, unknown};
use crate::containerd::{damage, ready, repair};
use crate::fault::{Fault, OwnedBy, Owner};
use crate::host::Host;
use anyhow::Result;

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    let lost = || damage::lost_pause(&cx.host, &cx.bundle.manifest);
    let held = || -> Result<bool> {
        Ok(ready::answers(&cx.host).is_ok() && missing(&cx.host, &cx.bundle)?.is_empty() && lost()?.is_none())
    };
    held().owned_by(Owner::Host)
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    answers(&cx.host).owned_by(Owner::Host)?;
    let lacking = || missing(&cx.host, &cx.bundle).owned_by(Owner::Host);
    let first = lacking()?;
    let why = damage::of_images(&cx.host, &cx.bundle.manifest, &first).owned_by(Owner::Host)?;
    // No pod runs yet that would be ended: what a person removed comes back as well.
    let why = why.or_else(|| first.first().map(|name| format!("it does not know image {name}")));
    if let Some(why) = why {
        repair::set_aside(&cx.host, &why)?;
        ready::wait(&cx.host).owned_by(Owner::Host)?;
    }
    match lacking()?.first() {
        None => repair::whole(&cx.host).owned_by(Owner::Host),
        Some(name) => Err(unknown(name)),
    }
}

/// Waits for the runtime, which the phase `runtime` started, and repairs a state that keeps it from starting.
fn answers(host: &Host) -> Result<()> {
    host.start_unit("containerd.service")?;
    match ready::answer_or_damage(host)? {
        None => Ok(()),
        // The power went while it wrote, earlier.
        Some(why) => {
            repair::set_aside(host, &why)?;
            ready::wait(host)
        }
    }
}
