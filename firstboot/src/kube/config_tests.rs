// SPDX-License-Identifier: Apache-2.0
//! kubelet's files out of what a cluster publishes, and version skew.

use super::*;

const HEAD: &str = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n";
const CLUSTER: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.36.3
networking:
  dnsDomain: cluster.local
  podSubnet: 10.244.0.0/16
  serviceSubnet: 10.96.0.0/12
";
const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
const SOCKET: &str = "unix:///run/containerd/containerd.sock";

#[test]
fn a_cluster_that_says_little_gets_kubeadms_defaults() {
    let cluster = cluster_configuration(CLUSTER).unwrap();
    assert_eq!(cluster.kubernetes_version.as_deref(), Some("v1.36.3"));
    assert_eq!(cluster.networking.ranges(), "10.244.0.0/16,10.96.0.0/12");
    let two = Networking { pod_subnet: "10.0.0.0/8, fd00::/48".into(), ..Networking::default() };
    assert_eq!(
        (two.ranges().as_str(), Networking::default().ranges().as_str()),
        ("10.0.0.0/8,fd00::/48,10.96.0.0/12", "10.96.0.0/12")
    );
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
- \"10.96.0.10\"
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
healthzBindAddress: \"127.0.0.1\"
healthzPort: 10248
kind: KubeletConfiguration
resolvConf: /run/systemd/resolve/resolv.conf
rotateCertificates: true
staticPodPath: /etc/kubernetes/manifests
";
    let resolved = Some("/run/systemd/resolve/resolv.conf");
    assert_eq!(kubelet_config(published, &cluster, SOCKET, resolved).unwrap().text, want);
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
    let text = kubelet_config(published, &cluster, SOCKET, Some("/run/x")).unwrap().text;
    for want in [
        "    enabled: true\n",
        "    cacheTTL: \"0s\"\n    enabled: true\n",
        "clusterDNS:\n- \"10.0.0.53\"\n",
        "containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n",
        "crashLoopBackOff: {}\n",
        "healthzPort: 0\n",
        "      infoBufferSize: \"0\"\n",
        "resolvConf: /etc/own\n",
    ] {
        assert!(text.contains(want), "{want}\n{text}");
    }
}

#[test]
fn what_kubeadm_would_not_read_is_named_with_its_line() {
    let cluster = cluster_configuration(CLUSTER).unwrap();
    let message = |text: &str| {
        let text = kubelet_config(text, &cluster, SOCKET, None).unwrap_err().text;
        text.strip_prefix("ConfigMap kubelet-config: kubelet: ").unwrap().to_owned()
    };
    let headless = "line 1: a document has no kind and apiVersion: remove it, or the line --- after it";
    assert_eq!(message("- a\n"), headless);
    assert_eq!(message(&format!("# by gitops\n---\n{KUBELET}")), headless);
    let version = "line 1: it is no KubeletConfiguration of kubelet.config.k8s.io/v1beta1";
    assert_eq!(message(&KUBELET.replace("v1beta1", "v1")), version);
    let with = |line: &str| message(&format!("{KUBELET}{line}\n"));
    assert_eq!(
        with("nodeStatusUpdateFrequency: 10"),
        "line 3: nodeStatusUpdateFrequency must be a duration in quotes, as in \"1m30s\""
    );
    assert_eq!(with("maxPods: 3000000000"), "line 3: maxPods must be a whole number");
    assert_eq!(with("clusterDomain: on"), "line 3: clusterDomain must be a string in quotes");
    let nested = "authentication:\n  anonymous: {enabled: maybe}";
    assert_eq!(with(nested), "line 4: authentication.anonymous.enabled must be true or false");
    assert_eq!(with("authorization:\n\tmode: Webhook"), "line 4: a tab indents it, which YAML does not allow");
    assert_eq!(with(&format!("---\n{KUBELET}")), "line 4: a second document of kind KubeletConfiguration");

    let message = |text: &str| {
        let text = cluster_configuration(text).unwrap_err().text;
        text.strip_prefix("ConfigMap kubeadm-config: ClusterConfiguration: ").unwrap().to_owned()
    };
    let kind = "it must have kind ClusterConfiguration and apiVersion kubeadm.k8s.io/v1beta4 or v1beta3";
    assert_eq!(message("a: b"), kind);
    assert_eq!(message(&CLUSTER.replace("v1beta4", "v1beta2")), format!("line 1: {kind}"));
    let with = |line: &str| message(&format!("{HEAD}{line}\n"));
    assert_eq!(with("kubernetesVersion: 1.36"), "line 3: kubernetesVersion must be a string in quotes");
    assert_eq!(with("kubernetesVersion: 1.36 beta"), "line 3: kubernetesVersion cannot be read: 1.36 beta");
    for bad in ["v1.36", "v01.36.3", "stable-", "stable-1.036", "newest"] {
        assert_eq!(
            with(&format!("kubernetesVersion: {bad}")),
            format!("line 3: kubernetesVersion cannot be read: {bad}")
        );
    }
    assert_eq!(with("networking: [a]"), "line 3: networking must be a table");
    let form = "line 4: apiServer.extraArgs must be a list of names and values in kubeadm.k8s.io/v1beta4";
    assert_eq!(with("apiServer:\n  extraArgs: {v: \"2\"}"), form);
}

#[test]
fn what_kubeadm_warns_of_is_taken_and_told() {
    let cluster =
        cluster_configuration(&format!("{HEAD}networking: null\napiServer:\nclusterName: a\nclusterName: b\n"));
    let cluster = cluster.unwrap();
    assert_eq!((&cluster.kubernetes_version, &cluster.networking), (&None, &Networking::default()));
    assert_eq!(
        cluster.odd,
        [
            "ConfigMap kubeadm-config: ClusterConfiguration: line 6: clusterName is given again: it counts; kubernetesVersion \
          is no version: the API server's own counts"
        ]
    );
    for (text, release) in [
        ("v1.36.3", true),
        ("1.36.3+vendor.1", true),
        ("v1.36.3-rc.1", true),
        ("stable-1.36", false),
        ("release/stable", false),
        ("latest", false),
        ("ci/latest-1", false),
    ] {
        let cluster = cluster_configuration(&format!("{HEAD}kubernetesVersion: {text}\n")).unwrap();
        assert_eq!(cluster.kubernetes_version.as_deref(), release.then_some(text));
    }

    let published = format!(
        "{KUBELET}maxPods: 60\ndynamicConfigDir: /x\nmaxPods: 0x50\nfailSwapOn: no\n---\napiVersion: \
         kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
    );
    let made = kubelet_config(&published, &cluster, SOCKET, None).unwrap();
    assert!(made.text.contains("\nmaxPods: 80\n") && made.text.contains("\nfailSwapOn: false\n"), "{}", made.text);
    assert!(!made.text.contains("dynamicConfigDir"), "{}", made.text);
    assert_eq!(
        made.odd,
        [
            "ConfigMap kubelet-config: kubelet: line 8: the document of kind KubeProxyConfiguration is left out; line 5: \
          maxPods is given again: it counts; line 4: unknown field dynamicConfigDir is left out"
        ]
    );
    let none = kubelet_config("", &cluster, SOCKET, None).unwrap();
    assert!(none.text.contains("\nkind: KubeletConfiguration\n"), "{}", none.text);
    let told = "ConfigMap kubelet-config: kubelet: it holds no KubeletConfiguration: kubeadm's defaults count";
    assert_eq!(none.odd, [told]);
}

#[test]
fn dns_is_the_tenth_address_or_the_usual_one() {
    assert_eq!(dns_address("10.97.0.0/16"), "10.97.0.10");
    assert_eq!(dns_address("10.97.1.1/12,fd00::/112"), "10.96.0.10");
    assert_eq!(dns_address("fd00:1::/108"), "fd00:1::a");
    assert_eq!(dns_address("0.0.0.0/0"), "0.0.0.10");
    // The last two found by fuzzing: there is no tenth address after them.
    let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128";
    for bad in
        ["", "10.97.0.0", "10.97.0.0/33", "x/1", "10.97.0.0/30", "10.97.0.0/16, fd00::/112", "255.255.255.255/32", last]
    {
        assert_eq!(dns_address(bad), "10.96.0.10", "{bad}");
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
    let upgrade = "kubeadm upgrade apply on the control plane, or";
    assert_eq!(
        refused("1.36.3", "v1.35.2"),
        (
            Code::ClusterTooOld,
            format!("kubelet 1.36.3 of this image is newer than the cluster, 1.35.2: {upgrade} {command} 1.35")
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
            Code::ClusterTooOld,
            format!("kubelet 1.36.3 of this image is newer than the cluster, 1.35. 2: {upgrade} {command} 1.35")
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
    let cluster = cluster_configuration(CLUSTER).unwrap();
    let published = format!("{KUBELET}cgroupRoot: !k//!!%5B%0Bns yes\n");
    let made = kubelet_config(&published, &cluster, "unix:///s", None).unwrap().text;
    assert!(made.contains("\ncgroupRoot: \"yes\"\n"), "{made}");
}

#[test]
fn the_range_of_node_ports_is_found_in_both_forms_of_flags() {
    let of = |version: &str, args: &str| {
        let text = format!("{}apiServer:\n  extraArgs:{args}\n", HEAD.replace("v1beta4", version));
        cluster_configuration(&text).unwrap().node_ports
    };
    let list = "\n  - name: v\n    value: \"2\"\n  - name: service-node-port-range\n    value: 20000-22767";
    assert_eq!(of("v1beta4", list), "20000-22767");
    assert_eq!(of("v1beta3", "\n    service-node-port-range: 20000-22767"), "20000-22767");
    assert_eq!((of("v1beta3", " {}"), of("v1beta4", ""), of("v1beta4", " []")), Default::default());
}
