// SPDX-License-Identifier: Apache-2.0
//! What the creator of a cluster does as its administrator, at a real API server: the pod network is deployed, and an
//! administrator's certificate signed.

use super::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use firstboot::control_plane::flannel::{Images, objects};
use firstboot::fault::Code;
use firstboot::kube::admin::AdminClient;
use firstboot::kube::kubeconfig;
use firstboot::seed::Endpoint;
use imagebuild::cluster::Api;
use imagebuild::cluster::table::Known;
use imagebuild::control_plane::admin_key::{GROUP, NewKey};
use qemu::kubectl::Kubectl;
use std::time::Duration;

const SIGNED: Duration = Duration::from_secs(60);

fn administrator(plane: &ControlPlane) -> AdminClient {
    AdminClient::new(&std::fs::read_to_string(plane.kubeconfig()).unwrap()).unwrap()
}

pub(crate) fn a_pod_network_is_deployed_and_brought_back(plane: &ControlPlane) {
    let client = administrator(plane);
    let images = Images { daemon: "flannel:1", plugin: "plugin:1" };
    let server = Endpoint::parse("192.0.2.7:6443").unwrap();
    let all = objects(&["10.244.0.0/16".parse().unwrap()], &images, &server);
    let deploy = || all.iter().for_each(|(path, object)| client.apply(path, object).unwrap());
    deploy();
    let set = || plane.get(&["daemonset", "kube-flannel-ds", "-n", "kube-flannel"]).unwrap();
    let first = set();
    let image = |set: &serde_json::Value| set["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    assert_eq!(image(&first), "flannel:1");
    deploy();
    assert_eq!(set()["metadata"]["generation"], first["metadata"]["generation"], "the same again changes nothing");
    // Seeds that are made by a kubeconfig open its port, too.
    let access = imagebuild::cluster::kubeconfig::access(Some(&plane.kubeconfig()), None).unwrap();
    let known = Known::of(&Api::new(&access).unwrap(), &access, &[], None).unwrap();
    assert_eq!(known.open, ["udp/8472"]);
    // What a person removed and changed is as it was.
    plane.kubectl(&["delete", "clusterrole", "flannel"]).unwrap();
    let other = ["set", "image", "daemonset/kube-flannel-ds", "kube-flannel=other:1", "-n", "kube-flannel"];
    plane.kubectl(&other).unwrap();
    deploy();
    assert_eq!(image(&set()), "flannel:1");
    plane.kubectl(&["get", "clusterrole", "flannel"]).unwrap();
    plane.kubectl(&["delete", "namespace", "kube-flannel", "--wait=false"]).unwrap();
}

pub(crate) fn an_administrators_request_is_signed_once(plane: &ControlPlane) {
    let client = administrator(plane);
    let key = NewKey::make("admin").unwrap();
    let certificate = client.sign(&key.request, SIGNED).unwrap();
    assert_eq!(client.sign(&key.request, SIGNED).unwrap(), certificate, "the same request is taken up again");
    let dir = tempfile::tempdir().unwrap();
    let cluster = kubeconfig::read(&std::fs::read_to_string(plane.kubeconfig()).unwrap()).unwrap();
    let file = dir.path().join("kubeconfig");
    let (ca, crt, key) = (STANDARD.encode(cluster.ca_pem), STANDARD.encode(&certificate), STANDARD.encode(&*key.pem));
    let conf = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": cluster.server, "certificate-authority-data": ca } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        "users": [{ "name": "u", "user": { "client-certificate-data": crt, "client-key-data": key } }],
    });
    std::fs::write(&file, conf.to_string()).unwrap();
    let who = Kubectl::of_lock(&file, dir.path()).unwrap().run(&["auth", "whoami", "-o", "json"]).unwrap();
    let who: serde_json::Value = serde_json::from_str(&who).unwrap();
    assert_eq!(who["status"]["userInfo"]["username"], "admin");
    assert!(who["status"]["userInfo"]["groups"].as_array().unwrap().iter().any(|group| group == GROUP), "{who}");
    // What the signer never signs is an error at once, and not a wait.
    let fault = client.sign("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", SIGNED);
    assert_eq!(fault.unwrap_err().code, Code::ApiError);
}
