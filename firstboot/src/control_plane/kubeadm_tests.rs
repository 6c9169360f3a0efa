// SPDX-License-Identifier: Apache-2.0
//! Tests of kubeadm's configurations and messages.

use super::*;
use crate::seed::{self, Seed};

fn documents(more: &str) -> (Value, Value) {
    let text = format!("version = 1\n[cluster]\ncreate = true\n{more}");
    let seed: Seed = seed::parse(text.as_bytes()).unwrap();
    let device = Device {
        node: "edge-1",
        address: "192.0.2.7".parse().unwrap(),
        node_ips: Vec::new(),
        version: "1.36.3",
        labels: [("superedge.io/node-edge".to_owned(), "enable".to_owned())].into(),
        cri_socket: "unix:///run/containerd/containerd.sock",
    };
    let text = configuration(seed.create().unwrap(), &seed.node, &device);
    let all: Vec<Value> = text.split("---\n").skip(1).map(|d| serde_json::from_str(d).unwrap()).collect();
    (all[0].clone(), all[1].clone())
}

#[test]
fn a_short_seed_leaves_kubeadm_its_defaults() {
    let (init, cluster) = documents("");
    assert_eq!(init["localAPIEndpoint"], json!({ "advertiseAddress": "192.0.2.7", "bindPort": 6443 }));
    assert_eq!(init["nodeRegistration"]["taints"], Value::Null);
    assert_eq!(init["nodeRegistration"]["kubeletExtraArgs"][0]["value"], "superedge.io/node-edge=enable");
    assert_eq!(cluster["kubernetesVersion"], "v1.36.3");
    assert_eq!(cluster["networking"], json!({ "podSubnet": "10.244.0.0/16", "serviceSubnet": "10.96.0.0/12" }));
    assert_eq!(cluster["certificateValidityPeriod"], "78840h0m0s");
    assert_eq!(cluster["encryptionAlgorithm"], "ECDSA-P256");
    assert!(cluster["apiServer"].get("certSANs").is_none() && cluster.get("controlPlaneEndpoint").is_none());
    assert!(cluster.get("etcd").is_none());
}

/// Flags of a component, as on its command line.
fn flags(component: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = component["extraArgs"].as_array().unwrap().iter();
    list.map(|flag| format!("{}={}", text(&flag["name"]), text(&flag["value"]))).collect()
}

#[test]
fn the_control_plane_has_flags_that_kubeadm_does_not_set() {
    let (_, cluster) = documents("");
    let server = flags(&cluster["apiServer"]);
    assert_eq!(server[..2], ["profiling=false", "enable-admission-plugins=NodeRestriction,DenyServiceExternalIPs"]);
    let suites: Vec<&str> = server[2].strip_prefix("tls-cipher-suites=").unwrap().split(',').collect();
    let kubelet = crate::harden::kubelet::fields::FIELDS.iter().find(|field| field.path == "tlsCipherSuites");
    assert_eq!(suites, serde_json::from_str::<Vec<String>>(kubelet.unwrap().value).unwrap());
    let leader = ["leader-elect-lease-duration=30s", "leader-elect-renew-deadline=20s", "leader-elect-retry-period=5s"];
    let manager = [&["profiling=false", "terminated-pod-gc-threshold=500"][..], &leader].concat();
    assert_eq!(flags(&cluster["controllerManager"]), manager);
    assert_eq!(flags(&cluster["scheduler"]), [&["profiling=false"][..], &leader].concat());
}

#[test]
fn a_flag_of_the_seed_takes_the_place_of_ours() {
    let (_, cluster) = documents(
        "[cluster.kubeadm]\n\
         apiServer = { extraArgs = [{ name = \"profiling\", value = \"true\" }, { name = \"v\", value = \"2\" }] }\n\
         scheduler = { extraArgs = [{ name = \"leader-elect-lease-duration\", value = \"15s\" }] }\n",
    );
    let server = flags(&cluster["apiServer"]);
    assert!(server[0].starts_with("enable-admission-plugins=") && server[1].starts_with("tls-cipher-suites="));
    assert_eq!(server[2..], ["profiling=true", "v=2"]);
    // With ours beside it, the scheduler would not start: 20 s to renew what lasts for 15 s.
    assert_eq!(flags(&cluster["scheduler"]), ["profiling=false", "leader-elect-lease-duration=15s"]);
    assert_eq!(flags(&cluster["controllerManager"]).len(), 5);
}

#[test]
fn what_the_seed_says_takes_the_place_of_them() {
    let (init, cluster) = documents(
        "endpoint = \"api.example.com\"\ncert-sans = \"10.0.0.9\"\n[cluster.kubeadm]\nclusterName = \"shop\"\n\
         apiServer = { certSANs = [\"x.example\"], extraArgs = [{ name = \"v\", value = \"2\" }] }\n\
         timeouts = { kubernetesAPICall = \"9m0s\" }\n[node]\ntaints = \"a=b:NoExecute\"\n",
    );
    assert_eq!(cluster["controlPlaneEndpoint"], "api.example.com:6443");
    assert_eq!(
        (&cluster["clusterName"], &cluster["apiServer"]["certSANs"]),
        (&json!("shop"), &json!(["10.0.0.9", "x.example"]))
    );
    assert_eq!(flags(&cluster["apiServer"]).last().unwrap(), "v=2");
    assert_eq!(
        (&init["timeouts"]["kubernetesAPICall"], &init["timeouts"]["kubeletHealthCheck"]),
        (&json!("9m0s"), &json!("10m0s"))
    );
    let taints = &init["nodeRegistration"]["taints"];
    assert_eq!(taints[0], json!({ "key": CONTROL_PLANE_TAINT, "effect": "NoSchedule" }));
    assert_eq!(taints[1], json!({ "key": "a", "value": "b", "effect": "NoExecute" }));
}

#[test]
fn members_of_etcd_on_small_devices_have_time() {
    let (_, cluster) = documents("virtual-ip = \"192.0.2.10\"\njoin-control-plane = true\n");
    let arguments = &cluster["etcd"]["local"]["extraArgs"];
    assert_eq!(arguments[0], json!({ "name": "heartbeat-interval", "value": "500" }));
    assert_eq!(cluster["controlPlaneEndpoint"], "192.0.2.10:6443");
    assert_eq!(cluster["apiServer"]["certSANs"], json!(["192.0.2.10"]));
    assert!(flags(&cluster["scheduler"]).contains(&"leader-elect-lease-duration=60s".to_owned()), "{cluster}");
    let (_, alone) = documents("virtual-ip = \"192.0.2.10\"\n");
    assert_eq!(alone["etcd"], Value::Null);
}

#[test]
fn the_reason_why_kubeadm_ends() {
    let checks = "[preflight] Running pre-flight checks\nerror execution phase preflight: [preflight] Some fatal errors \
                  occurred:\n\t[ERROR Port-6443]: Port 6443 is in use\n\t[ERROR Mem]: too little\n[preflight] If you know\n";
    assert_eq!(complaint(checks), "Port-6443: Port 6443 is in use; Mem: too little");
    let phase = "[certs] x\nerror execution phase wait-control-plane: could not initialize\nTo see the stack trace\n";
    assert_eq!(complaint(phase), "error execution phase wait-control-plane: could not initialize");
    assert_eq!(complaint("\n"), "it says nothing");
}

#[test]
fn certificates_are_uploaded_also_where_the_configuration_is_damaged() {
    let key = Secret::new("0f".repeat(32));
    let of = |text: &str| upload_configuration(text, "v1.36.3", &key).to_string();
    let text = "---\n{ \"kind\": \"InitConfiguration\" }\n---\n{ \"kind\": \"ClusterConfiguration\", \"etcd\": {} }\n";
    assert!(of(text).contains(key.expose().as_str()) && of(text).contains("\"etcd\""));
    for damaged in ["", "---\n{ \"kind\": \"InitConfigu\u{0}ation\" }\n", "---\n{ \"kin"] {
        let text = of(damaged);
        assert_eq!(text.matches(key.expose().as_str()).count(), 1, "{text}");
        assert!(text.contains("\"kubernetesVersion\": \"v1.36.3\""), "{text}");
    }
}

#[test]
fn one_more_control_plane_leaves_out_what_is_done() {
    let seed: Seed =
        seed::parse(b"version = 1\n[cluster]\ncreate = true\n[node]\ntaints = \"a=b:NoExecute\"\n").unwrap();
    let more = More {
        name: "edge-2",
        address: "192.0.2.8".parse().unwrap(),
        cri_socket: "unix:///run/containerd/containerd.sock",
        discovery: "/run/firstboot/cluster.conf",
        token: "abcdef.0123456789abcdef",
        certificate_key: "00",
    };
    let of = |part| -> Value { serde_json::from_str(&join_configuration(&more, &seed.node, part)).unwrap() };
    let document = of(Part::Etcd);
    assert_eq!(document["controlPlane"]["localAPIEndpoint"]["advertiseAddress"], "192.0.2.8");
    assert_eq!(document["discovery"]["file"]["kubeConfigPath"], "/run/firstboot/cluster.conf");
    let skipped = |part| of(part)["skipPhases"].as_array().unwrap().clone();
    let done = json!(["preflight", "kubelet-start", "kubelet-wait-bootstrap"]);
    let parts = [Part::Certificates { all: false }, Part::Etcd, Part::ApiServer];
    for part in parts {
        assert_eq!(Value::from(skipped(part)[..3].to_vec()), done);
    }
    // Each phase is in one of them.
    let phases = [
        "control-plane-prepare/download-certs",
        "control-plane-prepare/certs",
        "control-plane-prepare/kubeconfig",
        "control-plane-prepare/control-plane",
        "etcd-join",
        "control-plane-join",
        "wait-control-plane",
    ];
    let skips = |part, phase: &str| {
        let whole = phase.split('/').next().unwrap();
        skipped(part).iter().any(|skipped| *skipped == phase || *skipped == whole)
    };
    for phase in phases {
        assert_eq!(parts.iter().filter(|part| !skips(**part, phase)).count(), 1, "{phase}");
    }
    assert!(skips(Part::Certificates { all: true }, phases[0]) && !skips(Part::Certificates { all: true }, phases[1]));
    assert_eq!(document["nodeRegistration"]["taints"][0]["key"], CONTROL_PLANE_TAINT);
    let found = crate::kube::kubeconfig::read(&discovery("https://192.0.2.10:6443", "CA\n")).unwrap();
    assert_eq!((found.server.as_str(), found.ca_pem.as_str()), ("https://192.0.2.10:6443", "CA\n"));
}
