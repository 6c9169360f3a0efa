// SPDX-License-Identifier: Apache-2.0
//! The packet filter, read back from the kernel: is it there, does it drop by default, and who and what may pass.
//!
//! Judges the kernel's answer by what must hold, not by the text that was loaded, so that a mistake there is found too.

use super::peers::{KUBELET, Known};
use super::render::{TABLE, disjoint, plain, rules};
use crate::finding::Finding;
use crate::harden::overrides::{AuditContext, SeedOverrides};
use anyhow::{Context, Result};
use ipnet::IpNet;
use serde_json::Value;
use std::collections::BTreeSet;

/// Ports that every node opens to anybody: those at which DHCP servers answer.
const ALWAYS: [&str; 2] = ["udp/546", "udp/68"];

/// All findings.
pub(crate) fn audit(context: &AuditContext<'_>) -> Result<Vec<Finding>> {
    let text = context.host.run(&["nft", "-j", "list", "table", "inet", TABLE])?;
    let answer: Value = serde_json::from_str(&text).context("read nft's answer")?;
    let table = Table(answer["nftables"].as_array().context("read nft's answer")?);
    Ok(findings(&table, &context.kept, &Known::read(context.host)?))
}

fn findings(table: &Table<'_>, kept: &SeedOverrides, known: &Known) -> Vec<Finding> {
    let compare = |id: &str, wanted: &str, exception: Option<String>, found: Option<String>, why: &str| {
        Finding::compare(format!("firewall/{id}"), wanted, exception.as_deref(), found, why)
    };
    let nets = |nets: &[IpNet]| (!nets.is_empty()).then(|| joined(disjoint(nets).iter().map(plain)));
    let (harden, access) = (&kept.harden, &kept.access);
    let open = harden.open.iter().map(ToString::to_string);
    let ssh = (!access.keys.is_empty() && access.from.is_empty()).then(|| "tcp/22".to_owned());
    let ports = joined(open.chain(ssh).chain(ALWAYS.map(str::to_owned)));
    let usual = joined(ALWAYS.map(str::to_owned));
    let apiservers = joined(known.apiservers().iter().map(ToString::to_string));
    let accepted = accepts(&rules(kept, known), "input").to_string();
    let mut all = vec![
        compare("input", "filter input 0 drop", None, table.head("input"), "what is not allowed does not come in"),
        compare(
            "ports",
            &usual,
            (ports != usual).then_some(ports),
            Some(table.ports()),
            "no other port is open to anybody",
        ),
        compare("apiservers", &apiservers, None, table.set("apiservers"), "the API servers reach kubelet"),
        compare(
            "kubelet-from",
            "nobody",
            nets(&harden.kubelet_from),
            table.set("kubelet_from"),
            "nobody else reaches kubelet",
        ),
        compare(
            "kubelet",
            "apiservers, kubelet_from",
            None,
            Some(table.sources(KUBELET)),
            "kubelet answers these sources alone",
        ),
        compare(
            "input-rules",
            &accepted,
            None,
            Some(table.accepts("input").to_string()),
            "nobody added a rule that accepts",
        ),
        compare(
            "nodeports",
            &format!("filter prerouting -150 accept, {} dropped", known.node_ports),
            None,
            table.head("nodeports").map(|head| format!("{head}, {} dropped", table.dropped("nodeports"))),
            "NodePorts are judged before kube-proxy translates them",
        ),
    ];
    if let Some(from) = nets(&access.from) {
        let why = "SSH answers these sources alone";
        all.push(compare("ssh-from", "nobody", Some(from), table.set("ssh_from"), why));
    }
    if harden.egress.is_some() {
        for chain in ["output", "forward"] {
            let wanted = format!("filter {chain} 0 drop");
            let why = "connections go only where the seed lets them";
            all.push(compare(&format!("egress-{chain}"), &wanted, None, table.head(chain), why));
        }
    }
    all
}

/// All of them once, in order.
fn joined(all: impl IntoIterator<Item = String>) -> String {
    let all: BTreeSet<String> = all.into_iter().collect();
    if all.is_empty() { "nobody".to_owned() } else { all.into_iter().collect::<Vec<_>>().join(", ") }
}

/// How many rules of a chain accept, in nft's own language.
fn accepts(rules: &str, chain: &str) -> usize {
    let body = rules.split(&format!("chain {chain} {{\n")).nth(1).and_then(|r| r.split("  }\n").next());
    body.unwrap_or_default().lines().filter(|l| l.ends_with(" accept")).count()
}

/// The objects of the table, as libnftables-json(5) describes them.
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

    /// Elements of both sets of this name, without regard to their family.
    fn set(&self, name: &str) -> Option<String> {
        let own = |s: &&Value| s["name"] == format!("{name}_v4") || s["name"] == format!("{name}_v6");
        let sets: Vec<&Value> = self.objects("set").filter(own).collect();
        (sets.len() == 2)
            .then(|| joined(sets.iter().flat_map(|s| s["elem"].as_array().into_iter().flatten()).map(element)))
    }

    /// What the rules of a chain hold.
    fn rules<'b>(&'b self, chain: &'b str) -> impl Iterator<Item = &'b Vec<Value>> {
        self.objects("rule").filter(move |r| r["chain"] == chain).filter_map(|r| r["expr"].as_array())
    }

    fn accepts(&self, chain: &str) -> usize {
        self.rules(chain).filter(|r| has(r, "accept")).count()
    }

    /// Ports whose rules in chain input accept without looking at who asks.
    fn ports(&self) -> String {
        let open = self.rules("input").filter(|r| has(r, "accept") && source(r).is_none());
        joined(open.flat_map(|r| r.iter().flat_map(ports)))
    }

    /// Sets of sources from which a port is accepted.
    fn sources(&self, port: u16) -> String {
        let own = |r: &&Vec<Value>| has(r, "accept") && r.iter().flat_map(ports).any(|p| p == format!("tcp/{port}"));
        let set = |r: &Vec<Value>| {
            source(r).map_or("anybody".to_owned(), |s| s.trim_end_matches(['4', '6']).trim_end_matches("_v").to_owned())
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

/// The match on a destination port, if this is one.
fn dport(expr: &Value) -> &Value {
    let m = &expr["match"];
    if m["left"]["payload"]["field"] == "dport" { m } else { &Value::Null }
}

/// Ports of a match on destination ports, as the seed writes them.
fn ports(expr: &Value) -> Vec<String> {
    let m = dport(expr);
    let protocol = m["left"]["payload"]["protocol"].as_str().unwrap_or("any");
    values(&m["right"]).into_iter().map(|v| format!("{protocol}/{v}")).collect()
}

/// The set of source addresses that a rule asks for.
fn source(rule: &[Value]) -> Option<&str> {
    let own = rule
        .iter()
        .map(|e| &e["match"])
        .find(|m| m["left"]["payload"]["field"] == "saddr" && m["right"].is_string())?;
    own["right"].as_str().map(|s| s.trim_start_matches('@'))
}

/// One value, or those of an anonymous set.
fn values(right: &Value) -> Vec<String> {
    match right["set"].as_array() {
        Some(all) => all.iter().map(element).collect(),
        None if right.is_null() => Vec::new(),
        None => vec![element(right)],
    }
}

/// A value, a range or a prefix as people write it.
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
