// SPDX-License-Identifier: Apache-2.0
//! How the cluster learns that a node leaves. A cluster or a certificate that is gone keeps no device from being reset:
//! one line reports it.

use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::firewall::peers::ClusterPeers;
use crate::host::Host;
use crate::kube::error::{Error, Kind};
use crate::kube::node::NodeClient;
use crate::node::client::node_client;
use crate::node::credential::{Credential, credential};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// How long pods have to end.
pub(super) const DRAIN: Duration = Duration::from_secs(60);
/// How long the link may take after a boot.
const ANSWER: Duration = Duration::from_secs(30);

/// A client that is this node, of a cluster that answers; none where an administrator has deleted the Node already.
pub(super) fn reach(host: &Host) -> Result<Option<NodeClient>, Fault> {
    let client = client(host)?;
    Ok(client.known(ANSWER)?.then_some(client))
}

/// Says that the node is gone, once kubelet has stopped; what the cluster refused.
pub(super) fn depart(host: &Host) -> Result<Vec<Fault>, Fault> {
    Ok(client(host)?.depart(host.now()))
}

/// Whether it was no answer at all, rather than a refusal.
pub(super) fn is_silent(fault: &Fault) -> bool {
    fault.cause.downcast_ref::<Error>().is_some_and(|error| error.kind == Kind::Transport)
}

/// Where API servers of the cluster are known to be, beside which etcd has its members.
pub(super) fn api_servers(host: &Host) -> BTreeSet<IpAddr> {
    ClusterPeers::read(host).map(|peers| peers.apiservers()).unwrap_or_default()
}

/// A client that is this node, as long as its certificate is worth anything.
fn client(host: &Host) -> Result<NodeClient, Fault> {
    if let Credential::Unusable { why, .. } = credential(host).owned_by(Owner::Host)? {
        return Err(Fault::new(Code::NodeCredential, why));
    }
    node_client(host)
}
