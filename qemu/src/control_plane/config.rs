// SPDX-License-Identifier: Apache-2.0
//! What the control plane is configured with: kubeadm's file and the command lines of its four servers. Pure text.

use std::path::Path;

/// The IPv6 prefix of QEMU's user network: [`GUEST_VIEW_V6`] is in it.
pub const GUEST_VIEW_V6_PREFIX: &str = "fd00:76::";
/// Address under which a guest reaches the build machine's IPv6 loopback, where a [`crate::link`] leads to it.
pub const GUEST_VIEW_V6: &str = "fd00:76::2";

/// The address family of a cluster: its API server, services, pods and nodes have addresses of this one only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    #[default]
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Address under which a guest on QEMU's user network reaches the build machine's loopback.
    pub fn guest_view(self) -> &'static str {
        match self {
            Family::V4 => "10.0.2.2",
            Family::V6 => GUEST_VIEW_V6,
        }
    }

    /// The build machine's loopback.
    pub fn loopback(self) -> &'static str {
        match self {
            Family::V4 => "127.0.0.1",
            Family::V6 => "::1",
        }
    }

    /// Pods of all nodes.
    pub fn pod_subnet(self) -> &'static str {
        match self {
            Family::V4 => "10.244.0.0/16",
            // A node gets a /64; Kubernetes allows 16 bits between the two.
            Family::V6 => "fd00:244::/48",
        }
    }

    /// Services; `kubernetes` gets the first address, DNS the tenth.
    pub fn service_subnet(self) -> &'static str {
        match self {
            Family::V4 => "10.96.0.0/12",
            Family::V6 => "fd00:96::/112",
        }
    }

    /// `ADDRESS:PORT`, with brackets where they belong.
    pub fn with_port(self, address: &str, port: u16) -> String {
        match self {
            Family::V4 => format!("{address}:{port}"),
            Family::V6 => format!("[{address}]:{port}"),
        }
    }
}

/// CoreDNS of the bundle, whatever this version of kubeadm would install: no image is pulled.
const COREDNS: &str = "v1.14.2";

/// Loopback ports of the servers.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// kube-apiserver.
    pub api: u16,
    /// etcd for clients.
    pub etcd: u16,
    /// etcd for its peers.
    pub etcd_peer: u16,
    /// kube-controller-manager's health and metrics.
    pub controller_manager: u16,
    /// kube-scheduler's health and metrics.
    pub scheduler: u16,
}

/// kubeadm's configuration. `certificates` is where certificates are written, or, in the configuration that is
/// uploaded to the cluster, where a device keeps them: kubeadm copies that path into the kubelet's configuration.
pub fn kubeadm(version: &str, family: Family, api_port: u16, certificates: &str) -> String {
    let (guest_view, loopback) = (family.guest_view(), family.loopback());
    let (endpoint, pods, services) =
        (family.with_port(guest_view, api_port), family.pod_subnet(), family.service_subnet());
    format!(
        "\
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint:
  advertiseAddress: {guest_view:?}
  bindPort: {api_port}
nodeRegistration:
  name: control-plane
  criSocket: unix:///run/containerd/containerd.sock
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
clusterName: kubernetes
kubernetesVersion: {version}
controlPlaneEndpoint: {endpoint:?}
certificatesDir: {certificates}
apiServer:
  certSANs: [localhost, {loopback:?}, {guest_view:?}]
dns:
  imageTag: {COREDNS}
networking:
  podSubnet: {pods:?}
  serviceSubnet: {services:?}
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
"
    )
}

/// What the audit log holds: who requested what, never bodies, which could carry secrets.
pub fn audit_policy() -> &'static str {
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: Metadata\n"
}

/// etcd's command line. It does not have to survive a power cut of the build machine, so it does not wait for the disk.
pub fn etcd(dir: &Path, ports: Ports) -> Vec<String> {
    let client = format!("http://127.0.0.1:{}", ports.etcd);
    let peer = format!("http://127.0.0.1:{}", ports.etcd_peer);
    args(&[
        ("name", "default"),
        ("data-dir", &shown(dir, "etcd")),
        ("listen-client-urls", &client),
        ("advertise-client-urls", &client),
        ("listen-peer-urls", &peer),
        ("initial-advertise-peer-urls", &peer),
        ("initial-cluster", &format!("default={peer}")),
        ("unsafe-no-fsync", "true"),
        ("log-level", "warn"),
    ])
}

/// kube-apiserver's command line: kubeadm's flags, on loopback, or in a `namespace` of its own on all its addresses,
/// with the audit log on.
pub fn apiserver(dir: &Path, family: Family, ports: Ports, namespace: bool) -> Vec<String> {
    let pki = |name: &str| shown(dir, &format!("pki/{name}"));
    args(&[
        ("bind-address", if namespace { "::" } else { family.loopback() }),
        ("advertise-address", family.guest_view()),
        ("secure-port", &ports.api.to_string()),
        ("etcd-servers", &format!("http://127.0.0.1:{}", ports.etcd)),
        ("authorization-mode", "Node,RBAC"),
        ("enable-admission-plugins", "NodeRestriction"),
        ("enable-bootstrap-token-auth", "true"),
        ("allow-privileged", "true"),
        ("client-ca-file", &pki("ca.crt")),
        ("tls-cert-file", &pki("apiserver.crt")),
        ("tls-private-key-file", &pki("apiserver.key")),
        ("kubelet-client-certificate", &pki("apiserver-kubelet-client.crt")),
        ("kubelet-client-key", &pki("apiserver-kubelet-client.key")),
        ("kubelet-preferred-address-types", "InternalIP,ExternalIP,Hostname"),
        ("requestheader-client-ca-file", &pki("front-proxy-ca.crt")),
        ("requestheader-allowed-names", "front-proxy-client"),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
        ("requestheader-group-headers", "X-Remote-Group"),
        ("requestheader-username-headers", "X-Remote-User"),
        ("proxy-client-cert-file", &pki("front-proxy-client.crt")),
        ("proxy-client-key-file", &pki("front-proxy-client.key")),
        ("service-account-issuer", "https://kubernetes.default.svc.cluster.local"),
        ("service-account-key-file", &pki("sa.pub")),
        ("service-account-signing-key-file", &pki("sa.key")),
        ("service-cluster-ip-range", family.service_subnet()),
        ("audit-policy-file", &shown(dir, "audit-policy.yaml")),
        ("audit-log-path", &shown(dir, "audit.log")),
        ("audit-log-mode", "blocking"),
    ])
}

/// kube-controller-manager's command line, with the two controllers that bootstrap tokens need.
pub fn controller_manager(dir: &Path, family: Family, ports: Ports, signing_duration: Option<&str>) -> Vec<String> {
    let pki = |name: &str| shown(dir, &format!("pki/{name}"));
    let kubeconfig = shown(dir, "controller-manager.conf");
    args(&[
        ("bind-address", "127.0.0.1"),
        ("secure-port", &ports.controller_manager.to_string()),
        ("kubeconfig", &kubeconfig),
        ("authentication-kubeconfig", &kubeconfig),
        ("authorization-kubeconfig", &kubeconfig),
        ("controllers", "*,bootstrapsigner,tokencleaner"),
        ("use-service-account-credentials", "true"),
        ("leader-elect", "false"),
        ("allocate-node-cidrs", "true"),
        ("cluster-cidr", family.pod_subnet()),
        ("service-cluster-ip-range", family.service_subnet()),
        ("client-ca-file", &pki("ca.crt")),
        ("requestheader-client-ca-file", &pki("front-proxy-ca.crt")),
        ("cluster-signing-cert-file", &pki("ca.crt")),
        ("cluster-signing-key-file", &pki("ca.key")),
        ("cluster-signing-duration", signing_duration.unwrap_or("8760h")),
        ("root-ca-file", &pki("ca.crt")),
        ("service-account-private-key-file", &pki("sa.key")),
    ])
}

/// kube-scheduler's command line.
pub fn scheduler(dir: &Path, ports: Ports) -> Vec<String> {
    let kubeconfig = shown(dir, "scheduler.conf");
    args(&[
        ("bind-address", "127.0.0.1"),
        ("secure-port", &ports.scheduler.to_string()),
        ("kubeconfig", &kubeconfig),
        ("authentication-kubeconfig", &kubeconfig),
        ("authorization-kubeconfig", &kubeconfig),
        ("leader-elect", "false"),
    ])
}

fn shown(dir: &Path, below: &str) -> String {
    dir.join(below).display().to_string()
}

fn args(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().map(|(key, value)| format!("--{key}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports { api: 1, etcd: 2, etcd_peer: 3, controller_manager: 4, scheduler: 5 };

    #[test]
    fn guests_get_an_address_that_they_can_reach() {
        let text = kubeadm("v1.36.3", Family::V4, 20123, "/etc/kubernetes/pki");
        assert!(text.contains("controlPlaneEndpoint: \"10.0.2.2:20123\"\n"), "{text}");
        assert!(text.contains("certificatesDir: /etc/kubernetes/pki\n"));
        let dir = Path::new("/x");
        assert!(apiserver(dir, Family::V4, PORTS, false).contains(&"--advertise-address=10.0.2.2".to_owned()));
        let text = kubeadm("v1.36.3", Family::V6, 20123, "/etc/kubernetes/pki");
        assert!(text.contains("controlPlaneEndpoint: \"[fd00:76::2]:20123\"\n"), "{text}");
        assert!(apiserver(dir, Family::V6, PORTS, false).contains(&"--advertise-address=fd00:76::2".to_owned()));
    }

    #[test]
    fn nothing_listens_beyond_loopback() {
        let dir = Path::new("/x");
        let local = ["--bind-address=127.0.0.1", "--bind-address=::1"];
        for family in [Family::V4, Family::V6] {
            let lists = [
                apiserver(dir, family, PORTS, false),
                controller_manager(dir, family, PORTS, None),
                scheduler(dir, PORTS),
            ];
            for list in lists {
                assert!(list.iter().any(|a| local.contains(&a.as_str())), "{list:?}");
            }
        }
        assert!(etcd(dir, PORTS).iter().filter(|a| a.contains("listen-")).all(|a| a.contains("http://127.0.0.1:")));
    }

    #[test]
    fn an_ipv6_cluster_has_no_ipv4_address() {
        let dir = Path::new("/x");
        let text = kubeadm("v1.36.3", Family::V6, 20123, "/etc/kubernetes/pki");
        assert!(!text.contains("10.") && !text.contains("127."), "{text}");
        let ranges = |list: Vec<String>| -> Vec<String> {
            list.into_iter().filter(|a| a.contains("-cidr=") || a.contains("-ip-range=")).collect()
        };
        let list = ranges(controller_manager(dir, Family::V6, PORTS, None));
        assert_eq!(list, ["--cluster-cidr=fd00:244::/48", "--service-cluster-ip-range=fd00:96::/112"]);
    }
}
