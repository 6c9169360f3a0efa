// SPDX-License-Identifier: Apache-2.0
//! SuperEdge's ConfigMap `edge-info` in namespace `edge-system`: what edgeadm hands to a joining edge node
//! (`JoinNodePrepare` in superedge/edgeadm). Its Role lets a bootstrap token read it; a node may not, so it is read
//! before the token is dropped, and what is no secret in it is kept for the step that sets up SuperEdge's own parts.
//!
//! A cluster without SuperEdge must not pay for it with a request (7 a join). So it is asked for only when what was
//! fetched anyway tells of SuperEdge, or when the seed's `ca-cert` has saved the unverified request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::client::Client;
use super::error::{Error, Kind};

const PATH: &str = "/api/v1/namespaces/edge-system/configmaps/edge-info";

/// Keys whose values are no secret: those that edgeadm and TKE write, but for `lite-apiserver.key`.
const PUBLIC: &[&str] = &[
    "edge-coredns-cluster-ip",
    "edge-virtual-addr",
    "host-config",
    "insecure-registries",
    "kube-api-ca.crt",
    "kube-api-cluster-ip",
    "lite-apiserver.crt",
    "lite-apiserver.yaml",
    "node-delay-domain",
    "tls.json",
    "tunnel-coredns-cluster-ip",
];

/// What `edge-info` holds, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeInfo {
    /// Known keys and their values, as edgeadm wrote them.
    pub data: BTreeMap<String, String>,
    /// Names of the keys whose values were left in the cluster.
    pub left_out: Vec<String>,
}

impl EdgeInfo {
    /// The public part of the ConfigMap; none when it holds nothing.
    fn of(map: &Value) -> Option<Self> {
        let all = map["data"].as_object().filter(|all| !all.is_empty())?;
        let mut info = EdgeInfo { data: BTreeMap::new(), left_out: Vec::new() };
        for (key, value) in all {
            match value.as_str() {
                Some(text) if is_public(key, text) => {
                    info.data.insert(key.clone(), text.to_owned());
                }
                _ => info.left_out.push(key.clone()),
            }
        }
        Some(info)
    }

    /// Whether it holds nothing but what may be kept.
    pub fn is_public(&self) -> bool {
        self.data.iter().all(|(key, text)| is_public(key, text))
    }
}

/// A key pasted under a harmless name is a key all the same.
fn is_public(key: &str, text: &str) -> bool {
    PUBLIC.contains(&key) && !text.contains("PRIVATE KEY")
}

/// Whether an object tells of SuperEdge: edgeadm made or changed it, or it carries a label or annotation of
/// SuperEdge's, or images come from SuperEdge's registry.
pub fn tells_of_superedge(object: &Value) -> bool {
    let meta = &object["metadata"];
    let edgeadm = |field: &Value| field["manager"].as_str().is_some_and(|m| m.starts_with("edgeadm"));
    let named = |map: &Value| map.as_object().is_some_and(|map| map.keys().any(|key| key.contains("superedge")));
    let repository = |text: &str| text.lines().any(|l| l.starts_with("imageRepository:") && l.contains("superedge"));
    meta["managedFields"].as_array().is_some_and(|all| all.iter().any(edgeadm))
        || named(&meta["labels"])
        || named(&meta["annotations"])
        || object["data"]["ClusterConfiguration"].as_str().is_some_and(repository)
}

/// Reads `edge-info` with the token. Absent and forbidden are normal: most clusters have no SuperEdge.
///
/// # Errors
/// No answer, or one that is not the API server's.
pub async fn read(api: &Client) -> Result<Option<EdgeInfo>, Error> {
    match api.get(PATH).await {
        Ok(reply) => Ok(EdgeInfo::of(&reply.body)),
        Err(Error { kind: Kind::Status(401 | 403 | 404), .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_that_are_no_secret_are_kept_and_the_others_named() {
        let info = EdgeInfo::of(&json!({"data": {
            "kube-api-ca.crt": "CA",
            "kube-api-cluster-ip": "10.96.0.1",
            "lite-apiserver.key": "-----BEGIN RSA PRIVATE KEY-----",
            "lite-apiserver.crt": "-----BEGIN CERTIFICATE-----\n-----BEGIN RSA PRIVATE KEY-----",
            "news": "x",
        }}));
        let info = info.unwrap();
        assert_eq!(info.data.keys().collect::<Vec<_>>(), ["kube-api-ca.crt", "kube-api-cluster-ip"]);
        assert_eq!(info.left_out, ["lite-apiserver.crt", "lite-apiserver.key", "news"]);
        assert!(!format!("{info:?}").contains("PRIVATE KEY"));
        assert_eq!(EdgeInfo::of(&json!({})), None);
    }

    #[test]
    fn signs_of_superedge() {
        let by = |manager: &str| json!({"metadata": {"managedFields": [{"manager": "kubectl"}, {"manager": manager}]}});
        let config = |repository: &str| json!({"data": {"ClusterConfiguration": format!("a: b\nimageRepository: {repository}\n")}});
        assert!(tells_of_superedge(&by("edgeadm")) && !tells_of_superedge(&by("kubeadm")));
        assert!(tells_of_superedge(&config("superedge.example.com/superedge")));
        assert!(!tells_of_superedge(&config("registry.k8s.io")));
        assert!(tells_of_superedge(&json!({"metadata": {"labels": {"superedge.io/node-edge": "enable"}}})));
        assert!(tells_of_superedge(&json!({"metadata": {"annotations": {"superedge.io/local-port": "51003"}}})));
        assert!(!tells_of_superedge(&json!({})));
    }
}
