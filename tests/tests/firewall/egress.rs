// SPDX-License-Identifier: Apache-2.0
//! The seed's list of where this node and its pods may open connections to.

use super::fixture::{Fixture, seed, seed_of};
use super::nodeports::NFTABLES;
use super::{device, outside, pod};
use firstboot::firewall::peers::{ClusterPeers, Named};
use firstboot::firewall::render::rules;
use firstboot::harden::overrides::SeedOverrides;
use firstboot::host::Host;
use firstboot::host::fake::Fake;
use firstboot::host::kept::{FIREWALL, OVERRIDES, copy_path};
use firstboot::image::{IMAGE_INFO, ImageInfo};
use firstboot::kube::kubeconfig::kubelet_conf;
use firstboot::paths::{CA_FILE, KUBELET_CONF};
use firstboot::run::guard::guard;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;

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
    known.set_joined("192.168.77.10", 6443, Default::default(), vec!["192.168.77.2/32".parse().unwrap()]);
    fixture.load(&rules(&kept, &known));
    device(&fixture, &[open[0], "tcp fd00:77::1 fd00:77::2 443: refused"]);
}

/// What DNS gives for the API server's name, before and after TLS has proven one of the addresses.
#[test]
fn s10_dns_opens_no_way_out_and_not_kubelet() {
    if !e2e::can_network() {
        return;
    }
    let fixture = Fixture::new(&[10250]);
    fixture.load(NFTABLES);
    let more = "[harden]\negress = \"198.51.100.0/24\"\n";
    let seed = seed_of("\"api.example:6443\"", more);
    let (kept, mut known) = (SeedOverrides::of(&seed), ClusterPeers::from_seed(&seed, ClusterPeers::default()));
    let of = |all: &[&str]| {
        let all: BTreeSet<IpAddr> = all.iter().map(|a| a.parse().unwrap()).collect();
        [Named { name: "api.example".into(), port: 6443, addresses: all }]
    };
    let kubelet = ["tcp 192.168.77.10 192.168.77.1 10250", "tcp 192.168.77.2 192.168.77.1 10250"];
    let [silent, _] = kubelet.map(|way| format!("{way}: silence"));
    let everywhere = |answer: &str| {
        ["192.168.77.2 443", "192.168.77.2 3128", "fd00:77::2 443"].map(|to| {
            let from = if to.starts_with('f') { "fd00:244::5" } else { "10.244.1.5" };
            format!("tcp {from} {to}: {answer}")
        })
    };
    let nowhere = everywhere("refused");
    let nowhere: Vec<&str> = nowhere.iter().map(String::as_str).collect();
    // During the join: this node alone reaches those addresses, at that port.
    let found = of(&["192.168.77.2", "192.168.77.10", "fd00:77::10"]);
    known.set_unproven(&found);
    fixture.load(&rules(&kept, &known));
    device(
        &fixture,
        &[
            "tcp 192.168.77.1 192.168.77.10 6443: 6443",
            "tcp fd00:77::1 fd00:77::10 6443: 6443",
            "tcp 192.168.77.1 192.168.77.2 443: refused",
            "udp 192.168.77.1 192.168.77.2 6443: refused",
        ],
    );
    pod(&fixture, &nowhere);
    pod(&fixture, &["tcp 10.244.1.5 192.168.77.10 6443: refused"]);
    outside(&fixture, &[&silent, &kubelet.map(|way| format!("{way}: silence"))[1]]);
    // One of them is the API server.
    known.prove(&found, &of(&["192.168.77.10"]));
    fixture.load(&rules(&kept, &known));
    device(
        &fixture,
        &[
            "tcp 192.168.77.1 192.168.77.10 6443: 6443",
            "tcp 192.168.77.1 192.168.77.10 443: refused",
            "tcp 192.168.77.1 192.168.77.2 6443: refused",
            "tcp fd00:77::1 fd00:77::10 6443: refused",
        ],
    );
    pod(&fixture, &nowhere);
    pod(&fixture, &["tcp 10.244.1.5 192.168.77.10 6443: 6443", "udp 10.244.1.5 192.168.77.10 6443: refused"]);
    outside(&fixture, &["tcp 192.168.77.10 192.168.77.1 10250: 10250", "tcp 192.168.77.2 192.168.77.1 10250: silence"]);
}

/// A worn card: both copies of what the seed had otherwise are gone from a device that has an egress list.
#[test]
fn s10_lost_exceptions_open_nothing() {
    if !e2e::can_network() {
        return;
    }
    let fixture = Rc::new(Fixture::new(&[22, 9100]));
    fixture.load(NFTABLES);
    let device_of = fixture.clone();
    let fake = Fake::new().0.feeding(move |argv, input| {
        let mut text = String::new();
        input.read_to_string(&mut text)?;
        assert_eq!(argv, ["nft", "-f", "-"]);
        device_of.try_load(&text)
    });
    let root = tempfile::tempdir().unwrap();
    let host = Host::open(root.path(), Box::new(fake)).unwrap();
    let image = ImageInfo::for_tests();
    host.write(IMAGE_INFO, &serde_json::to_vec(&image).unwrap(), 0o644).unwrap();
    let more = format!(
        "[access]\nssh-keys = \"{}\"\n[harden]\negress = \"192.168.77.2\"\nopen = \"tcp/9100\"\n",
        e2e::UNUSED_KEY
    );
    let seed = seed(&more);
    host.keep(OVERRIDES, &SeedOverrides::of(&seed).bytes().unwrap()).unwrap();
    ClusterPeers::from_seed(&seed, ClusterPeers::default()).store(&host).unwrap();
    let inside = |answer: [&str; 2]| {
        outside(
            &fixture,
            &[
                &format!("tcp 192.168.77.2 192.168.77.1 9100: {}", answer[0]),
                &format!("tcp 192.168.77.2 192.168.77.1 22: {}", answer[1]),
            ],
        );
    };
    let out = |listed: &str| {
        let listed = format!("tcp 10.244.1.5 192.168.77.2 443: {listed}");
        pod(&fixture, &[&listed, "tcp fd00:244::5 fd00:77::2 443: refused"]);
        device(&fixture, &["tcp 192.168.77.1 192.168.77.10 6443: 6443", "tcp fd00:77::1 fd00:77::2 443: refused"]);
    };
    guard(&host).unwrap();
    inside(["9100", "22"]);
    out("443");
    // One copy is enough.
    host.remove(OVERRIDES.path).unwrap();
    guard(&host).unwrap();
    inside(["9100", "22"]);
    for path in [OVERRIDES.path.to_owned(), copy_path(OVERRIDES.path)] {
        host.remove(&path).unwrap();
    }
    guard(&host).unwrap();
    inside(["silence"; 2]);
    out("443");
    // What is known of the cluster is gone as well, and with it the list.
    for path in [FIREWALL.path.to_owned(), copy_path(FIREWALL.path)] {
        host.remove(&path).unwrap();
    }
    let kubelet_conf = kubelet_conf("https://192.168.77.10:6443", "CA");
    host.write(KUBELET_CONF, kubelet_conf.as_bytes(), 0o600).unwrap();
    host.write(CA_FILE, b"CA", 0o600).unwrap();
    guard(&host).unwrap();
    inside(["silence"; 2]);
    out("refused");
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
