// SPDX-License-Identifier: Apache-2.0
//! The join itself, and what a cluster may hold against it: versions, ConfigMaps, Nodes of the same name.

use std::path::Path;
use std::time::{Duration, SystemTime};

use firstboot::fault::Code;
use firstboot::kube::contract::Joined;
use firstboot::kube::files::{Content, files};
use firstboot::seed::{Seed, Taint};
use qemu::control_plane::ControlPlane;
use serde_json::{Value, json};

use super::bench::*;

const INFO: &str = "system:anonymous get /api/v1/namespaces/kube-public/configmaps/cluster-info";

/// A join's requests, in order: two of the join worker, one of the privileged part, which looks for itself, then those
/// with the token, and those as the node.
fn ten(bootstrap: &str, node: &str) -> Vec<String> {
    let by_token = |what: &str| format!("{bootstrap} {what}");
    let as_node = |what: &str| format!("system:node:{node} {what}");
    vec![
        INFO.to_owned(),
        INFO.to_owned(),
        INFO.to_owned(),
        by_token("get /api/v1/namespaces/kube-system/configmaps/kubeadm-config"),
        by_token(&format!("get /api/v1/nodes/{node}")),
        by_token("create /apis/certificates.k8s.io/v1/certificatesigningrequests"),
        by_token("watch /apis/certificates.k8s.io/v1/certificatesigningrequests"),
        as_node("get /api/v1/namespaces/kube-system/configmaps/kubeadm-config"),
        as_node("get /api/v1/namespaces/kube-system/configmaps/kubelet-config"),
        as_node(&format!("get /api/v1/nodes/{node}")),
    ]
}

/// Writes what a node has on disk below `root`; what names a path on the device names it below `root` then.
fn write(device: &Bench, joined: &Joined, seed: &Seed, node: &str, root: &Path) {
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    for spec in files(joined, &device.kubelets_key(), seed, node, SystemTime::now()) {
        match spec.content {
            Content::Dir(_) => std::fs::create_dir_all(below(&spec.path)).unwrap(),
            Content::File(bytes, _) => {
                let text = String::from_utf8(bytes.to_vec()).unwrap();
                let text = text.replace("/var/lib/kubelet/", &format!("{}/", below("/var/lib/kubelet").display()));
                std::fs::write(below(&spec.path), text).unwrap();
            }
            Content::Link(target) => std::os::unix::fs::symlink(below(&target), below(&spec.path)).unwrap(),
        }
    }
}

pub fn joins_with_ten_requests_and_resumes(plane: &ControlPlane) {
    let (token, seed) = good(plane);
    let before = plane.audit().unwrap().len();
    let mut device = Bench::default();
    let joined = device.join(&seed, "happy").unwrap();
    let bootstrap = format!("system:bootstrap:{}", id(&token));
    assert_eq!(requests(plane, before), ten(&bootstrap, "happy"));
    assert_eq!((joined.cluster_version.as_str(), joined.leftover_node), ("v1.36.3", false));
    assert_eq!(device.reported, [] as [String; 0]);
    let skew = SystemTime::now().duration_since(device.server_time.unwrap()).unwrap();
    assert!(skew < Duration::from_secs(30), "{skew:?}");

    // As after a power cut between CSR and kubelet.conf: same key, same CSR, same certificate.
    let again = device.join(&seed, "happy").unwrap();
    assert_eq!(again.certificate_pem, joined.certificate_pem);
    assert_eq!(csrs_by(plane, &token).len(), 1);

    // kubectl, as kubelet would, reads kubelet.conf and the pair that it names.
    let root = tempdir();
    write(&device, &joined, &seed, "happy", root.path());
    let conf = root.path().join("etc/kubernetes/kubelet.conf").display().to_string();
    let who = plane.kubectl(&["--kubeconfig", &conf, "auth", "whoami", "-o", "jsonpath={.status.userInfo}"]).unwrap();
    assert!(who.contains("\"system:node:happy\"") && who.contains("\"system:nodes\""), "{who}");
    let node = device.node_client(&joined);
    assert_eq!(node.node().unwrap(), None);
    assert_eq!(node.cni_pod().unwrap(), None);
    // Who the packet filter lets reach kubelet: a node may read it.
    let known = plane.get(&["endpoints", "kubernetes"]).unwrap();
    let subset = &known["subsets"][0];
    let address = subset["addresses"][0]["ip"].as_str().unwrap().parse().unwrap();
    let port = u16::try_from(subset["ports"][0]["port"].as_u64().unwrap()).unwrap();
    assert_eq!(node.endpoints().unwrap(), [(port, [address].into())]);
}

pub fn kubelet_newer_than_the_cluster(plane: &ControlPlane) {
    let (token, seed) = good(plane);
    let fault = Bench { kubelet: "1.37.0", ..Bench::default() }.fails(&seed, "newer");
    let want = "kubelet 1.37.0 of this image is newer than the cluster, 1.36.3: kubeadm upgrade apply on the control \
                plane, or imagebuild build --target generic-amd64 --kubernetes-version 1.36";
    assert_eq!(fault, (Code::ClusterTooOld, want.to_owned()));
    assert_no_trace(plane, "newer", &token);
}

pub fn config_maps_missing_and_forbidden(plane: &ControlPlane) {
    let (token, seed) = good(plane);
    for (map, role) in
        [("kubeadm-config", "kubeadm:nodes-kubeadm-config"), ("kubelet-config", "kubeadm:kubelet-config")]
    {
        let missing = format!(
            "FB423: ConfigMap {map} does not exist in namespace kube-system: publish it with kubeadm init phase upload-config \
             all"
        );
        // kubeadm-config is read with the token first; kubelet-config by the node alone.
        let (who, group) = match map {
            "kubeadm-config" => {
                (format!("with join token \"{}\"", id(&token)), "system:bootstrappers:kubeadm:default-node-token")
            }
            _ => ("by this node".to_owned(), "system:nodes"),
        };
        let fails = || {
            let (code, text) = Bench::default().fails(&seed, "no-config");
            format!("{code}: {text}")
        };
        without(plane, "configmap", map, || assert_eq!(fails(), missing));
        let forbidden = format!(
            "FB423: ConfigMap {map} may not be read {who}: kubeadm init phase upload-config all permits it to group {group}"
        );
        without(plane, "rolebinding", role, || {
            wait_access(plane, TOKENS, "kube-system", map, false);
            assert_eq!(fails(), forbidden);
        });
        wait_access(plane, TOKENS, "kube-system", map, true);
        if map == "kubeadm-config" {
            assert_no_trace(plane, "no-config", &token);
        }
    }
    // What was missing is there: nothing was spent.
    Bench::default().join(&seed, "no-config").unwrap();
}

/// Does `then` while an object of namespace kube-system is gone.
fn without(plane: &ControlPlane, kind: &str, name: &str, then: impl FnOnce()) {
    let mut kept: Value = plane.get(&["-n", "kube-system", kind, name]).unwrap();
    plane.kubectl(&["-n", "kube-system", "delete", kind, name]).unwrap();
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(then));
    kept["metadata"].as_object_mut().unwrap().retain(|key, _| key == "name" || key == "namespace");
    create(plane, &kept);
    done.unwrap();
}

/// A Node as an administrator, or an earlier installation, left it.
pub fn create_node(plane: &ControlPlane, name: &str, labels: &Value, taints: &Value) {
    create(
        plane,
        &json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "labels": labels }, "spec": { "taints": taints },
        }),
    );
}

pub fn name_of_a_ready_node(plane: &ControlPlane) {
    let (token, seed) = good(plane);
    create_node(plane, "taken", &json!({}), &json!([]));
    report_ready(plane, "taken", "True");
    let want = "FB424: a Node named \"taken\" has been Ready in the cluster since 2026-01-02T03:04:05Z: kubectl delete node \
                taken, or give this device another name in seed.toml";
    assert_eq!(refused(&seed, "taken"), want);
    assert_eq!(csrs_by(plane, &token), [] as [String; 0]);
    // The first remedy in the message is one.
    plane.kubectl(&["delete", "node", "taken"]).unwrap();
    assert!(!Bench::default().join(&seed, "taken").unwrap().leftover_node);
}

pub fn waits_for_ready_node_of_a_previous_installation(plane: &ControlPlane) {
    let (_, seed) = good(plane);
    create_node(plane, "back-again", &json!({}), &json!([]));
    report_ready(plane, "back-again", "True");
    let mut device = Bench { ready_wait: Duration::from_secs(60), ..Bench::default() };
    let joined = std::thread::scope(|scope| {
        // What the cluster does when it has missed the Lease for long enough.
        scope.spawn(|| {
            let asked = |e: &qemu::control_plane::audit::Event| {
                e.request_uri == "/api/v1/nodes/back-again" && e.user_agent.starts_with("firstboot/")
            };
            qemu::wait::until("the device to ask for the Node", Duration::from_secs(30), || {
                Ok(plane.audit()?.iter().any(asked).then_some(()))
            })
            .unwrap();
            report_ready(plane, "back-again", "Unknown");
        });
        device.join(&seed, "back-again").unwrap()
    });
    assert!(joined.leftover_node);
    assert_eq!(
        device.reported,
        ["a Node named \"back-again\" is Ready: waiting up to 60 s, in case that was this device before"]
    );
}

pub fn leftover_node_is_taken_over(plane: &ControlPlane) {
    let (_, seed) = good(plane);
    let old = json!({"superedge.io/node-cloud": "enable", "kept": "yes"});
    create_node(plane, "leftover", &old, &json!([{"key": "edge", "value": "true", "effect": "NoSchedule"}]));
    report_ready(plane, "leftover", "False");
    let mut device = Bench::default();
    let joined = device.join(&seed, "leftover").unwrap();
    assert!(joined.leftover_node);
    let node = device.node_client(&joined);
    let labels = firstboot::kube::config::leftover_labels(seed.node.role, "leftover", &seed.node.labels);
    let taints = ["edge=true:NoSchedule", "shop=12:NoExecute", "slow:PreferNoSchedule"];
    let taints: Vec<Taint> = taints.iter().map(|t| Taint::parse(t).unwrap()).collect();
    assert_eq!(
        node.take_over(&labels, &taints).unwrap(),
        ["kubectl taint --overwrite node leftover shop=12:NoExecute slow:PreferNoSchedule"]
    );
    let now = plane.node("leftover").unwrap().unwrap()["metadata"]["labels"].clone();
    assert_eq!(now, json!({"superedge.io/node-edge": "enable", "superedge.io.hostname": "leftover", "kept": "yes"}));

    // A label that no node may give itself becomes a command too, and the commands are good.
    let labels = [("node-role.kubernetes.io/edge".to_owned(), Some(String::new())), ("kept".to_owned(), None)].into();
    let commands = node.take_over(&labels, &taints).unwrap();
    assert_eq!(commands[0], "kubectl label --overwrite node leftover kept- node-role.kubernetes.io/edge=");
    for command in &commands {
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        plane.kubectl(&words).unwrap();
    }
    assert_eq!(node.take_over(&[("a".to_owned(), Some("b".to_owned()))].into(), &taints).unwrap(), [] as [String; 0]);
    let now = plane.node("leftover").unwrap().unwrap()["metadata"]["labels"].clone();
    assert_eq!((&now["node-role.kubernetes.io/edge"], now.get("kept"), &now["a"]), (&json!(""), None, &json!("b")));

    let cidrs = node.wait_pod_cidrs(Duration::from_secs(20)).unwrap();
    assert!(cidrs[0].starts_with("10.244."), "{cidrs:?}");
    let text = node.wait_ready(None, Duration::from_secs(2)).unwrap_err().to_string();
    assert_eq!(text, "node leftover is not Ready after 2 s: R: M");
}
