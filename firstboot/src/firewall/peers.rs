// SPDX-License-Identifier: Apache-2.0
//! The peers that the packet filter must know: the cluster's API servers and, where the seed has an egress list, the
//! other servers that must be reachable. They are stored on the device, because the guard runs without a network.
//!
//! Names are stored with their addresses, so that they can be resolved again after the seed is destroyed. An address that
//! DNS gives for an API server counts only once a server there has proven itself by TLS ([`ClusterPeers::prove`]). The
//! file contains no secret.

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

/// Most addresses of one name that are tried: a name server that gives more is not asked for that.
const MOST_ADDRESSES: usize = 8;

/// An API server by its configured name, with the addresses at which one has proven itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// DNS name or address, without brackets.
    pub name: String,
    /// Port.
    pub port: u16,
    /// Of an address: that one, which the seed or kubelet.conf vouches for. Of a name: proven addresses, at first none.
    pub addresses: BTreeSet<IpAddr>,
}

impl Named {
    /// An API server; it keeps its addresses in `before` until others are proven.
    fn new(name: &str, port: u16, before: &[Named]) -> Self {
        let literal = literal(name);
        let kept = before.iter().find(|b| b.name == name && b.port == port).map(|b| b.addresses.clone());
        let addresses = literal.map_or_else(|| kept.unwrap_or_default(), |address| BTreeSet::from([address]));
        Named { name: name.to_owned(), port, addresses }
    }

    /// Whether both are the same server of a configuration.
    fn is(&self, other: &Named) -> bool {
        self.name == other.name && self.port == other.port
    }

    /// Whether only DNS knows where it is.
    fn is_name(&self) -> bool {
        literal(&self.name).is_none()
    }
}

fn literal(name: &str) -> Option<IpAddr> {
    name.parse().ok()
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
    /// Addresses of the last lookup; empty before the first one.
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
    pub endpoints: Vec<Named>,
    /// Addresses that DNS gives for API servers, before one there has proven itself; only where there is an egress list.
    #[serde(default)]
    pub unproven: Vec<Named>,
    /// The seed's egress list, kept a second time: it is in force also when the file with the seed's overrides is lost.
    #[serde(default)]
    pub egress: Option<Vec<IpNet>>,
    /// Other servers that must be reachable, where there is an egress list.
    pub services: Vec<Service>,
    /// Ranges of pods and Services, where there is an egress list.
    pub networks: Vec<IpNet>,
    /// Range of NodePorts.
    #[serde(default)]
    pub node_ports: PortRange,
    /// Address of Service `kubernetes`, where the cache of the API server answers for it on this node.
    #[serde(default)]
    pub cache: Option<IpAddr>,
}

impl ClusterPeers {
    /// Reads the stored peers; the default before the first seed and when the file cannot be parsed, because the peers
    /// can be discovered again.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(host: &Host) -> Result<Self> {
        Ok(Self::kept(host).unwrap_or_default())
    }

    /// The stored peers; `None` before the first seed and when neither copy can be parsed.
    pub(super) fn kept(host: &Host) -> Option<Self> {
        serde_json::from_slice(&host.read_kept(FIREWALL.path).bytes?).ok()
    }

    /// The stored peers, or what is left to know where they are lost.
    #[cfg(feature = "device")]
    pub(super) fn known(host: &Host) -> Self {
        Self::kept(host).unwrap_or_else(|| Self::by_kubelet_conf(host))
    }

    /// What is left to know where the stored peers are lost: the API server that kubelet talks to, if it is an address, and
    /// that there may have been an egress list.
    #[cfg(feature = "device")]
    fn by_kubelet_conf(host: &Host) -> Self {
        let mut peers = ClusterPeers { egress: Some(Vec::new()), ..ClusterPeers::default() };
        if let Ok((server, _)) = crate::node::client::cluster(host) {
            let (server, port) = crate::kube::node::host_of(&server);
            peers.set_joined(&server, port, Vec::new(), Vec::new());
        }
        peers
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
        let servers: Vec<Named> = seed.servers().iter().map(|e| Named::new(&e.host, e.port, &peers)).collect();
        let within = |some: &[Named], all: &[Named]| some.iter().all(|s| all.iter().any(|a| a.is(s)));
        let same = within(&servers, &before.seed) && within(&before.seed, &servers);
        let egress = seed.harden.egress.clone();
        let services = if egress.is_some() { services(seed, &before.services) } else { Vec::new() };
        match same {
            true => ClusterPeers { seed: servers, services, egress, ..before },
            false => ClusterPeers { seed: servers, services, egress, ..ClusterPeers::default() },
        }
    }

    /// Every API server.
    pub fn servers(&self) -> impl Iterator<Item = &Named> {
        self.seed.iter().chain(&self.joined).chain(&self.endpoints)
    }

    /// Addresses of all API servers: who may connect to kubelet.
    #[must_use]
    pub fn apiservers(&self) -> BTreeSet<IpAddr> {
        self.servers().flat_map(|n| &n.addresses).map(IpAddr::to_canonical).collect()
    }

    /// API servers that only DNS knows, each once and without addresses.
    #[must_use]
    pub fn names(&self) -> Vec<Named> {
        let mut all: Vec<Named> = Vec::new();
        for server in self.seed.iter().chain(&self.joined).filter(|n| n.is_name()) {
            if !all.iter().any(|n| n.is(server)) {
                all.push(Named::new(&server.name, server.port, &[]));
            }
        }
        all
    }

    /// Takes the addresses that DNS gives for API servers as unproven; those that have proven themselves are left out.
    pub fn set_unproven(&mut self, found: &[Named]) {
        let mut unproven = found.to_vec();
        for server in &mut unproven {
            let port = server.port;
            let proven = |at: &&IpAddr| self.servers().any(|n| n.port == port && n.addresses.contains(at));
            server.addresses = server.addresses.iter().filter(|at| !proven(at)).copied().collect();
        }
        unproven.retain(|n| !n.addresses.is_empty());
        self.unproven = unproven;
    }

    /// Ends a lookup: of the addresses that DNS gives now, those stay that are `proven`, now or before. A name without
    /// any keeps its addresses.
    pub fn prove(&mut self, found: &[Named], proven: &[Named]) {
        for server in self.seed.iter_mut().chain(&mut self.joined).filter(|n| n.is_name()) {
            let Some(all) = found.iter().find(|n| n.is(server)) else { continue };
            let now = proven.iter().find(|n| n.is(server));
            let good = |at: &&IpAddr| now.is_some_and(|n| n.addresses.contains(at)) || server.addresses.contains(at);
            let good: BTreeSet<IpAddr> = all.addresses.iter().filter(good).copied().collect();
            if !good.is_empty() {
                server.addresses = good;
            }
        }
        self.unproven.clear();
    }

    /// Resolves the names of other servers again with `lookup`. A name without a result keeps its addresses.
    pub fn resolve_services(&mut self, lookup: &dyn Fn(&str) -> BTreeSet<IpAddr>) {
        for service in self.services.iter_mut().filter(|s| literal(&s.name).is_none()) {
            let found = servers(lookup(&service.name));
            if !found.is_empty() {
                service.addresses = found;
            }
        }
    }

    /// Sets what the joined cluster reports. `server` and `port` are those that kubelet talks to.
    pub fn set_joined(&mut self, server: &str, port: u16, endpoints: Vec<Named>, networks: Vec<IpNet>) {
        let before: Vec<Named> = self.joined.iter().chain(&self.seed).cloned().collect();
        self.joined = Some(Named::new(server, port, &before));
        // Without the right to read endpoints the previous ones stay.
        if !endpoints.is_empty() {
            self.endpoints = endpoints;
        }
        self.networks = networks;
    }
}

/// Of what DNS gives for a name: addresses of servers elsewhere, and not too many.
#[must_use]
pub fn servers(found: BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    found.into_iter().map(|a| a.to_canonical()).filter(|a| is_server(*a)).take(MOST_ADDRESSES).collect()
}

/// Whether a server of another machine can be there, at an address in its canonical form: DNS must not open this node's own services, or a whole link.
fn is_server(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(a) => a.is_link_local() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    !(link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// Name servers, time servers and proxy of a seed.
fn services(seed: &Seed, before: &[Service]) -> Vec<Service> {
    let mut all: Vec<(String, Protocol, u16)> = Vec::new();
    for dns in &seed.network.dns {
        all.extend([Protocol::Udp, Protocol::Tcp].map(|p| (dns.to_string(), p, DNS)));
    }
    all.extend(seed.time.servers.iter().map(|s| (s.clone(), Protocol::Udp, NTP)));
    let proxy = seed.network.via.proxy.as_ref().map(|proxy| proxy.address());
    all.extend(proxy.map(|(host, port)| (host.to_owned(), Protocol::Tcp, port)));
    let service = |(name, protocol, port): (String, Protocol, u16)| {
        let kept = || before.iter().find(|s| s.name == name).map(|s| s.addresses.clone()).unwrap_or_default();
        let addresses = literal(&name).map_or_else(kept, |address| BTreeSet::from([address]));
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

    fn endpoints(all: &[&str]) -> Vec<Named> {
        vec![Named { name: "kubernetes".into(), port: 6443, addresses: set(all) }]
    }

    /// Addresses with ports.
    fn shown<'a>(all: impl Iterator<Item = &'a Named>) -> String {
        let one = |n: &'a Named| n.addresses.iter().map(move |at| std::net::SocketAddr::new(*at, n.port).to_string());
        let all: BTreeSet<String> = all.flat_map(one).collect();
        all.into_iter().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn proven_addresses_are_kept_when_a_lookup_fails() {
        let one = seed("[\"10.0.0.1\", \"api.example\", \"[fd00::1]:443\"]", "");
        let mut peers = ClusterPeers::from_seed(&one, ClusterPeers::default());
        assert_eq!(shown(peers.servers()), "10.0.0.1:6443 [fd00::1]:443");
        assert_eq!(peers.names(), [Named::new("api.example", 6443, &[])]);
        let gives = |all: &[&str]| [Named { addresses: set(all), ..Named::new("api.example", 6443, &[]) }];
        peers.prove(&gives(&["192.0.2.7", "192.0.2.8"]), &gives(&["192.0.2.7"]));
        let found = "10.0.0.1:6443 192.0.2.7:6443 [fd00::1]:443";
        assert_eq!(shown(peers.servers()), found);
        peers.prove(&[], &[]);
        peers.prove(&gives(&[]), &gives(&[]));
        assert_eq!(shown(peers.servers()), found);
        // A seed with the same servers keeps all addresses; another seed starts with none.
        assert_eq!(ClusterPeers::from_seed(&one, peers.clone()), peers);
        peers.set_joined("api.example", 6443, endpoints(&["10.0.0.2"]), Vec::new());
        assert_eq!(peers.apiservers(), set(&["10.0.0.1", "10.0.0.2", "192.0.2.7", "fd00::1"]));
        peers.set_joined("10.0.0.3", 6443, Vec::new(), Vec::new());
        assert_eq!(peers.endpoints, endpoints(&["10.0.0.2"]));
        assert!(peers.apiservers().contains(&"10.0.0.3".parse().unwrap()));
        assert_eq!(ClusterPeers::from_seed(&seed("\"10.0.0.9\"", ""), peers).apiservers(), set(&["10.0.0.9"]));
    }

    #[test]
    fn s10_an_address_that_only_dns_gives_is_no_api_server() {
        let more = "[harden]\negress = \"192.0.2.0/24\"\n";
        let mut peers = ClusterPeers::from_seed(&seed("\"api.example\"", more), ClusterPeers::default());
        let gives = |all: &[&str]| [Named { addresses: set(all), ..Named::new("api.example", 6443, &[]) }];
        peers.set_unproven(&gives(&["203.0.113.66", "192.0.2.7"]));
        assert_eq!(shown(peers.unproven.iter()), "192.0.2.7:6443 203.0.113.66:6443");
        assert_eq!(shown(peers.servers()), "");
        peers.prove(&gives(&["203.0.113.66", "192.0.2.7"]), &gives(&["192.0.2.7"]));
        assert_eq!(shown(peers.servers()), "192.0.2.7:6443");
        // Another answer of the next day takes nothing away, and is forgotten.
        peers.set_unproven(&gives(&["203.0.113.66", "192.0.2.7"]));
        assert_eq!(shown(peers.unproven.iter()), "203.0.113.66:6443");
        peers.prove(&gives(&["203.0.113.66"]), &[]);
        assert_eq!((shown(peers.servers()).as_str(), peers.unproven), ("192.0.2.7:6443", vec![]));
    }

    #[test]
    fn s10_dns_opens_neither_this_node_nor_a_link_nor_without_end() {
        let odd = ["127.0.0.1", "0.0.0.0", "169.254.1.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1"];
        assert_eq!(servers(set(&odd).into_iter().chain(set(&["ff02::1", "::ffff:127.0.0.1"])).collect()), set(&[]));
        assert_eq!(servers(set(&["192.0.2.7", "::ffff:192.0.2.8", "fd00::1"])).len(), 3);
        let many = (0..200).map(|n| IpAddr::from([192, 0, 2, n])).collect();
        assert_eq!(servers(many).len(), MOST_ADDRESSES);
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
