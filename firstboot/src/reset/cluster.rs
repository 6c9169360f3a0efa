// SPDX-License-Identifier: Apache-2.0
//! Leaving the cluster gracefully, where it answers. A cluster that is gone, or a certificate that is, keeps no device
//! from being reset: that is said in one line.

use crate::clock::cluster;
use crate::credential::credential;
use crate::fault::{Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::kube::kubeconfig::CURRENT_PEM;
use crate::kube::node::NodeClient;
use crate::phases::kept_via;
use anyhow::{Context, Result};
use std::time::Duration;

/// How long pods have to end.
const DRAIN: Duration = Duration::from_secs(60);
/// How long the link may take after a boot.
const ANSWER: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_secs(2);

/// Cordons the node and evicts its pods; how many are left after [`DRAIN`], and end with the runtime.
pub(super) fn leave(host: &Host) -> Result<usize, Fault> {
    let Some(client) = client(host)? else { return Ok(0) };
    let mut last = None;
    let answered = host.wait(ANSWER, LOOK, || match client.node() {
        Ok(node) => Ok(Some(node.is_some())),
        Err(fault) => {
            last = Some(fault);
            Ok(None)
        }
    });
    match (answered.owned_by(Owner::Host)?, last) {
        (Some(true), _) => {}
        // An administrator has deleted it already.
        (Some(false), _) => return Ok(0),
        (None, fault) => return Err(fault.unwrap_or_else(|| Fault::new(Owner::Cluster, "ask for the own Node"))),
    }
    client.cordon()?;
    client.drain(DRAIN)
}

/// Says that the node is gone, once kubelet has stopped.
pub(super) fn depart(host: &Host) -> Result<(), Fault> {
    match client(host)? {
        Some(client) => client.depart(host.now()),
        None => Ok(()),
    }
}

/// A client that is this node; none where it has no usable certificate.
fn client(host: &Host) -> Result<Option<NodeClient>, Fault> {
    if !credential(host).owned_by(Owner::Host)?.usable() {
        return Ok(None);
    }
    let open = || -> Result<(String, String, String, String)> {
        let (server, ca) = cluster(host)?;
        let pem = host.read_text(CURRENT_PEM)?.with_context(|| format!("find {CURRENT_PEM}"))?;
        let node = host.journal().fact("node").map(str::to_owned).context("find the node's name in the journal")?;
        Ok((server, ca, pem, node))
    };
    let (server, ca, pem, node) = open().owned_by(Owner::Host)?;
    let via = kept_via(host).owned_by(Owner::Host)?;
    NodeClient::through(&via, &node, &server, &ca, &pem).map(Some)
}
