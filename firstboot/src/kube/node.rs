// SPDX-License-Identifier: Apache-2.0
//! The API as the node itself: is it registered and Ready, has it addresses for pods, does its Lease move.
//!
//! Uses the certificate that kubelet uses; what this identity may do is fixed by the node authorizer.

use crate::paths::CNI_CONF;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use reqwest::Url;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::runtime::Runtime;

use super::client::Client;
use super::error::{Error, Kind, remote};
use super::tls::{self, PinnedCa, Validity};
use super::{pin, runtime};
use crate::fault::{Code, Fault};
use crate::proxy::Via;
use crate::seed::Taint;

/// Port of a server's URL that names none.
const HTTPS: u16 = 443;

/// What a Node object says that matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeState {
    /// Condition Ready is True.
    pub ready: bool,
    /// Reason and message of condition Ready.
    pub why: String,
    /// Since when condition Ready is what it is, RFC 3339 as the cluster writes it.
    pub since: String,
    /// Addresses for its pods, CIDRs; empty until the cluster allocates them.
    pub pod_cidrs: Vec<String>,
    /// Boot id of the kernel that kubelet last reported from.
    pub boot_id: String,
    /// Taints, in the form of `kubectl taint`: `key=value:Effect`.
    pub taints: Vec<String>,
}

impl NodeState {
    /// Reads a Node object.
    pub fn of(node: &Value) -> Self {
        let conditions = node["status"]["conditions"].as_array();
        let ready = conditions.and_then(|all| all.iter().find(|c| c["type"] == "Ready"));
        let why = |c: &Value| {
            remote(&format!("{}: {}", c["reason"].as_str().unwrap_or(""), c["message"].as_str().unwrap_or("")))
        };
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let cidrs = list(&node["spec"]["podCIDRs"]);
        let since = ready.and_then(|c| c["lastTransitionTime"].as_str());
        NodeState {
            ready: ready.is_some_and(|c| c["status"] == "True"),
            why: ready.map_or_else(|| "no condition Ready yet".to_owned(), why),
            pod_cidrs: cidrs.iter().filter_map(|c| c.as_str().map(str::to_owned)).collect(),
            since: since.map_or_else(|| "an unknown time".to_owned(), remote),
            boot_id: node["status"]["nodeInfo"]["bootID"].as_str().unwrap_or("").to_owned(),
            taints: list(&node["spec"]["taints"]).iter().filter_map(taint).collect(),
        }
    }
}

fn taint(value: &Value) -> Option<String> {
    let part = |key: &str| value[key].as_str().unwrap_or_default();
    let taint = Taint { key: part("key").into(), value: part("value").into(), effect: part("effect").into() };
    (!taint.key.is_empty()).then(|| taint.to_string())
}

/// A client that is `system:node:<name>`. Blocking; keeps its connection.
pub struct NodeClient {
    pub(super) client: Client,
    pub(super) name: String,
    runtime: Runtime,
}

impl NodeClient {
    /// A client of `server`, trusted by `ca_pem`, with the certificate and key that `pem` holds (kubelet's own file).
    ///
    /// # Errors
    /// The host's, when certificate and key cannot be used.
    pub fn new(name: &str, server: &str, ca_pem: &str, pem: &str) -> Result<Self, Fault> {
        NodeClient::through(&Via::default(), name, server, ca_pem, pem)
    }

    /// The same, where the server is reached through a proxy.
    ///
    /// # Errors
    /// The host's, when certificate and key cannot be used.
    pub fn through(via: &Via, name: &str, server: &str, ca_pem: &str, pem: &str) -> Result<Self, Fault> {
        let unusable = |what: String| Fault::new(Code::NodeCredential, format!("use node certificate: {what}"));
        let client = identified(via, server, ca_pem, pem).map_err(unusable)?;
        Ok(NodeClient { client, name: name.to_owned(), runtime: runtime::new()? })
    }

    pub(super) fn run<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        runtime::block_on(&self.runtime, work)
    }

    pub(super) fn node_path(&self) -> String {
        format!("/api/v1/nodes/{}", self.name)
    }

    /// Name of the node that this client is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Creates an object. One of that name that is there already is as good.
    pub(super) fn create(&self, path: &str, object: &Value) -> Result<(), Fault> {
        self.run(async {
            match self.client.post(path, object).await {
                Ok(_) | Err(Error { kind: Kind::Status(409), .. }) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// Own Node; none before kubelet has registered it. Either answer proves that the certificate is accepted.
    pub fn node(&self) -> Result<Option<NodeState>, Fault> {
        self.run(async {
            match self.client.get(&self.node_path()).await {
                Ok(reply) => Ok(Some(NodeState::of(&reply.body))),
                Err(Error { kind: Kind::Status(404), .. }) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// Watches own Node until `see` gives something; at the deadline gives the last state seen.
    fn watch_node<T>(
        &self,
        limit: Duration,
        mut see: impl FnMut(&NodeState) -> Option<T>,
    ) -> Result<Result<T, Option<NodeState>>, Fault> {
        let mut last = None;
        let selector = format!("metadata.name={}", self.name);
        let seen = self.run(async {
            let see = |event: &str, node: &Value| -> Result<Option<T>, Fault> {
                let state = NodeState::of(node);
                let seen = if event == "DELETED" { None } else { see(&state) };
                last = if event == "DELETED" { None } else { Some(state) };
                Ok(seen)
            };
            self.client.watch("/api/v1/nodes", &selector, None, limit, see).await
        })?;
        Ok(seen.ok_or(last))
    }

    /// Waits until own Node is Ready, as reported from this boot when `boot_id` says which (a left-over Node may
    /// still look Ready).
    ///
    /// # Errors
    /// After `limit`: not registered, or what condition Ready says.
    pub fn wait_ready(&self, boot_id: Option<&str>, limit: Duration) -> Result<NodeState, Fault> {
        let this_boot = |n: &NodeState| boot_id.is_none_or(|id| n.boot_id == id);
        self.watch_node(limit, |n| (n.ready && this_boot(n)).then(|| n.clone()))?.map_err(|last| {
            let why = last.map_or_else(|| "kubelet has not registered it".to_owned(), |n| n.why);
            Fault::new(
                Code::NodeNotReady,
                format!("node {} is not Ready after {} s: {why}", self.name, limit.as_secs()),
            )
        })
    }

    /// Waits until the cluster has given own Node addresses for pods.
    ///
    /// # Errors
    /// After `limit`: not registered, or a cluster that allocates none.
    pub fn wait_pod_cidrs(&self, limit: Duration) -> Result<Vec<String>, Fault> {
        self.watch_node(limit, |n| (!n.pod_cidrs.is_empty()).then(|| n.pod_cidrs.clone()))?.map_err(|last| {
            let (name, seconds) = (&self.name, limit.as_secs());
            let (code, text) = match last {
                None => (Code::NodeNotReady, format!("node {name} is not registered by kubelet after {seconds} s")),
                Some(_) => (
                    Code::NoPodCidr,
                    format!(
                        "cluster allocates no podCIDR to node {name} ({seconds} s): run kube-controller-manager with \
                     --allocate-node-cidrs, or install a pod network"
                    ),
                ),
            };
            Fault::new(code, text)
        })
    }

    /// Waits until kubelet has renewed the node's Lease after `since` (own clock; kubelet stamps it with the same).
    /// Polls: a node may not watch its Lease.
    pub fn wait_lease(&self, since: SystemTime, limit: Duration) -> Result<SystemTime, Fault> {
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{}", self.name);
        self.run(async {
            let started = tokio::time::Instant::now();
            loop {
                let renewed = match self.client.get(&path).await {
                    Ok(reply) => reply.body["spec"]["renewTime"].as_str().and_then(micro_time),
                    Err(Error { kind: Kind::Status(404), .. }) => None,
                    Err(error) => return Err(error.into()),
                };
                if let Some(time) = renewed.filter(|t| *t > since) {
                    return Ok(time);
                }
                if started.elapsed() > limit {
                    let text = format!("Lease of node {} is not renewed after {} s", self.name, limit.as_secs());
                    return Err(Fault::new(Code::NodeNotReady, text));
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
    }

    /// Gives own Node what kubelet does not when the Node was left over from an earlier installation: labels are set (or,
    /// without a value, removed), and pods may come again where a reset has cordoned it; taints only an administrator may
    /// set. Gives the commands that are left to him.
    ///
    /// # Errors
    /// No answer. That the cluster does not let a node set these labels is no error but a command.
    pub fn take_over(&self, labels: &BTreeMap<String, Option<String>>, taints: &[Taint]) -> Result<Vec<String>, Fault> {
        self.run(async {
            let path = self.node_path();
            let (node, mut commands) = match self.client.patch(&path, &json!({"metadata": {"labels": labels}})).await {
                Ok(reply) => (reply.body, Vec::new()),
                Err(Error { kind: Kind::Status(403), .. }) => {
                    let word = |(k, v): (&String, &Option<String>)| match v {
                        Some(v) => format!("{k}={v}"),
                        None => format!("{k}-"),
                    };
                    let words: Vec<String> = labels.iter().map(word).collect();
                    let command = format!("kubectl label --overwrite node {} {}", self.name, words.join(" "));
                    (self.client.get(&path).await?.body, vec![command])
                }
                Err(error) => return Err(error.into()),
            };
            let there = NodeState::of(&node).taints;
            let missing: Vec<String> = taints.iter().map(Taint::to_string).filter(|t| !there.contains(t)).collect();
            if !missing.is_empty() {
                commands.push(format!("kubectl taint --overwrite node {} {}", self.name, missing.join(" ")));
            }
            commands.extend(self.uncordon(&node).await?);
            Ok(commands)
        })
    }

    /// Host of the API server that this client talks to, without brackets, and its port.
    pub fn server_host(&self) -> (String, u16) {
        host_of(self.client.server())
    }

    /// Endpoints of Service `kubernetes`: the API servers as the cluster sees them. None where the cluster has no such
    /// object or does not let nodes read it (ClusterRole `system:node` does).
    pub fn endpoints(&self) -> Result<Vec<(u16, BTreeSet<IpAddr>)>, Fault> {
        self.run(async {
            match self.client.get("/api/v1/namespaces/default/endpoints/kubernetes").await {
                Ok(reply) => Ok(endpoints(&reply.body)),
                Err(Error { kind: Kind::Status(403 | 404), .. }) => Ok(Vec::new()),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// A pod scheduled to this node that mounts the CNI configuration directory: `namespace/name`.
    pub fn cni_pod(&self) -> Result<Option<String>, Fault> {
        self.run(async {
            let reply = self.client.get(&format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", self.name)).await?;
            let pods = reply.body["items"].as_array().cloned().unwrap_or_default();
            Ok(pods.iter().find(|pod| mounts_cni(pod)).map(|pod| {
                let part = |key: &str| pod["metadata"][key].as_str().unwrap_or("").to_owned();
                format!("{}/{}", part("namespace"), part("name"))
            }))
        })
    }
}

/// Whether a pod has a hostPath volume at, or right above, the CNI configuration directory.
fn mounts_cni(pod: &Value) -> bool {
    let volumes = pod["spec"]["volumes"].as_array();
    let path = |v: &Value| v["hostPath"]["path"].as_str().map(|p| p.trim_end_matches('/').to_owned());
    volumes.is_some_and(|all| all.iter().filter_map(path).any(|p| p == CNI_CONF || p == "/etc/cni"))
}

/// A client of `server`, trusted by `ca_pem`, as the owner of the certificate and key that `pem` holds.
///
/// # Errors
/// What cannot be used, without any of it.
pub(crate) fn identified(via: &Via, server: &str, ca_pem: &str, pem: &str) -> Result<Client, String> {
    let ca = pin::certificates(ca_pem).ok_or("CA bundle cannot be read")?;
    let chain = pin::certificates(pem).ok_or("certificate cannot be read")?;
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| "key cannot be read")?;
    let tls = tls::identified(PinnedCa::new(ca, Validity::SystemClock), chain, key).map_err(|e| e.to_string())?;
    Client::through(via, server, tls).map_err(|error| error.text)
}

/// Host of a server's URL, without brackets, and its port.
pub(crate) fn host_of(server: &str) -> (String, u16) {
    let url = Url::parse(server).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default().trim_matches(['[', ']']).to_owned();
    (host, url.and_then(|url| url.port_or_known_default()).unwrap_or(HTTPS))
}

/// Ports in an Endpoints object (core/v1), each with the addresses of its subset.
fn endpoints(object: &Value) -> Vec<(u16, BTreeSet<IpAddr>)> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for subset in list(&object["subsets"]) {
        let addresses = list(&subset["addresses"]);
        let addresses: BTreeSet<IpAddr> = addresses.iter().filter_map(|a| a["ip"].as_str()?.parse().ok()).collect();
        let ports = list(&subset["ports"]);
        let ports = ports.iter().filter_map(|p| u16::try_from(p["port"].as_u64()?).ok());
        all.extend(ports.map(|port| (port, addresses.clone())));
    }
    all.retain(|(_, addresses)| !addresses.is_empty());
    all
}

fn micro_time(text: &str) -> Option<SystemTime> {
    Some(OffsetDateTime::parse(text, &Rfc3339).ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_of_a_node() {
        let node = json!({
            "spec": {
                "podCIDR": "10.244.1.0/24",
                "podCIDRs": ["10.244.1.0/24"],
                "taints": [
                    {"key": "edge", "value": "true", "effect": "NoSchedule"},
                    {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "x"},
                ],
            },
            "status": {
                "nodeInfo": {"bootID": "b"},
                "conditions": [
                    {"type": "MemoryPressure", "status": "True"},
                    {"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "network not ready",
                     "lastTransitionTime": "2026-11-22T16:31:48Z"},
                ],
            },
        });
        let state = NodeState::of(&node);
        assert_eq!((state.ready, state.why.as_str()), (false, "KubeletNotReady: network not ready"));
        assert_eq!(state.since, "2026-11-22T16:31:48Z");
        assert_eq!(state.taints, ["edge=true:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]);
        assert_eq!((state.pod_cidrs, state.boot_id.as_str()), (vec!["10.244.1.0/24".to_owned()], "b"));
        assert_eq!(NodeState::of(&json!({})).why, "no condition Ready yet");
    }

    #[test]
    fn pods_that_bring_a_network() {
        let pod = |path: &str| json!({"spec": {"volumes": [{"emptyDir": {}}, {"hostPath": {"path": path}}]}});
        assert!(
            mounts_cni(&pod("/etc/cni/net.d")) && mounts_cni(&pod("/etc/cni/net.d/")) && mounts_cni(&pod("/etc/cni"))
        );
        assert!(!mounts_cni(&pod("/etc")) && !mounts_cni(&json!({})));
    }

    #[test]
    fn addresses_of_endpoints_and_servers() {
        let object = json!({"subsets": [
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "ports": [{"port": 6443}, {"port": 70000}]},
            {"addresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 443}]},
            {"notReadyAddresses": [{"ip": "10.0.0.9"}], "ports": [{"port": 6443}]},
        ]});
        let set = |all: &[&str]| all.iter().map(|a| a.parse().unwrap()).collect::<BTreeSet<IpAddr>>();
        assert_eq!(endpoints(&object), [(6443, set(&["10.0.0.1", "fd00::1"])), (443, set(&["10.0.0.2"]))]);
        assert!(endpoints(&json!({})).is_empty());
        assert_eq!(host_of("https://[fd00::1]:6443"), ("fd00::1".to_owned(), 6443));
        assert_eq!(host_of("https://api.example/k8s"), ("api.example".to_owned(), 443));
    }

    #[test]
    fn lease_times() {
        let time = micro_time("2026-11-22T16:31:48.123456Z").unwrap();
        assert_eq!(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis(), 1_795_365_108_123);
    }
}
