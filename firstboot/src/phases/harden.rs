// SPDX-License-Identifier: Apache-2.0
//! The hardened host, before any link is up: what the seed wants otherwise is kept, then every kind of setting is
//! applied ([`crate::harden`]).

use super::Cx;
use crate::fault::{Fault, OwnedBy, Owner};
use crate::harden::{KEPT, Kept};
use anyhow::Result;

pub(super) fn check(cx: &Cx) -> Result<bool, Fault> {
    let held = || -> Result<bool> { Ok(cx.host.read(KEPT)?.as_deref() == Some(&Kept::of(&cx.seed).bytes()?)) };
    held().owned_by(Owner::Host)
}

pub(super) fn apply(cx: &Cx) -> Result<(), Fault> {
    let work = || -> Result<()> { cx.host.write(KEPT, &Kept::of(&cx.seed).bytes()?, 0o644) };
    work().owned_by(Owner::Host)
}
