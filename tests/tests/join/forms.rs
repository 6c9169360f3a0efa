// SPDX-License-Identifier: Apache-2.0
//! What clusters publish, in the forms that are met: each is given to kubeadm and to firstboot, and kubeadm's outcome is
//! the expected one. What both write for kubelet is compared as Go reads it. [`DECISIONS`] are ours.
//!
//! Forms out of the field: kubeadm#1399, kubernetes#73356 and #76329, kamaji#1062, kubermatic#1412.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use firstboot::fault::Fault;
use firstboot::kube::go_yaml;
use imagebuild::arch::Arch;
use imagebuild::component;
use qemu::control_plane::ControlPlane;
use serde_json::{Value, json};

use super::bench::*;

/// An edit of what kubeadm has published.
pub enum Edit {
    /// Lines at the end.
    Add(&'static str),
    /// Another text in the place of the first one.
    Put(&'static str, &'static str),
    /// Something else.
    Make(fn(&str) -> String),
}

/// One form: its name, the ConfigMap, the edit, and what firstboot's message or notice says.
pub type Form = (&'static str, Map, Edit, &'static str);

/// A ConfigMap that a join reads.
#[derive(Clone, Copy)]
pub enum Map {
    Kubelet,
    Kubeadm,
    ClusterInfo,
}

use Edit::{Add, Make, Put};
use Map::{ClusterInfo, Kubeadm, Kubelet};

impl Map {
    /// Namespace, name and key.
    fn place(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Map::Kubelet => ("kube-system", "kubelet-config", "kubelet"),
            Map::Kubeadm => ("kube-system", "kubeadm-config", "ClusterConfiguration"),
            Map::ClusterInfo => ("kube-public", "cluster-info", "kubeconfig"),
        }
    }
}

/// Where firstboot refuses what kubeadm takes: docs/rationale.md says why.
const DECISIONS: [&str; 3] = ["cluster is four minors newer", "cluster is a minor older", "server is http"];

#[rustfmt::skip]
pub const FORMS: &[Form] = &[
    // kubelet-config.
    ("booleans of YAML 1.1", Kubelet, Add("failSwapOn: no\nserializeImagePulls: off\nprotectKernelDefaults: on\n"), ""),
    ("a boolean in quotes", Kubelet, Add("failSwapOn: \"no\"\n"), "failSwapOn must be true or false"),
    ("a word of YAML 1.1 as text", Kubelet, Add("cgroupRoot: \"yes\"\n"), ""),
    ("a word of YAML 1.1 for text", Kubelet, Add("cgroupRoot: yes\n"), "cgroupRoot must be a string in quotes"),
    ("key given twice", Kubelet, Add("maxPods: 60\nimageGCHighThresholdPercent: 80\nmaxPods: 80\n"), "maxPods is given again"),
    ("nested key given twice", Kubelet, Add("evictionHard:\n  memory.available: 1Mi\n  memory.available: 2Mi\n"), "evictionHard.memory.available is given again"),
    ("table given twice", Kubelet, Add("evictionHard: {memory.available: 1Mi}\nevictionHard: {nodefs.available: 1%}\n"), "evictionHard is given again"),
    ("comment before ---", Kubelet, Make(|t| format!("# managed by gitops\n---\n{t}")), "line 1: a document has no kind and apiVersion"),
    ("--- first", Kubelet, Make(|t| format!("---\n{t}")), ""),
    ("text after ---", Kubelet, Make(|t| format!("--- a\n{t}")), "line 1: only a comment may follow ---"),
    ("two documents", Kubelet, Add("---\napiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n"), "KubeProxyConfiguration is left out"),
    ("two of one kind", Kubelet, Make(|t| format!("{t}---\n{t}")), "a second document of kind KubeletConfiguration"),
    ("another document alone", Kubelet, Make(|_| "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n".into()), "kubeadm's defaults count"),
    ("nothing", Kubelet, Make(|_| String::new()), "kubeadm's defaults count"),
    ("JSON", Kubelet, Make(|t| go_yaml::read(t, 1).unwrap().value.to_string()), ""),
    ("braces that are no JSON", Kubelet, Make(|_| "{apiVersion: kubelet.config.k8s.io/v1beta1, kind: KubeletConfiguration}\n".into()), "begins with a brace"),
    ("logging in JSON", Kubelet, Make(|t| without(t, "logging", "logging:\n  format: json\n  verbosity: 2\n")), ""),
    ("fields of old versions", Kubelet, Add("dynamicConfigDir: /x\nhairpinMode: promiscuous-bridge\n"), "unknown field dynamicConfigDir"),
    ("field in another case", Kubelet, Add("MaxPods: 7\n"), "unknown field MaxPods"),
    ("unknown feature gate", Kubelet, Add("featureGates:\n  GracefulNodeShutdown: true\n  LegacyNodeRoleBehavior: false\n"), ""),
    ("cgroupfs", Kubelet, Put("cgroupDriver: systemd", "cgroupDriver: cgroupfs"), ""),
    ("nulls", Kubelet, Make(|t| without(t, "logging", "evictionHard: null\nfeatureGates: null\nlogging: null\nmaxPods:\n")), ""),
    ("null for a duration", Kubelet, Add("syncFrequency: null\n"), "syncFrequency must be a duration in quotes"),
    ("no DNS servers", Kubelet, Put("clusterDNS:\n- 10.96.0.10\n", "clusterDNS: []\n"), ""),
    ("null for the DNS servers", Kubelet, Put("clusterDNS:\n- 10.96.0.10\n", "clusterDNS:\n"), ""),
    ("server TLS bootstrap", Kubelet, Add("serverTLSBootstrap: true\n"), ""),
    ("resolvConf", Kubelet, Add("resolvConf: /etc/own\n"), ""),
    ("empty resolvConf", Kubelet, Add("resolvConf: \"\"\n"), ""),
    ("merge key first", Kubelet, Make(|t| format!("x: &c\n  maxPods: 60\n<<: *c\n{t}")), "unknown field x"),
    ("merge key over a key", Kubelet, Make(|t| format!("x: &c {{maxPods: 60}}\n{t}maxPods: 70\n<<: *c\n")), "unknown field x"),
    ("anchor", Kubelet, Add("evictionHard: &e {memory.available: 5%}\nevictionSoft: *e\n"), ""),
    ("hexadecimal, underscore", Kubelet, Add("maxPods: 0x40\noomScoreAdj: -999\nregistryPullQPS: 1_0\n"), ""),
    ("octal", Kubelet, Add("maxPods: 0100\nregistryBurst: 0o17\n"), ""),
    ("whole number with exponent", Kubelet, Add("maxPods: 1e2\n"), ""),
    ("fraction", Kubelet, Add("maxPods: 1.5\n"), "maxPods must be a whole number"),
    ("sexagesimal", Kubelet, Add("maxPods: 1:30\n"), "maxPods must be a whole number"),
    ("number beyond 32 bits", Kubelet, Add("maxPods: 3000000000\n"), "maxPods must be a whole number"),
    ("number beyond 32 bits where 64 are", Kubelet, Add("maxOpenFiles: 3000000000\n"), ""),
    ("number for a duration", Kubelet, Add("nodeStatusUpdateFrequency: 10\n"), "nodeStatusUpdateFrequency must be a duration in quotes"),
    ("duration in days", Kubelet, Add("nodeStatusUpdateFrequency: 1d\n"), "nodeStatusUpdateFrequency must be a duration in quotes"),
    ("number in a map of text", Kubelet, Add("systemReserved:\n  cpu: 1\n"), "systemReserved must be a table of strings"),
    ("text for a list", Kubelet, Add("allowedUnsafeSysctls: a\n"), "allowedUnsafeSysctls must be a list of strings"),
    ("number for a mode", Kubelet, Put("mode: Webhook", "mode: 1"), "authorization.mode must be a string"),
    ("apiVersion v1", Kubelet, Put("v1beta1", "v1"), "it is no KubeletConfiguration of kubelet.config.k8s.io/v1beta1"),
    ("no kind", Kubelet, Put("kind: KubeletConfiguration\n", ""), "a document has no kind and apiVersion"),
    ("CRLF", Kubelet, Make(|t| t.replace('\n', "\r\n")), ""),
    ("tab indents", Kubelet, Put("  anonymous:", "\tanonymous:"), "a tab indents it, which YAML does not allow"),
    ("byte order mark", Kubelet, Make(|t| format!("\u{feff}{t}")), ""),
    ("a list", Kubelet, Make(|_| "- a\n".into()), "line 1: a document has no kind and apiVersion"),
    // kubeadm-config.
    ("null pod subnet", Kubeadm, Put("podSubnet: 10.244.0.0/16", "podSubnet:"), ""),
    ("null networking", Kubeadm, Make(|t| without(t, "networking", "networking: null\n")), ""),
    ("no networking", Kubeadm, Make(|t| without(t, "networking", "")), ""),
    ("networking is text", Kubeadm, Make(|t| without(t, "networking", "networking: a\n")), "networking must be a table"),
    ("null API server", Kubeadm, Make(|t| without(t, "apiServer", "apiServer:\n")), ""),
    ("flags as a map", Kubeadm, Make(|t| without(t, "apiServer", "apiServer: {extraArgs: {v: \"2\"}}\n")), "apiServer.extraArgs must be a list of names and values"),
    ("v1beta3", Kubeadm, Make(|_| V1BETA3.into()), ""),
    ("v1beta2", Kubeadm, Put("v1beta4", "v1beta2"), "apiVersion kubeadm.k8s.io/v1beta4 or v1beta3"),
    ("version without v", Kubeadm, Put("kubernetesVersion: v1", "kubernetesVersion: 1"), ""),
    ("version with build", Kubeadm, Put("v1.36.3", "v1.36.3+vendor.1"), ""),
    ("no version", Kubeadm, Put("kubernetesVersion: v1.36.3\n", ""), "the API server's own counts"),
    ("channel for a version", Kubeadm, Put("v1.36.3", "stable-1.36"), "the API server's own counts"),
    ("version without patch", Kubeadm, Put("v1.36.3", "v1.36"), "kubernetesVersion cannot be read"),
    ("version is a number", Kubeadm, Put("v1.36.3", "1.36"), "kubernetesVersion must be a string in quotes"),
    ("version with a blank", Kubeadm, Put("v1.36.3", "v1.36.3 beta"), "kubernetesVersion cannot be read"),
    ("cluster is four minors newer", Kubeadm, Put("v1.36.3", "v1.40.0"), "too old for the cluster"),
    ("cluster is a minor older", Kubeadm, Put("v1.36.3", "v1.35.9"), "newer than the cluster"),
    ("cluster key given twice", Kubeadm, Add("clusterName: kubernetes\n"), "clusterName is given again"),
    ("unknown cluster field", Kubeadm, Add("tenant: a\n"), ""),
    ("dual stack, IPv6 first", Kubeadm, Put("serviceSubnet: 10.96.0.0/12", "serviceSubnet: fd00:10:96::/112,10.96.0.0/16"), ""),
    ("blank between subnets", Kubeadm, Put("serviceSubnet: 10.96.0.0/12", "serviceSubnet: \"10.96.0.0/12, fd00::/112\""), ""),
    ("another domain", Kubeadm, Put("dnsDomain: cluster.local", "dnsDomain: a.test"), ""),
    ("cluster JSON", Kubeadm, Make(|t| go_yaml::read(t, 1).unwrap().value.to_string()), ""),
    // cluster-info.
    ("kubeconfig in JSON", ClusterInfo, Make(|t| go_yaml::read(t, 1).unwrap().value.to_string()), ""),
    ("kubeconfig key given twice", ClusterInfo, Add("kind: Config\n"), ""),
    ("kubeconfig with an unknown field", ClusterInfo, Add("extra: 1\n"), ""),
    ("kubeconfig without kind", ClusterInfo, Make(|t| t.replace("kind: Config\n", "").replace("apiVersion: v1\n", "")), ""),
    ("kubeconfig of nulls", ClusterInfo, Make(|t| format!("{}users:\ncontexts:\npreferences:\n", t.replace("users: null\n", "").replace("contexts: null\n", ""))), ""),
    ("kubeconfig with CRLF", ClusterInfo, Make(|t| t.replace('\n', "\r\n")), ""),
    ("CA in lines", ClusterInfo, Make(|t| with_ca_data(t, |ca| format!("|\n{}", lines(&STANDARD.encode(ca))))), ""),
    ("CA in folded lines", ClusterInfo, Make(|t| with_ca_data(t, |ca| format!(">\n{}", lines(&STANDARD.encode(ca))))), "CA certificate"),
    ("CA with text around", ClusterInfo, Make(|t| with_ca(t, |ca| format!("subject: CA\n{ca}trailing\n"))), ""),
    ("CA with CRLF", ClusterInfo, Make(|t| with_ca(t, |ca| ca.replace('\n', "\r\n"))), ""),
    ("CA without a last line end", ClusterInfo, Make(|t| with_ca(t, |ca| ca.trim_end().to_owned())), ""),
    ("CA with blanks at line ends", ClusterInfo, Make(|t| with_ca(t, |ca| ca.replace('\n', "  \n"))), ""),
    ("CA with PEM headers beside it", ClusterInfo, Make(|t| with_ca(t, |ca| format!("{}{ca}", ca.replacen('\n', "\nProc-Type: 4\n\n", 1)))), ""),
    ("CA with a key block beside it", ClusterInfo, Make(|t| with_ca(t, |ca| format!("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{ca}"))), ""),
    ("CA as TRUSTED CERTIFICATE", ClusterInfo, Make(|t| with_ca(t, |ca| ca.replace("CERTIFICATE", "TRUSTED CERTIFICATE"))), "CA certificate"),
    ("CA twice", ClusterInfo, Make(|t| with_ca(t, |ca| format!("{ca}\n\n{ca}"))), ""),
    ("CA and a broken certificate", ClusterInfo, Make(|t| with_ca(t, |ca| format!("{ca}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))), "CA certificate"),
    ("CA and an open block", ClusterInfo, Make(|t| with_ca(t, |ca| format!("{ca}-----BEGIN CERTIFICATE-----\nAAAA\n"))), ""),
    ("server with a slash", ClusterInfo, Make(|t| with_server(t, |s| format!("{s}/"))), ""),
    ("server in capitals", ClusterInfo, Make(|t| with_server(t, |s| s.replace("https", "HTTPS"))), ""),
    ("server without a scheme", ClusterInfo, Make(|t| with_server(t, |s| s.replace("https://", ""))), ""),
    ("server is http", ClusterInfo, Make(|t| with_server(t, |s| s.replace("https", "http"))), "https:// address"),
];

const V1BETA3: &str = "apiServer:
  extraArgs:
    authorization-mode: Node,RBAC
    service-node-port-range: 20000-22767
  timeoutForControlPlane: 4m0s
apiVersion: kubeadm.k8s.io/v1beta3
kind: ClusterConfiguration
kubernetesVersion: v1.36.3
networking:
  dnsDomain: cluster.local
  podSubnet: 10.244.0.0/16
  serviceSubnet: 10.96.0.0/12
";

/// The same without a top-level key and what is indented below it; with `put` at the end.
fn without(text: &str, key: &str, put: &str) -> String {
    let (mut kept, mut inside) = (String::new(), false);
    for line in text.split_inclusive('\n') {
        if !line.starts_with([' ', '-']) {
            inside = line.starts_with(&format!("{key}:"));
        }
        if !inside {
            kept.push_str(line);
        }
    }
    kept + put
}

/// What stands after a key of the kubeconfig, in another form.
fn with_line(text: &str, key: &str, form: impl Fn(&str) -> String) -> String {
    let line = text.lines().find(|l| l.trim().starts_with(key)).unwrap();
    let (name, value) = line.split_once(": ").unwrap();
    text.replacen(line, &format!("{name}: {}", form(value)), 1)
}

fn with_server(text: &str, form: fn(&str) -> String) -> String {
    with_line(text, "server", form)
}

/// The CA's PEM in another form.
fn with_ca(text: &str, form: fn(&str) -> String) -> String {
    with_ca_data(text, |ca| STANDARD.encode(form(ca)))
}

fn with_ca_data(text: &str, form: impl Fn(&str) -> String) -> String {
    with_line(text, "certificate-authority-data", |data| {
        form(&String::from_utf8(STANDARD.decode(data).unwrap()).unwrap())
    })
}

/// A block of lines, indented.
fn lines(text: &str) -> String {
    let all: Vec<String> =
        text.as_bytes().chunks(64).map(|c| format!("      {}", String::from_utf8_lossy(c))).collect();
    all.join("\n")
}

/// Gives one form to both.
pub fn both_agree(plane: &ControlPlane, (name, map, edit, said): &Form) {
    let (namespace, object, key) = map.place();
    let data = || -> Value { plane.get(&["-n", namespace, "configmap", object]).unwrap()["data"].take() };
    let kept = data()[key].as_str().unwrap().to_owned();
    let text = match edit {
        Add(lines) => format!("{kept}{lines}"),
        Put(from, to) => kept.replacen(from, to, 1),
        Make(form) => form(&kept),
    };
    assert_ne!(text, kept, "the edit changes nothing");
    let token = plane.create_token("1h").unwrap();
    let signature = format!("jws-kubeconfig-{}", id(&token));
    let put = |text: &str| {
        let before = data()[&signature].clone();
        let patch = json!({ "data": { key: text } }).to_string();
        plane.kubectl(&["-n", namespace, "patch", "configmap", object, "--type=merge", "-p", &patch]).unwrap();
        if matches!(map, ClusterInfo) {
            qemu::wait::until("cluster-info to be signed", Duration::from_secs(60), || {
                let now = data()[&signature].clone();
                Ok((now.is_string() && now != before).then_some(()))
            })
            .unwrap();
        }
    };
    put(&text);
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| compare(plane, &token, name, object, said)));
    put(&kept);
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}

fn compare(plane: &ControlPlane, token: &str, name: &str, object: &str, said: &str) {
    let seed = pinned(&plane.endpoint_for_host(), token, &plane.ca_pin().unwrap());
    let by_kubeadm = kubeadm(plane, token);
    let node: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let mut device = Bench::default();
    let joined = device.join(&seed, format!("form-{node}").trim_end_matches('-'));
    let fault = joined.as_ref().err().map(Fault::to_string);
    let shown = format!("firstboot: {fault:?} {:?}\nkubeadm: {by_kubeadm:?}", device.reported);
    let told = fault.clone().unwrap_or_else(|| device.reported.join("\n"));
    assert!(told.contains(said) && (said.is_empty() == told.is_empty()), "it does not say {said:?}: {shown}");
    if DECISIONS.contains(&name) {
        assert!(fault.is_some() && by_kubeadm.is_ok(), "no decision any more: {shown}");
        return;
    }
    assert_eq!(joined.is_ok(), by_kubeadm.is_ok(), "{shown}");
    if let Some(fault) = fault {
        let names = [format!("ConfigMap {object}: "), format!("{object} of ")];
        assert!(names.iter().any(|name| fault.starts_with(name)), "it does not name the object: {shown}");
        return;
    }
    let (ours, mut theirs) =
        (as_kubelet_reads(&joined.unwrap().kubelet_config), as_kubelet_reads(&by_kubeadm.unwrap()));
    // It asks the init system of this machine whether systemd-resolved runs; a device tells firstboot.
    if ours.get("resolvConf").is_none() && theirs["resolvConf"] == "/run/systemd/resolve/resolv.conf" {
        theirs.as_object_mut().unwrap().remove("resolvConf");
    }
    assert_eq!(ours, theirs, "kubelet's configuration");
}

/// kubelet's configuration without what says nothing: kubeadm writes every zero value down.
fn as_kubelet_reads(text: &str) -> Value {
    fn pruned(value: Value, below_logging: bool) -> Value {
        match value {
            Value::Object(map) => {
                let all = map.into_iter().map(|(key, value)| {
                    let logging = below_logging || key == "logging";
                    (key, pruned(value, logging))
                });
                let zero = |v: &Value| match v {
                    Value::String(s) => s.is_empty() || s == "0s" || (below_logging && s == "0"),
                    Value::Number(n) => below_logging && n.as_i64() == Some(0),
                    Value::Object(o) => o.is_empty(),
                    Value::Array(a) => a.is_empty(),
                    other => other.is_null(),
                };
                Value::Object(all.filter(|(key, value)| key == "resolvConf" || !zero(value)).collect())
            }
            other => other,
        }
    }
    pruned(go_yaml::read(text, 1).unwrap().value, false)
}

/// What `kubeadm join --dry-run` writes for kubelet, or why it does not.
fn kubeadm(plane: &ControlPlane, token: &str) -> Result<String, String> {
    static PROGRAM: OnceLock<std::path::PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| component::ensure("kubeadm", Arch::host().unwrap(), Some("v1.36.3")).unwrap());
    let dir = tempdir();
    let out = Command::new(program)
        .env("KUBEADM_JOIN_DRYRUN_DIR", dir.path())
        .args(["join", &plane.endpoint_for_host(), "--token", token, "--node-name", "by-kubeadm", "--dry-run"])
        .args(["--discovery-token-ca-cert-hash", &plane.ca_pin().unwrap(), "--ignore-preflight-errors", "all"])
        .args(["--cri-socket", "unix:///run/containerd/containerd.sock"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    match std::fs::read_to_string(find(dir.path(), "config.yaml").unwrap_or_default()) {
        Ok(text) if out.status.success() => Ok(text),
        written => Err(format!("{} {:?}\n{said}", out.status, written.is_ok())),
    }
}

/// The file of this name below a directory.
fn find(dir: &Path, name: &str) -> Option<std::path::PathBuf> {
    let entries: Vec<_> = std::fs::read_dir(dir).ok()?.flatten().collect();
    entries.into_iter().find_map(|entry| match entry.path() {
        path if path.is_dir() => find(&path, name),
        path => (entry.file_name() == name).then_some(path),
    })
}
