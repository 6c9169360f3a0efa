// SPDX-License-Identifier: Apache-2.0
//! Finds out who the API servers are: by the seed's names, by kubelet's configuration, and by the endpoints of Service
//! `kubernetes`, which a node may read. What changed is kept and applied.
//!
//! A cluster that does not answer changes nothing and stops nothing: the filter keeps what it knows.

use super::apply;
use super::peers::{Known, PortRange};
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

/// Looks the seed's names up, before the join talks to any of them.
///
/// # Errors
/// When the filter cannot be kept or applied.
pub(crate) fn names(host: &Host) -> Result<()> {
    update(host, |known| known.look_up(&addresses))
}

/// Asks the cluster that this device has joined.
///
/// # Errors
/// When the filter cannot be kept or applied. A cluster that does not say is told on the console.
pub(crate) fn from_cluster(host: &Host, client: &NodeClient) -> Result<()> {
    let endpoints = client.endpoints().unwrap_or_else(|fault| {
        host.sys().say(&format!("firstboot: kubelet stays closed to API servers that the seed does not name: {fault}"));
        BTreeSet::new()
    });
    let server = client.server_host();
    let networks = if SeedOverrides::read(host)?.harden.egress.is_some() { networks(host) } else { Vec::new() };
    let node_ports = host.journal().fact(Fact::NodePorts).and_then(PortRange::parse);
    update(host, |known| {
        known.join(&server, endpoints, networks);
        known.node_ports = node_ports.unwrap_or_default();
        known.look_up(&addresses);
    })
}

/// What a sealed device does at every boot and once a day, after the cluster has answered once.
///
/// # Errors
/// A host fault when kubelet's files cannot be read, or the filter not be kept or applied.
pub(crate) fn of_sealed(host: &Host) -> Result<(), Fault> {
    from_cluster(host, &node_client(host)?).owned_by(Owner::Host)
}

/// Ranges of pods and Services, as the join left them.
fn networks(host: &Host) -> Vec<IpNet> {
    host.journal().fact(Fact::ClusterNetworks).unwrap_or_default().split(',').filter_map(|n| n.parse().ok()).collect()
}

fn update(host: &Host, change: impl FnOnce(&mut Known)) -> Result<()> {
    let mut known = Known::read(host)?;
    let before = known.clone();
    change(&mut known);
    match known == before {
        true => Ok(()),
        false => {
            known.keep(host)?;
            apply(host)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    #[test]
    fn the_filter_is_loaded_again_only_when_something_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (fake, seen) = Fake::new();
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        let learn = |address: &str| {
            let found = BTreeSet::from([address.parse().unwrap()]);
            update(&host, |known| known.join("10.0.0.1", found, Vec::new())).unwrap();
            seen.commands.take()
        };
        assert_eq!(learn("10.0.0.2"), ["nft -f -"]);
        assert!(learn("10.0.0.2").is_empty());
        assert_eq!(learn("10.0.0.3"), ["nft -f -"]);
    }
}
