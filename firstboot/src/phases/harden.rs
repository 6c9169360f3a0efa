// SPDX-License-Identifier: Apache-2.0
//! The hardened host, before any link is up: the seed's overrides are kept, then every kind of setting is
//! applied ([`crate::harden`]).

use super::context::PhaseContext;
use crate::fault::{Fault, OwnedBy, Owner};
use crate::harden::overrides::SeedOverrides;
use crate::host::kept::OVERRIDES;
use crate::{firewall, harden};
use anyhow::Result;

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    let kept = SeedOverrides::of(&cx.seed);
    let held = || -> Result<bool> {
        Ok(cx.host.read_kept(OVERRIDES.path).bytes == Some(kept.bytes()?)
            && firewall::is_current(&cx.host, &cx.seed)?
            && harden::is_current(&cx.host, &kept)?)
    };
    held().owned_by(Owner::Host)
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    let kept = SeedOverrides::of(&cx.seed);
    let keep = || -> Result<()> {
        cx.host.keep(OVERRIDES, &kept.bytes()?)?;
        firewall::store_and_apply(&cx.host, &cx.seed)
    };
    keep().owned_by(Owner::Host)?;
    harden::apply(&cx.host, &kept)
}
