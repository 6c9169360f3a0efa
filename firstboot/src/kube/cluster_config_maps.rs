// SPDX-License-Identifier: Apache-2.0
//! What a cluster shows to a bootstrap token before it gives a certificate: kubeadm's ConfigMaps, and whether the
//! node's name is free.

use std::time::Duration;

use serde_json::Value;

use super::client::{Client, Reply};
use super::config::{self, KubeletConfig};
use super::contract::{JoinHost, JoinInput};
use super::discovery;
use super::error::{Error, Kind, remote};
use super::node::{NodeClient, NodeState};
use crate::fault::{Code, Fault};

/// First request with the token, kubeadm-config; decides which address of the cluster is kept.
///
/// kubeadm goes over to cluster-info's `server` whatever happens. Where that one does not answer, as behind a NAT,
/// the seed's own endpoint has already proven that it is the same cluster, and stays.
pub(super) async fn configured(
    found: &discovery::Found,
    input: &JoinInput,
    device: &mut dyn JoinHost,
) -> Result<(Client, Reply), Fault> {
    let by_seed = found.client.with_token(&input.cluster.token);
    let preferred = by_seed.at(&found.server);
    let refused = |e: Error| match e.kind {
        Kind::Status(401) => {
            let (code, why) = match discovery::expired(&input.cluster, found.server_time) {
                Some(why) => (Code::TokenExpired, why),
                None => (Code::TokenUnknown, "it may have expired, or lacks usage authentication".to_owned()),
            };
            let text = format!("join token \"{}\" is refused by the cluster (401): {why}", input.cluster.token.id());
            e.saying(code, text)
        }
        _ => e,
    };
    match config_map(&preferred, input, "kubeadm-config").await {
        Ok(reply) => Ok((preferred, reply)),
        // What the API server itself refused it would refuse at the other address too.
        Err(error) if !matches!(error.kind, Kind::Status(_)) && preferred.server() != by_seed.server() => {
            let (seed, error) = (by_seed.host(), error.text);
            device.notice(&format!("keeping API server {seed} of the seed, as cluster-info's own failed: {error}"));
            let reply = config_map(&by_seed, input, "kubeadm-config").await.map_err(refused)?;
            Ok((by_seed, reply))
        }
        Err(error) => Err(refused(error).into()),
    }
}

/// One of the ConfigMaps that kubeadm leaves for joining nodes.
pub(super) async fn config_map(api: &Client, input: &JoinInput, name: &str) -> Result<Reply, Error> {
    let who = format!("with join token \"{}\"", input.cluster.token.id());
    published(api, name, &who, "system:bootstrappers:kubeadm:default-node-token").await
}

/// The same, for whom errors call `who`, a member of `group`.
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

impl NodeClient {
    /// kubelet's configuration as the cluster publishes it now. kubeadm permits nodes to read it (RBAC of its phase
    /// `upload-config`), so this takes no token.
    ///
    /// # Errors
    /// As during a join.
    pub fn kubelet_config(&self, cri_socket: &str, resolv_conf: Option<&str>) -> Result<KubeletConfig, Fault> {
        self.run(async {
            let read = async |name| published(&self.client, name, "by this node", "system:nodes").await;
            let reply = read("kubeadm-config").await?;
            let cluster = config::cluster_configuration(data(&reply, "kubeadm-config", "ClusterConfiguration")?)?;
            let reply = read("kubelet-config").await?;
            let text = data(&reply, "kubelet-config", "kubelet")?;
            Ok(config::kubelet_config(text, &cluster, cri_socket, resolv_conf)?)
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
pub(super) fn data<'r>(reply: &'r Reply, map: &str, key: &str) -> Result<&'r str, Error> {
    let text = reply.body["data"][key].as_str();
    text.ok_or_else(|| Error::answer(Code::ClusterConfiguration, format!("ConfigMap {map}: key {key} is missing")))
}

/// How often a Ready Node of this name is looked at again; a token may not watch it.
const LOOK: Duration = Duration::from_secs(5);

/// The Node of this name that an earlier installation left over, if there is one.
///
/// A device that was flashed anew looks Ready until the cluster has missed its Lease for the node monitor grace
/// period, so that is waited out before the name counts as taken.
///
/// # Errors
/// It stays Ready, so another device is using the name.
pub(super) async fn existing_node(
    api: &Client,
    input: &JoinInput,
    device: &mut dyn JoinHost,
) -> Result<Option<Value>, Fault> {
    let (name, started) = (&input.node_name, tokio::time::Instant::now());
    let mut reported = false;
    loop {
        let node = match api.get(&format!("/api/v1/nodes/{name}")).await {
            Ok(reply) => reply.body,
            Err(Error { kind: Kind::Status(404), .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let state = NodeState::of(&node);
        if !state.ready {
            return Ok(Some(node));
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
