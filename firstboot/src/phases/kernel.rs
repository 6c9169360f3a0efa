// SPDX-License-Identifier: Apache-2.0
//! Kernel modules and settings that kubelet, the runtime and pod networks need; swap off.

use super::context::PhaseContext;
use crate::fault::{Fault, OwnedBy, Owner};
use crate::harden::{modules, sysctl};
use crate::host::mounts::swaps;
use crate::paths::SWAP_TARGET;
use anyhow::Result;

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    let held = || -> Result<bool> {
        Ok(modules::check_node(&cx.host)?
            && sysctl::check_node(&cx.host, &cx.seed.harden.sysctl)?
            && swaps(&cx.host)?.is_empty())
    };
    held().owned_by(Owner::Host)
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    let work = || -> Result<()> {
        modules::write_node_file(&cx.host)?;
        sysctl::write_node_file(&cx.host)?;
        let mut modprobe = vec!["modprobe", "--all"];
        modprobe.extend(modules::NEEDED.iter().map(|(name, _)| *name));
        cx.host.run(&modprobe)?;
        sysctl::set_node(&cx.host, &cx.seed.harden.sysctl)?;
        if !swaps(&cx.host)?.is_empty() {
            // The target as well, or swap is back at the next boot.
            cx.host.symlink(SWAP_TARGET, "/dev/null")?;
            cx.host.run(&["swapoff", "--all"])?;
        }
        Ok(())
    };
    work().owned_by(Owner::Host)
}
