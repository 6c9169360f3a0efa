// SPDX-License-Identifier: Apache-2.0
//! The peers that the packet filter must know: the cluster's API servers and, where the seed has an egress list, the
//! other servers that must be reachable. They are stored on the device, because the guard runs without a network.
//!
//! Names are stored with their addresses, so that they can be resolved again after the seed is destroyed. The file
//! contains no secret.

use crate::host::Host;
use crate::host::kept::FIREWALL;
use crate::seed::{Protocol, Seed};
use anyhow::{Context, Result};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// Port and protocol of name servers (RFC 1035, 4.2).
const DNS: u16 = 53;
/// Port of time servers (RFC 5905).
const NTP: u16 = 123;

/// A host by its configured name, with the addresses of the last lookup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// DNS name or address, without brackets.
    pub name: String,
    /// Resolved addresses; empty before the first lookup.
    pub addresses: BTreeSet<IpAddr>,
}

impl Named {
    /// A host by its name; it keeps its addresses in `before` until the next lookup.
    fn new(name: &str, before: &[Named]) -> Self {
        let literal = name.parse::<IpAddr>().ok();
        let kept = before.iter().find(|b| b.name == name).map(|b| b.addresses.clone()).unwrap_or_default();
        Named { name: name.to_owned(), addresses: literal.map_or(kept, |address| BTreeSet::from([address])) }
    }
}

/// A server that an egress list leaves open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// DNS name or address, without brackets.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port.
    pub port: u16,
    /// Resolved addresses; empty before the first lookup.
    pub addresses: BTreeSet<IpAddr>,
}

/// The ports that an API server assigns to NodePorts (`--service-node-port-range`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl Default for PortRange {
    /// The API server's own default.
    fn default() -> Self {
        PortRange { first: 30000, last: 32767 }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl PortRange {
    /// Parses `FIRST-LAST`. `None` when the text is no range, or the range includes the host's own ports (up to
    /// kubelet's): the filter of those ports does not change, whatever range the cluster uses.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        let range = PortRange { first: first.parse().ok()?, last: last.parse().ok()? };
        (range.first > KUBELET && range.first <= range.last).then_some(range)
    }
}

/// The cluster's addresses and ports, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPeers {
    /// API servers in the seed.
    pub seed: Vec<Named>,
    /// The API server that kubelet talks to.
    pub joined: Option<Named>,
    /// Endpoints of Service `kubernetes`: the API servers according to the cluster.
    pub endpoints: BTreeSet<IpAddr>,
    /// Other servers that must be reachable, where there is an egress list.
    pub services: Vec<Service>,
    /// Ranges of pods and Services, where there is an egress list.
    pub networks: Vec<IpNet>,
    /// Range of NodePorts.
    #[serde(default)]
    pub node_ports: PortRange,
}

impl ClusterPeers {
    /// Reads the stored peers; the default before the first seed and when the file cannot be parsed, because the peers
    /// can be discovered again.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(host: &Host) -> Result<Self> {
        let bytes = host.read_kept(FIREWALL.path).bytes;
        Ok(bytes.and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default())
    }

    /// Stores the peers; returns whether they differ from the stored ones.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn store(&self, host: &Host) -> Result<bool> {
        let mut bytes = serde_json::to_vec_pretty(self).with_context(|| format!("encode {}", FIREWALL.path))?;
        bytes.push(b'\n');
        let changed = host.read_kept(FIREWALL.path).bytes.as_ref() != Some(&bytes);
        host.keep(FIREWALL, &bytes)?;
        Ok(changed)
    }

    /// The peers in a seed, with the addresses discovered before. The peers of another seed's cluster are discarded.
    #[must_use]
    pub fn from_seed(seed: &Seed, before: ClusterPeers) -> Self {
        let peers: Vec<Named> = before.joined.iter().chain(&before.seed).cloned().collect();
        let servers: Vec<Named> = seed.cluster.apiserver.iter().map(|e| Named::new(&e.host, &peers)).collect();
        let names = |all: &[Named]| all.iter().map(|n| n.name.clone()).collect::<BTreeSet<_>>();
        let same = names(&servers) == names(&before.seed);
        let services = if seed.harden.egress.is_some() { services(seed, &before.services) } else { Vec::new() };
        match same {
            true => ClusterPeers { seed: servers, services, ..before },
            false => ClusterPeers { seed: servers, services, ..ClusterPeers::default() },
        }
    }

    /// Addresses of all API servers.
    #[must_use]
    pub fn apiservers(&self) -> BTreeSet<IpAddr> {
        let named = self.seed.iter().chain(&self.joined).flat_map(|n| &n.addresses);
        named.chain(&self.endpoints).map(IpAddr::to_canonical).collect()
    }

    /// Resolves every name again with `lookup`. A name without a result keeps its addresses.
    pub fn resolve(&mut self, lookup: &dyn Fn(&str) -> BTreeSet<IpAddr>) {
        let named = self.seed.iter_mut().chain(&mut self.joined).map(|n| (&n.name, &mut n.addresses));
        for (name, addresses) in named.chain(self.services.iter_mut().map(|s| (&s.name, &mut s.addresses))) {
            let found = if name.parse::<IpAddr>().is_ok() { BTreeSet::new() } else { lookup(name) };
            if !found.is_empty() {
                *addresses = found;
            }
        }
    }

    /// Sets what the joined cluster reports. `server` is the host that kubelet talks to.
    pub fn set_joined(&mut self, server: &str, endpoints: BTreeSet<IpAddr>, networks: Vec<IpNet>) {
        let before: Vec<Named> = self.joined.iter().chain(&self.seed).cloned().collect();
        self.joined = Some(Named::new(server, &before));
        // Without the right to read endpoints the previous ones stay.
        if !endpoints.is_empty() {
            self.endpoints = endpoints;
        }
        self.networks = networks;
    }
}

/// Name servers, time servers and proxy of a seed.
fn services(seed: &Seed, before: &[Service]) -> Vec<Service> {
    let mut all: Vec<(String, Protocol, u16)> = Vec::new();
    for dns in &seed.network.dns {
        all.extend([Protocol::Udp, Protocol::Tcp].map(|p| (dns.to_string(), p, DNS)));
    }
    all.extend(seed.time.servers.iter().map(|s| (s.clone(), Protocol::Udp, NTP)));
    if let Some((host, port)) = seed.network.via.proxy.as_ref().and_then(|p| p.host().rsplit_once(':')) {
        let host = host.trim_matches(['[', ']']).to_owned();
        all.extend(port.parse().ok().map(|port| (host, Protocol::Tcp, port)));
    }
    let peers: Vec<Named> =
        before.iter().map(|s| Named { name: s.name.clone(), addresses: s.addresses.clone() }).collect();
    let service = |(name, protocol, port): (String, Protocol, u16)| {
        let Named { name, addresses } = Named::new(&name, &peers);
        Service { name, protocol, port, addresses }
    };
    all.into_iter().map(service).collect()
}

/// kubelet's port.
pub const KUBELET: u16 = 10250;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    fn seed(servers: &str, more: &str) -> Seed {
        let pin = "0".repeat(64);
        let text = format!(
            "version = 1\n[cluster]\napiserver = {servers}\ntoken = \"abcdef.0123456789abcdef\"\nca-cert-hashes = \
             \"sha256:{pin}\"\n{more}"
        );
        crate::seed::parse(text.as_bytes()).unwrap()
    }

    fn set(all: &[&str]) -> BTreeSet<IpAddr> {
        all.iter().map(|a| a.parse().unwrap()).collect()
    }

    #[test]
    fn names_are_resolved_and_keep_their_addresses_when_a_lookup_fails() {
        let one = seed("[\"10.0.0.1\", \"api.example\", \"[fd00::1]:443\"]", "");
        let mut peers = ClusterPeers::from_seed(&one, ClusterPeers::default());
        assert_eq!(peers.apiservers(), set(&["10.0.0.1", "fd00::1"]));
        peers.resolve(&|name| if name == "api.example" { set(&["192.0.2.7"]) } else { set(&["192.0.2.99"]) });
        assert_eq!(peers.apiservers(), set(&["10.0.0.1", "192.0.2.7", "fd00::1"]));
        peers.resolve(&|_| BTreeSet::new());
        assert_eq!(peers.apiservers(), set(&["10.0.0.1", "192.0.2.7", "fd00::1"]));
        // A seed with the same servers keeps all addresses; another seed starts with none.
        assert_eq!(ClusterPeers::from_seed(&one, peers.clone()), peers);
        peers.set_joined("api.example", set(&["10.0.0.2"]), Vec::new());
        assert_eq!(peers.apiservers(), set(&["10.0.0.1", "10.0.0.2", "192.0.2.7", "fd00::1"]));
        peers.set_joined("10.0.0.3", BTreeSet::new(), Vec::new());
        assert!(peers.endpoints == set(&["10.0.0.2"]) && peers.apiservers().contains(&"10.0.0.3".parse().unwrap()));
        assert_eq!(ClusterPeers::from_seed(&seed("\"10.0.0.9\"", ""), peers).apiservers(), set(&["10.0.0.9"]));
    }

    #[test]
    fn ranges_of_node_ports() {
        assert_eq!(PortRange::parse("20000-22767").unwrap().to_string(), "20000-22767");
        for bad in ["", "20000", "1-65535", "10250-20000", "3-2", "20000-70000", "20000+100"] {
            assert_eq!(PortRange::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn egress_list_leaves_the_seeds_own_services_open() {
        let more = "[network]\ndns = \"10.0.0.53\"\nproxy = \"http://u:p@proxy.example:3128\"\n[time]\nservers = \
                    \"ntp.example\"\n[harden]\negress = \"192.0.2.0/24\"\n";
        let peers = ClusterPeers::from_seed(&seed("\"10.0.0.1\"", more), ClusterPeers::default());
        let shown: Vec<String> =
            peers.services.iter().map(|s| format!("{} {}/{} {:?}", s.name, s.protocol, s.port, s.addresses)).collect();
        assert_eq!(
            shown,
            [
                "10.0.0.53 udp/53 {10.0.0.53}",
                "10.0.0.53 tcp/53 {10.0.0.53}",
                "ntp.example udp/123 {}",
                "proxy.example tcp/3128 {}"
            ]
        );
        let without = more.replace("[harden]\negress = \"192.0.2.0/24\"\n", "");
        assert!(ClusterPeers::from_seed(&seed("\"10.0.0.1\"", &without), peers).services.is_empty());
    }

    #[test]
    fn store_reports_changes_and_an_unreadable_file_is_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        let peers = ClusterPeers::from_seed(&seed("\"10.0.0.1\"", ""), ClusterPeers::default());
        assert!(peers.store(&host).unwrap() && !peers.store(&host).unwrap());
        assert_eq!(ClusterPeers::read(&host).unwrap(), peers);
        host.write(FIREWALL.path, b"{\"seed\":", 0o600).unwrap();
        host.remove(&crate::host::kept::copy_path(FIREWALL.path)).unwrap();
        assert_eq!(ClusterPeers::read(&host).unwrap(), ClusterPeers::default());
    }
}
