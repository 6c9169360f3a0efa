// SPDX-License-Identifier: Apache-2.0
//! Discovers the addresses of the API servers: from the seed's names, from kubelet's configuration, and from the
//! endpoints of Service `kubernetes`, which a node may read. Changes are stored and applied.
//!
//! When the cluster does not answer, nothing changes and nothing stops: the filter keeps the known addresses.

use super::apply;
use super::peers::{ClusterPeers, PortRange};
use crate::fault::{Fault, OwnedBy, Owner};
use crate::harden::overrides::SeedOverrides;
use crate::host::Host;
use crate::journal::facts::Fact;
use crate::kube::node::NodeClient;
use crate::kube::resolve::addresses;
use crate::node::client::node_client;
use anyhow::Result;
use ipnet::IpNet;
use std::collections::BTreeSet;

/// Resolves the seed's names before the join connects to any of them.
///
/// # Errors
/// When the peers cannot be stored or the filter cannot be applied.
pub(crate) fn resolve_seed_names(host: &Host) -> Result<()> {
    update(host, |peers| peers.resolve(&addresses))
}

/// Reads the peers from the cluster that this device has joined.
///
/// # Errors
/// When the peers cannot be stored or the filter cannot be applied. A failed request is only reported on the console.
pub(crate) fn from_cluster(host: &Host, client: &NodeClient) -> Result<()> {
    let endpoints = client.endpoints().unwrap_or_else(|fault| {
        host.sys().say(&format!("firstboot: kubelet stays closed to API servers that the seed does not name: {fault}"));
        BTreeSet::new()
    });
    let server = client.server_host();
    let networks = if SeedOverrides::read(host)?.harden.egress.is_some() { networks(host) } else { Vec::new() };
    let node_ports = host.journal().fact(Fact::NodePorts).and_then(PortRange::parse);
    update(host, |peers| {
        peers.set_joined(&server, endpoints, networks);
        peers.node_ports = node_ports.unwrap_or_default();
        peers.resolve(&addresses);
    })
}

/// Refreshes the peers of a sealed device: at every boot and once a day, after the cluster has answered once.
///
/// # Errors
/// A host fault when kubelet's files cannot be read, the peers cannot be stored or the filter cannot be applied.
pub(crate) fn refresh_sealed(host: &Host) -> Result<(), Fault> {
    from_cluster(host, &node_client(host)?).owned_by(Owner::Host)
}

/// Ranges of pods and Services, as the join recorded them.
fn networks(host: &Host) -> Vec<IpNet> {
    host.journal().fact(Fact::ClusterNetworks).unwrap_or_default().split(',').filter_map(|n| n.parse().ok()).collect()
}

fn update(host: &Host, change: impl FnOnce(&mut ClusterPeers)) -> Result<()> {
    let mut peers = ClusterPeers::read(host)?;
    let before = peers.clone();
    change(&mut peers);
    match peers == before {
        true => Ok(()),
        false => {
            peers.store(host)?;
            apply(host)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    #[test]
    fn filter_is_reloaded_only_after_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let (fake, seen) = Fake::new();
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        let discover = |address: &str| {
            let found = BTreeSet::from([address.parse().unwrap()]);
            update(&host, |peers| peers.set_joined("10.0.0.1", found, Vec::new())).unwrap();
            seen.commands.take()
        };
        assert_eq!(discover("10.0.0.2"), ["nft -f -"]);
        assert!(discover("10.0.0.2").is_empty());
        assert_eq!(discover("10.0.0.3"), ["nft -f -"]);
    }
}
