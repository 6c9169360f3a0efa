// SPDX-License-Identifier: Apache-2.0
//! What the packet filter has to know of the cluster: who its API servers are, and, where the seed has an egress list,
//! who else must be reached. SeedOverrides on the device, for the guard has no network to ask.
//!
//! Names stay beside their addresses, so that they can be looked up again when the seed is gone. No secret is in it.

use crate::host::{Host, STATE_DIR};
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

/// A host as somebody named it, and the addresses that it had when it was last looked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// DNS name or address, without brackets.
    pub name: String,
    /// Its addresses; empty until they are known.
    pub addresses: BTreeSet<IpAddr>,
}

impl Named {
    /// A host by its name; the addresses that `before` had for it are good until it is looked up.
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
    /// Its protocol.
    pub protocol: Protocol,
    /// Its port.
    pub port: u16,
    /// Its addresses; empty until they are known.
    pub addresses: BTreeSet<IpAddr>,
}

/// The ports that an API server gives to NodePorts (`--service-node-port-range`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// The last one.
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
    /// Reads `FIRST-LAST`. None when it is no range, or holds ports of the host's own (up to kubelet's): those stay as
    /// they are, whatever the cluster gives out.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        let range = PortRange { first: first.parse().ok()?, last: last.parse().ok()? };
        (range.first > KUBELET && range.first <= range.last).then_some(range)
    }
}

/// What is known of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// API servers as the seed names them.
    pub seed: Vec<Named>,
    /// The API server that kubelet talks to.
    pub joined: Option<Named>,
    /// Endpoints of Service `kubernetes`: the API servers as the cluster sees them.
    pub endpoints: BTreeSet<IpAddr>,
    /// Who else is to be reached where there is an egress list.
    pub services: Vec<Service>,
    /// Ranges of pods and Services, where there is an egress list.
    pub networks: Vec<IpNet>,
    /// Its NodePorts.
    #[serde(default)]
    pub node_ports: PortRange,
}

/// Where it is kept.
#[must_use]
pub fn path() -> String {
    format!("{STATE_DIR}/firewall.json")
}

impl Known {
    /// What is kept; nothing, before the first seed and when it cannot be understood, for it can be learned again.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(host: &Host) -> Result<Self> {
        let bytes = host.read(&path())?;
        Ok(bytes.and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default())
    }

    /// Keeps it; whether it differs from what was kept.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep(&self, host: &Host) -> Result<bool> {
        let mut bytes = serde_json::to_vec_pretty(self).with_context(|| format!("encode {}", path()))?;
        bytes.push(b'\n');
        let changed = host.read(&path())?.as_deref() != Some(&bytes);
        host.write(&path(), &bytes, 0o600)?;
        Ok(changed)
    }

    /// What a seed says, with what was found out before. Another seed's cluster is forgotten.
    #[must_use]
    pub fn of_seed(seed: &Seed, before: Known) -> Self {
        let known: Vec<Named> = before.joined.iter().chain(&before.seed).cloned().collect();
        let servers: Vec<Named> = seed.cluster.apiserver.iter().map(|e| Named::new(&e.host, &known)).collect();
        let names = |all: &[Named]| all.iter().map(|n| n.name.clone()).collect::<BTreeSet<_>>();
        let same = names(&servers) == names(&before.seed);
        let services = if seed.harden.egress.is_some() { services(seed, &before.services) } else { Vec::new() };
        match same {
            true => Known { seed: servers, services, ..before },
            false => Known { seed: servers, services, ..Known::default() },
        }
    }

    /// Addresses of all API servers.
    #[must_use]
    pub fn apiservers(&self) -> BTreeSet<IpAddr> {
        let named = self.seed.iter().chain(&self.joined).flat_map(|n| &n.addresses);
        named.chain(&self.endpoints).map(IpAddr::to_canonical).collect()
    }

    /// Looks every name up again. One that `look` finds nothing for keeps what it had.
    pub fn look_up(&mut self, look: &dyn Fn(&str) -> BTreeSet<IpAddr>) {
        let named = self.seed.iter_mut().chain(&mut self.joined).map(|n| (&n.name, &mut n.addresses));
        for (name, addresses) in named.chain(self.services.iter_mut().map(|s| (&s.name, &mut s.addresses))) {
            let found = if name.parse::<IpAddr>().is_ok() { BTreeSet::new() } else { look(name) };
            if !found.is_empty() {
                *addresses = found;
            }
        }
    }

    /// Takes over what the joined cluster says. `server` is the host that kubelet talks to.
    pub fn join(&mut self, server: &str, endpoints: BTreeSet<IpAddr>, networks: Vec<IpNet>) {
        let before: Vec<Named> = self.joined.iter().chain(&self.seed).cloned().collect();
        self.joined = Some(Named::new(server, &before));
        // A cluster that does not let nodes read them leaves what was known.
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
    let known: Vec<Named> =
        before.iter().map(|s| Named { name: s.name.clone(), addresses: s.addresses.clone() }).collect();
    let service = |(name, protocol, port): (String, Protocol, u16)| {
        let Named { name, addresses } = Named::new(&name, &known);
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
    fn names_are_looked_up_and_keep_their_addresses_when_nobody_answers() {
        let one = seed("[\"10.0.0.1\", \"api.example\", \"[fd00::1]:443\"]", "");
        let mut known = Known::of_seed(&one, Known::default());
        assert_eq!(known.apiservers(), set(&["10.0.0.1", "fd00::1"]));
        known.look_up(&|name| if name == "api.example" { set(&["192.0.2.7"]) } else { set(&["192.0.2.99"]) });
        assert_eq!(known.apiservers(), set(&["10.0.0.1", "192.0.2.7", "fd00::1"]));
        known.look_up(&|_| BTreeSet::new());
        assert_eq!(known.apiservers(), set(&["10.0.0.1", "192.0.2.7", "fd00::1"]));
        // A seed that names the same servers keeps all; another one starts anew.
        assert_eq!(Known::of_seed(&one, known.clone()), known);
        known.join("api.example", set(&["10.0.0.2"]), Vec::new());
        assert_eq!(known.apiservers(), set(&["10.0.0.1", "10.0.0.2", "192.0.2.7", "fd00::1"]));
        known.join("10.0.0.3", BTreeSet::new(), Vec::new());
        assert!(known.endpoints == set(&["10.0.0.2"]) && known.apiservers().contains(&"10.0.0.3".parse().unwrap()));
        assert_eq!(Known::of_seed(&seed("\"10.0.0.9\"", ""), known).apiservers(), set(&["10.0.0.9"]));
    }

    #[test]
    fn ranges_of_node_ports() {
        assert_eq!(PortRange::parse("20000-22767").unwrap().to_string(), "20000-22767");
        for bad in ["", "20000", "1-65535", "10250-20000", "3-2", "20000-70000", "20000+100"] {
            assert_eq!(PortRange::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_egress_list_leaves_open_what_the_seed_itself_needs() {
        let more = "[network]\ndns = \"10.0.0.53\"\nproxy = \"http://u:p@proxy.example:3128\"\n[time]\nservers = \
                    \"ntp.example\"\n[harden]\negress = \"192.0.2.0/24\"\n";
        let known = Known::of_seed(&seed("\"10.0.0.1\"", more), Known::default());
        let shown: Vec<String> =
            known.services.iter().map(|s| format!("{} {}/{} {:?}", s.name, s.protocol, s.port, s.addresses)).collect();
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
        assert!(Known::of_seed(&seed("\"10.0.0.1\"", &without), known).services.is_empty());
    }

    #[test]
    fn it_is_written_when_it_changed_and_what_cannot_be_read_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        let known = Known::of_seed(&seed("\"10.0.0.1\"", ""), Known::default());
        assert!(known.keep(&host).unwrap() && !known.keep(&host).unwrap());
        assert_eq!(Known::read(&host).unwrap(), known);
        host.write(&path(), b"{\"seed\":", 0o600).unwrap();
        assert_eq!(Known::read(&host).unwrap(), Known::default());
    }
}
