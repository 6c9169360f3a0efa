// SPDX-License-Identifier: Apache-2.0
//! The node is Ready, as reported from this boot, and its Lease moves.

use super::context::PhaseContext;
use super::join::{leftover, node_name};
use super::{kubelet, kubelet_config};
use crate::fault::{Fault, OwnedBy, Owner};
use crate::journal::facts::{self, Fact};
use crate::kube::config;
use crate::kube::node::NodeClient;
use crate::node::client::node_client;
use crate::node::kubelet_serving_cert::{self, APPROVE};
use std::time::Duration;

const READY: Duration = Duration::from_secs(240);
const LEASE: Duration = Duration::from_secs(60);
/// How long kubelet may take from its Node's addresses to its request for a serving certificate.
const REQUEST: Duration = Duration::from_secs(15);

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
        commands = client.take_over(&labels, &cx.seed.taints())?;
    }
    commands.extend(approval(cx, &client)?);
    cx.host.note(Fact::ManualSteps, &facts::lines(commands)).owned_by(Owner::Host)
}

/// The command that approves kubelet's request for a serving certificate, where kubelet waits for that: with
/// `serverTLSBootstrap` no controller of Kubernetes approves it, and without a certificate there are no logs and metrics.
fn approval(cx: &PhaseContext, client: &NodeClient) -> Result<Option<String>, Fault> {
    if !kubelet_config::asks_for_serving_certificate(&cx.host, &cx.seed.kubelet).owned_by(Owner::Host)? {
        return Ok(None);
    }
    let until = cx.host.sys().uptime() + REQUEST;
    loop {
        if kubelet_serving_cert::is_signed(&cx.host).owned_by(Owner::Host)? {
            return Ok(None);
        }
        if let Some(name) = client.pending_serving_request()? {
            return Ok(Some(format!("{APPROVE}{name}")));
        }
        if cx.host.sys().uptime() >= until {
            return Ok(None);
        }
        cx.host.sys().sleep(Duration::from_secs(1));
    }
}
