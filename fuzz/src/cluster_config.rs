// SPDX-License-Identifier: Apache-2.0
//! kubeadm-config and kubelet-config: whatever the cluster publishes, the file for kubelet is YAML, is made the same
//! way twice, and has what must not be otherwise. Input: ClusterConfiguration, a line `---`, KubeletConfiguration.

use firstboot::kube::config::{check_skew, cluster_configuration, kubelet_config};

const SOCKET: &str = "unix:///run/containerd/containerd.sock";

pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (first, second) = text.split_once("\n---\n").unwrap_or((text, ""));
    let Ok(cluster) = cluster_configuration(first) else { return };
    if let Err(fault) =
        check_skew("v1.36.3", cluster.kubernetes_version.as_deref().unwrap_or_default(), "generic-amd64")
    {
        let line = format!("{:#}", fault.cause);
        assert!(!line.chars().any(char::is_control), "more than a line: {line:?}");
    }
    let Ok(made) = kubelet_config(second, &cluster, SOCKET, None).map(|made| made.text) else { return };
    let again = kubelet_config(&made, &cluster, SOCKET, None).expect("what was made can be read").text;
    assert_eq!(made, again, "the second time gives another file");
    assert!(made.contains(&format!("containerRuntimeEndpoint: {SOCKET}\n")), "{made}");
    assert!(made.contains("rotateCertificates: true\n"), "{made}");
}
