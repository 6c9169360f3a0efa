// SPDX-License-Identifier: Apache-2.0
//! Reads `[node]`.

use super::character;
use super::model::Node;
use super::reader::{Reader, Value, misplaced, quoted};
use super::types::{Cni, NodeLabel, NodeName, Role, Taint, kubelet_may_set};
use crate::fault::Code;
use toml::de::DeTable;

/// Keys of `[node]`.
pub(super) const NODE_KEYS: [&str; 7] = ["name", "role", "cni", "labels", "taints", "offline", "offline-secrets"];

impl Reader {
    pub(super) fn node(&mut self, table: &DeTable<'_>) -> Option<Node> {
        self.unknown_keys("node", table, &NODE_KEYS);
        let name = table.get("name").and_then(|v| self.string(v, "name", "node", NodeName::parse));
        let role = table.get("role").map_or(Some(Role::Edge), |v| self.string(v, "role", "node", Role::parse));
        let cni = table.get("cni").map_or(Some(Cni::Auto), |v| self.string(v, "cni", "node", Cni::parse));
        let labels = table.get("labels").map_or(Some(Vec::new()), |v| self.labels(v));
        let taints = table.get("taints").map_or(Some(Vec::new()), |v| self.taints(v));
        let offline = table.get("offline").map_or(Some(false), |v| self.boolean(v, "offline", "node"));
        let secrets = table.get("offline-secrets").map_or(Some(true), |v| {
            let secrets = self.boolean(v, "offline-secrets", "node");
            if offline == Some(false) {
                let text = "offline-secrets in [node] needs offline = true: without it nothing is kept";
                self.error(v.span().start, Code::ConflictingKeys, text);
                return None;
            }
            secrets
        });
        Some(Node {
            name,
            role: role?,
            cni: cni?,
            labels: labels?,
            taints: taints?,
            offline: offline?,
            offline_secrets: secrets?,
        })
    }

    /// kubelet ends over a second taint with the same key and effect (`ParseTaints`, pkg/util/taints/taints.go).
    fn taints(&mut self, value: &Value<'_>) -> Option<Vec<Taint>> {
        let taints = self.strings(value, "taints", "node", Taint::parse)?;
        let items = value.get_ref().as_array();
        let place = |number: usize| items.and_then(|a| a.get(number)).map_or(value.span().start, |v| v.span().start);
        let before = self.errors.len();
        for (number, taint) in taints.iter().enumerate() {
            let same = |other: &Taint| (&other.key, &other.effect) == (&taint.key, &taint.effect);
            if let Some(first) = taints[..number].iter().position(same) {
                let line = self.line(place(first));
                let (key, effect) = (quoted(&taint.key), &taint.effect);
                let text = format!(
                    "taints in [node] has key {key} with effect {effect} twice, first in line {line}: keep one, kubelet \
                     takes no two values for it"
                );
                self.error(place(number), Code::ConflictingKeys, text);
            }
        }
        (self.errors.len() == before).then_some(taints)
    }

    fn labels(&mut self, value: &Value<'_>) -> Option<Vec<NodeLabel>> {
        let Some(table) = value.get_ref().as_table() else {
            self.error(
                value.span().start,
                Code::BadValue,
                "labels in [node] must be a table: labels = { \"KEY\" = \"VALUE\" }",
            );
            return None;
        };
        let mut labels = Vec::new();
        for (key, value) in table.iter() {
            let (at, name) = (key.span().start, quoted(key.get_ref()));
            let Some(text) = value.get_ref().as_str() else {
                let dotted = if value.get_ref().is_table() { "; a key with dots needs quotes too" } else { "" };
                self.error(
                    at,
                    Code::BadValue,
                    format!("value of label {name} in [node] must be a string in quotes{dotted}"),
                );
                continue;
            };
            match NodeLabel::parse(key.get_ref(), text) {
                Ok(label) => labels.push(label),
                // A line that was added at the end of the file, where a table is open.
                Err(_) if !misplaced(key.get_ref()).is_empty() => {
                    self.error(
                        at,
                        Code::BadValue,
                        format!("malformed label {name} in [node]{}", misplaced(key.get_ref())),
                    );
                }
                Err(why) => {
                    let why = character::in_value(text).unwrap_or(why);
                    let code = if kubelet_may_set(key.get_ref()) { Code::BadValue } else { Code::SettingNotAllowed };
                    self.error(at, code, format!("malformed label {name} in [node]: {why}"));
                }
            }
        }
        (labels.len() == table.len()).then_some(labels)
    }
}
