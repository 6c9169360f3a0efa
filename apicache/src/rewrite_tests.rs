// SPDX-License-Identifier: Apache-2.0
//! Which ConfigMaps kubelet reads in another form, and that nothing else is touched.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::list::write_list;
use crate::object::{Kind, read, read_list, write, write_event, write_initial_events_end};

const OWN: &str = "-----BEGIN CERTIFICATE-----\nown\n-----END CERTIFICATE-----\n";
const CA: &str = "-----BEGIN CERTIFICATE-----\nca\n-----END CERTIFICATE-----\n";
/// As kubeadm writes it.
const PROXY: &str = "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    certificate-authority: \
                     /var/run/secrets/kubernetes.io/serviceaccount/ca.crt\n    server: https://api.example:6443\n  name: \
                     default\ncontexts:\n- context:\n    cluster: default\n";

fn rewrite(address: &str) -> Arc<Rewrite> {
    Arc::new(Rewrite::new(OWN, address.parse().unwrap()))
}

fn kind() -> Kind {
    Kind { api_version: "v1".into(), kind: "ConfigMap".into() }
}

fn config_map(encoding: Encoding, namespace: &str, name: &str, data: &[(&str, &str)]) -> Vec<u8> {
    if encoding == Encoding::Json {
        let data: serde_json::Map<_, _> = data.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        let meta = serde_json::json!({ "name": name, "namespace": namespace, "resourceVersion": "5" });
        let map = serde_json::json!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": meta, "data": data });
        return map.to_string().into_bytes();
    }
    let (mut meta, mut map) = (Vec::new(), Vec::new());
    for (field, text) in [(1, name), (3, namespace), (6, "5")] {
        wire::push(&mut meta, field, text.as_bytes());
    }
    wire::push(&mut map, 1, &meta);
    for (key, value) in data {
        let mut entry = Vec::new();
        wire::push(&mut entry, 1, key.as_bytes());
        wire::push(&mut entry, 2, value.as_bytes());
        wire::push(&mut map, 2, &entry);
    }
    // binaryData and immutable.
    wire::push(&mut map, 3, b"\x0a\x01b\x12\x01\xff");
    wire::push_varint(&mut map, 4, 1);
    map
}

/// The data of a ConfigMap.
fn data(encoding: Encoding, map: &[u8]) -> Vec<(String, String)> {
    match encoding {
        Encoding::Protobuf => {
            let mut rest = wire::fields(map).unwrap();
            assert_eq!(rest.pop().unwrap(), (4, wire::Value::Number(1)), "immutable stays");
            assert_eq!(rest.pop().unwrap(), (3, wire::Value::Bytes(b"\x0a\x01b\x12\x01\xff")), "binaryData stays");
            wire::map(map, 2)
        }
        Encoding::Json => {
            let map: serde_json::Value = serde_json::from_slice(map).unwrap();
            let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
            map["data"].as_object().unwrap().iter().map(|(k, v)| (k.clone(), text(v))).collect()
        }
    }
}

#[test]
fn pods_trust_the_cache_beside_the_cluster() {
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let map = config_map(encoding, "shop", "kube-root-ca.crt", &[("ca.crt", CA), ("other", "x")]);
        let new = rewrite("10.96.0.1").object(encoding, &map).unwrap();
        let want = [("ca.crt".to_owned(), format!("{CA}{OWN}")), ("other".to_owned(), "x".to_owned())];
        assert_eq!(data(encoding, &new), want, "{encoding:?}");
        assert_eq!(rewrite("10.96.0.1").object(encoding, &new), None, "once is enough");
    }
}

#[test]
fn kube_proxy_and_flannel_come_by_the_service() {
    for (address, url) in [("10.96.0.1", "https://10.96.0.1:443"), ("fd00:96::1", "https://[fd00:96::1]:443")] {
        for (encoding, (namespace, name)) in [
            (Encoding::Json, ("kube-system", "kube-proxy")),
            (Encoding::Protobuf, ("kube-system", "kube-proxy")),
            (Encoding::Protobuf, ("kube-flannel", "kube-flannel-cfg")),
        ] {
            let map = config_map(encoding, namespace, name, &[("config.conf", "a"), ("kubeconfig.conf", PROXY)]);
            let new = data(encoding, &rewrite(address).object(encoding, &map).unwrap());
            assert_eq!(new[0].1, "a");
            assert_eq!(new[1].1, PROXY.replace("https://api.example:6443", url), "{name}");
        }
    }
}

#[test]
fn everything_else_stays() {
    let own_ca = PROXY.replace("/var/run/secrets/kubernetes.io/serviceaccount/", "/var/lib/kube-proxy/");
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        for map in [
            config_map(encoding, "shop", "settings", &[("ca.crt", CA), ("kubeconfig.conf", PROXY)]),
            config_map(encoding, "shop", "kube-proxy", &[("kubeconfig.conf", PROXY)]),
            config_map(encoding, "kube-flannel", "kube-flannel-cfg", &[("cni-conf.json", PROXY)]),
            config_map(encoding, "kube-system", "kube-proxy", &[("kubeconfig.conf", &own_ca)]),
            config_map(encoding, "shop", "kube-root-ca.crt", &[("tls.crt", CA)]),
        ] {
            assert_eq!(rewrite("10.96.0.1").object(encoding, &map), None);
        }
        assert_eq!(rewrite("10.96.0.1").object(encoding, b"\xff"), None);
    }
    let target = |path: &str| crate::request::target(&path.parse().unwrap());
    let concerned = |path: &str| Rewrite::concerns(&target(path));
    assert!(concerned("/api/v1/configmaps") && concerned("/api/v1/namespaces/a/configmaps/b"));
    assert!(!concerned("/api/v1/secrets") && !concerned("/apis/x/v1/configmaps") && !concerned("/version"));
}

#[test]
fn answers_on_their_way() {
    let rewrite = rewrite("10.96.0.1");
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let root = |namespace| config_map(encoding, namespace, "kube-root-ca.crt", &[("ca.crt", CA)]);
        let new = |namespace| rewrite.object(encoding, &root(namespace)).unwrap();
        let pass = |watch: bool, body: &[u8]| {
            let mut passing = Passing::new(rewrite.clone(), encoding, watch);
            let mut on = Vec::new();
            body.chunks(7).for_each(|piece| on.extend(passing.bytes(piece).unwrap()));
            on.extend(passing.end());
            on
        };
        // One object.
        let body = pass(false, &write(encoding, &kind(), &root("a")));
        let (found, object) = read(encoding, &body).unwrap();
        assert_eq!((found, &object.bytes[..]), (kind(), &new("a")[..]));
        // A list; one of which there is more stays.
        let other = config_map(encoding, "a", "other", &[("a", "b")]);
        let body = pass(false, &write_list(encoding, &kind(), 9, &[root("a"), other.clone()]));
        let list = read_list(encoding, &body).unwrap();
        let items: Vec<_> = list.items.iter().map(|item| item.bytes.to_vec()).collect();
        assert_eq!((list.version, items), (9, vec![new("a"), other.clone()]));
        let untouched = write_list(encoding, &kind(), 9, std::slice::from_ref(&other));
        assert_eq!(pass(false, &untouched), untouched);
        // A watch: what is no such ConfigMap comes through byte by byte.
        let all = [
            write_event(encoding, "ADDED", &kind(), &root("a")),
            write_event(encoding, "MODIFIED", &kind(), &other),
            write_initial_events_end(encoding, &kind(), 9),
            write_event(encoding, "MODIFIED", &kind(), &root("b")),
            write_event(encoding, "DELETED", &kind(), &root("a")),
        ];
        let mut want = all.clone();
        want[0] = write_event(encoding, "ADDED", &kind(), &new("a"));
        want[3] = write_event(encoding, "MODIFIED", &kind(), &new("b"));
        assert_eq!(pass(true, &all.concat()), want.concat());
        // Failures are passed on as they are.
        assert_eq!(pass(false, b"not found"), b"not found");
    }
}
