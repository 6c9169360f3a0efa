// SPDX-License-Identifier: Apache-2.0
//! The checks themselves: a control plane as firstboot has kubeadm make it, and each thing about it that may be wrong.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::cis::{Row, docs, verdicts};
use firstboot::control_plane::kubeadm::{Device, configuration};
use serde_json::json;
use std::collections::BTreeSet;

const MODES: &str = "/etc/kubernetes/manifests/etcd.yaml 600 root:root
/etc/kubernetes/manifests/kube-apiserver.yaml 600 root:root
/etc/kubernetes/manifests/kube-controller-manager.yaml 600 root:root
/etc/kubernetes/manifests/kube-scheduler.yaml 600 root:root
/etc/kubernetes/admin.conf 600 root:root
/etc/kubernetes/super-admin.conf 600 root:root
/etc/kubernetes/scheduler.conf 600 root:root
/etc/kubernetes/controller-manager.conf 600 root:root
/etc/kubernetes/pki 755 root:root
/etc/kubernetes/pki/ca.crt 600 root:root
/etc/kubernetes/pki/ca.key 600 root:root
/etc/kubernetes/pki/apiserver.crt 644 root:root
/etc/kubernetes/pki/apiserver.key 600 root:root
/etc/kubernetes/pki/apiserver-etcd-client.crt 644 root:root
/etc/kubernetes/pki/apiserver-etcd-client.key 600 root:root
/etc/kubernetes/pki/apiserver-kubelet-client.crt 644 root:root
/etc/kubernetes/pki/apiserver-kubelet-client.key 600 root:root
/etc/kubernetes/pki/sa.key 600 root:root
/etc/kubernetes/pki/sa.pub 600 root:root
/etc/kubernetes/pki/etcd/ca.crt 644 root:root
/etc/kubernetes/pki/etcd/server.crt 644 root:root
/etc/kubernetes/pki/etcd/server.key 600 root:root
/etc/kubernetes/pki/etcd/peer.crt 644 root:root
/etc/kubernetes/pki/etcd/peer.key 600 root:root
/var/lib/kubelet/pki/kubelet.crt 644 root:root
/var/lib/etcd 700 root:root
/etc/cni/net.d/10-flannel.conflist 644 root:root
/var/lib/cni/networks/cbr0/lock 750 root:root
";
/// What kubeadm 1.36 has a control plane run, without what is about addresses.
const KUBEADM: [(&str, &str, &str); 4] = [
    (
        ETCD,
        "etcd.local",
        "cert-file=/etc/kubernetes/pki/etcd/server.crt client-cert-auth=true data-dir=/var/lib/etcd \
         key-file=/etc/kubernetes/pki/etcd/server.key peer-cert-file=/etc/kubernetes/pki/etcd/peer.crt \
         peer-client-cert-auth=true peer-key-file=/etc/kubernetes/pki/etcd/peer.key \
         peer-trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt",
    ),
    (
        API,
        "apiServer",
        "authorization-mode=Node,RBAC client-ca-file=/etc/kubernetes/pki/ca.crt \
         enable-admission-plugins=NodeRestriction enable-bootstrap-token-auth=true \
         etcd-cafile=/etc/kubernetes/pki/etcd/ca.crt etcd-certfile=/etc/kubernetes/pki/apiserver-etcd-client.crt \
         etcd-keyfile=/etc/kubernetes/pki/apiserver-etcd-client.key \
         kubelet-client-certificate=/etc/kubernetes/pki/apiserver-kubelet-client.crt \
         kubelet-client-key=/etc/kubernetes/pki/apiserver-kubelet-client.key \
         service-account-key-file=/etc/kubernetes/pki/sa.pub service-account-signing-key-file=/etc/kubernetes/pki/sa.key \
         tls-cert-file=/etc/kubernetes/pki/apiserver.crt tls-private-key-file=/etc/kubernetes/pki/apiserver.key",
    ),
    (
        MANAGER,
        "controllerManager",
        "bind-address=127.0.0.1 leader-elect=true root-ca-file=/etc/kubernetes/pki/ca.crt \
         service-account-private-key-file=/etc/kubernetes/pki/sa.key use-service-account-credentials=true",
    ),
    (SCHEDULER, "scheduler", "bind-address=127.0.0.1 leader-elect=true"),
];
const LISTENING: &str =
    "LISTEN 0 4096 127.0.0.1:10257 0.0.0.0:*\nLISTEN 0 4096 127.0.0.1:10259 0.0.0.0:*\nLISTEN 0 4096 *:6443 *:*\n";

/// What the script has left behind, by name. Manifests are made of the command lines.
type Left = BTreeMap<String, String>;

fn good() -> Left {
    let seed = firstboot::seed::parse(b"version = 1\n[cluster]\ncreate = true\n").unwrap();
    let device = Device {
        node: "edge-1",
        address: "192.0.2.7".parse().unwrap(),
        node_ips: Vec::new(),
        version: "1.36.3",
        labels: BTreeMap::new(),
        cri_socket: "unix:///run/containerd/containerd.sock",
    };
    let text = configuration(seed.create().unwrap(), &seed.node, &device);
    let ours: Value = serde_json::from_str(text.split("---\n").nth(2).unwrap()).unwrap();
    let mut left: Left = [
        ("control-plane-files", MODES),
        ("listening", LISTENING),
        ("etcd-environment", "HOME=/\n"),
        ("audit-policy", ""),
        ("encryption", ""),
        ("authorities", "aa  /etc/kubernetes/pki/ca.crt\nbb  /etc/kubernetes/pki/etcd/ca.crt\n"),
        ("administrator", "subject=O=kubeadm:cluster-admins, CN=kubernetes-admin\n"),
        ("service-account-tokens", r#"{"kind":"SecretList","items":[]}"#),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_owned()))
    .into();
    let token = json!({
        "expires": "2026-12-01T00:00:00Z",
        "usages": ["authentication", "signing"],
        "groups": ["system:bootstrappers:kubeadm:default-node-token"],
    });
    left.insert("bootstrap-tokens".to_owned(), format!("{token:#}\nnull\n"));
    for (program, component, flags) in KUBEADM {
        let component = component.split('.').fold(&ours, |at, key| &at[key]);
        let set = component["extraArgs"].as_array().cloned().unwrap_or_default();
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        let set: Vec<String> =
            set.iter().map(|flag| format!("{}={}", word(&flag["name"]), word(&flag["value"]))).collect();
        // As kubeadm does it.
        let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
        let kept = flags.split(' ').filter(|flag| !set.iter().any(|ours| name(ours) == name(flag)));
        let all = kept.map(str::to_owned).chain(set.clone()).map(|flag| format!("--{flag}\n"));
        left.insert(format!("{program}-flags"), format!("{program}\n{}", all.collect::<String>()));
    }
    left
}

fn judged(left: &Left) -> Vec<Row> {
    let read = |name: &str| match (left.get(name), name.strip_suffix(".yaml")) {
        (Some(text), _) => text.clone(),
        (None, Some(program)) => {
            let flags = left[&format!("{program}-flags")].replace("\n--", "\n    - --");
            format!("spec:\n  containers:\n  - command:\n    - {flags}    image: x\n")
        }
        (None, None) => panic!("{name} is not made"),
    };
    verdicts(CHECKS, &Facts::new(read))
}

fn with(left: &Left, verdict: Verdict) -> Vec<&'static str> {
    judged(left).into_iter().filter(|row| row.2 == verdict).map(|row| row.0).collect()
}

#[test]
fn a_cluster_that_a_device_creates_fails_nothing() {
    assert_eq!(with(&good(), Verdict::Fail), [""; 0]);
    assert_eq!(with(&good(), Verdict::Warn), WARNED);
}

/// Something else in a file that the script has left, and what then fails.
type Wrong = (&'static str, &'static str, &'static str, &'static [&'static str]);

#[rustfmt::skip]
const WRONG: &[Wrong] = &[
    ("control-plane-files", "kube-apiserver.yaml 600 root:root", "kube-apiserver.yaml 644 root:adm", &["1.1.1", "1.1.2"]),
    ("control-plane-files", "manager.yaml 600 root:root", "manager.yaml 640 adm:root", &["1.1.3", "1.1.4"]),
    ("control-plane-files", "scheduler.yaml 600 root:root", "scheduler.yaml 601 1000:1000", &["1.1.5", "1.1.6"]),
    ("control-plane-files", "etcd.yaml 600 root:root", "etcd.yaml 644 etcd:etcd", &["1.1.7", "1.1.8"]),
    ("control-plane-files", "/etc/kubernetes/manifests/etcd.yaml", "/elsewhere", &["1.1.7", "1.1.8"]),
    ("control-plane-files", "conflist 644", "conflist 666", &["1.1.9"]),
    ("control-plane-files", "lock 750 root:root", "lock 600 cni:root", &["1.1.9", "1.1.10"]),
    ("control-plane-files", "/var/lib/etcd 700", "/var/lib/etcd 755", &["1.1.11", "1.1.12"]),
    ("control-plane-files", "/var/lib/etcd 700 root:root", "/var/lib/etcd 700 etcd:root", &["1.1.12"]),
    ("control-plane-files", "super-admin.conf 600 root:root", "super-admin.conf 644 root:adm", &["1.1.13", "1.1.14"]),
    ("control-plane-files", "scheduler.conf 600 root:root", "scheduler.conf 640 root:adm", &["1.1.15", "1.1.16"]),
    ("control-plane-files", "manager.conf 600 root:root", "manager.conf 660 a:b", &["1.1.17", "1.1.18"]),
    ("control-plane-files", "pki/etcd/ca.crt 644 root:root", "pki/etcd/ca.crt 664 root:etcd", &["1.1.19", "1.1.20"]),
    ("control-plane-files", "sa.key 600", "sa.key 640", &["1.1.21"]),
    ("control-plane-files", "/var/lib/kubelet/pki/kubelet.crt", "/var/lib/kubelet/pki/other.crt", &["1.2.5"]),
    ("control-plane-files", "pki/sa.pub", "pki/sa.old", &["1.2.22"]),
    ("kube-apiserver-flags", "--authorization-mode=Node,RBAC", "--authorization-mode=AlwaysAllow", &["1.2.1", "1.2.6", "1.2.7", "1.2.8"]),
    ("kube-apiserver-flags", "--authorization-mode=Node,RBAC", "--token-auth-file=/etc/tokens", &["1.2.1", "1.2.2", "1.2.6", "1.2.7", "1.2.8"]),
    ("kube-apiserver-flags", ",DenyServiceExternalIPs", ",AlwaysAdmit", &["1.2.3", "1.2.10"]),
    ("kube-apiserver-flags", "kubelet-client-key", "x", &["1.2.4"]),
    ("kube-apiserver-flags", "--profiling=false", "--disable-admission-plugins=EventRateLimit,AlwaysPullImages", &["1.2.9", "1.2.11", "1.2.15"]),
    ("kube-apiserver-flags", "--profiling=false", "--disable-admission-plugins=ServiceAccount,NamespaceLifecycle", &["1.2.12", "1.2.13", "1.2.15"]),
    ("kube-apiserver-flags", "=NodeRestriction,", "=", &["1.2.14"]),
    ("kube-apiserver-flags", "--profiling=false", "--audit-policy-file=/p", &["1.2.15", "1.2.16", "1.2.17", "1.2.18", "1.2.19", "3.2.1", "3.2.2"]),
    ("kube-apiserver-flags", "--profiling", "--audit-log-path=/l\n--audit-log-maxage=7\n--audit-log-maxbackup=1\n--audit-log-maxsize=9\n--profiling", &["1.2.17", "1.2.18", "1.2.19", "3.2.1", "3.2.2"]),
    ("kube-apiserver-flags", "--profiling", "--request-timeout=1h\n--profiling", &["1.2.20"]),
    ("kube-apiserver-flags", "--profiling", "--service-account-lookup=false\n--profiling", &["1.2.21"]),
    ("kube-apiserver-flags", "etcd-keyfile", "x", &["1.2.23"]),
    ("kube-apiserver-flags", "tls-cert-file", "x", &["1.2.24"]),
    ("kube-apiserver-flags", "client-ca-file", "x", &["1.2.25", "2.7"]),
    ("kube-apiserver-flags", "etcd-cafile", "x", &["1.2.26"]),
    ("kube-apiserver-flags", "--profiling", "--encryption-provider-config=/e\n--profiling", &["1.2.27", "1.2.28"]),
    ("kube-apiserver-flags", "=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,", "=TLS_RSA_WITH_AES_128_GCM_SHA256,", &["1.2.29"]),
    ("kube-apiserver-flags", "--profiling", "--service-account-extend-token-expiration=x\n--profiling", &["1.2.30"]),
    ("kube-controller-manager-flags", "threshold=500", "threshold=0", &["1.3.1"]),
    ("kube-controller-manager-flags", "--profiling=false", "--profiling=true", &["1.3.2"]),
    ("kube-controller-manager-flags", "credentials=true", "credentials=false", &["1.3.3"]),
    ("kube-controller-manager-flags", "service-account-private-key-file", "x", &["1.3.4"]),
    ("kube-controller-manager-flags", "root-ca-file", "x", &["1.3.5"]),
    ("kube-controller-manager-flags", "--leader-elect=true", "--feature-gates=A=true,RotateKubeletServerCertificate=false", &["1.3.6"]),
    ("kube-controller-manager-flags", "--bind-address=127.0.0.1", "--bind-address=::", &["1.3.7"]),
    ("listening", "127.0.0.1:10257", "*:10257", &["1.3.7"]),
    ("kube-scheduler-flags", "--profiling=false", "--profiling=true", &["1.4.1"]),
    ("listening", "127.0.0.1:10259", "192.0.2.7:10259", &["1.4.2"]),
    ("etcd-flags", "--key-file", "--x", &["2.1"]),
    ("etcd-flags", "--client-cert-auth=true", "--client-cert-auth=false", &["2.2"]),
    ("etcd-environment", "HOME", "ETCD_AUTO_TLS=true\nHOME", &["2.3"]),
    ("etcd-flags", "--peer-cert-file", "--x", &["2.4"]),
    ("etcd-flags", "--peer-client-cert-auth=true", "--auto-tls=false", &["2.5"]),
    ("etcd-flags", "--client-cert-auth", "--peer-auto-tls=true\n--client-cert-auth", &["2.6"]),
    ("authorities", "bb", "aa", &["2.7"]),
    ("administrator", "kubeadm:cluster-admins", "system:masters", &["3.1.1"]),
    ("service-account-tokens", "[]", "[{}]", &["3.1.2"]),
    ("service-account-tokens", "SecretList", "Status", &["3.1.2"]),
    ("bootstrap-tokens", "\"expires\"", "\"x\"", &["3.1.3"]),
    ("bootstrap-tokens", "default-node-token", "people", &["3.1.3"]),
    ("bootstrap-tokens", "\nnull", "", &["3.1.3"]),
];

#[test]
fn each_check_can_fail() {
    let mut failed = BTreeSet::new();
    for (file, from, to, wanted) in WRONG {
        let mut left = good();
        let text = left[*file].replace(from, to);
        assert_ne!(text, left[*file], "{from}");
        left.insert((*file).to_owned(), text);
        let found = with(&left, Verdict::Fail);
        assert_eq!(found, *wanted, "{file}: {to}");
        failed.extend(found);
    }
    let all: BTreeSet<&str> = CHECKS.iter().map(|check| check.id).collect();
    assert_eq!(failed, all);
}

/// What is set up to the letter is no warning.
#[test]
fn each_warning_can_pass() {
    let mut left = good();
    let mut put = |file: &str, from: &str, to: &str| {
        let text = left[file].replace(from, to);
        assert_ne!(text, left[file], "{from}");
        left.insert(file.to_owned(), text);
    };
    put("control-plane-files", "conflist 644", "conflist 600");
    put("control-plane-files", "lock 750", "lock 600");
    put("control-plane-files", "/var/lib/etcd 700 root:root", "/var/lib/etcd 700 etcd:etcd");
    put("kube-apiserver-flags", "DenyServiceExternalIPs", "DenyServiceExternalIPs,EventRateLimit,AlwaysPullImages");
    put(
        "kube-apiserver-flags",
        "--profiling",
        "--anonymous-auth=false\n--kubelet-certificate-authority=/ca\n--audit-log-path=/l\n--audit-log-maxage=30\n\
         --audit-log-maxbackup=10\n--audit-log-maxsize=100\n--audit-policy-file=/p\n--encryption-provider-config=/e\n\
         --service-account-extend-token-expiration=false\n--oidc-issuer-url=https://id.example\n--profiling",
    );
    left.insert("audit-policy".to_owned(), COVERED.join("\n"));
    left.insert("encryption".to_owned(), "secretbox:\nidentity:\n".to_owned());
    assert_eq!((with(&left, Verdict::Warn), with(&left, Verdict::Fail)), (Vec::new(), Vec::new()));
}

#[test]
fn flags_that_end_with_the_process_count_for_nothing() {
    let mut left = good();
    left.insert("kube-scheduler.yaml".to_owned(), "    - --bind-address=127.0.0.1\n".to_owned());
    assert_eq!(with(&left, Verdict::Fail), ["1.4.1", "1.4.2"]);
}

#[test]
fn times_of_go() {
    assert_eq!(
        [seconds("1m30s"), seconds("300s"), seconds("1h"), seconds("90")],
        [Some(90), Some(300), Some(3600), None]
    );
}

#[test]
fn the_list_in_the_docs_is_this_one() {
    docs::compare("CIS Kubernetes, sections 1 to 3", &judged(&good()));
}
