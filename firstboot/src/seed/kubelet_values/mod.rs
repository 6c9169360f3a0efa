// SPDX-License-Identifier: Apache-2.0
//! `[kubelet.config]`: the values that kubelet 1.35 and 1.36 end with, on the hardened host and in a cluster with kubeadm's
//! defaults. So they are refused before a device boots with them.
//!
//! [`rules`] has what one field must be, [`between`] what fields must be together, [`gates`] the feature gates. What only
//! the device knows is left to kubelet: the CPUs, memory and control groups that it has, and its files.

mod between;
mod forms;
mod gates;
mod rule;
mod rules;
pub(super) mod units;

use serde_json::{Map, Value as Json};

/// The fields of `config` that kubelet would end with: name, and a sentence about it. Their types are right already.
pub(super) fn wrong(config: &Map<String, Json>) -> Vec<(&str, String)> {
    let mut wrong = Vec::new();
    for (field, value) in config {
        let rule = rules::RULES.iter().find(|(name, _)| name == field).map_or(rule::Rule::Any, |(_, rule)| *rule);
        if let Err((path, must)) = rule.check(field, value).and_then(|()| fits(field, value)) {
            wrong.push((field.as_str(), format!("{path} in [kubelet.config] must be {must}")));
        }
    }
    let set = config.get("featureGates").and_then(Json::as_object);
    for must in gates::Gates(set).wrong() {
        wrong.push(("featureGates", format!("featureGates in [kubelet.config] {must}")));
    }
    if wrong.is_empty() {
        // Each of these rules reads more than one field, so all have to be right by themselves.
        for (field, must) in between::wrong(config) {
            let field = config.keys().find(|name| *name == field).map_or("", String::as_str);
            wrong.push((field, format!("{field} in [kubelet.config] {must}")));
        }
    }
    wrong
}

/// Whole numbers without a rule of their own are Go's int32, except `podPidsLimit`.
fn fits(field: &str, value: &Json) -> Result<(), rule::Wrong> {
    let int32 = |value: &Json| value.as_i64().is_none_or(|n| i32::try_from(n).is_ok());
    match value {
        _ if ["podPidsLimit", "maxOpenFiles"].contains(&field) || int32(value) => Ok(()),
        _ => Err((field.to_owned(), format!("a whole number from {} to {}", i32::MIN, i32::MAX))),
    }
}

#[cfg(test)]
mod tests;
