// SPDX-License-Identifier: Apache-2.0
//! What a joined node has on disk: the files of a kubeadm node, each where kubelet and `kubeadm upgrade node` look.
//!
//! Pure. The order of writing matters: kubelet takes kubelet.conf as "there is a certificate", so it
//! comes last, and the link that it names comes after the file that the link names.

use crate::paths::{
    CA_FILE, CLUSTER_PKI, CURRENT_PEM, INSTANCE_CONFIG, KUBEADM_FLAGS, KUBELET_CONF, KUBELET_CONFIG, KUBELET_DIR,
    KUBERNETES, MANIFESTS, PKI,
};
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::config;
use super::contract::Joined;
use super::kubeconfig::kubelet_conf;
use super::{pin, tls};
use crate::secret::Secret;
use crate::seed::Seed;

/// One thing on disk.
pub struct FileSpec {
    /// Absolute, as on the device.
    pub path: String,
    /// What is there.
    pub content: Content,
}

/// What is at a path. No `Debug`: one of them is the private key.
pub enum Content {
    /// A directory with this mode.
    Dir(u32),
    /// A file with these bytes, which are zeroed when dropped, and this mode.
    File(Zeroizing<Vec<u8>>, u32),
    /// A symbolic link with this target.
    Link(String),
}

/// Everything to write for `joined` and its key (SEC 1 PEM), in order; `name` is the node's and the device's. `now` names
/// the file of a certificate whose dates cannot be read.
pub fn files(joined: &Joined, key: &Secret<String>, seed: &Seed, name: &str, now: SystemTime) -> Vec<FileSpec> {
    let node = &seed.node;
    let dir = |path: &str, mode| FileSpec { path: path.to_owned(), content: Content::Dir(mode) };
    let file = |path: &str, text: &str, mode| FileSpec {
        path: path.to_owned(),
        content: Content::File(Zeroizing::new(text.as_bytes().to_vec()), mode),
    };
    // By its own date: a try that was cut off before the certificate was in use wrote the same one, to the same file.
    let leaf = pin::certificates(&joined.certificate_pem).and_then(|chain| chain.into_iter().next());
    let pem_path = pem_path(leaf.as_ref().and_then(tls::dates).map_or(now, |(from, _)| from));
    let pem = Zeroizing::new([terminated(&joined.certificate_pem).as_str(), key.expose().as_str()].concat());
    let labels = config::labels(node.role, name, &node.labels);
    let flags = config::flags_env(name, name, &seed.network.node_ips(), &labels, &seed.taints());
    vec![
        dir(KUBERNETES, 0o755),
        dir(MANIFESTS, 0o700),
        dir(CLUSTER_PKI, 0o700),
        dir(KUBELET_DIR, 0o700),
        dir(PKI, 0o700),
        file(CA_FILE, &joined.ca_pem, 0o600),
        file(INSTANCE_CONFIG, &config::instance_config(&joined.cri_socket), 0o600),
        file(KUBELET_CONFIG, &joined.kubelet_config, 0o600),
        file(KUBEADM_FLAGS, &flags, 0o600),
        file(&pem_path, &pem, 0o600),
        FileSpec { path: CURRENT_PEM.to_owned(), content: Content::Link(pem_path) },
        file(KUBELET_CONF, &kubelet_conf(&joined.server, &joined.ca_pem), 0o600),
    ]
}

/// Name of a certificate's file, by the time from which on it is good (UTC).
fn pem_path(now: SystemTime) -> String {
    let t = time::OffsetDateTime::from(now);
    let (date, month) = (t.date(), u8::from(t.month()));
    format!(
        "{PKI}/kubelet-client-{:04}-{month:02}-{:02}-{:02}-{:02}-{:02}.pem",
        date.year(),
        date.day(),
        t.hour(),
        t.minute(),
        t.second()
    )
}

/// PEM blocks can only be joined when the first ends its last line.
fn terminated(pem: &str) -> String {
    format!("{}\n", pem.trim_end())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn all_files_of_a_node_in_order() {
        let joined = Joined {
            server: "https://10.0.2.2:6443".into(),
            ca_pem: "CA\n".into(),
            networks: String::new(),
            node_ports: String::new(),
            api_service: String::new(),
            cluster_version: "v1.36.3".into(),
            kubelet_config: "kind: KubeletConfiguration\n".into(),
            cri_socket: "unix:///run/containerd/containerd.sock".into(),
            certificate_pem: "CERTIFICATE".into(),
            leftover_node: false,
        };
        let key = Secret::new("KEY\n".to_owned());
        let text = format!(
            "version = 1\n[cluster]\napiserver = \"10.0.2.2\"\ntoken = \"abcdef.0123456789abcdef\"\nca-cert-hashes = \
             \"sha256:{}\"\n[node]\nrole = \"worker\"\n",
            "0".repeat(64)
        );
        let seed = crate::seed::parse(text.as_bytes()).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_365_108);
        let shown: Vec<String> = files(&joined, &key, &seed, "edge-1", now)
            .into_iter()
            .map(|f| match f.content {
                Content::Dir(mode) => format!("{mode:o} {}/", f.path),
                Content::File(bytes, mode) => {
                    let text = String::from_utf8(bytes.to_vec()).unwrap();
                    let first = text.lines().take(2).collect::<Vec<_>>().join("|");
                    format!("{mode:o} {} {first}", f.path)
                }
                Content::Link(target) => format!("{} -> {target}", f.path),
            })
            .collect();
        assert_eq!(
            shown,
            [
                "755 /etc/kubernetes/",
                "700 /etc/kubernetes/manifests/",
                "700 /etc/kubernetes/pki/",
                "700 /var/lib/kubelet/",
                "700 /var/lib/kubelet/pki/",
                "600 /etc/kubernetes/pki/ca.crt CA",
                "600 /var/lib/kubelet/instance-config.yaml containerRuntimeEndpoint: \
                 \"unix:///run/containerd/containerd.sock\"",
                "600 /var/lib/kubelet/config.yaml kind: KubeletConfiguration",
                "600 /var/lib/kubelet/kubeadm-flags.env \
                 KUBELET_KUBEADM_ARGS=\"--node-labels=superedge.io/node-cloud=enable\"",
                "600 /var/lib/kubelet/pki/kubelet-client-2026-11-22-16-31-48.pem CERTIFICATE|KEY",
                "/var/lib/kubelet/pki/kubelet-client-current.pem -> \
                 /var/lib/kubelet/pki/kubelet-client-2026-11-22-16-31-48.pem",
                "600 /etc/kubernetes/kubelet.conf apiVersion: v1|clusters:",
            ]
        );
    }
}
