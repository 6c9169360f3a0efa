// SPDX-License-Identifier: Apache-2.0
//! NodePorts and hostPorts, translated as kube-proxy and the CNI plugin portmap do it, in both of their backends.

use super::fixture::Fixture;
use super::{device, outside, pod};

/// kube-proxy in mode nftables: tcp/30080 to the pod, tcp/30090 to a pod on the host's network; and portmap with its
/// nftables backend: hostPort tcp/8080; and the bridge plugin's masquerading.
pub const NFTABLES: &str = r#"
table ip kube-proxy {
  chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
  chain nodeports {
    tcp dport 30080 jump mark-for-masquerade
    tcp dport 30080 dnat to 10.244.1.5:80
    tcp dport 30090 dnat to 192.168.77.1:9090
  }
  chain nat-prerouting { type nat hook prerouting priority dstnat; fib daddr type local jump nodeports; }
  chain nat-output { type nat hook output priority -100; fib daddr type local jump nodeports; }
  chain nat-postrouting { type nat hook postrouting priority srcnat; meta mark and 0x4000 != 0 masquerade; }
}
table ip6 kube-proxy {
  chain nat-prerouting { type nat hook prerouting priority dstnat; fib daddr type local tcp dport 30080 dnat to [fd00:244::5]:80; }
}
table ip cni_hostport {
  chain hostports { tcp dport 8080 dnat to 10.244.1.5:80; }
  chain prerouting { type nat hook prerouting priority dstnat; fib daddr type local jump hostports; }
}
table inet cni_plugins_masquerade {
  chain masq_checks {
    type nat hook postrouting priority srcnat;
    ip saddr 10.244.1.5 ip daddr != 10.244.1.0/24 masquerade
    ip6 saddr fd00:244::5 ip6 daddr != fd00:244::/64 masquerade
  }
}
"#;

/// The same in iptables: kube-proxy's and portmap's chains, each line what follows `iptables-nft -t nat`.
const IPTABLES: &[&str] = &[
    "-N KUBE-MARK-MASQ",
    "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
    "-N KUBE-SEP-POD",
    "-A KUBE-SEP-POD -p tcp -m tcp -j DNAT --to-destination 10.244.1.5:80",
    "-N KUBE-SEP-HOST",
    "-A KUBE-SEP-HOST -p tcp -m tcp -j DNAT --to-destination 192.168.77.1:9090",
    "-N KUBE-NODEPORTS",
    "-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-MARK-MASQ",
    "-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-SEP-POD",
    "-A KUBE-NODEPORTS -p tcp -m tcp --dport 30090 -j KUBE-SEP-HOST",
    "-N KUBE-SERVICES",
    "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
    "-A PREROUTING -j KUBE-SERVICES",
    "-A OUTPUT -j KUBE-SERVICES",
    "-N CNI-DN-1",
    "-A CNI-DN-1 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.244.1.5:80",
    "-N CNI-HOSTPORT-DNAT",
    "-A CNI-HOSTPORT-DNAT -p tcp -m tcp --dport 8080 -j CNI-DN-1",
    "-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
    "-N KUBE-POSTROUTING",
    "-A KUBE-POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE",
    "-A POSTROUTING -j KUBE-POSTROUTING",
    "-A POSTROUTING -s 10.244.1.5/32 ! -d 10.244.1.0/24 -j MASQUERADE",
];

/// What a pod's author who asks for hostPorts 22 and 10250 gets of portmap, beside a harmless one: nftables.
const TAKING: &str = r#"
table inet cni_hostport {
  chain hostports {
    ip daddr != 127.0.0.0/8 tcp dport { 22, 10250, 8080 } dnat ip to 10.244.1.5:80
    tcp dport { 22, 10250, 8080 } dnat ip6 to [fd00:244::5]:80
  }
  chain prerouting { type nat hook prerouting priority dstnat; fib daddr type local jump hostports; }
  chain output { type nat hook output priority -100; fib daddr type local jump hostports; }
}
"#;

/// The same by iptables.
const TAKING_IPTABLES: &[&str] = &[
    "-N CNI-DN-2",
    "-A CNI-DN-2 -p tcp -m multiport --dports 22,10250,8080 -j DNAT --to-destination 10.244.1.5:80",
    "-N CNI-HOSTPORT-DNAT",
    "-A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports 22,10250,8080 -j CNI-DN-2",
    "-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
    "-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
];

/// A seed with SSH.
const KEYS: &str =
    "[access]\nssh-keys = \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"\n";

/// Who answers at kubelet's and sshd's port, and at the pod's other port: over IPv4, then over IPv6 too.
fn answered_by_the_host(fixture: &Fixture, v6: bool) {
    let of = |answers: [&str; 2]| {
        let [kubelet, ssh] = answers;
        let mut all = vec![
            format!("tcp 192.168.77.10 192.168.77.1 10250: {kubelet}"),
            format!("tcp 192.168.77.2 192.168.77.1 22: {ssh}"),
            "tcp 192.168.77.2 192.168.77.1 8080: 80".to_owned(),
        ];
        if v6 {
            all.extend([
                format!("tcp fd00:77::10 fd00:77::1 10250: {kubelet}"),
                format!("tcp fd00:77::2 fd00:77::1 22: {ssh}"),
                "tcp fd00:77::2 fd00:77::1 8080: 80".to_owned(),
            ]);
        }
        all
    };
    let finds = |answers| outside(fixture, &of(answers).iter().map(String::as_str).collect::<Vec<_>>());
    // Without a filter the pod has them.
    finds(["80", "80"]);
    fixture.filter(KEYS);
    finds(["10250", "22"]);
    // What the node itself asks, and a pod that may reach kubelet.
    device(
        fixture,
        &[
            "tcp 192.168.77.1 192.168.77.1 10250: 10250",
            "tcp 127.0.0.1 127.0.0.1 10250: 10250",
            "tcp 192.168.77.1 192.168.77.1 8080: 80",
        ],
    );
    fixture.filter(&format!("{KEYS}[harden]\nkubelet-from = \"10.244.1.0/24\"\n"));
    pod(fixture, &["tcp 10.244.1.5 192.168.77.1 10250: 10250"]);
    // Without SSH no program has its port.
    fixture.filter("");
    finds(["10250", "silence"]);
}

#[test]
fn s20_a_host_port_takes_neither_kubelets_port_nor_sshds() {
    if !e2e::can_network() {
        return;
    }
    let fixture = Fixture::new(&[22, 10250]);
    fixture.load(TAKING);
    answered_by_the_host(&fixture, true);
}

#[test]
fn s20_a_host_port_of_iptables_takes_neither_kubelets_port_nor_sshds() {
    if !e2e::can_network() || !e2e::can_iptables() {
        return;
    }
    let fixture = Fixture::new(&[22, 10250]);
    for line in TAKING_IPTABLES {
        let words: Vec<&str> = ["-t", "nat"].into_iter().chain(line.split(' ')).collect();
        fixture.device.run("iptables-nft", &words).unwrap();
    }
    answered_by_the_host(&fixture, false);
}

/// What holds under both backends.
fn judge(fixture: &Fixture) {
    let node_port = "tcp 192.168.77.2 192.168.77.1 30080: ";
    let host_network = "tcp 192.168.77.2 192.168.77.1 30090: ";
    let host_port = "tcp 192.168.77.2 192.168.77.1 8080: 80";
    // Without a filter all are reached, so that their silence afterwards means something.
    outside(fixture, &[&format!("{node_port}80"), &format!("{host_network}9090"), host_port]);
    fixture.filter("");
    outside(
        fixture,
        &[
            &format!("{node_port}silence"),
            &format!("{host_network}silence"),
            host_port,
            "tcp 192.168.77.2 192.168.77.1 9090: silence",
            "tcp 192.168.77.2 192.168.77.1 30081: silence",
        ],
    );
    // The node itself and its pods reach the NodePort; a pod reaches the outside, and nothing of the host's own.
    device(fixture, &["tcp 192.168.77.1 192.168.77.1 30080: 80"]);
    pod(
        fixture,
        &[
            "tcp 10.244.1.5 192.168.77.1 30080: 80",
            "tcp 10.244.1.5 192.168.77.2 443: 443",
            "udp 10.244.1.5 192.168.77.2 53: 53",
            "tcp 10.244.1.5 192.168.77.1 9090: silence",
            "tcp 10.244.1.5 10.244.1.1 9090: silence",
            "tcp 10.244.1.5 192.168.77.1 10250: silence",
        ],
    );
    // Host to pod, as kubelet's probes.
    device(fixture, &["tcp 10.244.1.1 10.244.1.5 80: 80"]);
    fixture.filter("[harden]\nopen = \"tcp/30080\"\n");
    outside(fixture, &[&format!("{node_port}80"), &format!("{host_network}silence"), host_port]);
    fixture.filter("[harden]\nopen = \"tcp/30000-30100\"\n");
    outside(
        fixture,
        &[
            &format!("{node_port}80"),
            &format!("{host_network}9090"),
            // The pod's own port on the host stays closed.
            "tcp 192.168.77.2 192.168.77.1 9090: silence",
        ],
    );
}

#[test]
fn node_ports_of_kube_proxys_nftables_are_closed_until_the_seed_opens_them() {
    if !e2e::can_network() {
        return;
    }
    let fixture = Fixture::new(&[9090, 10250]);
    fixture.load(NFTABLES);
    outside(&fixture, &["tcp fd00:77::2 fd00:77::1 30080: 80"]);
    judge(&fixture);
    outside(&fixture, &["tcp fd00:77::2 fd00:77::1 30080: 80"]);
    fixture.filter("");
    outside(&fixture, &["tcp fd00:77::2 fd00:77::1 30080: silence"]);
    pod(&fixture, &["tcp fd00:244::5 fd00:77::2 443: 443", "tcp fd00:244::5 fd00:77::1 9090: silence"]);
}

#[test]
fn node_ports_of_kube_proxys_iptables_are_closed_until_the_seed_opens_them() {
    if !e2e::can_network() || !e2e::can_iptables() {
        return;
    }
    let fixture = Fixture::new(&[9090, 10250]);
    for line in IPTABLES {
        let words: Vec<&str> = ["-t", "nat"].into_iter().chain(line.split(' ')).collect();
        fixture.device.run("iptables-nft", &words).unwrap();
    }
    judge(&fixture);
}
