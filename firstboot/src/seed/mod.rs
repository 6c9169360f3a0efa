// SPDX-License-Identifier: Apache-2.0
//! The seed: `seed.toml`'s bytes in, a whole, validated [`Seed`] out.
//!
//! Strict: an unknown key is an error with its line. No message repeats a value, because any value may hold the
//! token. The keys are listed in docs/seed.md. Nothing here reads a file or knows a phase.

mod access;
mod as_text;
mod harden;
pub mod join_line;
mod kubelet;
mod kubelet_fields;
mod network;
mod read;
mod read_network;
mod registries;
mod text;
mod types;

#[cfg(test)]
mod harden_tests;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod types_tests;

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use toml::de::DeTable;
use zeroize::Zeroizing;

use crate::unpack::hex;

pub use access::{Access, SshKey};
#[cfg(test)]
pub(crate) use harden::KUBELETS;
pub use harden::{Harden, OpenPort, Protocol};
pub use kubelet::Kubelet;
#[cfg(test)]
pub(crate) use kubelet::is_kubelet_field;
pub use network::{Interface, Network, Security, Time, Wifi};
pub use registries::{Mirror, Registry};
pub use types::{
    CaPin, Cni, DEFAULT_PORT, Endpoint, JoinToken, NodeLabel, NodeName, Role, Taint, is_dns_subdomain, may_show,
};

/// Largest seed that is read, bytes.
pub const MAX_SIZE: usize = 64 * 1024;

/// Every key that a seed may have, by table (`""`: before any table; a table of tables has the keys of each of them).
/// docs/seed.md is held against this list.
pub const KEYS: &[(&str, &[&str])] = &[
    ("", &read::TOP_KEYS),
    ("cluster", &read::CLUSTER_KEYS),
    ("node", &read::NODE_KEYS),
    ("network", &read_network::NETWORK_KEYS),
    ("network.wifi", &read_network::WIFI_KEYS),
    ("time", &read_network::TIME_KEYS),
    ("kubelet", &kubelet::KEYS),
    ("registries", &registries::KEYS),
    ("access", &access::KEYS),
    ("harden", &harden::KEYS),
];

/// Why a seed was refused; `Display` is one line, `seed.toml:LINE: …`, without any value of the seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Line in the file, from 1; none when the whole file is meant.
    pub line: Option<usize>,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "seed.toml:{line}: {}", self.text),
            None => write!(f, "seed.toml: {}", self.text),
        }
    }
}

impl std::error::Error for Error {}

/// A whole seed. `Debug` shows everything but secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// Which cluster, and why it is trusted.
    pub cluster: Cluster,
    /// What this node is in it.
    pub node: Node,
    /// How it reaches the network.
    pub network: Network,
    /// Who tells it the time.
    pub time: Time,
    /// Settings of its kubelet.
    pub kubelet: Kubelet,
    /// Where its container images come from, by name.
    pub registries: Vec<Registry>,
    /// Who may log in.
    pub access: Access,
    /// Where its host is to be less, or more, closed than others.
    pub harden: Harden,
    /// Whether a device that has joined is reset first.
    pub reset: bool,
    digest: String,
}

impl Seed {
    /// Tells two seeds apart: 16 hex digits over the text without its secrets, from which nothing of them can be found.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// Table `[cluster]`. Serde leaves the token's secret out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// API servers to try, in order; at least one.
    pub apiserver: Vec<Endpoint>,
    /// Bootstrap token.
    pub token: JoinToken,
    /// The one way in which the API server is trusted.
    pub trust: Trust,
    /// When the token ends, if the seed says so.
    pub token_expires: Option<SystemTime>,
}

/// How the cluster's CA becomes known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trust {
    /// Fetched without verification, then held against these; at least one.
    Pins(Vec<CaPin>),
    /// The certificates themselves, PEM: no unverified request is made.
    Ca(String),
}

/// Table `[node]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Template of the name; none leaves it to the device (serial number, MAC address, or a random one).
    pub name: Option<NodeName>,
    /// Edge node or worker.
    pub role: Role,
    /// Who gives pods their network.
    pub cni: Cni,
    /// Labels beyond those of the role.
    pub labels: Vec<NodeLabel>,
    /// Taints to register with.
    pub taints: Vec<Taint>,
}

/// What a seed file asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// To join; a device that has joined already is reset first where the seed says so.
    Join(Box<Seed>),
    /// To be reset, and to wait for a seed then: `reset = true` alone.
    Reset {
        /// As [`Seed::digest`].
        digest: String,
    },
}

/// Reads a seed file, which may ask for a reset alone; otherwise as [`parse`].
///
/// # Errors
/// The first thing that is wrong, by line.
pub fn asked(bytes: &[u8]) -> Result<Asked, Error> {
    if bytes.len() <= MAX_SIZE {
        let text = text::decode(bytes)?;
        if DeTable::parse(&text).is_ok_and(|root| read::is_reset_alone(root.get_ref())) {
            return Ok(Asked::Reset { digest: digest(text.as_bytes()) });
        }
    }
    parse(bytes).map(|seed| Asked::Join(Box::new(seed)))
}

/// Reads a seed that joins; UTF-8 with or without byte-order mark, or UTF-16 with one; any line ends.
///
/// # Errors
/// The first thing that is wrong, by line.
pub fn parse(bytes: &[u8]) -> Result<Seed, Error> {
    let whole = |text: &str| Error { line: None, text: text.to_owned() };
    if bytes.len() > MAX_SIZE {
        return Err(whole("the file is larger than 64 KiB"));
    }
    let text = text::decode(bytes)?;
    if text.trim_matches(|c: char| c.is_whitespace() || c == '\0').is_empty() {
        return Err(whole("the file is empty"));
    }
    let root = DeTable::parse(&text).map_err(|e| syntax_error(&text, &e))?;
    let read::Tables { cluster, node, network, time, kubelet, registries, access, harden, reset, mut secrets } =
        read::tables(&text, root.get_ref())?;
    // It will be overwritten where it stands, which takes that it stands there.
    if !text.contains(cluster.token.secret()) {
        return Err(whole("write the token in one piece, without escapes: it could not be erased"));
    }
    let mut public = text.clone();
    secrets.sort_by_key(|s| std::cmp::Reverse(s.start));
    for secret in secrets {
        public.replace_range(secret, "");
    }
    // Overwriting the token must not make it another seed.
    let public = Zeroizing::new(public.replace(cluster.token.secret(), JoinToken::SPENT));
    let digest = digest(public.as_bytes());
    Ok(Seed { cluster, node, network, time, kubelet, registries, access, harden, reset, digest })
}

/// 16 hex digits that identify a seed file.
fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::new().chain_update(b"firstboot seed 1\0").chain_update(bytes).finalize();
    hex(&hash[..8])
}

/// The parser's own message and line; never its `Display`, which prints the offending line.
fn syntax_error(text: &str, error: &toml::de::Error) -> Error {
    let line = error.span().map(|s| read::line_of(text, s.start));
    // The parser's messages are fixed texts; the guard is for the day when one is not.
    let shown = error.message().split_whitespace().all(may_show);
    let message = if shown { error.message().replace('\n', ", ") } else { "syntax error".to_owned() };
    Error { line, text: format!("not valid TOML: {message}") }
}
