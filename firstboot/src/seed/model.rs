// SPDX-License-Identifier: Apache-2.0
//! A whole seed, as the rest of firstboot uses it.

use super::access::Access;
use super::certificate_key::CertificateKey;
use super::error::Error;
use super::harden::{Harden, OpenPort, Protocol};
use super::kubelet::Kubelet;
use super::network::{Network, Time};
use super::registries::Registry;
use super::ssh_key::SshKey;
use super::types::{CaPin, Cni, DEFAULT_PORT, Endpoint, JoinToken, NodeLabel, NodeName, Role, Taint};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::net::IpAddr;
use std::time::SystemTime;

/// VXLAN in Linux, at the port that flannel keeps.
pub const VXLAN: OpenPort = OpenPort { protocol: Protocol::Udp, first: 8472, last: 8472 };

/// kubeadm's own taint of a control plane (`LabelNodeRoleControlPlane` in `cmd/kubeadm/app/constants`).
pub const CONTROL_PLANE_TAINT: &str = "node-role.kubernetes.io/control-plane";

/// etcd's ports for clients and for its other members; both ask for a certificate (`kubeadm`, "Ports and Protocols").
const ETCD: [u16; 2] = [2379, 2380];

/// A whole seed. `Debug` shows everything but secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// How this device becomes a member of a cluster.
    pub membership: Membership,
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
    /// Whether that also holds for the control plane of a cluster that the device created.
    pub destroys_cluster: bool,
    pub(super) digest: String,
}

impl Seed {
    /// Tells two seeds apart: 16 hex digits over the text without its secrets, from which nothing of them can be found.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The cluster that this device joins; none where it creates one.
    pub fn join(&self) -> Option<&Cluster> {
        match &self.membership {
            Membership::Join(cluster) => Some(cluster),
            Membership::Create(_) => None,
        }
    }

    /// The cluster that this device creates; none where it joins one.
    pub fn create(&self) -> Option<&NewCluster> {
        match &self.membership {
            Membership::Join(_) => None,
            Membership::Create(cluster) => Some(cluster),
        }
    }

    /// The cluster of which this device becomes one more control plane, and the key of its certificates.
    pub fn joins_control_plane(&self) -> Option<(&Cluster, &CertificateKey)> {
        self.join().and_then(|cluster| Some((cluster, cluster.certificate_key.as_ref()?)))
    }

    /// Taints with which the node registers: those of `[node]`, and before them that of a control plane.
    pub fn taints(&self) -> Vec<Taint> {
        let own = Taint { key: CONTROL_PLANE_TAINT.into(), value: String::new(), effect: "NoSchedule".into() };
        let own = self.joins_control_plane().map(|_| own);
        own.into_iter().chain(self.node.taints.iter().cloned()).collect()
    }

    /// The address that this device shares with the other control planes.
    pub fn virtual_ip(&self) -> Option<IpAddr> {
        match &self.membership {
            Membership::Create(cluster) => cluster.virtual_ip,
            Membership::Join(cluster) => cluster.virtual_ip,
        }
    }

    /// Whether this device runs an API server.
    pub fn is_control_plane(&self) -> bool {
        self.create().is_some() || self.joins_control_plane().is_some()
    }

    /// The token that is not to be left on the card.
    pub fn token(&self) -> Option<&JoinToken> {
        self.join().map(|cluster| &cluster.token)
    }

    /// API servers of other machines, in the order in which they are tried.
    pub fn servers(&self) -> &[Endpoint] {
        self.join().map(|cluster| cluster.apiserver.as_slice()).unwrap_or_default()
    }

    /// Ports that a device opens because it is a control plane: the API server's, etcd's where there is or will be another
    /// control plane, and VXLAN for pods on other nodes where the network that it deploys needs that.
    pub fn ports_of_control_plane(&self) -> Vec<OpenPort> {
        let tcp = |first, last| OpenPort { protocol: Protocol::Tcp, first, last };
        let api = self.is_control_plane().then(|| tcp(DEFAULT_PORT, DEFAULT_PORT));
        let others = self.joins_control_plane().is_some() || self.create().is_some_and(|c| c.join_control_plane);
        let etcd = others.then(|| tcp(ETCD[0], ETCD[1]));
        let vxlan = self.create().filter(|_| self.node.cni == Cni::Auto).map(|_| VXLAN);
        api.into_iter().chain(etcd).chain(vxlan).collect()
    }

    /// As [`Trust::check_dates`]; a device that creates its cluster trusts no other one.
    ///
    /// # Errors
    /// No certificate of the seed is valid at `now`.
    pub fn check_dates(&self, now: SystemTime) -> Result<(), Error> {
        self.join().map_or(Ok(()), |cluster| cluster.trust.check_dates(now))
    }

    /// As [`Trust::check_end`].
    ///
    /// # Errors
    /// All certificates of the seed have expired at `now`.
    pub fn check_end(&self, now: SystemTime) -> Result<(), Error> {
        self.join().map_or(Ok(()), |cluster| cluster.trust.check_end(now))
    }
}

/// How a device becomes a member of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// It joins one that exists.
    Join(Cluster),
    /// It creates one, and is its first control plane.
    Create(Box<NewCluster>),
}

/// Table `[cluster]` with `create = true`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCluster {
    /// Under which name or address others reach the API servers; none: by this device's own address.
    pub endpoint: Option<Endpoint>,
    /// Address that the control planes share, by VRRP.
    pub virtual_ip: Option<IpAddr>,
    /// Addresses of pods, of one family or of both.
    pub pod_subnet: Vec<IpNet>,
    /// Addresses of Services, of the same families.
    pub service_subnet: Vec<IpNet>,
    /// Names and addresses that the API server's certificate covers besides its own.
    pub cert_sans: Vec<String>,
    /// A certificate request, PEM: the administrator whose certificate the cluster signs.
    pub admin_request: Option<String>,
    /// Hours that the token in `join-edge.toml` is good for; 0: there is no such file.
    pub join_seed_hours: u32,
    /// Whether the device leaves a seed for further control planes, `join-control-plane.toml`, too.
    pub join_control_plane: bool,
    /// Fields of kubeadm's ClusterConfiguration and InitConfiguration besides those that firstboot writes.
    pub kubeadm: Kubeadm,
}

impl NewCluster {
    /// The networks of pods and of Services, for people.
    pub fn networks(&self) -> String {
        let list = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        format!("pods in {}, Services in {}", list(&self.pod_subnet), list(&self.service_subnet))
    }
}

/// Table `[cluster.kubeadm]`, by the kind that has the field (kubeadm.k8s.io/v1beta4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kubeadm {
    /// Fields of ClusterConfiguration.
    pub cluster: Map<String, Value>,
    /// Fields of InitConfiguration.
    pub init: Map<String, Value>,
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
    /// Of a device that becomes one more control plane. No join worker gets it.
    #[serde(skip)]
    pub certificate_key: Option<CertificateKey>,
    /// Of the same device: the address that the control planes share.
    #[serde(skip)]
    pub virtual_ip: Option<IpAddr>,
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
        /// As [`Seed::destroys_cluster`].
        destroys_cluster: bool,
    },
}

impl SeedRequest {
    /// As [`Seed::digest`].
    pub fn digest(&self) -> &str {
        match self {
            SeedRequest::Join(seed) => seed.digest(),
            SeedRequest::Reset { digest, .. } => digest,
        }
    }

    /// Whether it may end a cluster that the device created: with all its objects, and the data of etcd.
    pub fn destroys_cluster(&self) -> bool {
        match self {
            SeedRequest::Join(seed) => seed.destroys_cluster,
            SeedRequest::Reset { destroys_cluster, .. } => *destroys_cluster,
        }
    }
}
