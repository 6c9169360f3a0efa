// SPDX-License-Identifier: Apache-2.0
//! Walks the parsed tables of a seed: known keys into typed values, everything else into errors with a line.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::join_line::{self, JoinLine};
use super::{
    Access, CaPin, Cluster, Cni, Endpoint, Error, Harden, JoinToken, Kubelet, Network, Node, NodeLabel, NodeName,
};
use super::{Registry, Role, Taint, Time, Trust, may_show, text};

/// Keys before any table.
pub(super) const TOP_KEYS: [&str; 3] = ["version", "join", "reset"];

/// Keys of `[cluster]`.
pub(super) const CLUSTER_KEYS: [&str; 5] = ["apiserver", "token", "ca-cert-hashes", "ca-cert", "token-expires"];
/// Keys of `[node]`.
pub(super) const NODE_KEYS: [&str; 5] = ["name", "role", "cni", "labels", "taints"];
/// Tables that are read.
const TABLES: [&str; 8] = ["cluster", "node", "network", "time", "access", "kubelet", "registries", "harden"];

/// Line of a byte offset, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count()
}

pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// Everything that a seed's tables say.
pub(super) struct Tables {
    pub cluster: Cluster,
    pub node: Node,
    pub network: Network,
    pub time: Time,
    pub kubelet: Kubelet,
    pub registries: Vec<Registry>,
    pub access: Access,
    pub harden: Harden,
    /// Whether a device that has joined is reset first.
    pub reset: bool,
    /// Where secrets other than the token stand in the text.
    pub secrets: Vec<Range<usize>>,
}

/// The tables of a seed whose TOML is well formed.
pub(super) fn tables(text: &str, root: &DeTable<'_>) -> Result<Tables, Error> {
    let ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect();
    let mut reader = Reader { ends, errors: Vec::new(), secrets: Vec::new() };
    let seed = reader.seed(root);
    // Tables are walked by name; the person reads from the top.
    match (reader.errors.into_iter().min_by_key(|e| e.line.unwrap_or(usize::MAX)), seed) {
        (Some(error), _) => Err(error),
        (None, Some(seed)) => Ok(Tables { secrets: reader.secrets, ..seed }),
        (None, None) => Err(Error { line: None, text: "a value is missing".to_owned() }),
    }
}

/// Whether a seed says `reset = true` and nothing else, but its version.
pub(super) fn is_reset_alone(root: &DeTable<'_>) -> bool {
    let says = |key: &str| root.get(key).map(|v| v.get_ref());
    let version = says("version").is_some_and(|v| matches!(v, DeValue::Integer(i) if i.as_str() == "1"));
    version && root.len() == 2 && says("reset").and_then(DeValue::as_bool) == Some(true)
}

/// Walks the parsed tables and collects what is wrong, so that the first line can be told, not the first key.
pub(super) struct Reader {
    /// Where lines end; counting them anew for each of thousands of errors would take seconds.
    ends: Vec<usize>,
    pub(super) errors: Vec<Error>,
    pub(super) secrets: Vec<Range<usize>>,
}

impl Reader {
    pub(super) fn error(&mut self, offset: usize, text: impl Into<String>) {
        let line = 1 + self.ends.partition_point(|end| *end < offset);
        self.errors.push(Error { line: Some(line), text: text.into() });
    }

    fn seed(&mut self, root: &DeTable<'_>) -> Option<Tables> {
        self.version(root)?;
        for (key, value) in root.iter() {
            let (at, name, is_table) = (key.span().start, key.get_ref().as_ref(), value.get_ref().is_table());
            match name {
                _ if TOP_KEYS.contains(&name) => {}
                _ if TABLES.contains(&name) && is_table => {}
                _ if TABLES.contains(&name) => self.error(at, format!("{name} must be a table: [{name}]")),
                _ if is_table && may_show(name) => self.error(at, format!("unknown table [{name}]")),
                _ => self.error(at, format!("unknown key {} before any table", quoted(name))),
            }
        }
        let reset = root.get("reset").map_or(Some(false), |v| self.reset(v));
        let table = |name: &str| root.get(name).and_then(|v| Some((v.span().start, v.get_ref().as_table()?)));
        let mut join = root.get("join").map(|v| (v.span().start, self.join(v)));
        let mut node = match table("node") {
            Some((_, node)) => self.node(node),
            None => self.node(&DeTable::new()),
        };
        if let (Some((at, Some(join))), Some(node)) = (&mut join, &mut node) {
            match (join.node_name.take(), &node.name) {
                (Some(_), Some(_)) => self.error(*at, "--node-name in join and name in [node] are both set: give one"),
                (Some(name), None) => node.name = Some(name),
                (None, _) => {}
            }
        }
        let network = match table("network") {
            Some((at, network)) => self.network(at, network),
            None => Some(Network::default()),
        };
        let time = table("time").map_or(Some(Time::default()), |(_, t)| self.time(t));
        let kubelet = table("kubelet").map_or(Some(Kubelet::default()), |(_, t)| self.kubelet(t));
        let registries = table("registries").map_or(Some(Vec::new()), |(_, t)| self.registries(t));
        let access = table("access").map_or(Some(Access::default()), |(_, t)| self.access(t));
        let harden = table("harden").map_or(Some(Harden::default()), |(_, t)| self.harden(t));
        let cluster = match (table("cluster"), join) {
            (cluster, Some((at, join))) => {
                let empty = DeTable::new();
                join.and_then(|join| self.cluster(at, cluster.map_or(&empty, |(_, t)| t), Some(join)))
            }
            (Some((at, cluster)), None) => self.cluster(at, cluster, None),
            (None, None) => {
                if self.errors.is_empty() {
                    self.errors.push(Error { line: None, text: "table [cluster] is missing".to_owned() });
                }
                None
            }
        };
        let (cluster, node, network) = (cluster?, node?, network?);
        self.a_way_out(table("network").map_or(0, |(at, _)| at), &network, &cluster);
        Some(Tables {
            cluster,
            node,
            network,
            time: time?,
            kubelet: kubelet?,
            registries: registries?,
            access: access?,
            harden: harden?,
            reset: reset?,
            secrets: Vec::new(),
        })
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

    pub(super) fn unknown_keys(&mut self, name: &str, table: &DeTable<'_>, known: &[&str]) {
        for key in table.keys().filter(|k| !known.contains(&k.get_ref().as_ref())) {
            let hint = misplaced(key.get_ref());
            self.error(key.span().start, format!("unknown key {} in [{name}]{hint}", quoted(key.get_ref())));
        }
    }

    fn reset(&mut self, value: &Value<'_>) -> Option<bool> {
        let reset = value.get_ref().as_bool();
        if reset.is_none() {
            self.error(value.span().start, "reset must be true or false");
        }
        reset
    }

    /// kubeadm's own line.
    fn join(&mut self, value: &Value<'_>) -> Option<JoinLine> {
        let Some(line) = value.get_ref().as_str() else {
            self.error(value.span().start, "join must be a string in quotes");
            return None;
        };
        let read = join_line::parse(line);
        read.map_err(|why| self.error(value.span().start, format!("malformed join: {why}"))).ok()
    }

    /// `[cluster]`, or what kubeadm's line says of it; `at` is where the one of them that counts begins.
    fn cluster(&mut self, at: usize, table: &DeTable<'_>, join: Option<JoinLine>) -> Option<Cluster> {
        self.unknown_keys("cluster", table, &CLUSTER_KEYS);
        let beside = CLUSTER_KEYS[..3].iter().filter(|_| join.is_some()).filter_map(|k| table.get_key_value(*k));
        for (key, _) in beside {
            let text = format!("join and {} in [cluster] are both set: the line says it already", key.get_ref());
            self.error(key.span().start, text);
        }
        let from_line = join.is_some();
        let (apiserver, token, pins) = match join {
            Some(JoinLine { apiserver, token, ca_cert_hashes, .. }) => {
                let pins = (!ca_cert_hashes.is_empty()).then_some(Some(ca_cert_hashes));
                (Some(Some(vec![apiserver])), Some(Some(token)), pins)
            }
            None => (
                table.get("apiserver").map(|v| self.strings(v, "apiserver", "cluster", Endpoint::parse)),
                table.get("token").map(|v| self.string(v, "token", "cluster", JoinToken::parse)),
                table.get("ca-cert-hashes").map(|v| self.strings(v, "ca-cert-hashes", "cluster", CaPin::parse)),
            ),
        };
        let ca = table.get("ca-cert").map(|v| self.string(v, "ca-cert", "cluster", text::check_pem));
        let token_expires = table.get("token-expires").map(|v| self.datetime(v));
        if let (Some(_), Some(_), Some(v)) = (&pins, &ca, table.get("ca-cert")) {
            let text = match from_line {
                true => {
                    "ca-cert in [cluster] and --discovery-token-ca-cert-hash in join are both set: give one of them"
                }
                false => "ca-cert and ca-cert-hashes are both set in [cluster]: give one of them",
            };
            self.error(v.span().start, text);
        }
        if self.errors.is_empty() {
            const IMPOSTOR: &str = "without it the cluster cannot be told from an impostor";
            let missing = match (&apiserver, &token, &pins, &ca) {
                (None, ..) => "apiserver is missing in [cluster]".to_owned(),
                (_, None, ..) => "token is missing in [cluster]".to_owned(),
                (_, _, None, None) if from_line => {
                    format!(
                        "join has no --discovery-token-ca-cert-hash: {IMPOSTOR} (ca-cert in [cluster] does as well)"
                    )
                }
                (_, _, None, None) => {
                    format!("ca-cert-hashes is missing in [cluster]: {IMPOSTOR} (ca-cert does as well)")
                }
                _ => String::new(),
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
    pub(super) fn string<T>(
        &mut self,
        value: &Value<'_>,
        key: &str,
        table: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(text) = value.get_ref().as_str() else {
            self.error(value.span().start, format!("{key} in [{table}] must be a string in quotes"));
            return None;
        };
        parse(text).map_err(|why| self.error(value.span().start, format!("malformed {key} in [{table}]: {why}"))).ok()
    }

    /// A list of strings, or one string that stands for a list of one. An empty list is refused where something is
    /// required.
    pub(super) fn strings<T>(
        &mut self,
        value: &Value<'_>,
        key: &str,
        table: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let Some(array) = value.get_ref().as_array() else {
            return self.string(value, key, table, parse).map(|one| vec![one]);
        };
        if array.is_empty() && table == "cluster" {
            self.error(value.span().start, format!("{key} in [{table}] is empty"));
            return None;
        }
        let all: Vec<Option<T>> = array.iter().map(|v| self.string(v, key, table, &parse)).collect();
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
                // A line that was added at the end of the file, where a table is open.
                Err(_) if !misplaced(key.get_ref()).is_empty() => {
                    self.error(at, format!("malformed label {name} in [node]{}", misplaced(key.get_ref())));
                }
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

/// What to add to a message about a key that stands in a table but belongs before any.
pub(super) fn misplaced(key: &str) -> &'static str {
    match TOP_KEYS.contains(&key) {
        true => "; it belongs at the top, before any table",
        false => "",
    }
}

/// A key in quotes when it may be repeated; otherwise only its length.
pub(super) fn quoted(key: &str) -> String {
    match may_show(key) {
        true => format!("\"{key}\""),
        false => format!("of {} characters", key.chars().count()),
    }
}
