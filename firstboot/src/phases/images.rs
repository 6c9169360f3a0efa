// SPDX-License-Identifier: Apache-2.0
//! Container images from the bundle into the runtime, each verified before a byte of it is imported; nothing is
//! pulled later.

use super::context::PhaseContext;
use crate::containerd::images::{complete, import, missing, named};
use crate::containerd::{damage, ready, repair};
use crate::fault::{Code, Fault, OwnedBy, Owner};

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    let torn = || damage::torn_pause(&cx.host, &cx.bundle.manifest);
    let held = || Ok::<_, anyhow::Error>(missing(&cx.host, &cx.bundle)?.is_empty() && torn()?.is_none());
    held().owned_by(Owner::Host)
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    let lacking = || missing(&cx.host, &cx.bundle).owned_by(Owner::Host);
    if let Some(why) = complete(&cx.host, &cx.bundle, &lacking()?)? {
        repair::set_aside(&cx.host, &why)?;
        ready::wait(&cx.host).owned_by(Owner::Host)?;
        import(&cx.host, &named(&cx.bundle, &lacking()?))?;
    }
    match lacking()?.first() {
        None => repair::whole(&cx.host).owned_by(Owner::Host),
        Some(name) => Err(Fault::new(
            Code::BundleImageName,
            format!("import image {name}: the runtime does not know it afterwards; its archive has another name"),
        )),
    }
}
