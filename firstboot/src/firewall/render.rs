// SPDX-License-Identifier: Apache-2.0
//! The packet filter as text: from what the seed wants and what is known of the cluster to one nft transaction.
//!
//! Pure. The table is replaced whole by one transaction (nft(8)), so that there is no moment without it and nobody
//! else's table is touched. Why each rule is there: docs/hardening.md, Firewall. ICMPv6 as RFC 4890 has it for hosts.

use super::known::Known;
use crate::harden::Kept;
use crate::seed::OpenPort;
use ipnet::IpNet;
use std::fmt::Write;

/// Name of the table, of family inet.
pub const TABLE: &str = "firstboot";
/// kubelet's port.
pub const KUBELET: u16 = 10250;
/// The ports that an API server gives to NodePorts unless told otherwise (`--service-node-port-range`).
pub const NODE_PORTS: &str = "30000-32767";

/// Interfaces over which a node's own pods come, each with who makes it.
const POD_INTERFACES: &[(&str, &str)] = &[
    ("cni0", "firstboot's own pod network, and flannel's"),
    ("cali*", "Calico"),
    ("lxc*", "Cilium"),
    ("kube-bridge", "kube-router"),
    ("weave", "Weave Net"),
];

/// How drops are told: in the kernel's log, below what consoles show, and never more than these.
const LOG: &str = "limit rate 5/minute burst 10 packets log prefix \"firstboot drop: \" level info";

/// The whole transaction for this node.
pub fn rules(kept: &Kept, known: &Known) -> String {
    let mut text = format!("# Written by firstboot.\ntable inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
    let mut put = |part: String| text.push_str(&part);
    put(apiservers(known));
    put(sets("kubelet_from", &kept.harden.kubelet_from));
    if !kept.access.keys.is_empty() {
        put(sets("ssh_from", &kept.access.from));
    }
    if let Some(nets) = &kept.harden.egress {
        let all: Vec<IpNet> = nets.iter().chain(&known.networks).copied().collect();
        put(sets("egress", &all));
        put(services(known));
    }
    put(nodeports(kept));
    put(input(kept));
    if kept.harden.egress.is_some() {
        put(egress(known));
    }
    text.push_str("}\n");
    text
}

/// The addresses of all API servers, one set for each address family.
fn apiservers(known: &Known) -> String {
    let all = known.apiservers();
    families(|v4, family| {
        let own = all.iter().filter(|a| a.is_ipv4() == v4).map(ToString::to_string);
        format!("  set apiservers_v{family} {{\n    type ipv{family}_addr\n{}  }}\n", elements(own))
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

/// The same addresses in networks that neither overlap nor touch: nft refuses the ones, and shows the others merged.
pub(super) fn disjoint(nets: &[IpNet]) -> Vec<IpNet> {
    let mut all = IpNet::aggregate(&nets.to_vec());
    all.sort_unstable();
    all
}

/// A network as nft shows it: one address without its prefix.
pub(super) fn plain(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

fn elements(all: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = all.collect();
    if all.is_empty() { String::new() } else { format!("    elements = {{ {} }}\n", all.join(", ")) }
}

/// Servers beyond the cluster's that an egress list leaves open: address, protocol and port.
fn services(known: &Known) -> String {
    families(|v4, family| {
        let all = known.services.iter().flat_map(|s| s.addresses.iter().map(move |a| (a, s)));
        let own = all.filter(|(a, _)| a.is_ipv4() == v4);
        let mut shown: Vec<String> = own.map(|(a, s)| format!("{a} . {} . {}", s.protocol, s.port)).collect();
        shown.sort_unstable();
        shown.dedup();
        let elements = elements(shown.into_iter());
        format!("  set services_v{family} {{\n    type ipv{family}_addr . inet_proto . inet_service\n{elements}  }}\n")
    })
}

fn opened(open: &OpenPort) -> String {
    format!("{} dport {} accept", open.protocol, ports(open))
}

fn ports(open: &OpenPort) -> String {
    if open.first == open.last { open.first.to_string() } else { format!("{}-{}", open.first, open.last) }
}

/// NodePorts, judged before kube-proxy translates them: afterwards neither the port nor the address is in the packet.
fn nodeports(kept: &Kept) -> String {
    let mut lines = vec!["ct state established,related accept".to_owned(), "iifname \"lo\" accept".to_owned()];
    lines.extend(POD_INTERFACES.iter().map(|(name, _)| format!("iifname \"{name}\" accept")));
    lines.push("fib daddr type != local accept".to_owned());
    lines.extend(kept.harden.open.iter().map(opened));
    let closed = format!("meta l4proto {{ tcp, udp, sctp }} th dport {NODE_PORTS}");
    lines.push(format!("{closed} {LOG}"));
    lines.push(format!("{closed} counter drop"));
    chain("nodeports", "type filter hook prerouting priority mangle; policy accept;", &lines)
}

fn input(kept: &Kept) -> String {
    let own = |text: &str| text.to_owned();
    let mut lines = vec![
        own("iifname \"lo\" accept"),
        own("ct state established,related accept"),
        own("ct state invalid counter drop"),
        own("icmp type { destination-unreachable, time-exceeded, parameter-problem } accept"),
        own("icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept"),
        own("icmp type echo-request limit rate 10/second burst 20 packets accept"),
        own("icmpv6 type echo-request limit rate 10/second burst 20 packets accept"),
        own("icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept"),
        own("ip6 saddr fe80::/10 icmpv6 type { mld-listener-query, mld-listener-report, mld2-listener-report } accept"),
        own("udp sport 67 udp dport 68 accept"),
        own("ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept"),
    ];
    for set in ["apiservers", "kubelet_from"] {
        lines.push(format!("tcp dport {KUBELET} ip saddr @{set}_v4 accept"));
        lines.push(format!("tcp dport {KUBELET} ip6 saddr @{set}_v6 accept"));
    }
    match (kept.access.keys.is_empty(), kept.access.from.is_empty()) {
        (true, _) => {}
        (false, true) => lines.push(own("tcp dport 22 accept")),
        (false, false) => {
            lines.extend(["tcp dport 22 ip saddr @ssh_from_v4 accept", "tcp dport 22 ip6 saddr @ssh_from_v6 accept"].map(own));
        }
    }
    lines.extend(kept.harden.open.iter().map(opened));
    // A NodePort whose pod is on the host's network comes in here, with the pod's own port.
    let translated = |o: &OpenPort| {
        format!("ct status dnat meta l4proto {} ct original proto-dst {} accept", o.protocol, ports(o))
    };
    lines.extend(kept.harden.open.iter().map(translated));
    lines.push(own("meta pkttype { broadcast, multicast } counter drop"));
    lines.push(own(LOG));
    lines.push(own("counter drop"));
    chain("input", "type filter hook input priority filter; policy drop;", &lines)
}

/// The seed's list of where connections may go, for the host and for its pods.
fn egress(known: &Known) -> String {
    let own = |text: &str| text.to_owned();
    // Towards this node's own pods nothing leaves it.
    let mut allowed: Vec<String> =
        POD_INTERFACES.iter().map(|(name, _)| format!("oifname \"{name}\" accept")).collect();
    for set in ["egress", "apiservers"] {
        allowed.push(format!("ip daddr @{set}_v4 accept"));
        allowed.push(format!("ip6 daddr @{set}_v6 accept"));
    }
    allowed.push(own("ip daddr . meta l4proto . th dport @services_v4 accept"));
    allowed.push(own("ip6 daddr . meta l4proto . th dport @services_v6 accept"));
    if !known.services.iter().any(|s| s.port == 53) {
        // Which name servers DHCP tells is not known before there is a link, and may change with every lease.
        allowed.push(own("meta l4proto { tcp, udp } th dport 53 accept"));
    }
    allowed.push(own(LOG));
    allowed.push(own("counter reject with icmpx admin-prohibited"));
    let output = [
        "oifname \"lo\" accept",
        "ct state established,related accept",
        "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-report, mld2-listener-report } accept",
        "meta l4proto igmp accept",
        "udp sport 68 udp dport 67 accept",
        "udp sport 546 udp dport 547 accept",
        "jump allowed",
    ];
    let forward = ["ct state established,related accept", "jump allowed"];
    chain("allowed", "", &allowed)
        + &chain("output", "type filter hook output priority filter; policy drop;", &output.map(own))
        + &chain("forward", "type filter hook forward priority filter; policy drop;", &forward.map(own))
}

fn chain(name: &str, head: &str, lines: &[String]) -> String {
    let mut text = format!("  chain {name} {{\n");
    for line in std::iter::once(head).filter(|h| !h.is_empty()).chain(lines.iter().map(String::as_str)) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "    {line}");
    }
    text + "  }\n"
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
