// SPDX-License-Identifier: Apache-2.0
//! The join, top to bottom: discovery, configuration, name, certificate. Seven requests, no file.
//!
//! 1–2 cluster-info (unverified, verified) · 3 kubeadm-config · 4 kubelet-config · 5 Node of this name ·
//! 6 CSR · 7 watch for its certificate. All but the first share one connection. With `ca-cert` in the seed, one request
//! for the server's time takes the place of 1–2.

use std::time::{Duration, SystemTime};

use super::client::Client;
use super::csr::{self, Outcome, Request};
use super::published::{config_map, configured, data, existing_node};
use super::{config, discovery};
use crate::fault::{Fault, Owner};
use crate::proxy::Via;
use crate::seed::Cluster;
use serde::{Deserialize, Serialize};

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
    /// How long a Ready Node of this name may be this device's previous life: the cluster's node monitor grace
    /// period (50 s unless changed), and some more.
    pub ready_wait: Duration,
}

/// What the join needs of the device it runs on.
pub trait Device {
    /// The request for a certificate, over the key that is kept from an earlier attempt, or over a new one where there
    /// is none or `fresh` asks for one. A key is kept, durably, before its request is handed out.
    fn request(&mut self, fresh: bool) -> Result<Request, Fault>;
    /// The clock of the verified cluster; called once, before the token is sent to it.
    ///
    /// # Errors
    /// The time cannot be right, or cannot be kept: the join ends, and no token is sent.
    fn server_time(&mut self, time: SystemTime) -> Result<(), Fault>;
    /// Tells what is being done, one line without secrets.
    fn progress(&mut self, text: &str);
    /// Tells something that a person should know although the join goes on, one line without secrets.
    fn notice(&mut self, text: &str);
}

/// All that the cluster gave; [`super::files::files`] says where it goes, beside the key that the device kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// `/var/lib/kubelet/config.yaml`.
    pub kubelet_config: String,
    /// CRI socket that it names.
    pub cri_socket: String,
    /// Certificate chain of `system:node:<name>`, PEM.
    pub certificate_pem: String,
    /// A Node of this name was left over: kubelet will not label it, so [`super::node::NodeClient::take_over`] must.
    pub leftover_node: bool,
}

/// Joins: blocks until the certificate is there or something failed. Trying again is always safe.
///
/// # Errors
/// One fault, one line: the image's for a version that does not fit, the host's when the key cannot be kept, else
/// the cluster's. No text holds the token's secret.
pub fn obtain(input: &JoinInput, device: &mut dyn Device) -> Result<Joined, Fault> {
    super::run(join(input, device))
}

async fn join(input: &JoinInput, device: &mut dyn Device) -> Result<Joined, Fault> {
    device.progress("looking for the cluster");
    let found = discovery::discover(&input.cluster, &input.via, input.now).await?;
    if let Some(time) = found.server_time {
        device.server_time(time)?;
    }
    let (api, reply) = configured(&found, input, device).await?;
    let cluster = config::cluster_configuration(data(&reply, "kubeadm-config", "ClusterConfiguration")?)?;
    config::check_skew(&input.kubelet_version, &cluster.kubernetes_version, &input.target)?;
    let published = config_map(&api, input, "kubelet-config").await?;
    let kubelet_config = data(&published, "kubelet-config", "kubelet")?;
    let kubelet_config =
        config::kubelet_config(kubelet_config, &cluster, &input.cri_socket, input.resolv_conf.as_deref())?;
    let leftover = existing_node(&api, input, device).await?;
    let now = found.server_time.unwrap_or(input.now);
    let certificate_pem = certificate(&api, input, now, device).await?;
    Ok(Joined {
        server: api.server().to_owned(),
        ca_pem: found.ca_pem,
        networks: cluster.networking.ranges(),
        node_ports: cluster.api_server.node_ports(),
        cluster_version: cluster.kubernetes_version,
        kubelet_config,
        cri_socket: input.cri_socket.clone(),
        certificate_pem,
        leftover_node: leftover.is_some(),
    })
}

/// The certificate chain. Its key is on record before the CSR is sent, so that a power cut costs nothing.
async fn certificate(
    api: &Client,
    input: &JoinInput,
    now: SystemTime,
    device: &mut dyn Device,
) -> Result<String, Fault> {
    device.progress("asking for a certificate");
    let request = device.request(false)?;
    let why = match csr::certificate(api, &request, &input.node_name, now, input.csr_wait).await? {
        Outcome::Issued(chain) => return Ok(chain),
        Outcome::Spoilt(why) => why,
    };
    device.notice(&format!("{why}: sending another"));
    let request = device.request(true)?;
    match csr::certificate(api, &request, &input.node_name, now, input.csr_wait).await? {
        Outcome::Issued(chain) => Ok(chain),
        Outcome::Spoilt(why) => Err(Fault::new(Owner::Cluster, format!("{why}; the next try sends another"))),
    }
}
