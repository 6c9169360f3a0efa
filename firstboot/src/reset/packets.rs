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
            let load = || -> Result<()> { host.feed(&[&restore], &mut rest.as_bytes()).map(drop) };
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
    // All are looked at before the first of them goes: a bridge takes along what says who was plugged into it.
    let mut going = Vec::new();
    for name in host.list("/sys/class/net")? {
        let master = host.read_link(&format!("/sys/class/net/{name}/master"))?;
        let master = master.as_deref().and_then(|path| path.rsplit('/').next());
        if is_theirs(&name, master) || ours == Some(name.as_str()) {
            going.push(name);
        }
    }
    let mut failed = Vec::new();
    for name in going {
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
#[path = "packets_tests.rs"]
mod tests;
