// SPDX-License-Identifier: Apache-2.0
//! The seed's list of where this node and its pods may open connections to.

use super::fixture::Fixture;
use super::nodeports::NFTABLES;
use super::{device, outside, pod};
use firstboot::firewall::render::rules;

#[test]
fn connections_go_only_where_the_seed_lets_them() {
    if !e2e::can_network() {
        return;
    }
    let fixture = Fixture::new(&[9100]);
    fixture.load(NFTABLES);
    let open = ["tcp 192.168.77.1 192.168.77.2 443: 443", "tcp fd00:77::1 fd00:77::2 443: 443"];
    device(&fixture, &open);
    // The API servers and what the seed's other tables name are open without being listed.
    let more = "[network]\ndns = \"192.168.77.2\"\nproxy = \"http://192.168.77.2:3128\"\n[time]\nservers = \
                \"fd00:77::2\"\n[harden]\negress = \"198.51.100.0/24\"\nopen = \"tcp/30080\"\n";
    let (kept, mut known) = fixture.filter(more);
    let host = [
        "tcp 192.168.77.1 192.168.77.2 443: refused",
        "tcp fd00:77::1 fd00:77::2 443: refused",
        "tcp 192.168.77.1 192.168.77.10 6443: 6443",
        "tcp fd00:77::1 fd00:77::10 6443: 6443",
        "udp 192.168.77.1 192.168.77.2 53: 53",
        "tcp 192.168.77.1 192.168.77.2 53: 53",
        "udp fd00:77::1 fd00:77::2 53: refused",
        "tcp 192.168.77.1 192.168.77.2 3128: 3128",
        "udp fd00:77::1 fd00:77::2 123: 123",
        "udp 192.168.77.1 192.168.77.2 123: refused",
        "tcp 127.0.0.1 127.0.0.1 9100: 9100",
        // To its own pods.
        "tcp 10.244.1.1 10.244.1.5 80: 80",
    ];
    device(&fixture, &host);
    let pods = [
        "tcp 10.244.1.5 192.168.77.2 443: refused",
        "tcp 10.244.1.5 192.168.77.10 6443: 6443",
        "udp 10.244.1.5 192.168.77.2 53: 53",
        "tcp fd00:244::5 fd00:77::2 443: refused",
    ];
    pod(&fixture, &pods);
    // What comes in is another matter.
    outside(
        &fixture,
        &[
            "tcp 192.168.77.2 192.168.77.1 8080: 80",
            "tcp 192.168.77.2 192.168.77.1 30080: 80",
            "tcp 192.168.77.2 192.168.77.1 9100: silence",
        ],
    );
    // A listed network, and the cluster's own.
    let listed = more.replace("\"198.51.100.0/24\"", "[\"192.168.77.0/29\", \"fd00:77::/64\"]");
    fixture.filter(&listed);
    device(&fixture, &open);
    pod(&fixture, &["tcp 10.244.1.5 192.168.77.2 443: 443", "tcp fd00:244::5 fd00:77::2 443: 443"]);
    known.set_joined("192.168.77.10", Default::default(), vec!["192.168.77.2/32".parse().unwrap()]);
    fixture.load(&rules(&kept, &known));
    device(&fixture, &[open[0], "tcp fd00:77::1 fd00:77::2 443: refused"]);
}

#[test]
fn name_servers_that_dhcp_tells_are_reached() {
    if !e2e::can_network() {
        return;
    }
    let fixture = Fixture::new(&[9100]);
    fixture.filter("[harden]\negress = \"198.51.100.0/24\"\n");
    device(
        &fixture,
        &[
            "udp 192.168.77.1 192.168.77.2 53: 53",
            "tcp fd00:77::1 fd00:77::2 53: 53",
            "udp 192.168.77.1 192.168.77.2 123: refused",
        ],
    );
}
