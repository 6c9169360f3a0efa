// SPDX-License-Identifier: Apache-2.0
//! A whole seed, as the rest of firstboot uses it.

use super::access::Access;
use super::harden::Harden;
use super::kubelet::Kubelet;
use super::network::{Network, Time};
use super::registries::Registry;
use super::ssh_key::SshKey;
use super::types::{CaPin, Cni, Endpoint, JoinToken, NodeLabel, NodeName, Role, Taint};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

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
    /// Public keys of the owner: a joined device obeys a stick whose seed is signed by one of them, and no other stick.
    pub owner: Vec<SshKey>,
    /// Where its host is to be less, or more, closed than others.
    pub harden: Harden,
    /// Whether a device that has joined is reset first.
    pub reset: bool,
    pub(super) digest: String,
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
    /// Whether this node keeps what it reads from the API server, to go on without it.
    pub offline: bool,
    /// Whether Secrets are among it.
    pub offline_secrets: bool,
}

/// What a seed file asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeedRequest {
    /// To join; a device that has joined already is reset first where the seed says so.
    Join(Box<Seed>),
    /// To be reset, and to wait for a seed then: `reset = true` alone.
    Reset {
        /// As [`Seed::digest`].
        digest: String,
    },
}
