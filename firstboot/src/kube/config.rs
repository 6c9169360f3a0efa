// SPDX-License-Identifier: Apache-2.0
//! What the cluster says a node shall be: kubeadm-config and kubelet-config into kubelet's files, as `kubeadm join`
//! makes them (`cmd/kubeadm/app/componentconfigs/kubelet.go`, `phases/kubelet`). Pure: text in, text out.

use crate::paths::{CA_FILE, MANIFESTS};
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_yaml_ng::{Mapping, Value};

use super::error::{Error, remote};
use crate::fault::{Code, Fault};
use crate::seed::{NodeLabel, Role, Taint};

/// kubelet supports API servers up to this many minors newer than itself.
const MAX_SKEW: u32 = 3;

/// The part of kubeadm's ClusterConfiguration that a worker needs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterConfiguration {
    /// Of the control plane, `v1.36.3`.
    pub kubernetes_version: String,
    /// Services and DNS.
    #[serde(default)]
    pub networking: Networking,
    /// How kubeadm starts API servers.
    #[serde(default)]
    pub api_server: ApiServer,
}

/// How kubeadm starts API servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiServer {
    /// Flags: a list of names and values (kubeadm.k8s.io/v1beta4), or a map (v1beta3).
    #[serde(default)]
    extra_args: Value,
}

impl ApiServer {
    /// The range of NodePorts, `FIRST-LAST`; empty when it is the usual one.
    pub fn node_ports(&self) -> String {
        const FLAG: &str = "service-node-port-range";
        let list = self.extra_args.as_sequence().into_iter().flatten().find(|a| a["name"] == FLAG);
        let value = list.map_or(&self.extra_args[FLAG], |arg| &arg["value"]);
        value.as_str().unwrap_or_default().trim().to_owned()
    }
}

/// Names and addresses inside the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Networking {
    /// Addresses of Services, one CIDR or two joined by a comma.
    #[serde(default)]
    pub service_subnet: String,
    /// Addresses of pods, one CIDR or two joined by a comma; empty where the pod network decides by itself.
    #[serde(default)]
    pub pod_subnet: String,
    /// `cluster.local`.
    #[serde(default)]
    pub dns_domain: String,
}

impl Networking {
    /// All ranges inside the cluster that can be read, joined by commas.
    pub fn ranges(&self) -> String {
        let all = self.pod_subnet.split(',').chain(self.service_subnet.split(','));
        let good: Vec<String> = all.filter_map(|r| r.trim().parse::<IpNet>().ok()).map(|r| r.to_string()).collect();
        good.join(",")
    }
}

/// Reads the value of ConfigMap `kubeadm-config`.
pub fn cluster_configuration(text: &str) -> Result<ClusterConfiguration, Error> {
    serde_yaml_ng::from_str(text).map_err(|_| {
        Error::answer(Code::ClusterConfiguration, "ConfigMap kubeadm-config: its ClusterConfiguration cannot be read")
    })
}

/// Major and minor of `v1.36.3` or `1.36.3`.
fn minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether `kubelet` may join a control plane of version `cluster`: not newer, and at most three minors older.
///
/// # Errors
/// The image's fault, with the command that makes one that fits `target`.
pub fn check_skew(kubelet: &str, cluster: &str, target: &str) -> Result<(), Fault> {
    let read = |version: &str, whose: &str, code| {
        minor(version)
            .ok_or_else(|| Fault::new(code, format!("version of {whose} cannot be read: {}", remote(version))))
    };
    let ours = read(kubelet, "kubelet in the bundle", Code::KubeletVersion)?;
    let theirs = read(cluster, "the cluster in kubeadm-config", Code::ClusterConfiguration)?;
    let what = if ours > theirs {
        "newer than the cluster"
    } else if ours.0 < theirs.0 || ours.1 + MAX_SKEW < theirs.1 {
        "too old for the cluster"
    } else {
        return Ok(());
    };
    let (major, minor) = theirs;
    Err(Fault::new(
        Code::KubeletVersion,
        format!(
            "kubelet {} of this image is {what}, {}: imagebuild build --target {target} --kubernetes-version \
             {major}.{minor}",
            kubelet.trim_start_matches('v'),
            remote(cluster.trim_start_matches('v')),
        ),
    ))
}

/// `/var/lib/kubelet/config.yaml`: the cluster's KubeletConfiguration, what is missing filled as kubeadm does, and
/// this device's part laid over it. Keys are sorted.
pub fn kubelet_config(
    published: &str,
    cluster: &ClusterConfiguration,
    cri_socket: &str,
    resolv_conf: Option<&str>,
) -> Result<String, Error> {
    let broken = |why: &str| Error::answer(Code::ClusterConfiguration, format!("ConfigMap kubelet-config: {why}"));
    let mut root: Mapping = serde_yaml_ng::from_str(published).map_err(|_| broken("it is no YAML mapping"))?;
    if root.get("kind").and_then(Value::as_str) != Some("KubeletConfiguration")
        || root.get("apiVersion").and_then(Value::as_str) != Some("kubelet.config.k8s.io/v1beta1")
    {
        return Err(broken("it is no KubeletConfiguration of kubelet.config.k8s.io/v1beta1"));
    }
    let domain = match cluster.networking.dns_domain.as_str() {
        "" => "cluster.local",
        domain => domain,
    };
    fill(&mut root, &["staticPodPath"], MANIFESTS.into());
    if let Some(dns) = dns_address(&cluster.networking.service_subnet) {
        fill(&mut root, &["clusterDNS"], Value::Sequence(vec![dns.to_string().into()]));
    }
    fill(&mut root, &["clusterDomain"], domain.into());
    fill(&mut root, &["authentication", "x509", "clientCAFile"], CA_FILE.into());
    fill(&mut root, &["authentication", "anonymous", "enabled"], false.into());
    fill(&mut root, &["authentication", "webhook", "enabled"], true.into());
    fill(&mut root, &["authorization", "mode"], "Webhook".into());
    fill(&mut root, &["healthzBindAddress"], "127.0.0.1".into());
    fill(&mut root, &["healthzPort"], 10248.into());
    fill(&mut root, &["cgroupDriver"], "systemd".into());
    root.insert("rotateCertificates".into(), true.into());
    if let Some(path) = resolv_conf {
        fill(&mut root, &["resolvConf"], path.into());
    }
    root.insert("containerRuntimeEndpoint".into(), cri_socket.into());
    serde_yaml_ng::to_string(&sorted(Value::Mapping(root))).map_err(|_| broken("it cannot be written as YAML"))
}

/// Sets a value unless one is there; an empty string, list or null counts as none, as for kubeadm.
fn fill(map: &mut Mapping, path: &[&str], value: Value) {
    let Some((key, rest)) = path.split_first() else { return };
    let slot = map.entry((*key).into()).or_insert(Value::Null);
    if rest.is_empty() {
        let none = slot.is_null() || slot.as_str() == Some("") || slot.as_sequence().is_some_and(Vec::is_empty);
        if none {
            *slot = value;
        }
        return;
    }
    if slot.is_null() {
        *slot = Value::Mapping(Mapping::new());
    }
    if let Some(inner) = slot.as_mapping_mut() {
        fill(inner, rest, value);
    }
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Mapping(map) => {
            let mut entries: Vec<(Value, Value)> = map.into_iter().map(|(k, v)| (sorted(k), sorted(v))).collect();
            entries.sort_by(|(a, _), (b, _)| a.as_str().cmp(&b.as_str()));
            Value::Mapping(entries.into_iter().collect())
        }
        Value::Sequence(list) => Value::Sequence(list.into_iter().map(sorted).collect()),
        // A private tag means nothing to kubelet, and is not always written so that it can be read again.
        Value::Tagged(tagged) => sorted(tagged.value),
        other => other,
    }
}

/// The tenth address of the first Service subnet, where kubeadm puts cluster DNS.
fn dns_address(subnets: &str) -> Option<IpAddr> {
    let (address, prefix) = subnets.split(',').next()?.trim().split_once('/')?;
    let prefix: u32 = prefix.parse().ok()?;
    match address.parse().ok()? {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32u32.checked_sub(prefix)?).unwrap_or(0);
            Some(IpAddr::V4((v4.to_bits() & mask).checked_add(10)?.into()))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128u32.checked_sub(prefix)?).unwrap_or(0);
            Some(IpAddr::V6((v6.to_bits() & mask).checked_add(10)?.into()))
        }
    }
}

/// `/var/lib/kubelet/instance-config.yaml`: kubelet settings of this device alone.
pub fn instance_config(cri_socket: &str) -> String {
    format!("containerRuntimeEndpoint: \"{cri_socket}\"\n")
}

/// All labels that the node registers with: the role's (those that edgeadm sets), then the seed's.
pub fn labels(role: Role, node: &str, more: &[NodeLabel]) -> BTreeMap<String, String> {
    let own: &[(&str, &str)] = match role {
        Role::Edge => &[("superedge.io/node-edge", "enable"), ("superedge.io.hostname", node)],
        Role::Worker => &[("superedge.io/node-cloud", "enable")],
    };
    let own = own.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    own.chain(more.iter().map(|l| (l.key.clone(), l.value.clone()))).collect()
}

/// The same for a Node that was left over: what the other role would have set is to be removed.
pub fn leftover_labels(role: Role, node: &str, more: &[NodeLabel]) -> BTreeMap<String, Option<String>> {
    let other = match role {
        Role::Edge => Role::Worker,
        Role::Worker => Role::Edge,
    };
    let stale = labels(other, node, &[]).into_keys().map(|key| (key, None));
    stale.chain(labels(role, node, more).into_iter().map(|(key, value)| (key, Some(value)))).collect()
}

/// `/var/lib/kubelet/kubeadm-flags.env`; `kubeadm upgrade node` reads it back, so its form is fixed.
pub fn flags_env(
    node: &str,
    hostname: &str,
    ips: &[IpAddr],
    labels: &BTreeMap<String, String>,
    taints: &[Taint],
) -> String {
    let mut flags = Vec::new();
    if node != hostname {
        flags.push(format!("--hostname-override={node}"));
    }
    if !ips.is_empty() {
        // Left to itself, kubelet takes the address of the default route, which there may be none of.
        let ips: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
        flags.push(format!("--node-ip={}", ips.join(",")));
    }
    if !taints.is_empty() {
        let taints: Vec<String> = taints.iter().map(Taint::to_string).collect();
        flags.push(format!("--register-with-taints={}", taints.join(",")));
    }
    if !labels.is_empty() {
        let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        flags.push(format!("--node-labels={}", labels.join(",")));
    }
    format!("KUBELET_KUBEADM_ARGS=\"{}\"\n", flags.join(" "))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
