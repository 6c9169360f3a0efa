// SPDX-License-Identifier: Apache-2.0
//! What goes and what stays: as texts, and with the real programs in a network of its own.

use super::*;
use crate::host::Linux;
use crate::host::fake::Fake;
use crate::test_namespaces::inside;
use rustix::mount::{MountFlags, mount};
use std::process::Command;

const SAVED: &str = "*filter\n:INPUT ACCEPT [0:0]\n:KUBE-FIREWALL - [0:0]\n-A INPUT -j KUBE-FIREWALL\n\
    -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A KUBE-FIREWALL -j DROP\nCOMMIT\n*nat\n\
    :POSTROUTING ACCEPT [0:0]\n:CNI-HOSTPORT-DNAT - [0:0]\n:cali-POSTROUTING - [0:0]\n\
    -A POSTROUTING -s 10.244.0.0/16 -m comment --comment \"flanneld masq\" -j MASQUERADE\n\
    -A POSTROUTING -s 192.0.2.0/24 -m comment --comment \"mine\" -j MASQUERADE\nCOMMIT\n";

#[test]
fn what_is_the_administrators_stays() {
    assert_eq!(
        without(SAVED),
        "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n*nat\n\
         :POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -s 192.0.2.0/24 -m comment --comment \"mine\" -j MASQUERADE\n\
         COMMIT\n"
    );
    let clean = without(SAVED);
    assert_eq!(without(&clean), clean);
}

#[test]
fn tables_rules_sets_and_interfaces_go() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, seen) = Fake::new();
    let fake = fake.answering(|argv| match argv {
        ["nft", "list", "tables"] => Some(Ok("table inet firstboot\ntable ip kube-proxy\ntable ip cni_hostport\n\
            table inet mine\n"
            .into())),
        ["iptables-save"] => Some(Ok(SAVED.into())),
        ["ipset", "list", "-name"] => Some(Ok("KUBE-CLUSTER-IP\nmine\n".into())),
        ["ip", .., "veth1"] => Some(Err(anyhow::anyhow!("busy"))),
        _ => None,
    });
    let host = Host::open(dir.path(), Box::new(fake)).unwrap();
    assert!(clear(&host).is_empty());
    assert_eq!(
        seen.commands.take(),
        [
            "nft list tables",
            "nft delete table ip kube-proxy",
            "nft delete table ip cni_hostport",
            "iptables-save",
            "iptables-restore",
            "ip6tables-save",
            "ipset list -name",
            "ipset destroy KUBE-CLUSTER-IP",
        ]
    );
    let theirs = ["cali0123456789a", "cni0", "lxc0123456789ab", "veth1"];
    for name in theirs.iter().chain(&["docker0", "eth0", "lo", "lxcbr0", "veth2", "veth3", "vlan7", "vlan8"]) {
        host.mkdir(&format!("/sys/class/net/{name}"), 0o755).unwrap();
    }
    for (name, bridge) in [("veth1", "cni0"), ("veth2", "docker0")] {
        host.symlink(&format!("/sys/class/net/{name}/master"), &format!("../{bridge}")).unwrap();
    }
    assert_eq!(delete_links(&host, Some("vlan7")).unwrap(), ["busy"]);
    let deleted = theirs.iter().chain(&["vlan7"]).map(|name| format!("ip link delete dev {name}"));
    assert_eq!(seen.commands.take(), deleted.collect::<Vec<_>>());
}

/// What kube-proxy, CNI plugins and an administrator with Docker leave behind, in little.
const MADE: &str = r#"set -e
nft add table inet firstboot
nft add table ip kube-proxy
nft add table ip6 kube-proxy
nft add table inet cni_plugins_masquerade
nft add table ip mine
for family in iptables ip6tables; do
  $family -N KUBE-FIREWALL
  $family -A INPUT -j KUBE-FIREWALL
  $family -A INPUT -p tcp --dport 22 -j ACCEPT
  $family -t nat -N KUBE-POSTROUTING
  $family -t nat -A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
  $family -t nat -N DOCKER
  $family -t nat -A OUTPUT -j DOCKER
  $family -t mangle -N KUBE-KUBELET-CANARY
done
for bridge in cni0 docker0 kube-bridge; do ip link add $bridge type bridge; done
ip link add veth1 type veth peer name there1
ip link set veth1 master cni0
ip link add veth2 type veth peer name there2
ip link set veth2 master docker0
"#;

#[test]
fn real_programs_agree() {
    let tools = ["nft", "ip", "iptables", "iptables-save", "ip6tables", "ip6tables-save"];
    if !inside("reset::packets::tests::real_programs_agree", &["--net", "--mount"], &tools) {
        return;
    }
    let script = |text: &str| {
        let done = Command::new("sh").args(["-c", text]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    script(MADE);
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(dir.path(), Box::new(Linux::new())).unwrap();
    host.mkdir("/sys", 0o755).unwrap();
    mount("sysfs", dir.path().join("sys"), "sysfs", MountFlags::empty(), None).unwrap();
    for _ in 0..2 {
        assert_eq!(clear(&host), [""; 0]);
        assert_eq!(delete_links(&host, None).unwrap(), [""; 0]);
    }
    let ruleset = script("nft list ruleset; iptables-save; ip6tables-save");
    for gone in ["KUBE", "kube", "cni"] {
        assert!(!ruleset.contains(gone), "{gone}: {ruleset}");
    }
    for (kept, times) in
        [("table inet firstboot", 1), ("table ip mine", 1), ("--dport 22 -j ACCEPT", 2), ("-A OUTPUT -j DOCKER", 2)]
    {
        assert_eq!(ruleset.matches(kept).count(), times, "{kept}: {ruleset}");
    }
    let links = script("ip -oneline link | cut -d: -f2 | cut -d@ -f1");
    let links: std::collections::BTreeSet<&str> = links.split_whitespace().collect();
    // What the kernel makes in every network of its own is none of this.
    let ours = ["cni0", "docker0", "kube-bridge", "there1", "there2", "veth1", "veth2"];
    let left: Vec<&str> = ours.into_iter().filter(|name| links.contains(name)).collect();
    assert_eq!(left, ["docker0", "there2", "veth2"]);
}
