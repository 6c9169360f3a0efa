// SPDX-License-Identifier: Apache-2.0
//! Discovers the addresses of the API servers: from the seed's names, from kubelet's configuration, and from the
//! endpoints of Service `kubernetes`, which a node may read. Changes are stored and applied.
//!
//! DNS is not authenticated. What it gives for an API server opens nothing until a server there has proven itself by the
//! cluster's CA. With an egress list this device could not try that, nor join: so meanwhile this node alone, and no pod,
//! may connect to those addresses, by TCP and at the API server's port.
//!
//! When the cluster does not answer, nothing changes and nothing stops: the filter keeps the known addresses.

use super::peers::{ClusterPeers, Named, PortRange, servers};
use super::{apply, guard};
use crate::fault::{Fault, OwnedBy, Owner};
use crate::harden::overrides::SeedOverrides;
use crate::host::Host;
use crate::journal::facts::Fact;
use crate::kube::clock::is_apiserver;
use crate::kube::cluster_networks;
use crate::kube::node::NodeClient;
use crate::kube::resolve::addresses;
use crate::node::client::{cluster, node_client};
use crate::node::proxy_env;
use crate::offline;
use crate::proxy::Via;
use anyhow::Result;
use ipnet::IpNet;
use std::net::IpAddr;

/// Resolves the seed's names before the join connects to any of them. Only an egress list would refuse that.
///
/// # Errors
/// When the peers cannot be stored or the filter cannot be applied.
pub(crate) fn resolve_seed_names(host: &Host, via: &Via) -> Result<()> {
    update(host, |peers| {
        if peers.egress.is_some() {
            let found = look_up(peers, via);
            peers.set_unproven(&found);
            peers.resolve_services(&addresses);
        }
    })
}

/// Reads the peers from the cluster that this device has joined.
///
/// # Errors
/// When the peers cannot be stored or the filter cannot be applied. A failed request is only reported on the console.
pub(crate) fn from_cluster(host: &Host, client: &NodeClient) -> Result<()> {
    let endpoints = client.endpoints().unwrap_or_else(|fault| {
        host.sys().say(&format!("firstboot: kubelet stays closed to API servers that the seed does not name: {fault}"));
        Vec::new()
    });
    let name = |(port, addresses)| Named { name: "kubernetes".to_owned(), port, addresses };
    let endpoints = endpoints.into_iter().map(name).collect();
    let (server, port) = client.server_host();
    let node_ports = host.journal().fact(Fact::NodePorts).and_then(PortRange::parse);
    let via = proxy_env::kept(host)?;
    let cache = offline::service(host)?;
    let mut found = Vec::new();
    update(host, |peers| {
        peers.cache = cache;
        let networks = if peers.egress.is_some() { networks(host) } else { Vec::new() };
        peers.set_joined(&server, port, endpoints, networks);
        peers.node_ports = node_ports.unwrap_or_default();
        peers.resolve_services(&addresses);
        found = look_up(peers, &via);
        if peers.egress.is_some() {
            peers.set_unproven(&found);
        }
    })?;
    let (_, ca) = cluster(host)?;
    let proven = prove(&found, &ca);
    update(host, |peers| peers.prove(&found, &proven))
}

/// Leads pods that ask Service `kubernetes` to the cache of the API server, where it runs, and no longer where it does not.
///
/// # Errors
/// When the peers cannot be stored or the filter cannot be applied.
pub(crate) fn lead_to_cache(host: &Host) -> Result<()> {
    let service = offline::service(host)?;
    update(host, |peers| peers.cache = service)
}

/// Those addresses at which a server proves itself by the cluster's CA bundle `ca`, PEM.
fn prove(found: &[Named], ca: &str) -> Vec<Named> {
    let mut proven = found.to_vec();
    for server in &mut proven {
        let (name, port) = (&server.name, server.port);
        // All at once: DNS may name addresses that never answer, and each of them takes its time.
        server.addresses = std::thread::scope(|scope| {
            let one = |at: &IpAddr| {
                (
                    *at,
                    scope.spawn({
                        let at = *at;
                        move || is_apiserver(name, port, at, ca)
                    }),
                )
            };
            let tries: Vec<_> = server.addresses.iter().map(one).collect();
            tries.into_iter().filter_map(|(at, tried)| tried.join().unwrap_or(false).then_some(at)).collect()
        });
    }
    proven
}

/// Refreshes the peers of a sealed device: at every boot and once a day, after the cluster has answered once.
///
/// # Errors
/// A host fault when kubelet's files cannot be read, the peers cannot be stored or the filter cannot be applied.
pub(crate) fn refresh_sealed(host: &Host) -> Result<(), Fault> {
    from_cluster(host, &node_client(host)?).owned_by(Owner::Host)
}

/// What DNS gives for the API servers that are reached without a proxy; one that is reached through it the proxy resolves.
fn look_up(peers: &ClusterPeers, via: &Via) -> Vec<Named> {
    let mut found = peers.names();
    found.retain(|server| via.proxy_for(&server.name, server.port).is_none());
    found.iter_mut().for_each(|server| server.addresses = servers(addresses(&server.name)));
    found
}

/// Ranges of pods and Services, as the join recorded them, but for those that cannot be.
fn networks(host: &Host) -> Vec<IpNet> {
    let text = host.journal().fact(Fact::ClusterNetworks).unwrap_or_default().to_owned();
    let all = text.split(',').filter_map(|n| n.parse().ok());
    all.filter(|net| cluster_networks::check(net).is_ok()).collect()
}

fn update(host: &Host, change: impl FnOnce(&mut ClusterPeers)) -> Result<()> {
    let before = ClusterPeers::read(host)?;
    let kept = SeedOverrides::read(host);
    let mut peers = ClusterPeers::known(host);
    // The list is the seed's, where that is known; else its second copy stays, or a closed one in its place.
    if let Ok(kept) = &kept {
        peers.egress.clone_from(&kept.harden.egress);
    }
    change(&mut peers);
    match peers == before {
        true => Ok(()),
        false => {
            peers.store(host)?;
            // Where the seed's exceptions are lost, the API servers are known all the same.
            let applied = if kept.is_ok() { apply(host) } else { guard(host) };
            // What is stored is in force, so that the next try applies what this one could not.
            if applied.is_err() {
                before.store(host)?;
            }
            applied
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;
    use crate::host::kept::{OVERRIDES, copy_path};
    use crate::kube::wire_tests::{Ca, ok_json, serve_on};
    use crate::seed::Harden;
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::rc::Rc;

    #[test]
    fn what_nft_refuses_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let (fake, seen) = Fake::new();
        let fails = std::rc::Rc::new(std::cell::Cell::new(true));
        let failing = fails.clone();
        let host = Host::open(
            dir.path(),
            Box::new(fake.answering(move |_| failing.get().then(|| anyhow::bail!("run nft -f -: exit status: 1")))),
        )
        .unwrap();
        let found =
            || vec![Named { name: "kubernetes".into(), port: 6443, addresses: ["10.0.0.2".parse().unwrap()].into() }];
        let discover = || update(&host, |peers| peers.set_joined("10.0.0.1", 6443, found(), Vec::new()));
        discover().unwrap_err();
        fails.set(false);
        seen.commands.take();
        discover().unwrap();
        assert_eq!(seen.commands.take(), ["nft -f -"]);
    }

    #[test]
    fn filter_is_reloaded_only_after_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let (fake, seen) = Fake::new();
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        let discover = |address: &str| {
            let found =
                vec![Named { name: "kubernetes".into(), port: 6443, addresses: [address.parse().unwrap()].into() }];
            update(&host, |peers| peers.set_joined("10.0.0.1", 6443, found, Vec::new())).unwrap();
            seen.commands.take()
        };
        assert_eq!(discover("10.0.0.2"), ["nft -f -"]);
        assert!(discover("10.0.0.2").is_empty());
        assert_eq!(discover("10.0.0.3"), ["nft -f -"]);
    }

    /// A worn card: what the cluster is known by is lost, and the seed's exceptions as well or not.
    #[test]
    fn s10_a_refresh_does_not_lift_a_lost_egress_list() {
        for overrides_lost in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let fed = Rc::new(RefCell::new(String::new()));
            let to = fed.clone();
            let fake = Fake::new().0.feeding(move |_, input| {
                to.borrow_mut().clear();
                Ok(input.read_to_string(&mut to.borrow_mut()).map(drop)?)
            });
            let host = Host::open(dir.path(), Box::new(fake)).unwrap();
            let egress: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
            let harden = Harden { egress: Some(egress.clone()), ..Harden::default() };
            let kept = SeedOverrides { harden, ..SeedOverrides::default() };
            host.keep(OVERRIDES, &kept.bytes().unwrap()).unwrap();
            if overrides_lost {
                for path in [OVERRIDES.path.to_owned(), copy_path(OVERRIDES.path)] {
                    host.remove(&path).unwrap();
                }
            }
            update(&host, |peers| peers.set_joined("10.0.0.1", 6443, Vec::new(), Vec::new())).unwrap();
            let want = if overrides_lost { Vec::new() } else { egress };
            assert_eq!(ClusterPeers::kept(&host).unwrap().egress, Some(want));
            let output = fed.borrow().split("chain output {").nth(1).map(|t| t.lines().nth(1).unwrap().to_owned());
            assert_eq!(output.unwrap().trim(), "type filter hook output priority filter; policy drop;");
        }
    }

    /// DNS gives four addresses for the API server: one is the cluster's, the others the attacker's, who answers for DNS.
    #[test]
    fn s10_only_tls_makes_an_address_the_api_servers() {
        let (ca, other) = (Ca::new(), Ca::new());
        let real = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = real.local_addr().unwrap().port();
        let hostile = std::net::TcpListener::bind(("127.0.0.2", port)).unwrap();
        let wrong_name = std::net::TcpListener::bind(("127.0.0.3", port)).unwrap();
        serve_on(real, ca.leaf("api.example", 2020, 2090), ok_json("{}"));
        serve_on(hostile, other.leaf("api.example", 2020, 2090), ok_json("{}"));
        serve_on(wrong_name, ca.leaf("web.example", 2020, 2090), ok_json("{}"));
        let set = |all: &[&str]| all.iter().map(|a| a.parse().unwrap()).collect::<BTreeSet<IpAddr>>();
        let named = |all: &[&str]| [Named { name: "api.example".into(), port, addresses: set(all) }];
        // At the last address nothing listens.
        let found = named(&["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"]);
        assert_eq!(prove(&found, &ca.pem), named(&["127.0.0.1"]));
        assert_eq!(prove(&found, "no certificate"), named(&[]));
    }
}
