// SPDX-License-Identifier: Apache-2.0
//! The address of Service `kubernetes` is the cache's, for this node and its pods, also beside kube-proxy and without any
//! route; no other host reaches the cache.

use super::fixture::Fixture;
use super::{device, outside, pod};
use firstboot::firewall::peers::ClusterPeers;
use firstboot::firewall::render::rules;

/// kube-proxy's translation of the Service, to an API server outside, and what it refuses: packets that still have a Service's
/// address afterwards (`cluster-ips-check`, pkg/proxy/nftables/proxier.go).
const KUBE_PROXY: &str = "
table inet kube-proxy {
  chain services {
    ip daddr 10.96.0.1 tcp dport 443 dnat ip to 192.168.77.10:6443
    ip6 daddr fd00:96::1 tcp dport 443 dnat ip6 to [fd00:77::10]:6443
  }
  chain pre { type nat hook prerouting priority -100; jump services; }
  chain out { type nat hook output priority -100; jump services; }
  chain check {
    ip daddr 10.96.0.1 reject
    ip6 daddr fd00:96::1 reject
  }
  chain filter-forward { type filter hook forward priority 0; ct state new jump check; }
  chain filter-output { type filter hook output priority 0; ct state new jump check; }
}
";

#[test]
fn service_kubernetes_leads_to_the_cache() {
    if !e2e::can_network() {
        return;
    }
    let fixture = Fixture::new(&[443, 16443]);
    fixture.load(KUBE_PROXY);
    for (own, address, me, from_pod, other) in [
        ("10.96.0.1/32", "10.96.0.1", "192.168.77.1", "10.244.1.5", "192.168.77.2"),
        ("fd00:96::1/128", "fd00:96::1", "fd00:77::1", "fd00:244::5", "fd00:77::2"),
    ] {
        let service = |from: &str, answer: &str| format!("tcp {from} {address} 443: {answer}");
        fixture.load(&rules(&Default::default(), &Default::default()));
        pod(&fixture, &[&service(from_pod, "silence")]);
        // As firstboot applies it; the links may be down.
        let peers = ClusterPeers { cache: Some(address.parse().unwrap()), ..ClusterPeers::default() };
        fixture.load(&rules(&Default::default(), &peers));
        fixture.device.ip(&format!("addr replace {own} dev lo")).unwrap();
        fixture.device.ip("link set lo up").unwrap();
        pod(&fixture, &[&service(from_pod, "16443"), &format!("tcp {from_pod} {me} 16443: silence")]);
        device(&fixture, &[&service(address, "16443")]);
        let version = if address.contains(':') { "-6 " } else { "" };
        fixture.outside.ip(&format!("{version}route add {own} via {me}")).unwrap();
        outside(
            &fixture,
            &[
                &service(other, "silence"),
                &format!("tcp {other} {address} 16443: silence"),
                &format!("tcp {other} {me} 16443: silence"),
            ],
        );
    }
}
