// SPDX-License-Identifier: Apache-2.0
//! What `kubeadm init` and `kubeadm join` are given, and what their messages mean. Pure: a seed in, text out.
//!
//! The documents are InitConfiguration, ClusterConfiguration and JoinConfiguration of kubeadm.k8s.io/v1beta4, as JSON, which
//! is YAML.

use super::patches;
use crate::kube::config::Networking;
use crate::secret::Secret;
use crate::seed::{CONTROL_PLANE_TAINT, DEFAULT_PORT, Kubeadm, NewCluster, Node, Taint};
use crate::text::printable_line;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use zeroize::Zeroizing;

/// kubeadm's API.
const API: &str = "kubeadm.k8s.io/v1beta4";
/// What `kubeadm join` leaves out: this device is a node of the cluster already, by the same steps.
const DONE: [&str; 3] = ["preflight", "kubelet-start", "kubelet-wait-bootstrap"];

/// A part of `kubeadm join`. kubeadm does all at once: a power cut then finds a member of etcd whose certificates are not on
/// the disk yet, and kubelet starts an API server and its controllers again and again before there is an etcd that they could
/// use, which on a small device keeps etcd from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Certificates and kubeconfigs. With `all`, those that control planes share are there already and are not downloaded:
    /// the key to them may have ended.
    Certificates {
        /// Whether they are.
        all: bool,
    },
    /// One more member of etcd.
    Etcd,
    /// The API server and its controllers, and the Node's label and taint.
    ApiServer,
}

impl Part {
    /// Phases of the other parts, and what is done.
    fn skips(self) -> &'static [&'static str] {
        match self {
            Part::Certificates { all: false } => {
                &["control-plane-prepare/control-plane", "etcd-join", "control-plane-join", "wait-control-plane"]
            }
            Part::Certificates { all: true } => &[
                "control-plane-prepare/download-certs",
                "control-plane-prepare/control-plane",
                "etcd-join",
                "control-plane-join",
                "wait-control-plane",
            ],
            Part::Etcd => &["control-plane-prepare", "control-plane-join", "wait-control-plane"],
            Part::ApiServer => &[
                "control-plane-prepare/download-certs",
                "control-plane-prepare/certs",
                "control-plane-prepare/kubeconfig",
                "etcd-join",
            ],
        }
    }
}

/// Longest waits, for the slowest card: kubeadm's own are 4, 4, 1 and 2 minutes.
const WAITS: [(&str, &str); 4] = [
    ("controlPlaneComponentHealthCheck", "15m0s"),
    ("kubeletHealthCheck", "10m0s"),
    ("kubernetesAPICall", "5m0s"),
    ("etcdAPICall", "10m0s"),
];
/// Milliseconds between two heartbeats of etcd, and without any until another member takes over: its own are 100 and 1000,
/// which a slow card or a busy small device misses, so that members lose each other ("Tuning" in etcd's documentation).
/// Alone, a member that was just started would wait the latter for nothing.
const ETCD: [(&str, &str); 2] = [("heartbeat-interval", "500"), ("election-timeout", "5000")];
/// How kube-controller-manager and kube-scheduler say that they are the active ones, each in a Lease: their own values are
/// 15, 10 and 2 s. That is one write to etcd each second, with its flushes, on a device that does nothing else, and a small
/// device that is late loses its Lease and starts again. OpenShift has 137, 107 and 26 s for the same reasons. After a power
/// cut they wait until the last Lease has ended: a single control plane, for which nothing stands in meanwhile, has a
/// shorter one. docs/clusters.md says what that costs.
const LEADER: [(&str, &str); 3] = [
    ("leader-elect-lease-duration", "30s"),
    ("leader-elect-renew-deadline", "20s"),
    ("leader-elect-retry-period", "5s"),
];
/// The same where more control planes may join.
const LEADER_OF_SEVERAL: [(&str, &str); 3] = [
    ("leader-elect-lease-duration", "60s"),
    ("leader-elect-renew-deadline", "45s"),
    ("leader-elect-retry-period", "10s"),
];
/// Flags that fit one another: where the seed has one of them, firstboot sets none of them.
const TOGETHER: [&[(&str, &str)]; 2] = [&ETCD, &LEADER];
/// What CIS Kubernetes asks of a control plane and kubeadm does not set (docs/hardening.md, sections 1 to 3).
const PROFILING: (&str, &str) = ("profiling", "false");
/// The same, of kube-apiserver. The first plugin is kubeadm's own.
const API_SERVER: [(&str, &str); 3] = [
    PROFILING,
    ("enable-admission-plugins", "NodeRestriction,DenyServiceExternalIPs"),
    // Those of kubelet (`harden/kubelet/fields.rs`). TLS 1.3 has no other than strong ones, and they cannot be chosen.
    (
        "tls-cipher-suites",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,\
         TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,\
         TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    ),
];
/// The same, of kube-controller-manager: its own 12500 pods that have ended are for large clusters.
const CONTROLLER_MANAGER: [(&str, &str); 2] = [PROFILING, ("terminated-pod-gc-threshold", "500")];
/// kubeadm always makes a token; each that is used is made later, with a life that is asked for.
const UNUSED: &str = "1m0s";

/// Life of the control plane's certificates: nine years, within the ten of the CA. kubeadm's year is for clusters with a
/// person who renews them. A shorter life protects nothing here: the key of the CA is on the same disk.
const CERTIFICATES: &str = "78840h0m0s";
/// The kind of all keys. kubeadm's own is RSA-2048: a small device searches long for its primes, and one signature takes as
/// long as sixteen of ECDSA (`openssl speed`). Each TLS handshake needs one, and kubelet alone begins several in a second.
const KEYS: &str = "ECDSA-P256";

/// What the documents say besides the seed's table.
pub struct Device<'a> {
    /// Name of the Node.
    pub node: &'a str,
    /// Address of the API server and of etcd.
    pub address: IpAddr,
    /// Addresses of the node that the seed names; none leaves them to kubelet.
    pub node_ips: Vec<IpAddr>,
    /// Version of Kubernetes in the bundle, without `v`.
    pub version: &'a str,
    /// Labels to register with.
    pub labels: BTreeMap<String, String>,
    /// CRI socket, `unix:///…`.
    pub cri_socket: &'a str,
}

/// The file for `kubeadm init --config`.
pub fn configuration(cluster: &NewCluster, node: &Node, device: &Device<'_>) -> String {
    let documents = [init(&cluster.kubeadm, node, device), cluster_configuration(cluster, device)];
    documents.iter().map(|document| format!("---\n{document:#}\n")).collect()
}

fn init(kubeadm: &Kubeadm, node: &Node, device: &Device<'_>) -> Value {
    let argument = |name: &str, value: String| json!({ "name": name, "value": value });
    let mut arguments = Vec::new();
    if !device.node_ips.is_empty() {
        let ips: Vec<String> = device.node_ips.iter().map(IpAddr::to_string).collect();
        arguments.push(argument("node-ip", ips.join(",")));
    }
    if !device.labels.is_empty() {
        let labels: Vec<String> = device.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        arguments.push(argument("node-labels", labels.join(",")));
    }
    let mut registration = registration(device.node, device.cri_socket, node);
    registration["kubeletExtraArgs"] = arguments.into();
    let mut document = json!({
        "apiVersion": API,
        "kind": "InitConfiguration",
        "bootstrapTokens": [{ "ttl": UNUSED, "description": "made by kubeadm init, not used by firstboot" }],
        "localAPIEndpoint": { "advertiseAddress": device.address.to_string(), "bindPort": DEFAULT_PORT },
        "nodeRegistration": registration,
        "patches": { "directory": patches::DIRECTORY },
        "timeouts": timeouts(),
    });
    merge(&mut document, &kubeadm.init);
    document
}

/// How a control plane is registered. Without taints kubeadm sets its own; where the seed has some, that one has to be among
/// them.
fn registration(name: &str, cri_socket: &str, node: &Node) -> Value {
    let mut registration = json!({ "name": name, "criSocket": cri_socket, "imagePullPolicy": "IfNotPresent" });
    if !node.taints.is_empty() {
        let own = json!({ "key": CONTROL_PLANE_TAINT, "effect": "NoSchedule" });
        let more = node
            .taints
            .iter()
            .map(|Taint { key, value, effect }| json!({ "key": key, "value": value, "effect": effect.to_string() }));
        registration["taints"] = [own].into_iter().chain(more).collect();
    }
    registration
}

fn timeouts() -> Map<String, Value> {
    WAITS.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect()
}

/// What makes a node of a cluster one more of its control planes.
pub struct More<'a> {
    /// Name of the Node.
    pub name: &'a str,
    /// Address of the API server and of etcd.
    pub address: IpAddr,
    /// CRI socket, `unix:///…`.
    pub cri_socket: &'a str,
    /// A kubeconfig without a user, which leads to the cluster.
    pub discovery: &'a str,
    /// The bootstrap token.
    pub token: &'a str,
    /// The key of Secret `kubeadm-certs`.
    pub certificate_key: &'a str,
}

/// A kubeconfig without a user, which leads to the API server `server` (`https://host:port`) and trusts this CA alone; in the
/// form of ConfigMap cluster-info, for kubeadm takes a context for one that names a user.
pub fn discovery(server: &str, ca_pem: &str) -> String {
    let document = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "",
            "cluster": { "server": server, "certificate-authority-data": STANDARD.encode(ca_pem) },
        }],
        "contexts": [],
        "current-context": "",
        "users": [],
    });
    format!("{document:#}\n")
}

/// The file for `kubeadm join --config`. It holds the token and the key.
pub fn join_configuration(more: &More<'_>, node: &Node, part: Part) -> Zeroizing<String> {
    let document = json!({
        "apiVersion": API,
        "kind": "JoinConfiguration",
        "discovery": { "file": { "kubeConfigPath": more.discovery }, "tlsBootstrapToken": more.token },
        "controlPlane": {
            "localAPIEndpoint": { "advertiseAddress": more.address.to_string(), "bindPort": DEFAULT_PORT },
            "certificateKey": more.certificate_key,
        },
        "nodeRegistration": registration(more.name, more.cri_socket, node),
        "patches": { "directory": patches::DIRECTORY },
        "skipPhases": DONE.iter().chain(part.skips()).collect::<Vec<_>>(),
        "timeouts": timeouts(),
    });
    Zeroizing::new(format!("{document:#}\n"))
}

/// The file for `kubeadm init phase upload-certs --config`: that of `kubeadm init`, with the key by which the certificates are
/// encrypted. Where `text` is damaged, what that phase has to know of a cluster of this version all the same.
pub fn upload_configuration(text: &str, version: &str, key: &Secret<String>) -> Zeroizing<String> {
    with_certificate_key(text, key).unwrap_or_else(|| {
        let init = json!({ "apiVersion": API, "kind": "InitConfiguration", "certificateKey": key.expose() });
        // Without a version kubeadm would ask the Internet for one.
        let cluster = json!({ "apiVersion": API, "kind": "ClusterConfiguration", "kubernetesVersion": version });
        Zeroizing::new(format!("---\n{init:#}\n---\n{cluster:#}\n"))
    })
}

fn with_certificate_key(text: &str, key: &Secret<String>) -> Option<Zeroizing<String>> {
    let mut documents = Vec::new();
    for document in text.split("---\n").filter(|document| !document.trim().is_empty()) {
        let mut document: Value = serde_json::from_str(document).ok()?;
        if document["kind"] == "InitConfiguration" {
            document["certificateKey"] = key.expose().as_str().into();
        }
        documents.push(document);
    }
    let has_key = documents.iter().any(|document| document["certificateKey"].is_string());
    has_key.then(|| Zeroizing::new(documents.iter().map(|document| format!("---\n{document:#}\n")).collect()))
}

/// The cluster's networks, as kubeadm writes them.
pub fn networking(cluster: &NewCluster) -> Networking {
    let list = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let (pod_subnet, service_subnet) = (list(&cluster.pod_subnet), list(&cluster.service_subnet));
    Networking { pod_subnet, service_subnet, ..Networking::default() }
}

fn cluster_configuration(cluster: &NewCluster, device: &Device<'_>) -> Value {
    let Networking { pod_subnet, service_subnet, .. } = networking(cluster);
    let mut document = json!({
        "apiVersion": API,
        "kind": "ClusterConfiguration",
        "kubernetesVersion": format!("v{}", device.version),
        "certificateValidityPeriod": CERTIFICATES,
        "encryptionAlgorithm": KEYS,
        "networking": { "podSubnet": pod_subnet, "serviceSubnet": service_subnet },
    });
    document["apiServer"] = arguments(&API_SERVER);
    let leader = if cluster.join_control_plane { LEADER_OF_SEVERAL } else { LEADER };
    document["controllerManager"] = arguments(&[&CONTROLLER_MANAGER[..], &leader].concat());
    document["scheduler"] = arguments(&[&[PROFILING][..], &leader].concat());
    if cluster.join_control_plane {
        document["etcd"] = json!({ "local": arguments(&ETCD) });
    }
    if let Some(endpoint) = &cluster.endpoint {
        document["controlPlaneEndpoint"] = endpoint.to_string().into();
    }
    merge(&mut document, &cluster.kubeadm.cluster);
    let shared = cluster.virtual_ip.map(|address| address.to_string());
    if !cluster.cert_sans.is_empty() || shared.is_some() {
        let names = cluster.cert_sans.iter().chain(&shared).map(|name| Value::from(name.as_str()));
        let more = document["apiServer"]["certSANs"].as_array().cloned().unwrap_or_default();
        document["apiServer"]["certSANs"] = names.chain(more).collect();
    }
    document
}

/// The settings of a component: flags of its command line.
fn arguments(flags: &[(&str, &str)]) -> Value {
    let argument = |(name, value): &(&str, &str)| json!({ "name": name, "value": value });
    json!({ "extraArgs": flags.iter().map(argument).collect::<Vec<_>>() })
}

/// Puts the seed's fields over those that are there; tables are merged, and so are flags, everything else is replaced.
fn merge(document: &mut Value, fields: &Map<String, Value>) {
    for (key, value) in fields {
        match (&mut document[key], value) {
            (at @ Value::Object(_), Value::Object(more)) => merge(at, more),
            (Value::Array(ours), Value::Array(seeds)) if key == "extraArgs" => merge_arguments(ours, seeds),
            (at, value) => *at = value.clone(),
        }
    }
}

/// As kubeadm does with its own: a flag that the seed has, however often, takes the place of ours.
fn merge_arguments(ours: &mut Vec<Value>, seeds: &[Value]) {
    let is_seeds = |name: &str| seeds.iter().any(|argument| argument["name"] == name);
    ours.retain(|argument| {
        let name = argument["name"].as_str().unwrap_or_default();
        let together = TOGETHER.iter().find(|flags| flags.iter().any(|(flag, _)| *flag == name));
        !is_seeds(name) && !together.is_some_and(|flags| flags.iter().any(|(flag, _)| is_seeds(flag)))
    });
    ours.extend_from_slice(seeds);
}

/// The lines of kubeadm's output that say why it ended, on one line: `[ERROR CHECK]: …` of its checks, else its last error.
pub fn complaint(output: &str) -> String {
    let lines = || output.lines().map(str::trim).filter(|line| !line.is_empty());
    let checks: Vec<&str> = lines().filter_map(|line| line.split_once("[ERROR ").map(|(_, rest)| rest)).collect();
    let checks: Vec<String> = checks.iter().map(|check| check.replacen("]:", ":", 1)).collect();
    let error = || lines().rev().find(|line| line.starts_with("error") || line.contains("error execution phase"));
    let text = match checks.is_empty() {
        false => checks.join("; "),
        true => error().or_else(|| lines().next_back()).unwrap_or("it says nothing").to_owned(),
    };
    printable_line(&text)
}

#[cfg(test)]
#[path = "kubeadm_tests.rs"]
mod tests;
