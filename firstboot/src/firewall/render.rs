// SPDX-License-Identifier: Apache-2.0
//! The packet filter as text: renders the seed's overrides and the cluster's peers as one nft transaction.
//!
//! Pure. One transaction replaces the whole table (nft(8)), so that there is no moment without a filter and no foreign
//! table is touched. Reason of each rule: docs/hardening.md, Firewall. ICMPv6 follows RFC 4890 for hosts.

use super::peers::{ClusterPeers, Named, PortRange, Service};
use crate::harden::overrides::SeedOverrides;
use crate::seed::OpenPort;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

/// Name of the table, of family inet.
pub const TABLE: &str = "firstboot";

/// A rule in nft's language, and the reason for it.
type Rule = (&'static str, &'static str);

/// Kinds of interfaces that lead to other machines; those of pods and their tunnels are of other kinds.
macro_rules! links {
    () => {
        "{ bond, hsr, ipoib, ipvlan, macsec, macvlan, macvtap, ppp, team, vlan, wwan }"
    };
}

/// Interfaces of the node's own pods: their packets are filtered at their destination, not in chain nodeports.
const PODS: &[Rule] = &[
    ("iifname \"cni0\" accept", "pods of firstboot's own network and of flannel's"),
    ("iifname \"cali*\" accept", "pods of Calico's network"),
    ("iifname \"lxc*\" accept", "pods of Cilium's network"),
    ("iifname \"kube-bridge\" accept", "pods of kube-router's network"),
    ("iifname \"weave\" accept", "pods of Weave Net's network"),
];
/// Chain nodeports, before [`PODS`].
const NODE_PORTS_FIRST: &[Rule] = &[
    ("ct state established,related accept", "established connections continue"),
    ("iifname \"lo\" accept", "programs of this node reach each other"),
];
/// Chain nodeports, between [`PODS`] and what the seed opens.
const NODE_PORTS_FOREIGN: Rule =
    ("fib daddr type != local accept", "only this node's own addresses have NodePorts: load balancers' addresses pass");
/// Chain nodeports, after what the seed opens; rendered with the cluster's range of NodePorts.
const NODE_PORTS_LAST: &[Rule] = &[
    (
        "meta l4proto { tcp, udp, sctp } th dport 30000-32767 limit rate 5/minute burst 10 packets log prefix \"firstboot drop: \" level info",
        "packets to closed NodePorts are logged in the kernel log, at a limited rate",
    ),
    (
        "meta l4proto { tcp, udp, sctp } th dport 30000-32767 counter drop",
        "a NodePort is closed unless the seed opens it",
    ),
];
/// Chain input, before anything is open.
const INPUT_FIRST: &[Rule] = &[
    ("iifname \"lo\" accept", "programs of this node reach each other"),
    ("ct state established,related accept", "established connections continue"),
    ("ct state invalid counter drop", "the packet belongs to no connection"),
    (
        "icmp type { destination-unreachable, time-exceeded, parameter-problem } accept",
        "path MTU, and causes of failures",
    ),
    (
        "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept",
        "the same for IPv6 (RFC 4890, 4.4.1)",
    ),
    ("icmp type echo-request limit rate 10/second burst 20 packets accept", "an installer may ping the device"),
    ("icmpv6 type echo-request limit rate 10/second burst 20 packets accept", "the same for IPv6"),
    (
        "icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept",
        "neighbour discovery, only from the link (RFC 4861)",
    ),
    (
        "ip6 saddr fe80::/10 icmpv6 type { mld-listener-query, mld-listener-report, mld2-listener-report } accept",
        "switches that listen to multicast memberships pass neighbour discovery on (RFC 4890, 4.4.1)",
    ),
    (
        "udp sport 67 udp dport 68 accept",
        "replies of DHCP servers, which may come from another address than the request went to",
    ),
    ("ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept", "the same for DHCPv6"),
    ("tcp dport 10250 ip saddr @apiservers_v4 accept", "logs, exec and metrics: API servers connect to kubelet"),
    ("tcp dport 10250 ip6 saddr @apiservers_v6 accept", "the same for IPv6"),
    ("tcp dport 10250 ip saddr @kubelet_from_v4 accept", "sources in kubelet-from"),
    ("tcp dport 10250 ip6 saddr @kubelet_from_v6 accept", "the same for IPv6"),
];
/// Chain input, where the seed has SSH keys and names no source networks.
const SSH: &[Rule] = &[("tcp dport 22 accept", "the seed has keys, and names no source networks")];
/// Chain input, where the seed has SSH keys and names source networks.
const SSH_FROM: &[Rule] = &[
    ("tcp dport 22 ip saddr @ssh_from_v4 accept", "the seed has keys, and names these source networks"),
    ("tcp dport 22 ip6 saddr @ssh_from_v6 accept", "the same for IPv6"),
];
/// Chain input, where the seed has a virtual address.
const VRRP: [Rule; 2] = [
    (
        "ip daddr 224.0.0.18 meta l4proto 112 ip ttl 255 accept",
        "the control plane that has the virtual address says so to the others, on the link alone (VRRP, RFC 9568)",
    ),
    ("ip6 daddr ff02::12 meta l4proto 112 ip6 hoplimit 255 accept", "the same for IPv6"),
];
/// Chain output, where the seed has a virtual address and an egress list.
const VRRP_OUTPUT: [Rule; 2] = [
    (
        "ip daddr 224.0.0.18 meta l4proto 112 accept",
        "this control plane says to the others that it has the virtual address",
    ),
    ("ip6 daddr ff02::12 meta l4proto 112 accept", "the same for IPv6"),
];
/// Chain input, after what the seed opens.
const INPUT_LAST: &[Rule] = &[
    ("meta pkttype { broadcast, multicast } counter drop", "broadcasts and multicasts would fill the log"),
    (
        "limit rate 5/minute burst 10 packets log prefix \"firstboot drop: \" level info",
        "dropped packets are logged in the kernel log, below the level that consoles show, at a limited rate",
    ),
    ("counter drop", "everything else"),
];
/// The ports of [`OWN_PORTS`], as the audit shows them.
pub(super) const OWN: &str = "tcp/10250, tcp/22";
/// Chains ownports and ownports_output.
const OWN_PORTS: &[Rule] = &[
    (
        "fib daddr type local tcp dport { 22, 10250 } dnat ip to ip daddr",
        "kubelet's and sshd's port are no pod's: what is translated, here to the address that it has, is not translated again",
    ),
    ("fib daddr type local tcp dport { 22, 10250 } dnat ip6 to ip6 daddr", "the same for IPv6"),
];
/// Chain cache, where the seed has `offline`; rendered with the address of Service `kubernetes`.
const CACHE: &[Rule] = &[(
    "ip daddr 10.96.0.1 tcp dport 443 dnat ip to 10.96.0.1:16443",
    "Service kubernetes is the cache of the API server, at an address that is this node's own as well",
)];
/// Chain cache_output; rendered like [`CACHE`].
const CACHE_OUTPUT: &[Rule] = &[(
    "ip daddr 10.96.0.1 tcp dport 443 redirect to :16443",
    "the same on the host's network, at loopback: kube-proxy refuses what goes to another port of a Service from there",
)];
/// Chain input, where the seed has `offline`; rendered like [`CACHE`].
const CACHE_INPUT: Rule = (
    concat!("ip daddr 10.96.0.1 tcp dport 16443 meta iifkind != ", links!(), " accept"),
    "pods of this node reach the cache; what comes from a link does not",
);
/// The address in these rules.
const CACHE_ADDRESS: &str = "10.96.0.1";
/// Chain allowed, after this node's own pods.
const ALLOWED: &[Rule] = &[
    ("ip daddr @egress_v4 accept", "the seed's list, and the networks of pods and Services"),
    ("ip6 daddr @egress_v6 accept", "the same for IPv6"),
    ("ip daddr . tcp dport @apiserver_ports_v4 accept", "a node must reach its cluster: API servers, each at its port"),
    ("ip6 daddr . tcp dport @apiserver_ports_v6 accept", "the same for IPv6"),
    ("ip daddr . meta l4proto . th dport @services_v4 accept", "name servers, time servers and proxy of the seed"),
    ("ip6 daddr . meta l4proto . th dport @services_v6 accept", "the same for IPv6"),
];
/// Chain allowed, where the seed lists no name servers.
const ALLOWED_DNS: Rule = (
    "meta l4proto { tcp, udp } th dport 53 accept",
    "the name servers from DHCP are not known before there is a link; dns in [network] closes this",
);
/// Chain allowed, at its end.
const ALLOWED_LAST: &[Rule] = &[
    (
        "limit rate 5/minute burst 10 packets log prefix \"firstboot drop: \" level info",
        "dropped packets are logged in the kernel log, below the level that consoles show, at a limited rate",
    ),
    ("counter reject with icmpx admin-prohibited", "programs get an error at once"),
];
/// Chain output, with and without an egress list. The numbers are [`IDS`](crate::harden::access::accounts::IDS).
const ACCOUNT: Rule = (
    "meta skuid 59000-59999 counter reject with icmpx admin-prohibited",
    "the account for SSH is no tunnel: it opens no connection, on loopback neither, and answers none",
);
/// Chain output, where the seed has an egress list.
const OUTPUT: &[Rule] = &[
    ("oifname \"lo\" accept", "programs of this node reach each other"),
    ("ct state established,related accept", "established connections continue"),
    (
        "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-report, mld2-listener-report } accept",
        "neighbour discovery and multicast memberships",
    ),
    ("meta l4proto igmp accept", "multicast memberships of IPv4"),
    ("udp sport 68 udp dport 67 accept", "the DHCP client"),
    ("udp sport 546 udp dport 547 accept", "the DHCPv6 client"),
    (
        "ip daddr . tcp dport @unproven_v4 accept",
        "addresses that DNS gives for an API server, for this node alone, until TLS has proven them",
    ),
    ("ip6 daddr . tcp dport @unproven_v6 accept", "the same for IPv6"),
    ("jump allowed", "where the seed allows connections"),
];
/// Chain forward. With an egress list `jump allowed` stands for `accept` in all but the first.
const FORWARD: &[Rule] = &[
    ("ct state established,related accept", "established connections continue"),
    ("ct status dnat accept", "NodePorts and load balancers whose pod is on another node"),
    (
        concat!("meta iifkind != ", links!(), " accept"),
        "from pods, whose interfaces and tunnels are of other kinds; network cards have no kind, and no rule about kinds fits them",
    ),
    (concat!("meta oifkind != ", links!(), " accept"), "to pods, as other nodes route to them"),
];
/// Chain forward, where the seed has `forward`.
const FORWARD_LINKS: Rule = ("accept", "the seed lets this device route between its links");
/// Chain forward, at its end.
const FORWARD_LAST: &[Rule] = &[
    (
        "limit rate 5/minute burst 10 packets log prefix \"firstboot drop: \" level info",
        "dropped packets are logged in the kernel log, below the level that consoles show, at a limited rate",
    ),
    ("counter drop", "from link to link: this device is no router"),
];

/// The whole transaction for this node.
pub fn rules(kept: &SeedOverrides, peers: &ClusterPeers) -> String {
    let mut text =
        format!("# Written by firstboot.\ntable inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
    let mut put = |part: String| text.push_str(&part);
    put(apiservers(peers));
    put(sets("kubelet_from", &kept.harden.kubelet_from));
    if !kept.access.keys.is_empty() {
        put(sets("ssh_from", &kept.access.from));
    }
    if let Some(nets) = &kept.harden.egress {
        let all: Vec<IpNet> = nets.iter().chain(&peers.networks).copied().collect();
        put(sets("egress", &all));
        put(sockets("apiserver_ports", &mut peers.servers()));
        put(sockets("unproven", &mut peers.unproven.iter()));
        put(services(peers));
    }
    put(nodeports(kept, peers));
    for (name, hook) in [("ownports", "prerouting"), ("ownports_output", "output")] {
        // Before kube-proxy and the CNI plugin portmap, which translate at priority -100 (dstnat).
        put(chain(name, &format!("type nat hook {hook} priority -110; policy accept;"), &texts(OWN_PORTS)));
    }
    if let Some(address) = peers.cache {
        for (name, hook, rules) in [("cache", "prerouting", CACHE), ("cache_output", "output", CACHE_OUTPUT)] {
            // Before kube-proxy, like the above.
            let rules: Vec<String> = texts(rules).iter().map(|rule| at_cache(rule, address)).collect();
            put(chain(name, &format!("type nat hook {hook} priority -110; policy accept;"), &rules));
        }
    }
    put(input(kept, peers));
    if kept.harden.egress.is_some() {
        put(allowed(peers));
    }
    put(output(kept));
    put(forward(kept));
    text.push_str("}\n");
    text
}

/// The addresses of all API servers, one set for each address family.
fn apiservers(peers: &ClusterPeers) -> String {
    let all = peers.apiservers();
    families(|v4, family| {
        let own = all.iter().filter(|a| a.is_ipv4() == v4).map(ToString::to_string);
        format!("  set apiservers_v{family} {{\n    type ipv{family}_addr\n{}  }}\n", elements(own))
    })
}

/// Two sets of addresses with the port of each, one for each address family.
fn sockets(name: &str, all: &mut dyn Iterator<Item = &Named>) -> String {
    let one = |n: &Named| n.addresses.iter().map(|a| (a.to_canonical(), n.port.to_string())).collect::<Vec<_>>();
    tuples(name, "inet_service", &all.flat_map(one).collect::<Vec<_>>())
}

/// Two sets of addresses with what follows each, one for each address family. `kind`: nft's type of what follows.
fn tuples(name: &str, kind: &str, all: &[(IpAddr, String)]) -> String {
    families(|v4, family| {
        let own = all.iter().filter(|(a, _)| a.is_ipv4() == v4).map(|(a, rest)| format!("{a} . {rest}"));
        let own: BTreeSet<String> = own.collect();
        let elements = elements(own.into_iter());
        format!("  set {name}_v{family} {{\n    type ipv{family}_addr . {kind}\n{elements}  }}\n")
    })
}

/// Two sets of networks, one for each address family.
fn sets(name: &str, nets: &[IpNet]) -> String {
    let all = disjoint(nets);
    families(|v4, family| {
        let own = all.iter().filter(|n| n.addr().is_ipv4() == v4).map(plain);
        format!("  set {name}_v{family} {{\n    type ipv{family}_addr\n    flags interval\n{}  }}\n", elements(own))
    })
}

fn families(one: impl Fn(bool, u8) -> String) -> String {
    one(true, 4) + &one(false, 6)
}

/// The same addresses in networks that neither overlap nor touch: nft rejects overlapping networks and shows adjacent
/// networks merged.
pub(super) fn disjoint(nets: &[IpNet]) -> Vec<IpNet> {
    let mut all = IpNet::aggregate(&nets.to_vec());
    all.sort_unstable();
    all
}

/// A network in nft's notation: a single address has no prefix length.
pub(super) fn plain(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

fn elements(all: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = all.collect();
    if all.is_empty() { String::new() } else { format!("    elements = {{ {} }}\n", all.join(", ")) }
}

/// Servers outside the cluster that an egress list leaves open: address, protocol and port.
fn services(peers: &ClusterPeers) -> String {
    let one =
        |s: &Service| s.addresses.iter().map(|a| (*a, format!("{} . {}", s.protocol, s.port))).collect::<Vec<_>>();
    tuples("services", "inet_proto . inet_service", &peers.services.iter().flat_map(one).collect::<Vec<_>>())
}

fn opened(open: &OpenPort) -> String {
    format!("{} dport {} accept", open.protocol, ports(open))
}

fn translated(open: &OpenPort) -> String {
    format!("ct status dnat meta l4proto {} ct original proto-dst {} accept", open.protocol, ports(open))
}

fn ports(open: &OpenPort) -> String {
    if open.first == open.last { open.first.to_string() } else { format!("{}-{}", open.first, open.last) }
}

/// NodePorts, filtered before kube-proxy translates them: afterwards the packet has neither that port nor that address.
fn nodeports(kept: &SeedOverrides, peers: &ClusterPeers) -> String {
    let mut lines = texts(NODE_PORTS_FIRST);
    lines.extend(texts(PODS));
    lines.push(NODE_PORTS_FOREIGN.0.to_owned());
    lines.extend(kept.harden.open.iter().map(opened));
    let (usual, own) = (PortRange::default().to_string(), peers.node_ports.to_string());
    lines.extend(texts(NODE_PORTS_LAST).iter().map(|rule| rule.replacen(&usual, &own, 1)));
    chain("nodeports", "type filter hook prerouting priority mangle; policy accept;", &lines)
}

/// A rule of the cache, with the address of Service `kubernetes`.
fn at_cache(rule: &str, address: IpAddr) -> String {
    let rule = match address {
        IpAddr::V4(_) => rule.to_owned(),
        IpAddr::V6(_) => rule
            .replace(&format!("to {CACHE_ADDRESS}:"), &format!("to [{CACHE_ADDRESS}]:"))
            .replace("ip daddr", "ip6 daddr")
            .replace("dnat ip to", "dnat ip6 to"),
    };
    rule.replace(CACHE_ADDRESS, &address.to_string())
}

fn input(kept: &SeedOverrides, peers: &ClusterPeers) -> String {
    let mut lines = texts(INPUT_FIRST);
    match (kept.access.keys.is_empty(), kept.access.from.is_empty()) {
        (true, _) => {}
        (false, true) => lines.extend(texts(SSH)),
        (false, false) => lines.extend(texts(SSH_FROM)),
    }
    lines.extend(kept.harden.open.iter().map(opened));
    lines.extend(peers.cache.map(|address| at_cache(CACHE_INPUT.0, address)));
    // A packet to a NodePort whose pod is on the host's network arrives here, with the pod's own port.
    lines.extend(kept.harden.open.iter().map(translated));
    if kept.vrrp {
        lines.extend(texts(&VRRP));
    }
    lines.extend(texts(INPUT_LAST));
    chain("input", "type filter hook input priority filter; policy drop;", &lines)
}

/// The seed's list of where connections may go, for the host and for its pods.
fn allowed(peers: &ClusterPeers) -> String {
    // Packets to this node's own pods do not leave the node.
    let mut allowed: Vec<String> = texts(PODS).iter().map(|rule| rule.replacen("iifname", "oifname", 1)).collect();
    allowed.extend(texts(ALLOWED));
    if !peers.services.iter().any(|s| s.port == 53) {
        allowed.push(ALLOWED_DNS.0.to_owned());
    }
    allowed.extend(texts(ALLOWED_LAST));
    chain("allowed", "", &allowed)
}

fn output(kept: &SeedOverrides) -> String {
    let mut lines = vec![ACCOUNT.0.to_owned()];
    let policy = match kept.harden.egress {
        Some(_) => {
            if kept.vrrp {
                lines.extend(texts(&VRRP_OUTPUT));
            }
            lines.extend(texts(OUTPUT));
            "drop"
        }
        None => "accept",
    };
    chain("output", &format!("type filter hook output priority filter; policy {policy};"), &lines)
}

/// What is routed: for pods, and between links only where the seed says so.
fn forward(kept: &SeedOverrides) -> String {
    let links = kept.harden.forward.then_some(FORWARD_LINKS.0);
    let mut lines: Vec<String> = FORWARD.iter().map(|rule| rule.0).chain(links).map(str::to_owned).collect();
    if kept.harden.egress.is_some() {
        lines.iter_mut().skip(1).for_each(|line| *line = line.replace("accept", "jump allowed"));
    }
    lines.extend(texts(FORWARD_LAST));
    chain("forward", "type filter hook forward priority filter; policy drop;", &lines)
}

fn texts(rules: &[Rule]) -> Vec<String> {
    rules.iter().map(|(text, _)| (*text).to_owned()).collect()
}

fn chain(name: &str, head: &str, lines: &[String]) -> String {
    let mut text = format!("  chain {name} {{\n");
    for line in std::iter::once(head).filter(|h| !h.is_empty()).chain(lines.iter().map(String::as_str)) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "    {line}");
    }
    text + "  }\n"
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
