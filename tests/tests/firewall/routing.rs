// SPDX-License-Identifier: Apache-2.0
//! S9: a device with two links is no router between them, and goes on to be one for its pods.

use super::fixture::{Fixture, OFFICE, OFFICE_V6, OTHER, OTHER_V6, probe};
use super::{expect, outside, pod, probes};
use qemu::link::namespace::Namespace;

/// What a host outside finds of the one at the other link: every way in, then nothing.
fn through(answers: [&str; 3]) -> Vec<String> {
    let [port, ping, closed] = answers;
    vec![
        format!("tcp {OTHER} {OFFICE} 443: {port}"),
        format!("udp {OTHER} {OFFICE} 443: {port}"),
        format!("udp {OTHER} {OFFICE} 502: {closed}"),
        format!("ping {OTHER} {OFFICE} 0: {ping}"),
        format!("tcp {OTHER_V6} {OFFICE_V6} 443: {port}"),
        format!("udp {OTHER_V6} {OFFICE_V6} 443: {port}"),
        format!("ping {OTHER_V6} {OFFICE_V6} 0: {ping}"),
    ]
}

fn finds(fixture: &Fixture, wanted: &[String]) {
    outside(fixture, &wanted.iter().map(String::as_str).collect::<Vec<_>>());
}

fn office(namespace: &Namespace, wanted: &[&str]) {
    expect(|| probe(namespace, &probes(wanted)), wanted);
}

/// kube-proxy's translation of a NodePort to a pod on another node, which this node reaches over its second link.
const ELSEWHERE: &str = "
table ip kube-proxy {
  chain nat-prerouting { type nat hook prerouting priority dstnat; tcp dport 30095 dnat to 192.168.78.2:443; }
}
";

#[test]
fn s09_no_host_reaches_the_network_at_the_other_link() {
    if !e2e::can_network() {
        return;
    }
    let mut fixture = Fixture::new(&[9100]);
    let far = fixture.second_link();
    let (open, closed) = (through(["443", "pong", "refused"]), through(["silence"; 3]));
    finds(&fixture, &open);
    let back = ["tcp 192.168.78.2 192.168.77.2 443: 443", "tcp fd00:78::2 fd00:77::2 443: 443"];
    let no_way_back = back.map(|line| line.replace(": 443", ": silence"));
    office(&far, &back);
    // As it was flashed; with a seed; with an egress list, even one that names the other link.
    for more in ["", "[harden]\nopen = \"tcp/443\"\n", "[harden]\negress = [\"192.168.78.0/24\", \"fd00:78::/64\"]\n"] {
        fixture.filter(more);
        finds(&fixture, &closed);
        office(&far, &no_way_back.each_ref().map(String::as_str));
    }
    fixture.filter("[harden]\nforward = true\n");
    finds(&fixture, &open);
    office(&far, &back);
    // An egress list goes for what is routed as well.
    fixture.filter("[harden]\nforward = true\negress = \"192.168.78.0/24\"\n");
    finds(&fixture, &open[..2]);
    outside(&fixture, &[&format!("tcp {OTHER_V6} {OFFICE_V6} 443: refused")]);
    office(&far, &[&back[0].replace(": 443", ": refused")]);
}

#[test]
fn s09_pods_and_translated_ports_are_routed() {
    if !e2e::can_network() {
        return;
    }
    let mut fixture = Fixture::new(&[9100]);
    let far = fixture.second_link();
    fixture.load(ELSEWHERE);
    fixture.load(super::nodeports::NFTABLES);
    fixture.filter("[harden]\nopen = [\"udp/8472\", \"tcp/30095\"]\n");
    pod(
        &fixture,
        &[
            "tcp 10.244.1.5 192.168.77.2 443: 443",
            "tcp 10.244.1.5 192.168.78.2 443: 443",
            "tcp fd00:244::5 fd00:78::2 443: 443",
            // A pod of another node, through the tunnel.
            "tcp 10.244.1.5 10.244.2.5 443: 443",
        ],
    );
    // Another node's pods reach this node's, through the tunnel and without one, as flannel's host-gw routes them.
    office(&far, &["tcp 10.244.2.5 10.244.1.5 80: 80"]);
    far.ip("route replace 10.244.1.0/24 via 192.168.78.1").unwrap();
    office(&far, &["tcp 192.168.78.2 10.244.1.5 80: 80"]);
    outside(
        &fixture,
        &[
            "tcp 192.168.77.2 192.168.77.1 30095: 443",
            "tcp 192.168.77.2 192.168.77.1 8080: 80",
            "tcp 192.168.77.2 192.168.78.2 443: silence",
        ],
    );
}

/// The rule that tells links from pods, on an interface without a kind, as network cards are: `lo` is another.
#[test]
fn s09_an_interface_without_a_kind_is_none_of_the_pods() {
    if !e2e::can_network() {
        return;
    }
    let fixture = Fixture::new(&[9100]);
    let rules = firstboot::firewall::render::rules(&Default::default(), &Default::default());
    let kinds = rules.lines().find_map(|l| l.trim().strip_prefix("meta iifkind ")?.strip_suffix(" accept")).unwrap();
    fixture.load(&format!(
        "table inet kinds {{\n chain input {{\n type filter hook input priority 10;\n meta iifkind {kinds} counter\n }}\n}}\n"
    ));
    let seen = || fixture.nft(&["list", "table", "inet", "kinds"]).contains("packets 0 bytes 0");
    fixture.probe_from_device(&["tcp 127.0.0.1 127.0.0.1 9100"]);
    outside(&fixture, &["tcp 192.168.77.2 192.168.77.1 9100: 9100"]);
    assert!(seen());
    pod(&fixture, &["tcp 10.244.1.5 10.244.1.1 9100: 9100"]);
    assert!(!seen());
}
