// SPDX-License-Identifier: Apache-2.0
//! What a seed and a cluster may ask for beyond the default: a stick that is carried on, the worker role, labels,
//! taints, a cluster that brings its own pod network, the screen as console; one card with the seeds of many devices. Boots
//! 2 guests.

#![allow(clippy::unwrap_used)]

use e2e::{OFF, SOON, add_script, device_options, own_arch, status_value};
use qemu::control_plane::{ControlPlane, is_ready};
use qemu::device::Device;
use qemu::seed::Seed;

const NAME: &str = "edge-variants";
/// A pod of every node that mounts the directory of CNI configurations, as each cluster network has one.
const NETWORK: &str = r#"{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"network","namespace":
"kube-system"},"spec":{"selector":{"matchLabels":{"app":"network"}},"template":{"metadata":{"labels":{"app":
"network"}},"spec":{"hostNetwork":true,"tolerations":[{"operator":"Exists"}],"containers":[{"name":"network","image":
"registry.k8s.io/pause:3.10.2","volumeMounts":[{"name":"cni","mountPath":"/cni"}]}],"volumes":[{"name":"cni","hostPath":
{"path":"/etc/cni/net.d","type":"DirectoryOrCreate"}}]}}}}"#;
/// What that pod would do, once it runs: bring the configuration. And the screen, read back from its memory.
const SCRIPT: &str = r#"
until grep -qs '"network"' /run/containerd/io.containerd.runtime.v2.task/k8s.io/*/config.json; do sleep 1; done
cat >/etc/cni/net.d/10-cluster.conflist <<'END'
{"cniVersion":"1.0.0","name":"cluster","plugins":[{"type":"bridge","bridge":"cluster0","isGateway":true,"ipMasq":true,
"ipMasqBackend":"nftables","ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.0.0/24"}]]}}]}
END
echo "test: cluster network is there"
until tr -d '\0' </dev/vcs1 | grep -q 'is Ready, seed left on its stick'; do sleep 1; done
echo "test: the screen shows the end"
"#;

#[test]
#[ignore = "boots a guest"]
fn a_stick_a_worker_and_a_cluster_with_its_own_network() {
    if !e2e::can_boot(own_arch()) {
        return;
    }
    let plane = ControlPlane::start(&Default::default()).unwrap();
    let manifest = plane.path().join("network.json");
    std::fs::write(&manifest, NETWORK).unwrap();
    plane.kubectl(&["create", "-f", &manifest.display().to_string()]).unwrap();
    let token = plane.create_token("1h").unwrap();
    let more = "\n[node]\nrole = \"worker\"\nlabels = { \"topology.kubernetes.io/zone\" = \"shop-12\" }\n\
                taints = [\"edge=true:NoSchedule\"]\n";
    let seed = Seed { more: more.to_owned(), ..Seed::for_guest(&plane, &token).unwrap() }.text();
    let options = qemu::device::Options { stick: Some(seed.clone()), ..device_options("variants") };
    let mut device = Device::new(&e2e::image(own_arch()).unwrap(), &options).unwrap();
    add_script(device.disk(), SCRIPT).unwrap();
    device.power_on().unwrap();
    device.wait_console("test: cluster network is there", SOON).unwrap();
    device.wait_console(&format!("node {NAME} is Ready, seed left on its stick"), SOON).unwrap();
    device.wait_console("test: the screen shows the end", SOON).unwrap();

    let node = plane.node(NAME).unwrap().unwrap();
    assert!(is_ready(&node));
    let labels = &node["metadata"]["labels"];
    assert_eq!(labels["superedge.io/node-cloud"], "enable");
    assert!(labels["superedge.io/node-edge"].is_null());
    assert_eq!(labels["topology.kubernetes.io/zone"], "shop-12");
    let taint = serde_json::json!({ "key": "edge", "value": "true", "effect": "NoSchedule" });
    assert!(node["spec"]["taints"].as_array().unwrap().contains(&taint), "{}", node["spec"]["taints"]);

    device.power_off(OFF).unwrap();
    assert_eq!(device.disk().list("/etc/cni/net.d").unwrap(), ["10-cluster.conflist"]);
    assert_eq!(device.stick_seed().unwrap().unwrap(), seed.as_bytes(), "the stick was written to");
    // The device's own card tells, not the stick.
    let status = device.disk().status().unwrap();
    assert_eq!(status_value(&status, "state"), "joined");
    let keep = "keep the stick labelled SEED safe, or delete the token: the stick still holds it";
    assert_eq!(status_value(&status, "advice"), keep);
    let secret = qemu::seed::secret_of(&token);
    assert_eq!(qemu::search::find(device.disk().path(), secret).unwrap(), [0; 0]);
}

/// One card with the seeds of three devices: the second one takes its own, and none of the three is left.
#[test]
#[ignore = "boots a guest"]
fn a_device_takes_its_own_seed_of_many() {
    if !e2e::can_boot(own_arch()) {
        return;
    }
    let plane = ControlPlane::start(&Default::default()).unwrap();
    let token = plane.create_token("1h").unwrap();
    let at = |name: &str| plane.path().join(name).display().to_string();
    std::fs::write(at("base.toml"), Seed::for_guest(&plane, &token).unwrap().text()).unwrap();
    let table = "serial,node.name\nSHOP-1,till-1\nSHOP-2,till-2\nSHOP-3,till-3\n";
    std::fs::write(at("devices.csv"), table).unwrap();
    let mut device = Device::new(&e2e::image(own_arch()).unwrap(), &device_options("SHOP-2")).unwrap();
    let disk = device.disk().path().display().to_string();
    let words = ["fleet", &at("devices.csv"), "--base", &at("base.toml"), "--into", &disk];
    qemu::seed::imagebuild(&words).unwrap();
    let seeds = |device: &Device| device.disk().boot().unwrap().list_in("seeds").unwrap().unwrap_or_default();
    assert_eq!(seeds(&device).len(), 3);
    device.power_on().unwrap();
    device.wait_console("node till-2 is Ready, 3 seeds destroyed", SOON).unwrap();
    assert!(is_ready(&plane.node("till-2").unwrap().unwrap()));
    assert_eq!((plane.node("till-1").unwrap(), plane.node("till-3").unwrap()), (None, None));
    device.power_off(OFF).unwrap();
    assert_eq!(seeds(&device), [""; 0]);
    assert_eq!(qemu::search::find(device.disk().path(), qemu::seed::secret_of(&token)).unwrap(), [0; 0]);
    let receipt = device.disk().read_file("/var/lib/firstboot/receipt.json").unwrap().unwrap();
    let receipt: serde_json::Value = serde_json::from_slice(&receipt).unwrap();
    assert_eq!((&receipt["seeds_destroyed"], &receipt["node"]), (&3.into(), &"till-2".into()));
}
