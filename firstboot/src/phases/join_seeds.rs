// SPDX-License-Identifier: Apache-2.0
//! What the creator of a cluster leaves on its boot partition: the seed for the next device, and the administrator's
//! kubeconfig.

use super::context::PhaseContext;
use crate::boot_partition::BootPartition;
use crate::control_plane::card::{self, JoinSeed};
use crate::control_plane::is_created;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::journal::facts::Fact;
use crate::paths::{TIMER_WANTED, UNIT_DIR};
use anyhow::Context;

/// Renews the seed for the next device.
const TIMER: &str = "firstboot-control-plane.timer";

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    let Some(cluster) = cx.seed.create() else { return Ok(true) };
    let boot = boot(cx)?;
    let seeds = JoinSeed::all(&cx.host);
    let held = || -> anyhow::Result<bool> {
        let files = seeds.iter().map(|seed| seed.which.file());
        for name in files.chain(cluster.admin_request.as_ref().map(|_| card::KUBECONFIG)) {
            if boot.read(name)?.is_none() {
                return Ok(false);
            }
        }
        Ok(is_created(&cx.host) && (seeds.is_empty() || cx.host.read_link(TIMER_WANTED)?.is_some()))
    };
    held().owned_by(Owner::Host)
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    let Some(cluster) = cx.seed.create().filter(|_| is_created(&cx.host)) else { return Ok(()) };
    let boot = boot(cx)?;
    if !JoinSeed::all(&cx.host).is_empty() {
        card::renew(&cx.host, boot)?;
        let enable = || -> anyhow::Result<()> {
            cx.host.enable_unit(TIMER_WANTED, &format!("{UNIT_DIR}/{TIMER}"))?;
            cx.host.start_unit(TIMER)
        };
        enable().owned_by(Owner::Host)?;
    }
    if let Some(request) = &cluster.admin_request {
        let server = cx.host.journal().fact(Fact::ClusterServer).unwrap_or_default().to_owned();
        card::administrator(&cx.host, boot, request, &server)?;
    }
    Ok(())
}

fn boot(cx: &PhaseContext) -> Result<&BootPartition, Fault> {
    cx.card.as_ref().context("find the boot partition of this device").coded(Code::NoBootPartition)
}
