// SPDX-License-Identifier: Apache-2.0
//! The join, top to bottom: discovery, configuration, name, certificate. Seven requests, no file.
//!
//! 1–2 cluster-info (unverified, verified) · 3 kubeadm-config · 4 kubelet-config · 5 Node of this name ·
//! 6 CSR · 7 watch for its certificate. All but the first share one connection.

use std::time::{Duration, SystemTime};

use super::client::{Client, Reply};
use super::config::{self, ClusterConfiguration};
use super::csr::{self, Key};
use super::discovery;
use super::error::{Error, Kind};
use crate::fault::{Fault, Owner};
use crate::secret::Secret;
use crate::seed::{Cluster, JoinToken};

/// What a join has to know.
pub struct JoinInput<'a> {
    /// The seed's table.
    pub cluster: &'a Cluster,
    /// Name of the Node.
    pub node_name: &'a str,
    /// Version of kubelet in the bundle, with or without `v`.
    pub kubelet_version: &'a str,
    /// The image's target, for the command that builds another.
    pub target: &'a str,
    /// CRI socket as kubelet's configuration names it, `unix:///…`.
    pub cri_socket: &'a str,
    /// `resolvConf` for kubelet where the host's own /etc/resolv.conf points at a local stub (systemd-resolved).
    pub resolv_conf: Option<&'a str>,
    /// The device's clock.
    pub now: SystemTime,
    /// Longest wait for approval and signature in one attempt; the next attempt takes the same CSR up again.
    pub csr_wait: Duration,
}

/// What the join needs of the device it runs on.
pub trait Device {
    /// The key that an earlier attempt stored, PEM; none when there is none.
    fn stored_key(&mut self) -> Result<Option<Secret<String>>, Fault>;
    /// Keeps the key, durably, until the certificate is written; called before the CSR is sent.
    fn store_key(&mut self, pem: &Secret<String>) -> Result<(), Fault>;
    /// The clock of the verified cluster; called once, before any credential is sent.
    fn server_time(&mut self, time: SystemTime) -> Result<(), Fault>;
    /// Tells what is being done, one line without secrets.
    fn progress(&mut self, text: &str);
}

/// All that the cluster gave; [`super::files::files`] says where it goes.
pub struct Joined {
    /// API server to keep, `https://host:port[/path]`.
    pub server: String,
    /// CA bundle, PEM.
    pub ca_pem: String,
    /// Of the control plane, `v1.36.3`.
    pub cluster_version: String,
    /// `/var/lib/kubelet/config.yaml`.
    pub kubelet_config: String,
    /// CRI socket that it names.
    pub cri_socket: String,
    /// Certificate chain of `system:node:<name>`, PEM.
    pub certificate_pem: String,
    /// Its private key, SEC 1 PEM.
    pub key_pem: Secret<String>,
    /// A Node of this name was left over: kubelet will not label it, so [`super::node::NodeClient::set_labels`] must.
    pub leftover_node: bool,
}

/// Joins: blocks until the certificate is there or something failed. Trying again is always safe.
///
/// # Errors
/// One fault, one line: the image's for a version that does not fit, the host's when the key cannot be kept, else
/// the cluster's. No text holds the token's secret.
pub fn obtain(input: &JoinInput<'_>, device: &mut dyn Device) -> Result<Joined, Fault> {
    super::run(join(input, device))
}

async fn join(input: &JoinInput<'_>, device: &mut dyn Device) -> Result<Joined, Fault> {
    device.progress("looking for the cluster");
    let found = discovery::discover(input.cluster, input.now).await?;
    if let Some(time) = found.server_time {
        device.server_time(time)?;
    }
    let token = &input.cluster.token;
    let (api, reply) = configured(&found, token, device).await?;
    let cluster = config::cluster_configuration(data(&reply, "kubeadm-config", "ClusterConfiguration")?)?;
    config::check_skew(input.kubelet_version, &cluster.kubernetes_version, input.target)?;
    let kubelet_config = kubelet_config(&api, input, &cluster).await?;
    let leftover_node = existing_node(&api, input.node_name).await?;

    device.progress("asking for a certificate");
    let key = match device.stored_key()?.and_then(|pem| Key::from_pem(pem.expose())) {
        Some(key) => key,
        None => {
            let key = Key::generate()?;
            device.store_key(&key.pem())?;
            key
        }
    };
    let certificate_pem = csr::certificate(&api, &key, input.node_name, input.csr_wait).await?;
    Ok(Joined {
        server: api.server().to_owned(),
        ca_pem: found.ca_pem,
        cluster_version: cluster.kubernetes_version,
        kubelet_config,
        cri_socket: input.cri_socket.to_owned(),
        certificate_pem,
        key_pem: key.sec1_pem()?,
        leftover_node,
    })
}

/// First request with the token, kubeadm-config; decides which address of the cluster is kept.
///
/// kubeadm goes over to cluster-info's `server` whatever happens. Where that one does not answer, as behind a NAT,
/// the seed's own endpoint has already proven that it is the same cluster, and stays.
async fn configured(
    found: &discovery::Found,
    token: &JoinToken,
    device: &mut dyn Device,
) -> Result<(Client, Reply), Fault> {
    const PATH: &str = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config";
    let by_seed = found.client.with_token(token);
    let preferred = by_seed.at(&found.server);
    let refused = |e: Error| match e.kind {
        Kind::Status(401) => Error {
            text: format!(
                "join token \"{}\" is refused by the cluster (401): it may have expired, or lacks usage authentication",
                token.id()
            ),
            ..e
        },
        _ => e,
    };
    match preferred.get(PATH).await {
        Ok(reply) => Ok((preferred, reply)),
        Err(error) if error.kind == Kind::Transport && preferred.server() != by_seed.server() => {
            device.progress(&format!(
                "keeping the seed's {}, as its cluster's own address failed: {error}",
                by_seed.host()
            ));
            let reply = by_seed.get(PATH).await.map_err(refused)?;
            Ok((by_seed, reply))
        }
        Err(error) => Err(refused(error).into()),
    }
}

async fn kubelet_config(api: &Client, input: &JoinInput<'_>, cluster: &ClusterConfiguration) -> Result<String, Fault> {
    let reply = api.get("/api/v1/namespaces/kube-system/configmaps/kubelet-config").await?;
    let published = data(&reply, "kubelet-config", "kubelet")?;
    Ok(config::kubelet_config(published, cluster, input.cri_socket, input.resolv_conf)?)
}

fn data<'r>(reply: &'r Reply, map: &str, key: &str) -> Result<&'r str, Error> {
    let text = reply.body["data"][key].as_str();
    text.ok_or_else(|| Error::answer(format!("ConfigMap {map}: key {key} is missing")))
}

/// Whether a Node of this name is left over.
///
/// # Errors
/// It is Ready, so somebody else is using the name, or this device did until less than a minute ago.
async fn existing_node(api: &Client, name: &str) -> Result<bool, Fault> {
    let node = match api.get(&format!("/api/v1/nodes/{name}")).await {
        Ok(reply) => reply.body,
        Err(Error { kind: Kind::Status(404), .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    match super::node::NodeState::of(&node).ready {
        false => Ok(true),
        true => Err(Fault::new(
            Owner::Cluster,
            format!(
                "a Node named \"{name}\" is already Ready in the cluster: kubectl delete node {name}, or give this \
                 device another name in seed.toml"
            ),
        )),
    }
}
