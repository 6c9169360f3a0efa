// SPDX-License-Identifier: Apache-2.0
//! kubelet's files out of what a cluster publishes, and version skew.

use super::*;

const CLUSTER: &str = "kind: ClusterConfiguration
kubernetesVersion: v1.36.3
networking:
  dnsDomain: cluster.local
  podSubnet: 10.244.0.0/16
  serviceSubnet: 10.96.0.0/12
";
const SOCKET: &str = "unix:///run/containerd/containerd.sock";

#[test]
fn a_cluster_that_says_little_gets_kubeadms_defaults() {
    let cluster = cluster_configuration(CLUSTER).unwrap();
    assert_eq!(cluster.kubernetes_version, "v1.36.3");
    assert_eq!(cluster.networking.ranges(), "10.244.0.0/16,10.96.0.0/12");
    let two = Networking { pod_subnet: "10.0.0.0/8, fd00::/48".into(), ..Networking::default() };
    assert_eq!((two.ranges().as_str(), Networking::default().ranges().as_str()), ("10.0.0.0/8,fd00::/48", ""));
    let published =
        "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\nrotateCertificates: false\n";
    let want = "apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
  webhook:
    enabled: true
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
authorization:
  mode: Webhook
cgroupDriver: systemd
clusterDNS:
- 10.96.0.10
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
healthzBindAddress: 127.0.0.1
healthzPort: 10248
kind: KubeletConfiguration
resolvConf: /run/systemd/resolve/resolv.conf
rotateCertificates: true
staticPodPath: /etc/kubernetes/manifests
";
    let resolved = Some("/run/systemd/resolve/resolv.conf");
    assert_eq!(kubelet_config(published, &cluster, SOCKET, resolved).unwrap(), want);
}

#[test]
fn what_the_cluster_says_stays() {
    let cluster = cluster_configuration(CLUSTER).unwrap();
    let published = "apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: true
  webhook:
    cacheTTL: 0s
clusterDNS: [10.0.0.53]
containerRuntimeEndpoint: \"\"
crashLoopBackOff: {}
healthzPort: 0
kind: KubeletConfiguration
logging:
  options:
    json:
      infoBufferSize: \"0\"
resolvConf: /etc/own
";
    let text = kubelet_config(published, &cluster, SOCKET, Some("/run/x")).unwrap();
    for want in [
        "    enabled: true\n",
        "    cacheTTL: 0s\n    enabled: true\n",
        "clusterDNS:\n- 10.0.0.53\n",
        "containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n",
        "crashLoopBackOff: {}\n",
        "healthzPort: 0\n",
        "      infoBufferSize: '0'\n",
        "resolvConf: /etc/own\n",
    ] {
        assert!(text.contains(want), "{want}\n{text}");
    }
}

#[test]
fn what_is_no_configuration() {
    let cluster = cluster_configuration(CLUSTER).unwrap();
    let message = |text: &str| kubelet_config(text, &cluster, SOCKET, None).unwrap_err().text;
    assert_eq!(message("- a\n"), "ConfigMap kubelet-config: it is no YAML mapping");
    assert_eq!(
        message("kind: KubeletConfiguration\napiVersion: v2\n"),
        "ConfigMap kubelet-config: it is no KubeletConfiguration of kubelet.config.k8s.io/v1beta1"
    );
    assert_eq!(
        cluster_configuration("a: b").unwrap_err().text,
        "ConfigMap kubeadm-config: its ClusterConfiguration cannot be read"
    );
}

#[test]
fn dns_is_the_tenth_address() {
    let dns = |subnet: &str| dns_address(subnet).map(|a| a.to_string());
    assert_eq!(dns("10.96.0.0/12").unwrap(), "10.96.0.10");
    assert_eq!(dns("10.97.1.1/12,fd00::/112").unwrap(), "10.96.0.10");
    assert_eq!(dns("fd00:1::/108").unwrap(), "fd00:1::a");
    assert_eq!(dns("0.0.0.0/0").unwrap(), "0.0.0.10");
    // The last two found by fuzzing: there is no tenth address after them.
    for bad in
        ["", "10.96.0.0", "10.96.0.0/33", "x/1", "255.255.255.255/32", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"]
    {
        assert_eq!(dns(bad), None, "{bad}");
    }
}

#[test]
fn skew() {
    for (kubelet, cluster) in [("1.36.3", "v1.36.0"), ("1.36.3", "v1.39.9"), ("1.36.9", "v1.36.3-eks-1")] {
        assert!(check_skew(kubelet, cluster, "t").is_ok(), "{kubelet} {cluster}");
    }
    let refused = |kubelet: &str, cluster: &str| {
        let fault = check_skew(kubelet, cluster, "generic-arm64").unwrap_err();
        (fault.code, fault.to_string())
    };
    let command = "imagebuild build --target generic-arm64 --kubernetes-version";
    assert_eq!(
        refused("1.36.3", "v1.35.2"),
        (
            Code::KubeletVersion,
            format!("kubelet 1.36.3 of this image is newer than the cluster, 1.35.2: {command} 1.35")
        )
    );
    assert_eq!(
        refused("1.36.3", "v1.40.0"),
        (
            Code::KubeletVersion,
            format!("kubelet 1.36.3 of this image is too old for the cluster, 1.40.0: {command} 1.40")
        )
    );
    // Found by fuzzing: a version that is more than a line.
    assert_eq!(
        refused("1.36.3", "v1.35.\n2"),
        (
            Code::KubeletVersion,
            format!("kubelet 1.36.3 of this image is newer than the cluster, 1.35. 2: {command} 1.35")
        )
    );
    assert_eq!(
        refused("1.36.3", "stable-1"),
        (Code::ClusterConfiguration, "version of the cluster in kubeadm-config cannot be read: stable-1".to_owned())
    );
}

#[test]
fn flags() {
    let taints = [Taint::parse("edge=true:NoSchedule").unwrap(), Taint::parse("a:NoExecute").unwrap()];
    let zone = [NodeLabel::parse("topology.kubernetes.io/zone", "shop-12").unwrap()];
    let edge = labels(Role::Edge, "edge-01", &zone);
    assert_eq!(
        flags_env("edge-01", "localhost", &[], &edge, &taints),
        "KUBELET_KUBEADM_ARGS=\"--hostname-override=edge-01 --register-with-taints=edge=true:NoSchedule,a:NoExecute \
         --node-labels=superedge.io.hostname=edge-01,superedge.io/node-edge=enable,topology.kubernetes.io/zone=shop-12\"\n"
    );
    let own = [NodeLabel::parse("superedge.io/node-cloud", "x").unwrap()];
    assert_eq!(
        flags_env("a", "a", &[], &labels(Role::Worker, "a", &own), &[]),
        "KUBELET_KUBEADM_ARGS=\"--node-labels=superedge.io/node-cloud=x\"\n"
    );
    assert_eq!(flags_env("a", "a", &[], &BTreeMap::new(), &[]), "KUBELET_KUBEADM_ARGS=\"\"\n");
    let ips = ["10.0.2.15".parse().unwrap(), "fd00::1".parse().unwrap()];
    let reported = flags_env("a", "a", &ips, &BTreeMap::new(), &[]);
    assert_eq!(reported, "KUBELET_KUBEADM_ARGS=\"--node-ip=10.0.2.15,fd00::1\"\n");
}

/// Found by fuzzing: a tag that was written so that the file could not be read.
#[test]
fn tags_are_left_out() {
    let published = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\na: !k//!!%5B%0Bns b\n";
    let cluster = cluster_configuration("kubernetesVersion: v1.36.3").unwrap();
    let made = kubelet_config(published, &cluster, "unix:///s", None).unwrap();
    assert!(made.starts_with("a: b\napiVersion:"), "{made}");
}

#[test]
fn the_range_of_node_ports_is_found_in_both_forms_of_flags() {
    let of = |args: &str| {
        let text = format!("kubernetesVersion: v1.36.3\napiServer:\n  extraArgs:{args}\n");
        cluster_configuration(&text).unwrap().api_server.node_ports()
    };
    assert_eq!(
        of("\n  - name: v\n    value: \"2\"\n  - name: service-node-port-range\n    value: 20000-22767"),
        "20000-22767"
    );
    assert_eq!(of("\n    service-node-port-range: 20000-22767"), "20000-22767");
    assert_eq!(of(" {}"), "");
    assert_eq!(cluster_configuration("kubernetesVersion: v1.36.3\n").unwrap().api_server.node_ports(), "");
}
