// SPDX-License-Identifier: Apache-2.0
//! The packet filter, read back from the kernel: whether it exists, whether it drops by default, and what may pass.
//!
//! The kernel's answer is compared with the requirements, not with the text that was loaded, so that a mistake in that
//! text is found too.

use super::peers::{ClusterPeers, KUBELET};
use super::render::{OWN, TABLE, disjoint, plain, rules};
use crate::check::Finding;
use crate::harden::access::accounts::IDS;
use crate::harden::overrides::{AuditContext, SeedOverrides};
use anyhow::{Context, Result};
use ipnet::IpNet;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;

/// Ports that every node opens to all: those to which DHCP servers reply.
const ALWAYS: [&str; 2] = ["udp/546", "udp/68"];

/// All findings.
pub(crate) fn audit(context: &AuditContext<'_>) -> Result<Vec<Finding>> {
    let text = context.host.run(&["nft", "-j", "list", "table", "inet", TABLE])?;
    let answer: Value = serde_json::from_str(&text).context("read nft's answer")?;
    let table = Table(answer["nftables"].as_array().context("read nft's answer")?);
    Ok(findings(&table, &context.kept, &ClusterPeers::read(context.host)?))
}

fn findings(table: &Table<'_>, kept: &SeedOverrides, peers: &ClusterPeers) -> Vec<Finding> {
    let compare = |id: &str, wanted: &str, exception: Option<String>, found: Option<String>, why: &str| {
        Finding::compare(format!("firewall/{id}"), wanted, exception.as_deref(), found, why)
    };
    let nets = |nets: &[IpNet]| (!nets.is_empty()).then(|| joined(disjoint(nets).iter().map(plain)));
    let (harden, access) = (&kept.harden, &kept.access);
    let open = harden.open.iter().map(ToString::to_string);
    let ssh = (!access.keys.is_empty() && access.from.is_empty()).then(|| "tcp/22".to_owned());
    let ports = joined(open.chain(ssh).chain(ALWAYS.map(str::to_owned)));
    let usual = joined(ALWAYS.map(str::to_owned));
    let apiservers = joined(peers.apiservers().iter().map(ToString::to_string));
    let loaded = rules(kept, peers);
    let accepted = verdicts(&loaded, "input").accept.to_string();
    let routed = |forward: bool| {
        let mut kept = kept.clone();
        kept.harden.forward = forward;
        format!("filter forward 0 drop, {}", verdicts(&rules(&kept, peers), "forward"))
    };
    let ids = format!("{}-{}", IDS.start(), IDS.end());
    let mut all = vec![
        compare(
            "input",
            "filter input 0 drop",
            None,
            table.head("input"),
            "packets that are not allowed do not come in",
        ),
        compare(
            "ports",
            &usual,
            (ports != usual).then_some(ports),
            Some(table.ports()),
            "no other port is open to all",
        ),
        compare("apiservers", &apiservers, None, table.set("apiservers"), "the API servers reach kubelet"),
        compare(
            "kubelet-from",
            "none",
            nets(&harden.kubelet_from),
            table.set("kubelet_from"),
            "no other source reaches kubelet",
        ),
        compare(
            "kubelet",
            "apiservers, kubelet_from",
            None,
            Some(table.sources(KUBELET)),
            "kubelet answers only these sources",
        ),
        compare(
            "input-rules",
            &accepted,
            None,
            Some(table.verdicts("input").accept.to_string()),
            "no other rule accepts packets",
        ),
        compare(
            "nodeports",
            &format!("filter prerouting -150 accept, {} dropped", peers.node_ports),
            None,
            table.head("nodeports").map(|head| format!("{head}, {} dropped", table.dropped("nodeports"))),
            "NodePorts are judged before kube-proxy translates them",
        ),
        compare(
            "own-ports",
            &format!("nat prerouting -110 accept, nat output -110 accept, {OWN}"),
            None,
            table.own_ports(),
            "no pod takes kubelet's or sshd's port",
        ),
        compare(
            "forward",
            &routed(false),
            harden.forward.then(|| routed(true)),
            table.head("forward").map(|head| format!("{head}, {}", table.verdicts("forward"))),
            "this device routes for its pods, and is no router between its links",
        ),
        compare("account", &ids, None, Some(table.rejected("output")), "the account for SSH is no tunnel"),
    ];
    if let Some(from) = nets(&access.from) {
        let why = "SSH answers only these sources";
        all.push(compare("ssh-from", "none", Some(from), table.set("ssh_from"), why));
    }
    if harden.egress.is_some() {
        let why = "connections go only where the seed allows them";
        all.push(compare("egress-output", "filter output 0 drop", None, table.head("output"), why));
    }
    all
}

/// The distinct values, sorted and joined; `none` without any.
fn joined(all: impl IntoIterator<Item = String>) -> String {
    let all: BTreeSet<String> = all.into_iter().collect();
    if all.is_empty() { "none".to_owned() } else { all.into_iter().collect::<Vec<_>>().join(", ") }
}

/// How many rules of a chain accept packets, and how many ask chain `allowed`.
struct Verdicts {
    accept: usize,
    allowed: usize,
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rules accept, {} ask the egress list", self.accept, self.allowed)
    }
}

/// The verdicts of a chain, in nft's own language.
fn verdicts(rules: &str, chain: &str) -> Verdicts {
    let body = rules.split(&format!("chain {chain} {{\n")).nth(1).and_then(|r| r.split("  }\n").next());
    // The first line is the chain's own, with its policy.
    let count = |verdict: &str| body.unwrap_or_default().lines().skip(1).filter(|l| l.ends_with(verdict)).count();
    Verdicts { accept: count(" accept"), allowed: count(" jump allowed") }
}

/// The objects of the table (libnftables-json(5)).
struct Table<'a>(&'a [Value]);

impl Table<'_> {
    fn objects<'b>(&'b self, kind: &'b str) -> impl Iterator<Item = &'b Value> {
        self.0.iter().map(move |o| &o[kind]).filter(|o| o.is_object())
    }

    /// Type, hook, priority and policy of a base chain.
    fn head(&self, chain: &str) -> Option<String> {
        let chain = self.objects("chain").find(|c| c["name"] == chain)?;
        let text = |key: &str| chain[key].as_str().unwrap_or("none").to_owned();
        Some(format!("{} {} {} {}", text("type"), text("hook"), chain["prio"], text("policy")))
    }

    /// Elements of the sets of this name, of both address families.
    fn set(&self, name: &str) -> Option<String> {
        let own = |s: &&Value| s["name"] == format!("{name}_v4") || s["name"] == format!("{name}_v6");
        let sets: Vec<&Value> = self.objects("set").filter(own).collect();
        (sets.len() == 2)
            .then(|| joined(sets.iter().flat_map(|s| s["elem"].as_array().into_iter().flatten()).map(element)))
    }

    /// The expressions of the rules of a chain.
    fn rules<'b>(&'b self, chain: &'b str) -> impl Iterator<Item = &'b Vec<Value>> {
        self.objects("rule").filter(move |r| r["chain"] == chain).filter_map(|r| r["expr"].as_array())
    }

    fn verdicts(&self, chain: &str) -> Verdicts {
        let allowed = |r: &&Vec<Value>| r.iter().any(|e| e["jump"]["target"] == "allowed");
        Verdicts {
            accept: self.rules(chain).filter(|r| has(r, "accept")).count(),
            allowed: self.rules(chain).filter(allowed).count(),
        }
    }

    /// Where the host's own ports are kept from being translated, and which.
    fn own_ports(&self) -> Option<String> {
        let heads = [self.head("ownports")?, self.head("ownports_output")?].join(", ");
        let kept = |chain| self.rules(chain).filter(|r| has(r, "dnat")).map(|r| joined(r.iter().flat_map(ports)));
        let all: Vec<String> = kept("ownports").chain(kept("ownports_output")).collect();
        // Two of each: IPv4 and IPv6.
        let same = all.len() == 4 && all.iter().all(|ports| *ports == all[0]);
        Some(format!("{heads}, {}", if same { all[0].as_str() } else { "not all" }))
    }

    /// Numbers of the users whose packets a chain refuses, before it accepts any.
    fn rejected(&self, chain: &str) -> String {
        let first = self.rules(chain).next().filter(|r| has(r, "reject"));
        let user = |e: &Value| (e["match"]["left"]["meta"]["key"] == "skuid").then(|| element(&e["match"]["right"]));
        joined(first.into_iter().flatten().filter_map(user))
    }

    /// Ports that rules of chain input accept from any source.
    fn ports(&self) -> String {
        let open = self.rules("input").filter(|r| has(r, "accept") && source(r).is_none());
        joined(open.flat_map(|r| r.iter().flat_map(ports)))
    }

    /// Sets of sources from which rules accept a port.
    fn sources(&self, port: u16) -> String {
        let own = |r: &&Vec<Value>| has(r, "accept") && r.iter().flat_map(ports).any(|p| p == format!("tcp/{port}"));
        let set = |r: &Vec<Value>| {
            source(r).map_or("any".to_owned(), |s| s.trim_end_matches(['4', '6']).trim_end_matches("_v").to_owned())
        };
        joined(self.rules("input").filter(own).map(set))
    }

    /// Ports that a chain drops.
    fn dropped(&self, chain: &str) -> String {
        let closed = self.rules(chain).filter(|r| has(r, "drop"));
        joined(closed.flat_map(|r| r.iter().flat_map(|e| values(&dport(e)["right"]))))
    }
}

fn has(rule: &[Value], verdict: &str) -> bool {
    rule.iter().any(|e| e.get(verdict).is_some())
}

/// The expression's match on a destination port, if it is one; otherwise `Null`.
fn dport(expr: &Value) -> &Value {
    let m = &expr["match"];
    if m["left"]["payload"]["field"] == "dport" { m } else { &Value::Null }
}

/// Ports of a match on destination ports, in the seed's notation.
fn ports(expr: &Value) -> Vec<String> {
    let m = dport(expr);
    let protocol = m["left"]["payload"]["protocol"].as_str().unwrap_or("any");
    values(&m["right"]).into_iter().map(|v| format!("{protocol}/{v}")).collect()
}

/// The set of source addresses that a rule matches.
fn source(rule: &[Value]) -> Option<&str> {
    let own = rule
        .iter()
        .map(|e| &e["match"])
        .find(|m| m["left"]["payload"]["field"] == "saddr" && m["right"].is_string())?;
    own["right"].as_str().map(|s| s.trim_start_matches('@'))
}

/// A single value, or the values of an anonymous set.
fn values(right: &Value) -> Vec<String> {
    match right["set"].as_array() {
        Some(all) => all.iter().map(element).collect(),
        None if right.is_null() => Vec::new(),
        None => vec![element(right)],
    }
}

/// A value, a range or a prefix in common notation.
fn element(value: &Value) -> String {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    if let Some([first, last]) = value["range"].as_array().map(Vec::as_slice) {
        return format!("{}-{}", text(first), text(last));
    }
    match value["prefix"].is_object() {
        true => format!("{}/{}", text(&value["prefix"]["addr"]), value["prefix"]["len"]),
        false => text(value),
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
