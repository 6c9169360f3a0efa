// SPDX-License-Identifier: Apache-2.0
//! What a join is given, what it asks of the device, and what it gives back.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::csr::Request;
use super::node::host_of;
use crate::fault::Fault;
use crate::proxy::Via;
use crate::seed::Cluster;

/// What a join has to know. Serde leaves the token's secret and the proxy's credentials out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinInput {
    /// The seed's table.
    pub cluster: Cluster,
    /// How its API servers are reached.
    pub via: Via,
    /// Name of the Node.
    pub node_name: String,
    /// Version of kubelet in the bundle, with or without `v`.
    pub kubelet_version: String,
    /// The image's target, for the command that builds another.
    pub target: String,
    /// CRI socket as kubelet's configuration names it, `unix:///…`.
    pub cri_socket: String,
    /// `resolvConf` for kubelet where the host's own /etc/resolv.conf points at a local stub (systemd-resolved).
    pub resolv_conf: Option<String>,
    /// The device's clock.
    pub now: SystemTime,
    /// Longest wait for approval and signature in one attempt; the next attempt takes the same CSR up again.
    pub csr_wait: Duration,
    /// How long a Ready Node of this name may be this device's previous installation: the cluster's node monitor grace
    /// period (50 s unless changed), and some more.
    pub ready_wait: Duration,
}

impl JoinInput {
    /// Addresses of the seed's API servers, and of `server` (`https://host:port[/path]`): those that need no DNS.
    pub fn servers(&self, server: &str) -> Vec<IpAddr> {
        let kept = host_of(server).0;
        let hosts = self.cluster.apiserver.iter().map(|endpoint| endpoint.host.as_str()).chain([kept.as_str()]);
        hosts.filter_map(|host| host.parse().ok()).collect()
    }
}

/// The cluster that a join has found to be the seed's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundCluster {
    /// Which of the seed's API servers answered, counted from 0.
    pub endpoint: usize,
    /// Its CA bundle, PEM.
    pub ca_pem: String,
    /// Its clock; none where its answers have no `Date`.
    pub time: Option<SystemTime>,
}

/// What the join needs of the device it runs on.
pub trait JoinHost {
    /// The request for a certificate, over the key that is kept from an earlier attempt, or over a new one where there
    /// is none or `fresh` asks for one. A key is kept, durably, before its request is handed out.
    fn request(&mut self, fresh: bool) -> Result<Request, Fault>;
    /// The cluster, verified; called once, before the token is sent to it.
    ///
    /// # Errors
    /// It is not accepted, or its time cannot be right: the join ends, and no token is sent.
    fn found(&mut self, cluster: &FoundCluster) -> Result<(), Fault>;
    /// Tells what is being done, one line without secrets.
    fn progress(&mut self, text: &str);
    /// Tells something that a person should know although the join goes on, one line without secrets.
    fn notice(&mut self, text: &str);
}

/// All that the cluster gave, as the privileged part read it ([`super::confirm`]); [`super::files::files`] says where it
/// goes, beside the key that the device kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// API server to keep, `https://host:port[/path]`.
    pub server: String,
    /// CA bundle, PEM.
    pub ca_pem: String,
    /// Of the control plane, `v1.36.3`.
    pub cluster_version: String,
    /// Ranges of pods and Services, joined by commas; empty when kubeadm-config does not tell.
    pub networks: String,
    /// Range of NodePorts, `FIRST-LAST`; empty when kubeadm-config names none.
    pub node_ports: String,
    /// Address of Service `kubernetes`; empty when kubeadm-config does not tell.
    pub api_service: String,
    /// `/var/lib/kubelet/config.yaml`.
    pub kubelet_config: String,
    /// CRI socket that it names.
    pub cri_socket: String,
    /// Certificate chain of `system:node:<name>`, PEM.
    pub certificate_pem: String,
    /// A Node of this name was left over: kubelet will not label it, so [`super::node::NodeClient::take_over`] must.
    pub leftover_node: bool,
}
