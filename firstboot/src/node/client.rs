// SPDX-License-Identifier: Apache-2.0
//! A client that is this node, by kubelet's files alone.

use super::proxy_env;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::journal::facts::Fact;
use crate::kube::kubeconfig;
use crate::kube::node::NodeClient;
use crate::paths::{CA_FILE, CURRENT_PEM, KUBELET_CONF};
use anyhow::{Context, Result};

/// A client that is this node, by kubelet's files alone: no seed is needed.
///
/// # Errors
/// A host fault when those cannot be read.
pub(crate) fn node_client(host: &Host) -> Result<NodeClient, Fault> {
    let open = || -> Result<(String, String, String, String)> {
        let (server, ca) = cluster(host)?;
        let pem = host.read_text(CURRENT_PEM)?.with_context(|| format!("find {CURRENT_PEM}"))?;
        let node = host.journal().fact(Fact::Node).map(str::to_owned).context("find the node's name in the journal")?;
        Ok((server, ca, pem, node))
    };
    let (server, ca, pem, node) = open().coded(Code::NodeCredential)?;
    let via = proxy_env::kept(host).owned_by(Owner::Host)?;
    NodeClient::through(&via, &node, &server, &ca, &pem)
}

/// The API server of a joined device, `https://host:port`, and the CA bundle that proves it, PEM. Read again for each
/// try, because an administrator may be repairing them.
pub fn cluster(host: &Host) -> Result<(String, String)> {
    let text = |path: &str| -> Result<String> { host.read_text(path)?.with_context(|| format!("find {path}")) };
    let conf = text(KUBELET_CONF)?;
    let info = kubeconfig::read(&conf).map_err(|why| anyhow::anyhow!("read {KUBELET_CONF}: {why}"))?;
    Ok((info.server, text(CA_FILE)?))
}
