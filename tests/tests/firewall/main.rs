// SPDX-License-Identifier: Apache-2.0
//! The device's packet filter against real packets: the rendered rules in this machine's kernel, and probes over IPv4
//! and IPv6 from outside, from the device and from a pod. Boots nothing, needs no root where user namespaces exist.

#![allow(clippy::unwrap_used)]

mod account;
mod audit;
mod cache;
mod egress;
mod fixture;
mod nodeports;
mod routing;
mod start;

use firstboot::firewall::peers::Named;
use firstboot::firewall::render::rules;
use fixture::Fixture;

/// How often probes are sent whose answers are late: a busy machine may take longer than a probe waits.
const TRIES: u32 = 5;

/// What the probes are to say: each with its own answer. An answer that does not come is asked for again; silence that is
/// wanted must be there at once.
fn expect(send: impl Fn() -> Vec<String>, wanted: &[&str]) {
    let is_late = |found: &[String]| {
        let differ: Vec<_> = found.iter().zip(wanted).filter(|(found, wanted)| found != *wanted).collect();
        !differ.is_empty() && differ.iter().all(|(found, _)| found.ends_with(": silence"))
    };
    let mut found = send();
    for _ in 1..TRIES {
        if !is_late(&found) {
            break;
        }
        found = send();
    }
    assert_eq!(found, wanted.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
}

/// The probes of a list of probes with answers.
fn probes<'a>(wanted: &[&'a str]) -> Vec<&'a str> {
    wanted.iter().map(|w| w.rsplit_once(": ").unwrap().0).collect()
}

fn outside(fixture: &Fixture, wanted: &[&str]) {
    expect(|| fixture.probe_from_outside(&probes(wanted)), wanted);
}

fn device(fixture: &Fixture, wanted: &[&str]) {
    expect(|| fixture.probe_from_device(&probes(wanted)), wanted);
}

fn pod(fixture: &Fixture, wanted: &[&str]) {
    expect(|| fixture.probe_from_pod(&probes(wanted)), wanted);
}

#[test]
fn inbound_is_blocked_and_outbound_is_open() {
    if !e2e::can_network() {
        return;
    }
    let fixture = Fixture::new(&[22, 53, 68, 546, 8472, 9100, 10250, 30000]);
    let open = ["tcp 192.168.77.2 192.168.77.1 22: 22", "udp fd00:77::2 fd00:77::1 8472: 8472"];
    outside(&fixture, &open);
    // No seed, no cluster: what the guard applies on a device that was just flashed.
    fixture.load(&rules(&Default::default(), &Default::default()));
    let mut closed = Vec::new();
    for port in [22, 53, 68, 546, 8472, 9100, 10250, 30000, 33333] {
        for (source, to) in [("192.168.77.2", "192.168.77.1"), ("fd00:77::2", "fd00:77::1")] {
            closed.extend(["tcp", "udp"].map(|p| format!("{p} {source} {to} {port}: silence")));
        }
    }
    outside(&fixture, &closed.iter().map(String::as_str).collect::<Vec<_>>());
    device(
        &fixture,
        &[
            "tcp 192.168.77.1 192.168.77.10 6443: 6443",
            "udp 192.168.77.1 192.168.77.2 53: 53",
            "tcp fd00:77::1 fd00:77::10 443: 443",
            "udp fd00:77::1 fd00:77::2 123: 123",
            // A host that does not listen says so (ICMP), and that is heard.
            "udp 192.168.77.1 192.168.77.2 9: refused",
            "udp fd00:77::1 fd00:77::2 9: refused",
            "tcp 127.0.0.1 127.0.0.1 9100: 9100",
            "tcp ::1 ::1 9100: 9100",
        ],
    );
    // An answer of a DHCP server, which cannot be recognised as one.
    outside(&fixture, &["udp 192.168.77.2#67 192.168.77.1 68: 68", "udp 192.168.77.2#67 192.168.77.1 69: silence"]);
    // An IPv6 one has to be on the link.
    outside(&fixture, &["udp fd00:77::2#547 fd00:77::1 546: silence"]);
    outside(&fixture, &["ping 192.168.77.2 192.168.77.1 0: pong", "ping fd00:77::2 fd00:77::1 0: pong"]);
}

#[test]
fn kubelet_answers_api_servers_and_hosts_of_the_seed() {
    if !e2e::can_network() {
        return;
    }
    let fixture = Fixture::new(&[10250]);
    let (kept, mut known) = fixture.filter("");
    let api = "tcp 192.168.77.10 192.168.77.1 10250: 10250";
    let api_v6 = "tcp fd00:77::10 fd00:77::1 10250: 10250";
    let other = "tcp 192.168.77.2 192.168.77.1 10250: silence";
    let other_v6 = "tcp fd00:77::2 fd00:77::1 10250: silence";
    outside(&fixture, &[api, api_v6, other, other_v6, "udp 192.168.77.10 192.168.77.1 10250: silence"]);
    // The cluster says that the other is an API server as well.
    let addresses = ["192.168.77.2", "fd00:77::2"].map(|a| a.parse().unwrap()).into();
    let endpoints = vec![Named { name: "kubernetes".into(), port: 6443, addresses }];
    known.set_joined("192.168.77.10", 6443, endpoints, Vec::new());
    fixture.load(&rules(&kept, &known));
    let [now, now_v6] = [other, other_v6].map(|l| l.replace("silence", "10250"));
    outside(&fixture, &[api, api_v6, &now, &now_v6]);
    fixture.filter("[harden]\nkubelet-from = [\"192.168.77.0/29\", \"fd00:77::2\"]\n");
    outside(&fixture, &[api, api_v6, &now, &now_v6]);
    outside(&fixture, &["tcp 192.168.77.10 192.168.77.1 9: silence"]);
}

#[test]
fn the_seed_opens_ports_and_ssh() {
    if !e2e::can_network() {
        return;
    }
    let fixture = Fixture::new(&[22, 8472, 9100, 9101, 9102]);
    fixture.filter("[harden]\nopen = [\"udp/8472\", \"tcp/9100-9101\"]\n");
    outside(
        &fixture,
        &[
            "udp 192.168.77.2 192.168.77.1 8472: 8472",
            "udp fd00:77::2 fd00:77::1 8472: 8472",
            "tcp 192.168.77.2 192.168.77.1 8472: silence",
            "tcp fd00:77::2 fd00:77::1 9100: 9100",
            "tcp 192.168.77.2 192.168.77.1 9101: 9101",
            "tcp 192.168.77.2 192.168.77.1 9102: silence",
            "udp 192.168.77.2 192.168.77.1 9100: silence",
            "tcp 192.168.77.2 192.168.77.1 22: silence",
        ],
    );
    let keys =
        "[access]\nssh-keys = \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"\n";
    fixture.filter(keys);
    outside(&fixture, &["tcp 192.168.77.2 192.168.77.1 22: 22", "tcp fd00:77::2 fd00:77::1 22: 22"]);
    fixture.filter(&format!("{keys}ssh-from = [\"192.168.77.10\", \"fd00:77::10\"]\n"));
    outside(
        &fixture,
        &[
            "tcp 192.168.77.10 192.168.77.1 22: 22",
            "tcp 192.168.77.2 192.168.77.1 22: silence",
            "tcp fd00:77::10 fd00:77::1 22: 22",
            "tcp fd00:77::2 fd00:77::1 22: silence",
        ],
    );
}

#[test]
fn reload_keeps_connections_and_other_tables() {
    if !e2e::can_network() {
        return;
    }
    let mut fixture = Fixture::new(&[9100]);
    fixture.load(nodeports::NFTABLES);
    let others = |fixture: &Fixture| {
        let all = fixture.nft(&["-s", "list", "ruleset"]);
        let foreign: Vec<String> = all
            .split("\ntable ")
            .filter(|t| !t.trim_start_matches("table ").starts_with("inet firstboot"))
            .map(str::to_owned)
            .collect();
        foreign.join("\ntable ").trim_end().to_owned()
    };
    let before = others(&fixture);
    assert!(before.contains("table ip kube-proxy") || before.contains("ip kube-proxy {"), "{before}");
    fixture.filter("[harden]\nopen = \"tcp/9000\"\n");
    let heard = fixture.stays_open(9000, |fixture| {
        fixture.filter("");
        outside(fixture, &["tcp 192.168.77.2 192.168.77.1 9000: silence"]);
    });
    assert_eq!(heard, "one\ntwo");
    assert_eq!(others(&fixture), before);
    // What nft refuses changes nothing. (Counters may: -s leaves them out.)
    let table = fixture.nft(&["-s", "list", "table", "inet", "firstboot"]);
    let broken = rules(&Default::default(), &Default::default()).replace("ct state invalid", "ct state nonsense");
    assert!(fixture.try_load(&broken).is_err());
    assert_eq!(fixture.nft(&["-s", "list", "table", "inet", "firstboot"]), table);
}

#[test]
fn drops_are_counted_and_the_log_is_limited() {
    if !e2e::can_network() {
        return;
    }
    let fixture = Fixture::new(&[9100]);
    fixture.filter("");
    outside(&fixture, &["tcp 192.168.77.2 192.168.77.1 9100: silence", "udp 192.168.77.2 192.168.77.1 30000: silence"]);
    for chain in ["input", "nodeports"] {
        let text = fixture.nft(&["list", "chain", "inet", "firstboot", chain]);
        let last = text.lines().rev().find(|l| l.contains("counter")).unwrap();
        let packets: u64 = last.split("packets ").nth(1).and_then(|r| r.split(' ').next()).unwrap().parse().unwrap();
        assert!(last.trim_end().ends_with("drop") && packets > 0, "{text}");
        assert!(
            text.contains("limit rate 5/minute burst 10 packets log prefix \"firstboot drop: \" level info"),
            "{text}"
        );
    }
}
