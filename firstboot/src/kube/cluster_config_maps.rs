// SPDX-License-Identifier: Apache-2.0
//! What a cluster shows to a bootstrap token before it gives a certificate, and to a node: kubeadm's ConfigMaps, and
//! whether the node's name is free.

use std::time::Duration;

use super::client::{Client, Reply};
use super::config::{self, ClusterConfiguration, KubeletConfig};
use super::contract::{JoinHost, JoinInput};
use super::discovery;
use super::error::{Error, Kind, remote};
use super::node::{NodeClient, NodeState};
use crate::fault::{Code, Fault};
use crate::seed::Cluster;

const KUBEADM_CONFIG: &str = "kubeadm-config";
/// A node, as errors call it, and its group.
const BY_NODE: &str = "by this node";
const NODES: &str = "system:nodes";

/// First request with the token: kubeadm-config, from the API server that has just proven itself.
pub(super) async fn configured(found: &discovery::Found, seed: &Cluster) -> Result<(Client, Reply), Error> {
    let api = found.client.with_token(&seed.token);
    let refused = |e: Error| match e.kind {
        Kind::Status(401) => {
            let (code, why) = match discovery::expired(seed, found.cluster.time) {
                Some(why) => (Code::TokenExpired, why),
                None => (Code::TokenUnknown, "it may have expired, or lacks usage authentication".to_owned()),
            };
            let text = format!("join token \"{}\" is refused by the cluster (401): {why}", seed.token.id());
            e.saying(code, text)
        }
        _ => e,
    };
    let who = format!("with join token \"{}\"", seed.token.id());
    let group = "system:bootstrappers:kubeadm:default-node-token";
    let reply = published(&api, KUBEADM_CONFIG, &who, group).await.map_err(refused)?;
    Ok((api, reply))
}

/// One of the ConfigMaps that kubeadm leaves for joining nodes, read by `who`, a member of `group`.
async fn published(api: &Client, name: &str, who: &str, group: &str) -> Result<Reply, Error> {
    let reply = api.get(&format!("/api/v1/namespaces/kube-system/configmaps/{name}")).await;
    reply.map_err(|e| {
        let why = match e.kind {
            Kind::Status(404) => {
                "does not exist in namespace kube-system: publish it with kubeadm init phase upload-config all"
                    .to_owned()
            }
            Kind::Status(403) => {
                format!("may not be read {who}: kubeadm init phase upload-config all permits it to group {group}")
            }
            _ => return e,
        };
        e.saying(Code::ClusterConfiguration, format!("ConfigMap {name} {why}"))
    })
}

/// kubeadm-config as a node reads it: kubeadm permits it (RBAC of its phase `upload-config`), so this takes no token.
pub(super) async fn kubeadm_config(node: &Client) -> Result<Reply, Error> {
    published(node, KUBEADM_CONFIG, BY_NODE, NODES).await
}

/// What kubeadm-config says.
pub(super) fn cluster_configuration(kubeadm_config: &Reply) -> Result<ClusterConfiguration, Error> {
    config::cluster_configuration(data(kubeadm_config, KUBEADM_CONFIG, "ClusterConfiguration")?)
}

/// kubelet-config as a node reads it, with what of `cluster` and of this device goes into it.
pub(super) async fn kubelet_config(
    node: &Client,
    cluster: &ClusterConfiguration,
    cri_socket: &str,
    resolv_conf: Option<&str>,
) -> Result<KubeletConfig, Error> {
    let reply = published(node, "kubelet-config", BY_NODE, NODES).await?;
    config::kubelet_config(data(&reply, "kubelet-config", "kubelet")?, cluster, cri_socket, resolv_conf)
}

impl NodeClient {
    /// kubelet's configuration as the cluster publishes it now.
    ///
    /// # Errors
    /// As during a join.
    pub fn kubelet_config(&self, cri_socket: &str, resolv_conf: Option<&str>) -> Result<KubeletConfig, Fault> {
        self.run(async {
            let cluster = cluster_configuration(&kubeadm_config(&self.client).await?)?;
            Ok(kubelet_config(&self.client, &cluster, cri_socket, resolv_conf).await?)
        })
    }

    /// Name of this node's request for a serving certificate that is neither approved nor denied, if there is one.
    ///
    /// # Errors
    /// No answer.
    pub fn pending_serving_request(&self) -> Result<Option<String>, Fault> {
        const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests?fieldSelector=spec.signerName%3D\
                            kubernetes.io/kubelet-serving";
        self.run(async {
            let reply = self.client.get(PATH).await?;
            let user = format!("system:node:{}", self.name);
            let all = reply.body["items"].as_array().cloned().unwrap_or_default();
            let ours = all.iter().filter(|csr| csr["spec"]["username"] == user.as_str());
            let pending = ours.filter(|csr| csr["status"]["conditions"].as_array().is_none_or(Vec::is_empty));
            // kubelet waits for the last one that it has made.
            let last = pending.max_by_key(|csr| csr["metadata"]["creationTimestamp"].as_str().map(str::to_owned));
            Ok(last.and_then(|csr| csr["metadata"]["name"].as_str()).map(remote))
        })
    }
}

/// One key of a ConfigMap.
fn data<'r>(reply: &'r Reply, map: &str, key: &str) -> Result<&'r str, Error> {
    let text = reply.body["data"][key].as_str();
    text.ok_or_else(|| Error::answer(Code::ClusterConfiguration, format!("ConfigMap {map}: key {key} is missing")))
}

/// How often a Ready Node of this name is looked at again; a token may not watch it.
const LOOK: Duration = Duration::from_secs(5);

/// Waits until no Ready Node has this name.
///
/// A device that was flashed anew looks Ready until the cluster has missed its Lease for the node monitor grace
/// period, so that is waited out before the name counts as taken.
///
/// # Errors
/// It stays Ready, so another device is using the name.
pub(super) async fn existing_node(api: &Client, input: &JoinInput, device: &mut dyn JoinHost) -> Result<(), Fault> {
    let (name, started) = (&input.node_name, tokio::time::Instant::now());
    let mut reported = false;
    loop {
        let node = match api.get(&format!("/api/v1/nodes/{name}")).await {
            Ok(reply) => reply.body,
            Err(Error { kind: Kind::Status(404), .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let state = NodeState::of(&node);
        if !state.ready {
            return Ok(());
        }
        let left = input.ready_wait.saturating_sub(started.elapsed());
        if left.is_zero() {
            let since = state.since;
            return Err(Fault::new(
                Code::NodeNameTaken,
                format!(
                    "a Node named \"{name}\" has been Ready in the cluster since {since}: kubectl delete node {name}, \
                     or give this device another name in seed.toml"
                ),
            ));
        }
        if !reported {
            let wait = input.ready_wait.as_secs();
            device.notice(&format!(
                "a Node named \"{name}\" is Ready: waiting up to {wait} s, in case that was this device before"
            ));
            reported = true;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_the_configuration_that_is_missing_is_named() {
        let reply = Reply { body: serde_json::json!({"data": {"a": "b"}}), date: None };
        assert_eq!(data(&reply, "kubeadm-config", "a").unwrap(), "b");
        let error = data(&reply, "kubeadm-config", "ClusterConfiguration").unwrap_err();
        assert_eq!(error.text, "ConfigMap kubeadm-config: key ClusterConfiguration is missing");
    }
}
