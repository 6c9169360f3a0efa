// SPDX-License-Identifier: Apache-2.0
//! The two kubeconfigs of a join: the one inside cluster-info, read; and kubelet.conf, written as kubelet itself
//! writes it (`pkg/kubelet/certificate/bootstrap`, names and all).

use crate::paths::CURRENT_PEM;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use serde::Deserialize;

/// What cluster-info says of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInfo {
    /// CA bundle, PEM.
    pub ca_pem: String,
    /// `https://host:port[/path]`.
    pub server: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    contexts: Option<Vec<NamedContext>>,
    #[serde(default)]
    current_context: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    #[serde(default)]
    certificate_authority_data: String,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
}

/// Reads the kubeconfig of cluster-info: the cluster without a name, else that of the current context.
///
/// # Errors
/// What is missing, without any of the text.
pub fn read(text: &str) -> Result<ClusterInfo, &'static str> {
    let config: Config = serde_yaml_ng::from_str(text).map_err(|_| "it is no kubeconfig")?;
    let contexts = config.contexts.unwrap_or_default();
    let current = contexts.iter().find(|c| c.name == config.current_context).map_or("", |c| &c.context.cluster);
    let named = |name: &str| config.clusters.iter().find(|c| c.name == name);
    let cluster = &named("").or_else(|| named(current)).ok_or("it names no cluster")?.cluster;
    let ca = STANDARD.decode(&cluster.certificate_authority_data).ok().and_then(|der| String::from_utf8(der).ok());
    let ca_pem = ca.filter(|pem| !pem.is_empty()).ok_or("it holds no CA certificate")?;
    let server = cluster.server.trim_end_matches('/');
    if !is_server(server) {
        return Err("its server is no https:// address");
    }
    Ok(ClusterInfo { ca_pem, server: server.to_owned() })
}

/// Whether this is the URL of an API server, and the same one to Go as it is here.
pub fn is_server(server: &str) -> bool {
    // Browsers' rules (Url) let more pass than Go's, and what has a blank in it or ends in a colon is something else in
    // kubelet.conf than what was read here.
    let plain =
        server.bytes().all(|b| b.is_ascii_graphic()) && !server.ends_with(':') && server.starts_with("https://");
    plain && Url::parse(server).is_ok_and(|url| url.has_host())
}

/// `/etc/kubernetes/kubelet.conf`, byte for byte as client-go writes it; certificate and key by path, because kubelet's
/// rotation replaces them.
pub fn kubelet_conf(server: &str, ca_pem: &str) -> String {
    format!(
        "apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {ca}
    server: {server}
  name: default-cluster
contexts:
- context:
    cluster: default-cluster
    namespace: default
    user: default-auth
  name: default-context
current-context: default-context
kind: Config
users:
- name: default-auth
  user:
    client-certificate: {CURRENT_PEM}
    client-key: {CURRENT_PEM}
",
        ca = STANDARD.encode(ca_pem)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: Q0E=
    server: https://10.0.2.2:6443
  name: \"\"
contexts: null
current-context: \"\"
kind: Config
users: null
";

    #[test]
    fn reads_what_kubeadm_publishes() {
        let want = ClusterInfo { ca_pem: "CA".into(), server: "https://10.0.2.2:6443".into() };
        assert_eq!(read(INFO).unwrap(), want);
        let by_context = INFO
            .replace("name: \"\"", "name: c")
            .replace("contexts: null", "contexts:\n- name: x\n  context: {cluster: c, user: u}")
            .replace("current-context: \"\"", "current-context: x");
        assert_eq!(read(&by_context).unwrap(), want);
    }

    #[test]
    fn refuses_what_it_cannot_use() {
        assert_eq!(read("<html>"), Err("it is no kubeconfig"));
        assert_eq!(read(&INFO.replace("name: \"\"", "name: c")), Err("it names no cluster"));
        assert_eq!(read(&INFO.replace("Q0E=", "\"\"")), Err("it holds no CA certificate"));
        // The others found by fuzzing: kubelet.conf would say something else than what was read.
        for bad in
            ["http://10.0.2.2", "https://", "\"https://a/b:/\"", "https:a", "\"https://a /b\"", "\"https://a\\n/b\""]
        {
            let info = INFO.replace("https://10.0.2.2:6443", bad);
            assert_eq!(read(&info), Err("its server is no https:// address"), "{bad}");
        }
    }

    #[test]
    fn kubelet_conf_can_be_read_back() {
        let text = kubelet_conf("https://10.0.2.2:6443", "PEM\n");
        let value: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).unwrap();
        assert_eq!(value["clusters"][0]["cluster"]["certificate-authority-data"], "UEVNCg==");
        assert_eq!(value["users"][0]["user"]["client-key"], CURRENT_PEM);
        assert_eq!(value["contexts"][0]["context"]["namespace"], "default");
        let read_back = read(&text).unwrap();
        assert_eq!((read_back.ca_pem.as_str(), read_back.server.as_str()), ("PEM\n", "https://10.0.2.2:6443"));
    }
}
