// SPDX-License-Identifier: Apache-2.0
//! Pods find and trust the cache by what kubelet reads through it; those that do not trust it reach the API server.

use apicache::config::{Config, certificate_file};
use apicache::object::{Encoding, read, read_event};
use apicache::upstream::Servers;
use apicache::wire;
use qemu::control_plane::ControlPlane;
use qemu::wait;
use serde_json::{Value, json};

use super::bench::*;
use super::cache::{token_request, workload};
use super::cache_bench::*;

/// As kubeadm writes it for kube-proxy.
const PROXY: &str = "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    certificate-authority: \
                     /var/run/secrets/kubernetes.io/serviceaccount/ca.crt\n    server: https://api.example:6443\n";

/// A value of the data of a ConfigMap.
fn value(encoding: Encoding, map: &[u8], key: &str) -> String {
    match encoding {
        Encoding::Protobuf => wire::map(map, 2).into_iter().find(|(name, _)| name == key).unwrap().1,
        Encoding::Json => {
            let map: Value = serde_json::from_slice(map).unwrap();
            map["data"][key].as_str().unwrap().to_owned()
        }
    }
}

/// The same of a ConfigMap that is read in two ways: by a watch, as kubelet does, and by name.
fn reads(fixture: &Fixture, client: &Servers, namespace: &str, name: &str, key: &str) -> String {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let mut all = Vec::new();
    for accept in [PROTOBUF, JSON] {
        let ask = Ask::watch_list(&path, &format!("metadata.name={name}"), accept);
        let mut watch = Watch::open(fixture, client, &ask);
        let (events, _) = watch.initial(fixture);
        assert_eq!(events.len(), 1, "{namespace}/{name}");
        let event = read_event(watch.encoding, &events[0].1).unwrap();
        all.push(value(watch.encoding, &event.object.bytes, key));
        let answer = fixture.send(client, &Ask::get(&format!("{path}/{name}"), accept));
        let encoding = Encoding::of_content_type(&answer.content_type).unwrap();
        all.push(value(encoding, &read(encoding, &answer.body).unwrap().1.bytes, key));
    }
    assert!(all.iter().all(|value| *value == all[0]), "{all:?}");
    all.remove(0)
}

pub fn pods_find_and_trust_the_cache(plane: &ControlPlane) {
    let node = "led";
    let pod = workload(plane, node);
    let meta = json!({"name": "kube-proxy", "namespace": "kube-system"});
    create(
        plane,
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"kubeconfig.conf": PROXY}}),
    );
    // A node may read what its pods name.
    let volume = json!({"name": "c", "configMap": {"name": "kube-proxy"}});
    let spec = json!({"nodeName": node, "volumes": [volume], "containers": [{"name": "c", "image": "i"}]});
    wait::until("the service account", 4 * LIMIT, || {
        Ok(plane.get(&["-n", "kube-system", "serviceaccount", "default"]).ok())
    })
    .unwrap();
    create(
        plane,
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "led", "namespace": "kube-system"}, "spec": spec}),
    );
    let (path, user) = ("/api/v1/namespaces/kube-system/configmaps/kube-proxy", format!("--as=system:node:{node}"));
    wait::until("the authorizer to know", LIMIT, || {
        Ok(plane.kubectl(&["get", "--raw", path, &user, "--as-group=system:nodes"]).ok())
    })
    .unwrap();
    let fixture = Fixture::new(plane, node);
    fixture.connected();
    let (cache, direct) = (fixture.client(false), fixture.client(true));
    let own = certificate_file(&fixture.config.serving).unwrap();

    let ca = reads(&fixture, &direct, node, "kube-root-ca.crt", "ca.crt");
    assert!(!ca.contains(&own));
    let both = format!("{}\n{own}", ca.trim_end());
    let proxy = PROXY.replace("https://api.example:6443", &format!("https://{SERVICE}:443"));
    let as_led = |when: &str| {
        assert_eq!(reads(&fixture, &cache, node, "kube-root-ca.crt", "ca.crt"), both, "{when}");
        assert_eq!(reads(&fixture, &cache, "kube-system", "kube-proxy", "kubeconfig.conf"), proxy, "{when}");
    };
    as_led("online");
    assert_eq!(reads(&fixture, &direct, "kube-system", "kube-proxy", "kubeconfig.conf"), PROXY, "in the cluster");

    // A pod with what it finds in its volume, and one with the cluster's CA alone.
    let token: Value = serde_json::from_slice(&fixture.ask(&token_request(node, &pod)).body).unwrap();
    let token = token["status"]["token"].as_str().unwrap();
    let servers = vec![format!("{SERVICE}:{}", fixture.config.listen.port())];
    let pods = |ca: &str, name: &str| {
        let path = fixture.dir.path().join("pod.pem");
        std::fs::write(&path, ca).unwrap();
        let config =
            Config { servers: servers.clone(), ca: path, server_name: name.to_owned(), ..fixture.config.clone() };
        Servers::new(&config).unwrap()
    };
    let (trusting, distrusting) = (pods(&both, &SERVICE.to_string()), pods(&ca, "127.0.0.1"));
    let review = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
    let review = Ask::post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).with(token);
    let user = |servers: &Servers| {
        let answer: Value = serde_json::from_slice(&fixture.send(servers, &review).body).unwrap();
        answer["status"]["userInfo"]["username"].as_str().unwrap().to_owned()
    };
    assert_eq!(user(&trusting), format!("system:serviceaccount:{node}:default"));
    let connects = |servers: &Servers| fixture.runtime.block_on(servers.connect(false, true)).map(drop);
    let refused = connects(&distrusting).unwrap_err().to_string();
    assert!(refused.contains("invalid peer certificate: UnknownIssuer"), "{refused}");
    // The next connection is to the API server, and the one after it is to the cache again.
    wait::until("the API server behind the port", LIMIT, || Ok(connects(&distrusting).ok())).unwrap();
    let refused = connects(&distrusting).unwrap_err().to_string();
    assert!(refused.contains("invalid peer certificate: UnknownIssuer"), "{refused}");

    plane.stop_apiserver().unwrap();
    fixture.disconnected();
    as_led("offline");
    let refused = fixture.send(&trusting, &review);
    assert_eq!(refused.status, 503, "this pod is known, its question is not");
    plane.start_apiserver().unwrap();
    fixture.connected();
}
