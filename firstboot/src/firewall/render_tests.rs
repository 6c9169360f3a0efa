// SPDX-License-Identifier: Apache-2.0
//! The packet filter as text: without a seed, and with a seed's changes.

#[path = "../../tests/doc_tables.rs"]
mod doc_tables;

use super::*;
use crate::firewall::peers::ClusterPeers;
use crate::seed::{self, Seed};

/// The filter of a device without a cluster and without exceptions.
const CLOSED: &str = include_str!("closed.nft");
/// The filter of a device whose seed uses every key.
const OPENED: &str = include_str!("opened.nft");

fn seed(more: &str) -> Seed {
    let pin = "0".repeat(64);
    let text = format!(
        "version = 1\n[cluster]\napiserver = [\"10.0.0.1\", \"[fd00::1]\"]\ntoken = \"abcdef.0123456789abcdef\"\n\
         ca-cert-hashes = \"sha256:{pin}\"\n{more}"
    );
    seed::parse(text.as_bytes()).unwrap()
}

#[test]
fn nothing_is_open_without_a_seed() {
    assert_eq!(rules(&SeedOverrides::default(), &ClusterPeers::default()), CLOSED);
}

#[test]
fn seed_opens_what_it_names_and_nothing_else() {
    let more = "[network]\ndns = \"10.0.0.53\"\n[time]\nservers = \"fd00::123\"\n[harden]\nopen = [\"udp/8472\", \
                \"tcp/30000-30010\", \"sctp/9\"]\nforward = true\nkubelet-from = [\"10.1.0.0/24\", \"10.1.0.7\", \"fd01::/64\"]\negress = \
                [\"192.0.2.0/24\", \"2001:db8::/32\"]\n[access]\nssh-from = \"10.2.0.0/16\"\nssh-keys = \"ssh-ed25519 \
                AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"\n";
    let seed = seed(more);
    let mut peers = ClusterPeers::from_seed(&seed, ClusterPeers::default());
    let at = |all: [&str; 2]| {
        vec![Named { name: "a".into(), port: 6443, addresses: all.map(|a| a.parse().unwrap()).into() }]
    };
    let endpoints = at(["10.0.0.2", "10.0.0.3"]);
    peers.unproven = at(["192.0.2.66", "2001:db8::66"]);
    peers.set_joined(
        "10.0.0.1",
        6443,
        endpoints,
        vec!["10.244.0.0/16".parse().unwrap(), "10.96.0.0/12".parse().unwrap()],
    );
    assert_eq!(rules(&SeedOverrides::of(&seed), &peers), OPENED);
}

#[test]
fn own_node_port_range_of_the_cluster_replaces_the_default() {
    let peers = ClusterPeers {
        node_ports: crate::firewall::peers::PortRange::parse("20000-22767").unwrap(),
        ..ClusterPeers::default()
    };
    assert_eq!(rules(&SeedOverrides::default(), &peers), CLOSED.replace("30000-32767", "20000-22767"));
}

/// Service `kubernetes` leads to the cache, for pods alone, and only where there is one.
#[test]
fn service_kubernetes_is_the_cache() {
    let with = |address: &str| {
        let peers = ClusterPeers { cache: Some(address.parse().unwrap()), ..ClusterPeers::default() };
        let text = rules(&SeedOverrides::default(), &peers);
        let more: Vec<String> =
            text.lines().filter(|l| !CLOSED.lines().any(|c| c == *l)).map(|l| l.trim().to_owned()).collect();
        more
    };
    let kinds = "{ bond, hsr, ipoib, ipvlan, macsec, macvlan, macvtap, ppp, team, vlan, wwan }";
    let four = "ip daddr 10.32.0.1 tcp dport 443 dnat ip to 10.32.0.1:16443";
    let input = format!("ip daddr 10.32.0.1 tcp dport 16443 meta iifkind != {kinds} accept");
    let output = "ip daddr 10.32.0.1 tcp dport 443 redirect to :16443";
    assert_eq!(with("10.32.0.1"), ["chain cache {", four, "chain cache_output {", output, &input]);
    let six = "ip6 daddr fd00:96::1 tcp dport 443 dnat ip6 to [fd00:96::1]:16443";
    let input = format!("ip6 daddr fd00:96::1 tcp dport 16443 meta iifkind != {kinds} accept");
    let output = "ip6 daddr fd00:96::1 tcp dport 443 redirect to :16443";
    assert_eq!(with("fd00:96::1"), ["chain cache {", six, "chain cache_output {", output, &input]);
    assert!(
        CACHE
            .iter()
            .chain(CACHE_OUTPUT)
            .chain([&CACHE_INPUT])
            .all(|rule| rule.0.contains(&crate::offline::PORT.to_string()))
    );
}

/// VRRP comes in from the link alone, and goes out under an egress list, too; only where there is a virtual address.
#[test]
fn control_planes_hear_each_other() {
    let of = |vrrp, egress: Option<Vec<IpNet>>| {
        let mut kept = SeedOverrides { vrrp, ..SeedOverrides::default() };
        kept.harden.egress = egress;
        let text = rules(&kept, &ClusterPeers::default());
        text.lines().filter(|line| line.contains("l4proto 112")).map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of(false, None), [""; 0]);
    let input = VRRP.map(|rule| rule.0);
    assert_eq!(of(true, None), input);
    assert_eq!(of(true, Some(Vec::new())), [input, VRRP_OUTPUT.map(|rule| rule.0)].concat());
}

#[test]
fn ssh_is_open_to_all_only_with_keys_and_without_networks() {
    let lines = |text: &str, what: &str| {
        text.lines().filter(|l| l.contains(what)).map(str::trim).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(lines(CLOSED, "dport 22 "), "");
    let keys =
        "[access]\nssh-keys = \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"\n";
    let text = rules(&SeedOverrides::of(&seed(keys)), &ClusterPeers::default());
    assert_eq!(lines(&text, "dport 22 "), "tcp dport 22 accept");
    assert_eq!(
        lines(OPENED, "dport 22 "),
        "tcp dport 22 ip saddr @ssh_from_v4 accept\ntcp dport 22 ip6 saddr @ssh_from_v6 accept"
    );
}

/// The rule's text is a constant; the numbers of accounts are one, too.
#[test]
fn account_of_the_rule_is_the_one_that_is_made() {
    let ids = crate::harden::access::accounts::IDS;
    assert!(ACCOUNT.0.starts_with(&format!("meta skuid {}-{} ", ids.start(), ids.end())));
}

#[test]
fn overlapping_and_adjacent_networks_are_merged() {
    let nets: Vec<IpNet> =
        ["10.0.1.0/24", "10.0.0.0/24", "10.0.0.7/32", "fd00::/64"].map(|n| n.parse().unwrap()).into();
    let shown: Vec<String> = disjoint(&nets).iter().map(plain).collect();
    assert_eq!(shown, ["10.0.0.0/23", "fd00::/64"]);
}

/// docs/hardening.md lists every rule that a device may have, with its reason, in the order of the chains.
#[test]
fn rules_are_documented() {
    let doc = doc_tables::joined(include_str!("../../../docs/hardening.md"));
    let foreign = [NODE_PORTS_FOREIGN];
    let (dns, account, links) = ([ALLOWED_DNS], [ACCOUNT], [FORWARD_LINKS]);
    let nodeports: [&[Rule]; 4] = [NODE_PORTS_FIRST, PODS, &foreign, NODE_PORTS_LAST];
    let cache = [CACHE_INPUT];
    let input: [&[Rule]; 6] = [INPUT_FIRST, SSH, SSH_FROM, &cache, &VRRP, INPUT_LAST];
    let allowed: [&[Rule]; 3] = [ALLOWED, &dns, ALLOWED_LAST];
    for (chain, parts) in [
        ("nodeports", &nodeports[..]),
        ("input", &input),
        ("allowed", &allowed),
        ("ownports", &[OWN_PORTS]),
        ("cache", &[CACHE]),
        ("cache_output", &[CACHE_OUTPUT]),
        ("output", &[&account, OUTPUT]),
        ("forward", &[FORWARD, &links, FORWARD_LAST]),
    ] {
        let table = doc.split(&format!("\n| rule of chain `{chain}` | reason |\n|---|---|\n")).nth(1);
        let table = table.unwrap_or_else(|| panic!("no table of chain {chain}")).split("\n\n").next().unwrap();
        let rows: Vec<String> =
            parts.iter().flat_map(|p| p.iter()).map(|(rule, why)| format!("| `{rule}` | {why} |")).collect();
        assert_eq!(table.trim_end(), rows.join("\n"), "chain {chain}");
    }
}
