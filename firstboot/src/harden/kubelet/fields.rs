// SPDX-License-Identifier: Apache-2.0
//! kubelet's settings on the hardened host: a drop-in (`--config-dir`) that overrides the cluster's configuration, and
//! that the seed's `[kubelet.config]` overrides. The cluster's own configuration is not changed.
//!
//! A field is here only if every kubelet that an image may contain supports it, and if no feature gate of the cluster
//! can make it an error. <https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/>

use crate::paths::DROP_IN;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// One field.
pub struct Field {
    /// Path in KubeletConfiguration, parts joined by `/`.
    pub path: &'static str,
    /// Value, as JSON.
    pub value: &'static str,
    /// The command line flag that would override every file; empty where there is none.
    pub flag: &'static str,
    /// Reason of the value.
    pub why: &'static str,
}

const fn field(path: &'static str, value: &'static str, flag: &'static str, why: &'static str) -> Field {
    Field { path, value, flag, why }
}

/// All fields.
#[rustfmt::skip]
pub const FIELDS: &[Field] = &[
    field("authentication/anonymous/enabled", "false", "anonymous-auth", "requests without a credential are refused"),
    field("authentication/webhook/enabled", "true", "authentication-token-webhook", "tokens are judged by the API server"),
    field("authentication/x509/clientCAFile", "\"/etc/kubernetes/pki/ca.crt\"", "client-ca-file", "the CA that the join has proven says who an API server is, and no other"),
    field("authorization/mode", "\"Webhook\"", "authorization-mode", "the API server decides who may do what on this node"),
    field("port", "10250", "port", "the packet filter opens this port to the API servers"),
    field("healthzBindAddress", "\"127.0.0.1\"", "healthz-bind-address", "firstboot asks kubelet there whether it is well, and no other host can"),
    field("healthzPort", "10248", "healthz-port", "firstboot asks kubelet there whether it is well, and no other host can"),
    field("containerRuntimeEndpoint", "\"unix:///run/containerd/containerd.sock\"", "container-runtime-endpoint", "pods run in the image's own container runtime"),
    field("podLogsDir", "\"/var/log/pods\"", "", "logs of pods go to a directory of root's, which a reset removes"),
    field("volumePluginDir", "\"/var/lib/kubelet/volume-plugins/\"", "volume-plugin-dir", "programs that mount volumes come only from a directory of root's"),
    field("readOnlyPort", "0", "read-only-port", "no port answers without a credential"),
    field("tlsMinVersion", "\"VersionTLS13\"", "tls-min-version", "every API server that this kubelet may join speaks TLS 1.3, and it leaves no weak cipher to choose"),
    field("tlsCipherSuites", TLS12, "tls-cipher-suites", "what is left to choose where the seed sets tlsMinVersion to VersionTLS12; TLS 1.3 has no other than strong ones"),
    field("rotateCertificates", "true", "rotate-certificates", "the node's certificate is renewed before it expires, with a new key"),
    field("protectKernelDefaults", "true", "protect-kernel-defaults", "kubelet ends where it would have to change the kernel's settings, instead of changing them"),
    field("makeIPTablesUtilChains", "true", "make-iptables-util-chains", "what is marked to be dropped is dropped, whatever else a pod network sets up"),
    field("seccompDefault", "true", "seccomp-default", "a pod without a seccomp profile of its own is confined by the runtime's"),
    field("allowedUnsafeSysctls", "[]", "allowed-unsafe-sysctls", "no pod changes a kernel setting that reaches beyond it"),
    field("staticPodPath", "\"/etc/kubernetes/manifests\"", "pod-manifest-path", "static pods, which no API server knows, come only from a directory of root's"),
    field("staticPodURL", "\"\"", "manifest-url", "and from no address"),
    field("podPidsLimit", "4096", "pod-max-pids", "a pod that forks without end stops itself, not the node"),
    field("streamingConnectionIdleTimeout", "\"5m0s\"", "streaming-connection-idle-timeout", "a forgotten exec, attach or port-forward ends"),
    field("eventRecordQPS", "50", "event-qps", "events are kept when much happens, and a flood of them does not drown the API server"),
    field("enableProfilingHandler", "false", "", "no access to kubelet's memory and running code over the network"),
    field("enableDebugFlagsHandler", "false", "", "no change of kubelet's log level over the network"),
    field("enableSystemLogHandler", "false", "", "/var/log of the host is not served; kubectl logs takes another way"),
    field("enableSystemLogQuery", "false", "", "the journal of the host is not served"),
    field("containerLogMaxSize", "\"10Mi\"", "container-log-max-size", "logs of pods do not fill a small card"),
    field("containerLogMaxFiles", "3", "container-log-max-files", "the same, in pieces"),
    field("imageGCHighThresholdPercent", "80", "image-gc-high-threshold", "unused images are removed before pods are evicted"),
    field("imageGCLowThresholdPercent", "70", "image-gc-low-threshold", "and so many of them that it is not soon again"),
    field("evictionHard/memory.available", "\"100Mi\"", "eviction-hard", "pods are evicted before the kernel ends a process of its choice"),
    field("evictionHard/nodefs.available", "\"10%\"", "eviction-hard", "pods go before the root file system is full"),
    field("evictionHard/nodefs.inodesFree", "\"5%\"", "eviction-hard", "the same for its inodes"),
    field("evictionHard/imagefs.available", "\"15%\"", "eviction-hard", "the same where images lie on a file system of their own"),
    field("evictionHard/pid.available", "\"10%\"", "eviction-hard", "pods go before there is no process number left to log in or to reboot with"),
];

/// The cipher suites of TLS 1.2 that CIS Kubernetes 4.2.12 accepts, without those that have no forward secrecy.
const TLS12: &str = r#"["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"]"#;

impl Field {
    pub(super) fn wanted(&self) -> Result<Value> {
        serde_json::from_str(self.value).with_context(|| format!("read {}", self.path))
    }

    /// The value of this field in a KubeletConfiguration document.
    pub(super) fn of<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        let mut at = document;
        for part in self.path.split('/') {
            at = at.get(part)?;
        }
        Some(at)
    }
}

/// The drop-in, a KubeletConfiguration document.
///
/// # Errors
/// Never in practice: a test parses every value.
pub fn drop_in() -> Result<String> {
    let mut document = json!({ "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration" });
    for field in FIELDS {
        let mut at = &mut document;
        for part in field.path.split('/') {
            at = &mut at[part];
        }
        *at = field.wanted()?;
    }
    let text = serde_json::to_string_pretty(&document).with_context(|| format!("encode {DROP_IN}"))?;
    Ok(text + "\n")
}

/// The fields of `[kubelet.config]` that differ from the hardened host, by path.
pub fn overrides(config: &Map<String, Value>) -> BTreeMap<String, Value> {
    let config = Value::Object(config.clone());
    let other = |field: &Field| {
        let value = field.of(&config)?;
        let same = field.wanted().is_ok_and(|wanted| wanted == *value);
        (!same).then(|| (field.path.to_owned(), value.clone()))
    };
    FIELDS.iter().filter_map(other).collect()
}

/// A value for people: text without quotation marks, lists without brackets.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => "none".to_owned(),
        Value::Array(list) => list.iter().map(shown).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_in_equals_the_golden_file() {
        assert_eq!(drop_in().unwrap(), include_str!("10-harden.conf"));
    }

    #[test]
    fn seed_parser_knows_every_field() {
        let firsts = FIELDS.iter().filter_map(|f| f.path.split('/').next());
        let unknown: Vec<&str> = firsts.filter(|name| !crate::seed::is_kubelet_field(name)).collect();
        assert_eq!(unknown, [""; 0]);
    }

    #[test]
    fn differing_fields_are_overrides() {
        let config = json!({
            "maxPods": 60,
            "podPidsLimit": 4096,
            "tlsMinVersion": "VersionTLS12",
            "allowedUnsafeSysctls": ["net.core.somaxconn"],
            "evictionHard": { "memory.available": "50Mi", "nodefs.available": "10%", "imagefs.inodesFree": "1%" },
        });
        let found = overrides(config.as_object().unwrap());
        let found: Vec<(&str, String)> = found.iter().map(|(path, value)| (path.as_str(), shown(value))).collect();
        assert_eq!(
            found,
            [
                ("allowedUnsafeSysctls", "net.core.somaxconn".to_owned()),
                ("evictionHard/memory.available", "50Mi".to_owned()),
                ("tlsMinVersion", "VersionTLS12".to_owned()),
            ]
        );
    }
}
