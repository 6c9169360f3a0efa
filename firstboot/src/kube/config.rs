// SPDX-License-Identifier: Apache-2.0
//! What the cluster says a node shall be: kubeadm-config and kubelet-config into kubelet's files, as `kubeadm join`
//! makes them (`cmd/kubeadm/app/componentconfigs/kubelet.go`, `phases/kubelet`). Pure: text in, text out.

use crate::paths::{CA_FILE, MANIFESTS};
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::error::{Error, remote};
use super::go_yaml::{self, Document};
use crate::fault::{Code, Fault};
use crate::seed::kubelet::{Kind, is_owned_kubelet_field, kubelet_field};
use crate::seed::{NodeLabel, Role, Taint};

/// kubelet supports API servers up to this many minors newer than itself.
const MAX_SKEW: u32 = 3;
/// What kubeadm takes where kubeadm-config says nothing (`apis/kubeadm/v1beta4/defaults.go`).
const SERVICE_SUBNET: &str = "10.96.0.0/12";
const DNS_DOMAIN: &str = "cluster.local";
const DNS_ADDRESS: &str = "10.96.0.10";

/// The part of kubeadm's ClusterConfiguration that a worker needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterConfiguration {
    /// Of the control plane, `v1.36.3`; none where it is left out, or is the name of a channel (`stable-1.36`).
    pub kubernetes_version: Option<String>,
    /// Services and DNS.
    pub networking: Networking,
    /// The range of NodePorts, `FIRST-LAST`; empty when it is the usual one.
    pub node_ports: String,
    /// What kubeadm would warn of.
    pub odd: Vec<String>,
}

/// Names and addresses inside the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networking {
    /// Addresses of Services, one CIDR or two joined by a comma.
    pub service_subnet: String,
    /// Addresses of pods, one CIDR or two joined by a comma; empty where the pod network decides by itself.
    pub pod_subnet: String,
    /// `cluster.local`.
    pub dns_domain: String,
}

impl Default for Networking {
    fn default() -> Self {
        Networking {
            service_subnet: SERVICE_SUBNET.to_owned(),
            pod_subnet: String::new(),
            dns_domain: DNS_DOMAIN.to_owned(),
        }
    }
}

impl Networking {
    /// All ranges inside the cluster that can be read, joined by commas.
    pub fn ranges(&self) -> String {
        let all = self.pod_subnet.split(',').chain(self.service_subnet.split(','));
        let good: Vec<String> = all.filter_map(|r| r.trim().parse::<IpNet>().ok()).map(|r| r.to_string()).collect();
        good.join(",")
    }

    /// The address of Service `kubernetes`: an API server takes the first one of its Service range
    /// (`ServiceIPRange` in `pkg/controlplane/apiserver/options`).
    pub fn api_service(&self) -> Option<IpAddr> {
        service_address(&self.service_subnet, 1)
    }
}

/// Fields of ClusterConfiguration that kubeadm decodes, of which a wrong type is refused
/// (`apis/kubeadm/v1beta4/types.go`).
#[rustfmt::skip]
const CLUSTER_FIELDS: [(&str, Kind); 19] = [
    ("kubernetesVersion", Kind::String), ("networking", Kind::Table), ("networking.serviceSubnet", Kind::String),
    ("networking.podSubnet", Kind::String), ("networking.dnsDomain", Kind::String), ("apiServer", Kind::Table),
    ("controlPlaneEndpoint", Kind::String), ("certificatesDir", Kind::String), ("imageRepository", Kind::String),
    ("clusterName", Kind::String), ("encryptionAlgorithm", Kind::String), ("featureGates", Kind::BoolMap),
    ("etcd", Kind::Table), ("controllerManager", Kind::Table), ("scheduler", Kind::Table), ("dns", Kind::Table),
    ("proxy", Kind::Table), ("certificateValidityPeriod", Kind::Duration),
    ("caCertificateValidityPeriod", Kind::Duration),
];

/// Fields inside tables of KubeletConfiguration, and those that a seed may not set.
#[rustfmt::skip]
const KUBELET_FIELDS: [(&str, Kind); 21] = [
    ("staticPodPath", Kind::String), ("rotateCertificates", Kind::Bool), ("authentication", Kind::Table),
    ("authentication.x509", Kind::Table), ("authentication.x509.clientCAFile", Kind::String),
    ("authentication.webhook", Kind::Table), ("authentication.webhook.enabled", Kind::Bool),
    ("authentication.webhook.cacheTTL", Kind::Duration), ("authentication.anonymous", Kind::Table),
    ("authentication.anonymous.enabled", Kind::Bool), ("authorization", Kind::Table),
    ("authorization.mode", Kind::String), ("authorization.webhook", Kind::Table),
    ("authorization.webhook.cacheAuthorizedTTL", Kind::Duration),
    ("authorization.webhook.cacheUnauthorizedTTL", Kind::Duration), ("healthzPort", Kind::Integer),
    ("healthzBindAddress", Kind::String), ("cgroupDriver", Kind::String), ("registerWithTaints", Kind::List),
    ("registerNode", Kind::Bool), ("containerRuntimeEndpoint", Kind::String),
];

/// Whether Go decodes this value into a field of that type: null is the zero value, and most numbers have 32 bits.
fn fits(name: &str, kind: Kind, value: &Value) -> bool {
    let wide = matches!(name, "maxOpenFiles" | "podPidsLimit");
    match value {
        Value::Null => kind != Kind::Duration,
        Value::Number(_) if kind == Kind::Integer => value.as_i64().is_some_and(|n| wide || i32::try_from(n).is_ok()),
        Value::Array(list) if kind == Kind::Strings => list.iter().all(|v| v.is_string() || v.is_null()),
        Value::Object(map) if kind == Kind::StringMap => map.values().all(|v| v.is_string() || v.is_null()),
        Value::Object(map) if kind == Kind::BoolMap => map.values().all(|v| v.is_boolean() || v.is_null()),
        _ => kind.fits(value),
    }
}

/// Errors and warnings about one key of a ConfigMap.
struct Source {
    /// `ConfigMap NAME: KEY: `.
    what: &'static str,
}

impl Source {
    fn error(&self, why: &str) -> Error {
        Error::answer(Code::ClusterConfiguration, format!("{}: {why}", self.what))
    }

    /// What kubeadm warns of when the document is read, one line for all of it.
    fn odd(&self, mut odd: Vec<String>) -> Vec<String> {
        const MOST: usize = 8;
        let left = odd.len().saturating_sub(MOST);
        odd.truncate(MOST);
        if left > 0 {
            odd.push(format!("and {left} more"));
        }
        if odd.is_empty() { odd } else { vec![format!("{}: {}", self.what, odd.join("; "))] }
    }

    /// # Errors
    /// When a field of `fields` has a type that Go cannot decode into it.
    fn check(&self, document: &Document, fields: &[(&str, Kind)]) -> Result<(), Error> {
        for (path, kind) in fields {
            let value = path.split('.').try_fold(&document.value, |at, part| at.get(part));
            if value.is_some_and(|value| !fits(path, *kind, value)) {
                return Err(self.error(&format!("{}{path} must be {}", document.at(path), kind.expected())));
            }
        }
        Ok(())
    }
}

fn repeated(document: &Document) -> Vec<String> {
    let again = |(path, line): &(String, usize)| format!("line {line}: {} is given again: it counts", remote(path));
    document.repeated.iter().map(again).collect()
}

/// Reads the value of ConfigMap `kubeadm-config`, as kubeadm does.
///
/// # Errors
/// What kubeadm would not read, with its line.
pub fn cluster_configuration(text: &str) -> Result<ClusterConfiguration, Error> {
    let source = Source { what: "ConfigMap kubeadm-config: ClusterConfiguration" };
    let document = go_yaml::read_object(text, 1).map_err(|why| source.error(&why))?;
    let value = &document.value;
    let version = match (value["kind"].as_str(), value["apiVersion"].as_str()) {
        (Some("ClusterConfiguration"), Some(version @ ("kubeadm.k8s.io/v1beta3" | "kubeadm.k8s.io/v1beta4"))) => {
            version
        }
        _ => {
            let at = document.at("apiVersion");
            return Err(source.error(&format!(
                "{at}it must have kind ClusterConfiguration and apiVersion kubeadm.k8s.io/v1beta4 or v1beta3"
            )));
        }
    };
    source.check(&document, &CLUSTER_FIELDS)?;
    let args = &value["apiServer"]["extraArgs"];
    const FLAG: &str = "service-node-port-range";
    let ports = match (version, args) {
        (_, Value::Null) => None,
        ("kubeadm.k8s.io/v1beta4", Value::Array(list)) => {
            list.iter().find(|arg| arg["name"] == FLAG).map(|arg| &arg["value"])
        }
        ("kubeadm.k8s.io/v1beta3", Value::Object(map)) => map.get(FLAG),
        _ => {
            let form = if version.ends_with("v1beta4") { "a list of names and values" } else { "a mapping" };
            let at = document.at("apiServer.extraArgs");
            return Err(source.error(&format!("{at}apiServer.extraArgs must be {form} in {version}")));
        }
    };
    let mut odd = repeated(&document);
    let version = value["kubernetesVersion"].as_str().unwrap_or_default();
    if !is_release(version) && !is_channel(version) {
        let at = document.at("kubernetesVersion");
        return Err(source.error(&format!("{at}kubernetesVersion cannot be read: {}", remote(version))));
    }
    let kubernetes_version = is_release(version).then(|| version.to_owned());
    if kubernetes_version.is_none() {
        odd.push("kubernetesVersion is no version: the API server's own counts".to_owned());
    }
    let text = |field: &str, none: &str| match value["networking"][field].as_str() {
        None | Some("") => none.to_owned(),
        Some(text) => text.to_owned(),
    };
    Ok(ClusterConfiguration {
        kubernetes_version,
        networking: Networking {
            service_subnet: text("serviceSubnet", SERVICE_SUBNET),
            pod_subnet: text("podSubnet", ""),
            dns_domain: text("dnsDomain", DNS_DOMAIN),
        },
        node_ports: ports.and_then(Value::as_str).unwrap_or_default().trim().to_owned(),
        odd: source.odd(odd),
    })
}

/// A version of a release, with or without `v` (kubeReleaseRegex in kubeadm's `util/version.go`).
fn is_release(version: &str) -> bool {
    let number = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) && (n == "0" || !n.starts_with('0'));
    let mut parts = version.strip_prefix('v').unwrap_or(version).splitn(3, '.');
    let (Some(major), Some(minor), Some(rest)) = (parts.next(), parts.next(), parts.next()) else { return false };
    let (patch, suffix) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.+".contains(&b);
    number(major) && number(minor) && number(patch) && suffix.bytes().all(plain)
}

/// The name of a channel, as `stable-1.36` (kubeReleaseLabelRegex there); an empty one is filled by kubeadm.
fn is_channel(version: &str) -> bool {
    let name = version.strip_prefix("release/").or_else(|| version.strip_prefix("ci/")).unwrap_or(version);
    let of = |channel| name.strip_prefix(channel);
    let Some(rest) = of("stable").or_else(|| of("latest")) else { return version.is_empty() };
    let number = |n: &str| (1..3).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()) && !n.starts_with('0');
    rest.is_empty() || rest.strip_prefix('-').is_some_and(|rest| rest.splitn(2, '.').all(number))
}

/// Major and minor of `v1.36.3` or `1.36.3`.
fn minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether `kubelet` may join a control plane of version `cluster`: not newer, and at most three minors older.
///
/// # Errors
/// The cluster's fault when it is older: it may be upgraded; else the image's. Either with the command that makes an
/// image for `target` that fits.
pub fn check_skew(kubelet: &str, cluster: &str, target: &str) -> Result<(), Fault> {
    let read = |version: &str, whose: &str, code| {
        minor(version)
            .ok_or_else(|| Fault::new(code, format!("version of {whose} cannot be read: {}", remote(version))))
    };
    let ours = read(kubelet, "kubelet in the bundle", Code::KubeletVersion)?;
    let theirs = read(cluster, "the cluster in kubeadm-config", Code::ClusterConfiguration)?;
    let (code, what, upgrade) = if ours > theirs {
        (Code::ClusterTooOld, "newer than the cluster", "kubeadm upgrade apply on the control plane, or ")
    } else if ours.0 < theirs.0 || ours.1 + MAX_SKEW < theirs.1 {
        (Code::KubeletVersion, "too old for the cluster", "")
    } else {
        return Ok(());
    };
    let (major, minor) = theirs;
    Err(Fault::new(
        code,
        format!(
            "kubelet {} of this image is {what}, {}: {upgrade}imagebuild build --target {target} --kubernetes-version \
             {major}.{minor}",
            kubelet.trim_start_matches('v'),
            remote(cluster.trim_start_matches('v')),
        ),
    ))
}

/// kubelet's configuration, and what is odd about the cluster's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeletConfig {
    /// `/var/lib/kubelet/config.yaml`.
    pub text: String,
    /// What kubeadm would warn of.
    pub odd: Vec<String>,
}

const KUBELET_GROUP: &str = "kubelet.config.k8s.io";

/// `/var/lib/kubelet/config.yaml`: the cluster's KubeletConfiguration, what is missing filled as kubeadm does, and
/// this device's part laid over it. Keys are sorted. It says to kubelet what kubeadm's file would.
///
/// # Errors
/// What kubeadm would not read, with its line.
pub fn kubelet_config(
    published: &str,
    cluster: &ClusterConfiguration,
    cri_socket: &str,
    resolv_conf: Option<&str>,
) -> Result<KubeletConfig, Error> {
    let source = Source { what: "ConfigMap kubelet-config: kubelet" };
    let (document, mut odd) = kubelet_document(&source, published)?;
    source.check(&document, &KUBELET_FIELDS)?;
    odd.extend(repeated(&document));
    let mut root = Map::new();
    for (name, value) in document.value.as_object().into_iter().flatten() {
        let kind = kubelet_field(name);
        if let Some(kind) = kind.filter(|kind| !fits(name, *kind, value)) {
            return Err(source.error(&format!("{}{name} must be {}", document.at(name), kind.expected())));
        }
        if kind.is_none() && !is_owned_kubelet_field(name) {
            odd.push(format!("{}unknown field {} is left out", document.at(name), remote(name)));
        } else if !value.is_null() {
            root.insert(name.clone(), value.clone());
        }
    }
    root.insert("apiVersion".to_owned(), format!("{KUBELET_GROUP}/v1beta1").into());
    root.insert("kind".to_owned(), "KubeletConfiguration".into());
    fill(&mut root, &["staticPodPath"], MANIFESTS.into());
    fill(&mut root, &["clusterDNS"], vec![dns_address(&cluster.networking.service_subnet)].into());
    fill(&mut root, &["clusterDomain"], cluster.networking.dns_domain.as_str().into());
    fill(&mut root, &["authentication", "x509", "clientCAFile"], CA_FILE.into());
    fill(&mut root, &["authentication", "anonymous", "enabled"], false.into());
    fill(&mut root, &["authentication", "webhook", "enabled"], true.into());
    fill(&mut root, &["authorization", "mode"], "Webhook".into());
    fill(&mut root, &["healthzBindAddress"], "127.0.0.1".into());
    fill(&mut root, &["healthzPort"], 10248.into());
    fill(&mut root, &["cgroupDriver"], "systemd".into());
    root.insert("rotateCertificates".into(), true.into());
    if let Some(path) = resolv_conf {
        fill_unset(&mut root, "resolvConf", path.into());
    }
    root.insert("containerRuntimeEndpoint".into(), cri_socket.into());
    Ok(KubeletConfig { text: go_yaml::write(&Value::Object(root)), odd: source.odd(odd) })
}

/// The KubeletConfiguration among the documents that the key holds (`SplitConfigDocuments` in kubeadm's
/// `util/marshal.go`), and what is odd about the others. Where there is none, kubeadm makes one of defaults.
fn kubelet_document(source: &Source, published: &str) -> Result<(Document, Vec<String>), Error> {
    let (mut found, mut kinds, mut odd) = (None, Vec::new(), Vec::new());
    for (first, text) in go_yaml::documents(published).map_err(|why| source.error(&why))? {
        let document = go_yaml::read(text, first).map_err(|why| source.error(&why))?;
        let word = |key: &str| document.value[key].as_str().unwrap_or_default().to_owned();
        let (kind, api) = (word("kind"), word("apiVersion"));
        let Some((group, version)) = api.split_once('/').filter(|_| !kind.is_empty()) else {
            let text =
                format!("line {first}: a document has no kind and apiVersion: remove it, or the line --- after it");
            return Err(source.error(&text));
        };
        if kinds.contains(&kind) {
            return Err(source.error(&format!("line {first}: a second document of kind {}", remote(&kind))));
        }
        if group != KUBELET_GROUP {
            odd.push(format!("line {first}: the document of kind {} is left out", remote(&kind)));
        } else if version != "v1beta1" || kind != "KubeletConfiguration" {
            let at = document.at(if version == "v1beta1" { "kind" } else { "apiVersion" });
            return Err(source.error(&format!("{at}it is no KubeletConfiguration of {KUBELET_GROUP}/v1beta1")));
        } else {
            found = Some(go_yaml::read_object(text, first).map_err(|why| source.error(&why))?);
        }
        kinds.push(kind);
    }
    let document = found.unwrap_or_else(|| {
        odd.push("it holds no KubeletConfiguration: kubeadm's defaults count".to_owned());
        Document::default()
    });
    Ok((document, odd))
}

/// Sets a value unless one is there; an empty string or null counts as none, as for kubeadm.
fn fill(map: &mut Map<String, Value>, path: &[&str], value: Value) {
    let Some((key, rest)) = path.split_first() else { return };
    let slot = map.entry((*key).to_owned()).or_insert(Value::Null);
    if rest.is_empty() {
        if slot.is_null() || slot.as_str() == Some("") {
            *slot = value;
        }
        return;
    }
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    if let Some(inner) = slot.as_object_mut() {
        fill(inner, rest, value);
    }
}

/// The same for a field of which kubeadm tells an empty string from none.
fn fill_unset(map: &mut Map<String, Value>, key: &str, value: Value) {
    map.entry(key.to_owned()).or_insert(value);
}

/// An address of the first Service subnet, by its number; none where it has no such address, or kubeadm could not read
/// the subnets (it takes no blanks).
fn service_address(subnets: &str, number: u8) -> Option<IpAddr> {
    let all: Option<Vec<IpNet>> = subnets.split(',').map(|subnet| subnet.parse().ok()).collect();
    let first = *all.as_deref()?.first()?;
    let address = match first {
        IpNet::V4(net) => IpAddr::V4(net.network().to_bits().checked_add(number.into())?.into()),
        IpNet::V6(net) => IpAddr::V6(net.network().to_bits().checked_add(number.into())?.into()),
    };
    Some(address).filter(|address| first.contains(address))
}

/// The tenth address of the first Service subnet, where kubeadm puts cluster DNS; the usual one where there is none
/// (`GetDNSIP` in kubeadm's `constants.go`).
fn dns_address(subnets: &str) -> String {
    service_address(subnets, 10).map_or_else(|| DNS_ADDRESS.to_owned(), |a| a.to_string())
}

/// `/var/lib/kubelet/instance-config.yaml`: kubelet settings of this device alone.
pub fn instance_config(cri_socket: &str) -> String {
    format!("containerRuntimeEndpoint: \"{cri_socket}\"\n")
}

/// All labels that the node registers with: the role's (those that edgeadm sets), then the seed's.
pub fn labels(role: Role, node: &str, more: &[NodeLabel]) -> BTreeMap<String, String> {
    let own: &[(&str, &str)] = match role {
        Role::Edge => &[("superedge.io/node-edge", "enable"), ("superedge.io.hostname", node)],
        Role::Worker | Role::ControlPlane => &[("superedge.io/node-cloud", "enable")],
    };
    let own = own.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    own.chain(more.iter().map(|l| (l.key.clone(), l.value.clone()))).collect()
}

/// The same for a Node that was left over: what the other role would have set is to be removed.
pub fn leftover_labels(role: Role, node: &str, more: &[NodeLabel]) -> BTreeMap<String, Option<String>> {
    let other = match role {
        Role::Edge => Role::Worker,
        Role::Worker | Role::ControlPlane => Role::Edge,
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
