// SPDX-License-Identifier: Apache-2.0
//! Walks the parsed tables of a seed: known keys into typed values, everything else into errors with a line.

use crate::fault::Code;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::access::Access;
use super::error::Error;
use super::harden::Harden;
use super::join_line::{self, JoinLine};
use super::kubelet::Kubelet;
use super::model::{Membership, Seed};
use super::network::{Network, Time};
use super::reader::{Reader, TOP_KEYS, Value, quoted, without_quotes};
use super::suggest::{self, Keys};
use super::types::{Endpoint, may_show};

/// Tables that are read.
const TABLES: [&str; 9] = ["cluster", "node", "network", "time", "access", "owner", "kubelet", "registries", "harden"];

/// Everything that a seed's tables say.
pub(super) struct Tables {
    /// The seed, still without its digest.
    pub seed: Seed,
    /// Where secrets other than the token stand in the text.
    pub secrets: Vec<Range<usize>>,
}

/// The tables of a seed whose TOML is well formed.
pub(super) fn tables(text: &str, root: &DeTable<'_>, keys: &'static Keys) -> Result<Tables, Error> {
    let ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect();
    let mut reader = Reader { ends, errors: Vec::new(), secrets: Vec::new(), keys };
    let seed = reader.seed(root);
    // Tables are walked by name; the person reads from the top. What is missing is often there under a wrong name.
    let rank = |e: &Error| (e.code == Code::MissingKey, e.line.unwrap_or(usize::MAX));
    match (reader.errors.into_iter().min_by_key(rank), seed) {
        (Some(error), _) => Err(error),
        (None, Some(seed)) => Ok(Tables { seed, secrets: reader.secrets }),
        (None, None) => Err(Error { code: Code::MissingKey, line: None, text: "a value is missing".to_owned() }),
    }
}

/// What says that a reset may end a cluster that the device created.
const DESTROY: &str = "destroy-cluster";

/// Whether a seed asks for a reset and for nothing else, but its version; if so, whether a control plane is reset, too.
pub(super) fn reset_alone(root: &DeTable<'_>) -> Option<bool> {
    let says = |key: &str| root.get(key).map(|v| v.get_ref());
    let version = says("version").is_some_and(|v| matches!(v, DeValue::Integer(i) if i.as_str() == "1"));
    let reset = says("reset").filter(|_| version && root.len() == 2)?;
    let destroys = reset.as_str() == Some(DESTROY);
    (destroys || reset.as_bool() == Some(true)).then_some(destroys)
}

impl Reader {
    fn seed(&mut self, root: &DeTable<'_>) -> Option<Seed> {
        self.version(root)?;
        for (key, value) in root.iter() {
            let (at, name, is_table) = (key.span().start, key.get_ref().as_ref(), value.get_ref().is_table());
            match name {
                _ if TOP_KEYS.contains(&name) => {}
                _ if TABLES.contains(&name) && is_table => {}
                _ if TABLES.contains(&name) => {
                    self.error(at, Code::BadValue, format!("{name} must be a table: [{name}]"))
                }
                _ if is_table && may_show(name) => {
                    let hint = suggest::table(name, &TABLES);
                    self.error(at, Code::UnknownKey, format!("unknown table [{name}]{hint}"));
                }
                _ => {
                    let hint = self.hint(name, "", &TOP_KEYS);
                    self.error(at, Code::UnknownKey, format!("unknown key {} before any table{hint}", quoted(name)));
                }
            }
        }
        let reset = root.get("reset").map_or(Some((false, false)), |v| self.reset(v));
        let table = |name: &str| root.get(name).and_then(|v| Some((v.span().start, v.get_ref().as_table()?)));
        let mut join = root.get("join").map(|v| (v.span().start, self.join(v)));
        let mut node = match table("node") {
            Some((_, node)) => self.node(node),
            None => self.node(&DeTable::new()),
        };
        if let (Some((at, Some(join))), Some(node)) = (&mut join, &mut node) {
            match (join.node_name.take(), &node.name) {
                (Some(_), Some(_)) => self.error(
                    *at,
                    Code::ConflictingKeys,
                    "--node-name in join and name in [node] are both set: give one",
                ),
                (Some(name), None) => node.name = Some(name),
                (None, _) => {}
            }
            let given = table("node").is_some_and(|(_, node)| node.contains_key("role"));
            match join.role {
                Some(role) if given && role != node.role => self.error(
                    *at,
                    Code::ConflictingKeys,
                    "--enable-edge in join and role in [node] are both set, and differ: give one",
                ),
                Some(role) => node.role = role,
                None => {}
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
        let owner = table("owner").map_or(Some(Vec::new()), |(_, t)| self.owner(t));
        let harden = table("harden").map_or(Some(Harden::default()), |(_, t)| self.harden(t));
        let creates = table("cluster").map_or(Some(false), |(_, cluster)| self.creates(cluster));
        let membership = match (table("cluster"), join) {
            (Some((_, cluster)), Some((at, _))) if creates == Some(true) => {
                self.error(at, Code::ConflictingKeys, "join and create in [cluster] are both set: give one of them");
                self.new_cluster(cluster).map(|cluster| Membership::Create(Box::new(cluster)))
            }
            (Some((_, cluster)), None) if creates == Some(true) => {
                self.new_cluster(cluster).map(|cluster| Membership::Create(Box::new(cluster)))
            }
            (cluster, Some((at, join))) => {
                let empty = DeTable::new();
                let cluster = cluster.map_or(&empty, |(_, t)| t);
                join.and_then(|join| self.cluster(at, cluster, Some(join))).map(Membership::Join)
            }
            (Some((at, cluster)), None) => self.cluster(at, cluster, None).map(Membership::Join),
            (None, None) => {
                if self.errors.is_empty() {
                    let text = "table [cluster] is missing".to_owned();
                    self.errors.push(Error { code: Code::MissingKey, line: None, text });
                }
                None
            }
        };
        let (membership, node, network) = (membership?, node?, network?);
        let place = |name: &str| table(name).map_or(0, |(at, _)| at);
        self.control_plane(place("node"), place("cluster"), &node, &membership);
        self.virtual_ip(place("cluster"), &network, &membership);
        let at = place("network");
        let servers = match &membership {
            Membership::Join(cluster) => cluster.apiserver.as_slice(),
            Membership::Create(cluster) => {
                self.apart(at, &network.addresses, cluster);
                &[]
            }
        };
        self.a_way_out(at, &network, servers);
        let behind = |s: &&Endpoint| network.via.proxy_for(&s.host, s.port).is_some();
        if let Some(Endpoint { host, .. }) = servers.iter().find(behind) {
            let together = "and proxy in [network] do not go together for API server";
            if node.offline {
                let text = format!("offline in [node] {together} {host}: add it to no-proxy");
                self.error(at, Code::ConflictingKeys, text);
            }
            if matches!(&membership, Membership::Join(cluster) if cluster.certificate_key.is_some()) {
                let text = format!(
                    "certificate-key in [cluster] {together} {host}: control planes reach each other directly; add it to \
                     no-proxy"
                );
                self.error(place("cluster"), Code::ConflictingKeys, text);
            }
        }
        Some(Seed {
            membership,
            node,
            network,
            time: time?,
            kubelet: kubelet?,
            registries: registries?,
            access: access?,
            owner: owner?,
            harden: harden?,
            reset: reset?.0,
            destroys_cluster: reset?.1,
            digest: String::new(),
        })
    }

    /// Comes first: another version may have other keys, and then every other message would mislead.
    fn version(&mut self, root: &DeTable<'_>) -> Option<()> {
        let Some(version) = root.get("version") else {
            let text = "the first line must be: version = 1".to_owned();
            self.errors.push(Error { code: Code::SeedVersion, line: None, text });
            return None;
        };
        match version.get_ref() {
            DeValue::Integer(i) if i.as_str() == "1" && i.radix() == 10 => Some(()),
            DeValue::String(_) => {
                let text = "version is a number: write version = 1, without quotes";
                self.error(version.span().start, Code::SeedVersion, text);
                None
            }
            _ => {
                self.error(version.span().start, Code::SeedVersion, "this firstboot reads seeds of version = 1 only");
                None
            }
        }
    }

    /// Whether a device that has joined is reset first, and whether a control plane is, too.
    fn reset(&mut self, value: &Value<'_>) -> Option<(bool, bool)> {
        if value.get_ref().as_str() == Some(DESTROY) {
            return Some((true, true));
        }
        let reset = value.get_ref().as_bool();
        if reset.is_none() {
            let text = format!("reset must be true or false{}", without_quotes(value));
            self.error(value.span().start, Code::BadValue, text);
        }
        reset.map(|reset| (reset, false))
    }

    /// kubeadm's own line.
    fn join(&mut self, value: &Value<'_>) -> Option<JoinLine> {
        let Some(line) = value.get_ref().as_str() else {
            self.error(value.span().start, Code::BadValue, "join must be a string in quotes");
            return None;
        };
        let read = join_line::parse(line);
        read.map_err(|why| self.error(value.span().start, Code::BadValue, format!("malformed join: {why}"))).ok()
    }
}
