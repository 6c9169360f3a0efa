// SPDX-License-Identifier: Apache-2.0
//! The node is Ready, as reported from this boot, and its Lease moves.

use super::context::PhaseContext;
use super::join::{leftover, node_name};
use super::kubelet;
use crate::fault::{Fault, OwnedBy, Owner};
use crate::journal::facts::{self, Fact};
use crate::kube::config;
use crate::node::client::node_client;
use std::time::Duration;

const READY: Duration = Duration::from_secs(240);
const LEASE: Duration = Duration::from_secs(60);

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    Ok(node_client(&cx.host)?.node()?.is_some_and(|n| n.ready))
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    let client = node_client(&cx.host)?;
    let boot = cx.host.boot_id().owned_by(Owner::Host)?;
    client.wait_ready(boot.as_deref(), READY)?;
    // A Lease from before kubelet was started says nothing about this installation.
    client.wait_lease(kubelet::started(&cx.host), LEASE)?;
    let mut commands = Vec::new();
    if leftover(cx) {
        let node = &cx.seed.node;
        let labels = config::leftover_labels(node.role, &node_name(cx)?, &node.labels);
        commands = client.take_over(&labels, &node.taints)?;
    }
    cx.host.note(Fact::ManualSteps, &facts::lines(commands)).owned_by(Owner::Host)
}
