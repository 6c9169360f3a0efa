// SPDX-License-Identifier: Apache-2.0
//! The hardened host, before any link is up: what the seed wants otherwise is kept, then every kind of setting is
//! applied ([`crate::harden`]).

use super::Cx;
use crate::fault::{Fault, OwnedBy, Owner};
use crate::firewall;
use crate::harden::{self, KEPT, Kept};
use anyhow::Result;

pub(super) fn check(cx: &Cx) -> Result<bool, Fault> {
    let kept = Kept::of(&cx.seed);
    let held = || -> Result<bool> {
        Ok(cx.host.read(KEPT)?.as_deref() == Some(&kept.bytes()?)
            && firewall::holds(&cx.host, &cx.seed)?
            && harden::holds(&cx.host, &kept)?)
    };
    held().owned_by(Owner::Host)
}

pub(super) fn apply(cx: &Cx) -> Result<(), Fault> {
    let kept = Kept::of(&cx.seed);
    let keep = || -> Result<()> {
        cx.host.write(KEPT, &kept.bytes()?, 0o644)?;
        firewall::put(&cx.host, &cx.seed)
    };
    keep().owned_by(Owner::Host)?;
    harden::apply(&cx.host, &kept)
}
