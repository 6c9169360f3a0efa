// SPDX-License-Identifier: Apache-2.0
//! Ports of this node that running pods occupy (`hostPort`), as the CNI plugin portmap writes them: to its own nftables
//! tables or, with its other backend, to iptables' table nat.
//!
//! For display only. No decision depends on it: portmap's translation itself lets such a packet pass the filter.

use crate::host::System;
use serde_json::Value;
use std::collections::BTreeSet;

/// Every host port, one line each, for people; none where no table can be read, for example without root.
pub fn host_ports(sys: &dyn System) -> Vec<String> {
    let read = |argv: &[&str]| sys.run(argv, None).unwrap_or_default();
    let mut all = BTreeSet::new();
    for family in ["ip", "ip6"] {
        all.extend(nftables(&read(&["nft", "-j", "list", "table", family, "cni_hostport"])));
    }
    for program in ["iptables-save", "ip6tables-save"] {
        all.extend(iptables(&read(&[program, "-t", "nat"])));
    }
    all.into_iter().map(|(port, protocol, to)| format!("hostPort of a pod: {protocol}/{port} to {to}")).collect()
}

/// Port, protocol and destination.
type HostPort = (u64, String, String);

/// Parses rules such as `tcp dport 8080 dnat to 10.244.1.5:80` in the output of `nft -j` (libnftables-json(5)).
fn nftables(text: &str) -> Vec<HostPort> {
    let answer: Value = serde_json::from_str(text).unwrap_or_default();
    let rules = answer["nftables"].as_array().into_iter().flatten().map(|o| &o["rule"]["expr"]);
    rules.filter_map(|expr| rule(expr.as_array()?)).collect()
}

fn rule(expr: &[Value]) -> Option<HostPort> {
    let port = expr.iter().map(|e| &e["match"]).find(|m| m["left"]["payload"]["field"] == "dport")?;
    let to = expr.iter().map(|e| &e["dnat"]).find(|d| d.is_object())?;
    let protocol = port["left"]["payload"]["protocol"].as_str()?.to_owned();
    Some((port["right"].as_u64()?, protocol, at(to["addr"].as_str()?, &to["port"].to_string())))
}

/// Parses lines such as `-A CNI-DN-… -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.244.1.5:80`.
fn iptables(text: &str) -> Vec<HostPort> {
    let lines = text.lines().filter(|l| l.starts_with("-A CNI-DN-"));
    let words = lines.map(|l| l.split_whitespace().collect::<Vec<_>>());
    let read = |words: Vec<&str>| {
        let after = |flag: &str| words.iter().position(|w| *w == flag).and_then(|at| words.get(at + 1).copied());
        let to = after("--to-destination")?.to_owned();
        Some((after("--dport")?.parse().ok()?, after("-p")?.to_owned(), to))
    };
    words.filter_map(read).collect()
}

fn at(address: &str, port: &str) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    const NFT: &str = r#"{"nftables": [{"metainfo": {"version": "1.1.3"}}, {"table": {"family": "ip", "name": "cni_hostport"}},
        {"rule": {"family": "ip", "table": "cni_hostport", "chain": "hostports", "expr": [
          {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 8080}},
          {"dnat": {"addr": "10.244.1.5", "port": 80}}]}},
        {"rule": {"family": "ip", "table": "cni_hostport", "chain": "prerouting", "expr": [{"jump": {"target": "hostports"}}]}}]}"#;
    const IPTABLES: &str = "*nat\n:PREROUTING ACCEPT [0:0]\n-A CNI-HOSTPORT-DNAT -p udp -m multiport --dports 53 -j CNI-DN-5e1\n\
                            -A CNI-DN-5e1 -s 10.244.1.0/24 -p udp -m udp --dport 53 -j CNI-HOSTPORT-SETMARK\n\
                            -A CNI-DN-5e1 -p udp -m udp --dport 53 -j DNAT --to-destination 10.244.1.6:5353\nCOMMIT\n";

    #[test]
    fn host_ports_of_both_backends_are_listed() {
        let answer = |argv: &[&str]| match argv {
            ["nft", .., "ip", "cni_hostport"] => Some(Ok(NFT.to_owned())),
            ["iptables-save", ..] => Some(Ok(IPTABLES.to_owned())),
            _ => Some(Err(anyhow::anyhow!("no such table"))),
        };
        assert_eq!(
            host_ports(&Fake::new().0.answering(answer)),
            ["hostPort of a pod: udp/53 to 10.244.1.6:5353", "hostPort of a pod: tcp/8080 to 10.244.1.5:80"]
        );
        assert!(host_ports(&Fake::new().0).is_empty());
        assert_eq!(at("fd00::5", "80"), "[fd00::5]:80");
    }
}
