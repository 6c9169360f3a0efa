// SPDX-License-Identifier: Apache-2.0
//! Walks the parsed tables of a seed: known keys into typed values, everything else into errors with a line.

use std::time::{Duration, SystemTime};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{CaPin, Cluster, Cni, Endpoint, Error, JoinToken, Node, NodeLabel, NodeName, Role, Taint, Trust};
use super::{may_show, text};

/// Keys of `[cluster]`.
pub(super) const CLUSTER_KEYS: [&str; 5] = ["apiserver", "token", "ca-cert-hashes", "ca-cert", "token-expires"];
/// Keys of `[node]`.
pub(super) const NODE_KEYS: [&str; 5] = ["name", "role", "cni", "labels", "taints"];
/// Tables of the seed format that later versions read; refused until then, as ignoring them would be wrong.
const LATER_TABLES: [&str; 6] = ["network", "time", "access", "kubelet", "registries", "harden"];
/// Top-level keys that later versions read.
const LATER_KEYS: [&str; 2] = ["join", "reset"];

/// Line of a byte offset, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count()
}

type Value<'i> = Spanned<DeValue<'i>>;

/// The tables of a seed whose TOML is well formed.
pub(super) fn tables(text: &str, root: &DeTable<'_>) -> Result<(Cluster, Node), Error> {
    let mut reader = Reader { text, errors: Vec::new() };
    let seed = reader.seed(root);
    // Tables are walked by name; the person reads from the top.
    match (reader.errors.into_iter().min_by_key(|e| e.line.unwrap_or(usize::MAX)), seed) {
        (Some(error), _) => Err(error),
        (None, Some(seed)) => Ok(seed),
        (None, None) => Err(Error { line: None, text: "a value is missing".to_owned() }),
    }
}

/// Walks the parsed tables and collects what is wrong, so that the first line can be told, not the first key.
struct Reader<'t> {
    text: &'t str,
    errors: Vec<Error>,
}

impl<'t> Reader<'t> {
    fn error(&mut self, offset: usize, text: impl Into<String>) {
        self.errors.push(Error { line: Some(line_of(self.text, offset)), text: text.into() });
    }

    fn seed(&mut self, root: &DeTable<'_>) -> Option<(Cluster, Node)> {
        self.version(root)?;
        for (key, value) in root.iter() {
            let (at, name, is_table) = (key.span().start, key.get_ref().as_ref(), value.get_ref().is_table());
            match name {
                "version" => {}
                "cluster" | "node" if is_table => {}
                "cluster" | "node" => self.error(at, format!("{name} must be a table: [{name}]")),
                _ if LATER_TABLES.contains(&name) => {
                    self.error(at, format!("[{name}] is not supported by this version of firstboot"));
                }
                _ if LATER_KEYS.contains(&name) => {
                    self.error(at, format!("key \"{name}\" is not supported by this version of firstboot"));
                }
                _ if is_table && may_show(name) => self.error(at, format!("unknown table [{name}]")),
                _ => self.error(at, format!("unknown key {} before any table", quoted(name))),
            }
        }
        let table = |name: &str| root.get(name).and_then(|v| Some((v.span().start, v.get_ref().as_table()?)));
        let node = match table("node") {
            Some((_, node)) => self.node(node),
            None => self.node(&DeTable::new()),
        };
        let Some((at, cluster)) = table("cluster") else {
            if self.errors.is_empty() {
                self.errors.push(Error { line: None, text: "table [cluster] is missing".to_owned() });
            }
            return None;
        };
        let cluster = self.cluster(at, cluster);
        Some((cluster?, node?))
    }

    /// Comes first: another version may have other keys, and then every other message would mislead.
    fn version(&mut self, root: &DeTable<'_>) -> Option<()> {
        let Some(version) = root.get("version") else {
            self.errors.push(Error { line: None, text: "the first line must be: version = 1".to_owned() });
            return None;
        };
        match version.get_ref() {
            DeValue::Integer(i) if i.as_str() == "1" && i.radix() == 10 => Some(()),
            _ => {
                self.error(version.span().start, "this firstboot reads seeds of version = 1 only");
                None
            }
        }
    }

    fn unknown_keys(&mut self, name: &str, table: &DeTable<'_>, known: &[&str]) {
        for key in table.keys().filter(|k| !known.contains(&k.get_ref().as_ref())) {
            let hint = match LATER_KEYS.contains(&key.get_ref().as_ref()) {
                true => "; it belongs at the top, before any table",
                false => "",
            };
            self.error(key.span().start, format!("unknown key {} in [{name}]{hint}", quoted(key.get_ref())));
        }
    }

    fn cluster(&mut self, at: usize, table: &DeTable<'_>) -> Option<Cluster> {
        self.unknown_keys("cluster", table, &CLUSTER_KEYS);
        let apiserver = table.get("apiserver").map(|v| self.strings(v, "apiserver", "cluster", Endpoint::parse));
        let token = table.get("token").map(|v| self.string(v, "token", "cluster", JoinToken::parse));
        let pins = table.get("ca-cert-hashes").map(|v| self.strings(v, "ca-cert-hashes", "cluster", CaPin::parse));
        let ca = table.get("ca-cert").map(|v| self.string(v, "ca-cert", "cluster", text::check_pem));
        let token_expires = table.get("token-expires").map(|v| self.datetime(v));
        if let (Some(_), Some(_), Some(v)) = (&pins, &ca, table.get("ca-cert")) {
            self.error(v.span().start, "ca-cert and ca-cert-hashes are both set in [cluster]: give one of them");
        }
        if self.errors.is_empty() {
            let missing = match (&apiserver, &token, &pins, &ca) {
                (None, ..) => "apiserver is missing in [cluster]",
                (_, None, ..) => "token is missing in [cluster]",
                (_, _, None, None) => {
                    "ca-cert-hashes is missing in [cluster]: without it the cluster cannot be told \
                                       from an impostor (ca-cert does as well)"
                }
                _ => "",
            };
            if !missing.is_empty() {
                self.error(at, missing);
            }
        }
        let trust = match (pins.flatten(), ca.flatten()) {
            (Some(pins), None) => Some(Trust::Pins(pins)),
            (None, Some(ca)) => Some(Trust::Ca(ca)),
            _ => None,
        };
        Some(Cluster { apiserver: apiserver??, token: token??, trust: trust?, token_expires: token_expires.flatten() })
    }

    fn node(&mut self, table: &DeTable<'_>) -> Option<Node> {
        self.unknown_keys("node", table, &NODE_KEYS);
        let name = table.get("name").and_then(|v| self.string(v, "name", "node", NodeName::parse));
        let role = table.get("role").map_or(Some(Role::Edge), |v| self.string(v, "role", "node", Role::parse));
        let cni = table.get("cni").map_or(Some(Cni::Auto), |v| self.string(v, "cni", "node", Cni::parse));
        let labels = table.get("labels").map_or(Some(Vec::new()), |v| self.labels(v));
        let taints = table.get("taints").map_or(Some(Vec::new()), |v| self.strings(v, "taints", "node", Taint::parse));
        Some(Node { name, role: role?, cni: cni?, labels: labels?, taints: taints? })
    }

    /// One string, checked by `parse`.
    fn string<T>(
        &mut self,
        value: &Value<'_>,
        key: &str,
        table: &str,
        parse: fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(text) = value.get_ref().as_str() else {
            self.error(value.span().start, format!("{key} in [{table}] must be a string in quotes"));
            return None;
        };
        parse(text).map_err(|why| self.error(value.span().start, format!("malformed {key} in [{table}]: {why}"))).ok()
    }

    /// A list of strings, or one string that stands for a list of one. Only `taints` may be an empty list.
    fn strings<T>(
        &mut self,
        value: &Value<'_>,
        key: &str,
        table: &str,
        parse: fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let Some(array) = value.get_ref().as_array() else {
            return self.string(value, key, table, parse).map(|one| vec![one]);
        };
        if array.is_empty() && key != "taints" {
            self.error(value.span().start, format!("{key} in [{table}] is empty"));
            return None;
        }
        let all: Vec<Option<T>> = array.iter().map(|v| self.string(v, key, table, parse)).collect();
        all.into_iter().collect()
    }

    fn labels(&mut self, value: &Value<'_>) -> Option<Vec<NodeLabel>> {
        let Some(table) = value.get_ref().as_table() else {
            self.error(value.span().start, "labels in [node] must be a table: labels = { \"KEY\" = \"VALUE\" }");
            return None;
        };
        let mut labels = Vec::new();
        for (key, value) in table.iter() {
            let (at, name) = (key.span().start, quoted(key.get_ref()));
            let Some(text) = value.get_ref().as_str() else {
                let dotted = if value.get_ref().is_table() { "; a key with dots needs quotes too" } else { "" };
                self.error(at, format!("value of label {name} in [node] must be a string in quotes{dotted}"));
                continue;
            };
            match NodeLabel::parse(key.get_ref(), text) {
                Ok(label) => labels.push(label),
                Err(why) => self.error(at, format!("malformed label {name} in [node]: {why}")),
            }
        }
        (labels.len() == table.len()).then_some(labels)
    }

    fn datetime(&mut self, value: &Value<'_>) -> Option<SystemTime> {
        let parsed = match value.get_ref() {
            DeValue::Datetime(d) => text::rfc3339(&d.to_string()),
            DeValue::String(s) => text::rfc3339(s),
            _ => None,
        };
        if parsed.is_none() {
            let text = "malformed token-expires in [cluster]: expected a time with zone, as in 2026-11-23T12:00:00Z";
            self.error(value.span().start, text);
        }
        parsed.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }
}

/// A key in quotes when it may be repeated; otherwise only its length.
fn quoted(key: &str) -> String {
    match may_show(key) {
        true => format!("\"{key}\""),
        false => format!("of {} characters", key.chars().count()),
    }
}
