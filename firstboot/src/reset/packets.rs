// SPDX-License-Identifier: Apache-2.0
//! What Kubernetes and its pod networks leave in the kernel: nftables tables, iptables chains and rules, interfaces.
//!
//! Best effort: a program that is missing made nothing either, and all of it is gone at the next boot anyway. IPVS's
//! own table is left until then: what it forwards for is the addresses of `kube-ipvs0`, which go with that interface.

use crate::host::Host;
use anyhow::Result;

/// Beginnings of the names of tables that are theirs (kube-proxy, CNI plugins, flannel).
const TABLES: [&str; 4] = ["kube-proxy", "cni_", "flannel-", "kube-router"];
/// Beginnings of the names of chains that are theirs.
const CHAINS: [&str; 6] = ["KUBE-", "CNI-", "FLANNEL-", "cali-", "CILIUM_", "WEAVE-"];
/// Words in comments of rules that stand in chains of the system's own.
const COMMENTS: [&str; 1] = ["flanneld"];
/// Bridges that are theirs: what is plugged into one is a pod's.
const BRIDGES: [&str; 2] = ["cni0", "kube-bridge"];
/// Other interfaces that are theirs.
#[rustfmt::skip]
const LINKS: [&str; 10] = [
    "flannel.1", "flannel-v6.1", "kube-ipvs0", "kube-dummy-if", "vxlan.calico", "nodelocaldns", "cilium_host",
    "cilium_net", "cilium_vxlan", "lxc_health",
];

/// Deletes the tables and rules; what could not be, one line each.
pub(super) fn clear(host: &Host) -> Vec<String> {
    let mut failed = Vec::new();
    let mut attempt = |result: Result<()>| failed.extend(result.err().map(|e| format!("{e:#}")));
    if let Ok(text) = host.run(&["nft", "list", "tables"]) {
        for (family, name) in tables(&text) {
            attempt(host.run(&["nft", "delete", "table", family, name]).map(drop));
        }
    }
    for family in ["iptables", "ip6tables"] {
        let (save, restore) = (format!("{family}-save"), format!("{family}-restore"));
        let Ok(text) = host.run(&[&save]) else { continue };
        let rest = without(&text);
        if rest != text {
            let load = || -> Result<()> {
                host.sys().before_effect(&restore)?;
                host.sys().run(&[&restore], Some(&mut rest.as_bytes())).map(drop)
            };
            attempt(load());
        }
    }
    if let Ok(text) = host.run(&["ipset", "list", "-name"]) {
        for name in text.lines().filter(|name| name.starts_with("KUBE-")) {
            attempt(host.run(&["ipset", "destroy", name]).map(drop));
        }
    }
    failed
}

/// Family and name of the tables that are theirs, out of `nft list tables`.
fn tables(text: &str) -> Vec<(&str, &str)> {
    let named = text.lines().filter_map(|line| line.strip_prefix("table ")?.split_once(' '));
    named.filter(|(_, name)| TABLES.iter().any(|t| name.starts_with(t))).collect()
}

/// What `iptables-save` said, without chains and rules that are theirs.
fn without(text: &str) -> String {
    let theirs = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        let chain = |word: &&str| CHAINS.iter().any(|c| word.starts_with(c));
        match words.as_slice() {
            [first, ..] if first.starts_with(':') => chain(&&first[1..]),
            ["-A", rest @ ..] => {
                let commented = line.contains("--comment") && COMMENTS.iter().any(|c| line.contains(c));
                rest.iter().any(chain) || commented
            }
            _ => false,
        }
    };
    text.lines().filter(|line| !theirs(line)).map(|line| format!("{line}\n")).collect()
}

/// Deletes their interfaces, and the one that is ours. What could not be deleted, one line each.
pub(super) fn delete_links(host: &Host, ours: Option<&str>) -> Result<Vec<String>> {
    let mut found = host.list("/sys/class/net")?;
    let mut masters = Vec::new();
    for name in &found {
        let master = host.read_link(&format!("/sys/class/net/{name}/master"))?;
        masters.push(master.and_then(|path| path.rsplit('/').next().map(str::to_owned)));
    }
    // Before the first of them goes: a bridge takes along what says who was plugged into it.
    let mut masters = masters.into_iter();
    found.retain(|name| is_theirs(name, masters.next().flatten().as_deref()) || ours == Some(name.as_str()));
    let mut failed = Vec::new();
    for name in found {
        let gone = host.run(&["ip", "link", "delete", "dev", &name]);
        // One end of a pair goes with the other.
        if let Err(error) = gone
            && host.exists(&format!("/sys/class/net/{name}"))?
        {
            failed.push(format!("{error:#}"));
        }
    }
    Ok(failed)
}

/// Whether an interface, plugged into `master`, is theirs. What others plug into their own bridges (Docker, LXC) stays.
fn is_theirs(name: &str, master: Option<&str>) -> bool {
    let digits = |rest: &str, count| rest.len() == count && rest.bytes().all(|b| b.is_ascii_hexdigit());
    // Calico and Cilium name a pod's end of a pair so.
    let calico = name.strip_prefix("cali").is_some_and(|rest| digits(rest, 11));
    let cilium = name.strip_prefix("lxc").is_some_and(|rest| digits(rest, 12));
    let plugged = name.starts_with("veth") && master.is_some_and(|m| BRIDGES.contains(&m));
    BRIDGES.contains(&name) || LINKS.contains(&name) || calico || cilium || plugged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

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
}
