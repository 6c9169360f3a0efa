// SPDX-License-Identifier: Apache-2.0
//! SuperEdge's edge-info, laid out as edgeadm does it (`JoinNodePrepare`): namespace, ConfigMap, Role, RoleBinding.

use firstboot::seed::Role;
use qemu::control_plane::ControlPlane;
use serde_json::{Value, json};

use super::bench::*;
use super::cluster::seven;

const KEY: &str = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n-----END RSA PRIVATE KEY-----\n";
const GET: &str = "get /api/v1/namespaces/edge-system/configmaps/edge-info";

fn objects() -> [Value; 4] {
    let meta = |name: &str| json!({ "name": name, "namespace": "edge-system" });
    let rbac = "rbac.authorization.k8s.io";
    [
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "edge-system" } }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("edge-info"),
            "data": {
                "kube-api-ca.crt": "CA",
                "kube-api-cluster-ip": "10.96.0.1",
                "lite-apiserver.crt": "CERTIFICATE",
                "lite-apiserver.key": KEY,
                "lite-apiserver.yaml": "kind: Pod\n",
                "tunnel-coredns-cluster-ip": "10.96.0.11",
                "tls.json": "[]",
                "edge-virtual-addr": "169.254.20.11",
            },
        }),
        json!({
            "apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": meta("lite-apiserver"),
            "rules": [{
                "apiGroups": ["*"], "resources": ["configmaps"], "resourceNames": ["edge-info"],
                "verbs": ["get", "list", "watch"],
            }],
        }),
        json!({
            "apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": meta("lite-apiserver"),
            "roleRef": { "apiGroup": rbac, "kind": "Role", "name": "lite-apiserver" },
            "subjects": [{
                "apiGroup": rbac, "kind": "Group", "name": "system:bootstrappers:kubeadm:default-node-token",
            }],
        }),
    ]
}

pub fn edge_info_is_kept_without_its_key(plane: &ControlPlane) {
    let of = |token: &str, node: &str| seven(&format!("system:bootstrap:{}", id(token)), node);
    let joins = |node: &str, role: Role| {
        let (token, seed) = good(plane);
        let before = plane.audit().unwrap().len();
        let mut device = Bench { role, ..Bench::default() };
        let joined = device.join(&seed, node).unwrap();
        assert_eq!(device.told, [] as [String; 0]);
        (token, joined.edge_info, requests(plane, before))
    };
    objects().iter().for_each(|object| create(plane, object));
    wait_access(plane, TOKENS, "edge-system", "edge-info", true);
    // Nothing that is fetched anyway tells of SuperEdge, so nothing is asked.
    let (token, info, all) = joins("edge-unseen", Role::Edge);
    assert_eq!((info, all), (None, of(&token, "edge-unseen")));

    // As after `edgeadm init`, which writes kubeadm's ConfigMaps itself.
    let touch = ["-n", "kube-system", "annotate", "--field-manager=edgeadm", "configmap", "kubeadm-config"];
    plane.kubectl(&[&touch[..], &["by=edgeadm"]].concat()).unwrap();
    let (token, info, all) = joins("edge-seen", Role::Edge);
    let mut eight = of(&token, "edge-seen");
    eight.insert(5, format!("system:bootstrap:{} {GET}", id(&token)));
    assert_eq!(all, eight);
    let info = info.unwrap();
    assert_eq!(info.data["kube-api-cluster-ip"], "10.96.0.1");
    assert_eq!((info.data.len(), info.left_out.clone()), (7, vec!["lite-apiserver.key".to_owned()]));
    assert!(!serde_json::to_string(&info).unwrap().contains("PRIVATE KEY"));

    let (token, info, all) = joins("edge-worker", Role::Worker);
    assert_eq!((info, all), (None, of(&token, "edge-worker")));

    // Forbidden and absent are normal: no word about them, and the join goes on.
    plane.kubectl(&["-n", "edge-system", "delete", "rolebinding", "lite-apiserver"]).unwrap();
    wait_access(plane, TOKENS, "edge-system", "edge-info", false);
    assert_eq!(joins("edge-forbidden", Role::Edge).1, None);
    create(plane, &objects()[3]);
    wait_access(plane, TOKENS, "edge-system", "edge-info", true);
    plane.kubectl(&["-n", "edge-system", "delete", "configmap", "edge-info"]).unwrap();
    assert_eq!(joins("edge-absent", Role::Edge).1, None);
    plane.kubectl(&["delete", "namespace", "edge-system", "--wait=false"]).unwrap();
    plane.kubectl(&[&touch[..], &["by-"]].concat()).unwrap();
    let (token, _, all) = joins("edge-gone", Role::Edge);
    assert_eq!(all, of(&token, "edge-gone"));
}
