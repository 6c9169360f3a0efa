// SPDX-License-Identifier: Apache-2.0
//! A seed that says more than which cluster: kubeadm's own line, a network without a way out but the one to the API
//! server, settings for kubelet and for registries. First with a value that kubelet does not take. Boots 1 guest.

#![allow(clippy::unwrap_used)]

use e2e::{OFF, SOON, device_options, own_arch, status_value};
use qemu::control_plane::{ControlPlane, is_ready};
use qemu::device::Device;

const NAME: &str = "edge-tables";

/// A seed with the line that kubeadm prints, and `more` after it.
fn seed(plane: &ControlPlane, token: &str, more: &str) -> String {
    let (server, pin) = (plane.endpoint_for_guest(), plane.ca_pin().unwrap());
    format!(
        "version = 1\njoin = \"\"\"\nkubeadm join {server} --token {token} \\\n\t--discovery-token-ca-cert-hash {pin}\n\
         \"\"\"\n{more}"
    )
}

#[test]
#[ignore = "boots a guest"]
fn kubelet_configuration_errors_are_reported_and_the_next_seed_applies() {
    if !e2e::can_boot(own_arch()) {
        return;
    }
    let plane = ControlPlane::start(&Default::default()).unwrap();
    let mut device = Device::new(&e2e::image(own_arch()).unwrap(), &device_options("tables")).unwrap();
    let first = plane.create_token("1h").unwrap();
    // Only the kubelet of this image knows which minor version is the one before its own.
    let bad = "[kubelet.config]\nshowHiddenMetricsForVersion = \"1.34\"\n[registries.\"quay.io\"]\nmirrors = \"http://10.0.2.2:1\"\n";
    device.disk().put_seed(&seed(&plane, &first, bad)).unwrap();
    device.power_on().unwrap();
    let status = device.wait_status("by [kubelet.config]", SOON).unwrap();
    assert_eq!(status_value(&status, "owner"), "seed");
    assert_eq!(status_value(&status, "code"), "FB114");
    let error = status_value(&status, "error");
    let reported = "times, by [kubelet.config]: failed to validate kubelet configuration, error: invalid \
                showHiddenMetricsForVersion: showHiddenMetricsForVersion: Invalid value: \"1.34\": must be omitted or";
    assert!(error.starts_with("start kubelet: it ended ") && error.contains(reported), "{error}");

    let second = plane.create_token("1h").unwrap();
    let good = "[network]\naddresses = \"10.0.2.15/24\"\ndns = \"10.0.2.3\"\n[time]\nservers = \"10.0.2.2\"\n\
                [kubelet.config]\nmaxPods = 60\n[registries.\"docker.io\"]\nmirrors = \"http://10.0.2.2:1\"\n";
    device.change_seed(&seed(&plane, &second, good)).unwrap();
    device.wait_console(&format!("node {NAME} is Ready, seed destroyed"), SOON).unwrap();
    let node = plane.wait_node_ready(NAME, SOON, || device.check()).unwrap();
    assert!(is_ready(&node));
    assert_eq!(node["status"]["capacity"]["pods"], "60");
    assert_eq!(node["status"]["addresses"][0]["address"], "10.0.2.15");

    device.power_off(OFF).unwrap();
    let disk = device.disk();
    let text = |path: &str| String::from_utf8(disk.read_file(path).unwrap().unwrap()).unwrap();
    let network = text("/etc/systemd/network/50-firstboot.network");
    assert!(network.contains("\nDHCP=no\n") && !network.contains("Gateway="), "{network}");
    assert_eq!(disk.list("/etc/containerd/certs.d/docker.io").unwrap(), ["hosts.toml"]);
    assert!(disk.list("/etc/containerd/certs.d/quay.io").unwrap().is_empty());
    let patch = text("/etc/firstboot/patches/kubeletconfiguration+strategic.json");
    assert_eq!(patch, text("/etc/firstboot/kubelet.conf.d/50-seed.conf"));
    assert!(patch.contains("\"maxPods\": 60") && !patch.contains("showHiddenMetricsForVersion"), "{patch}");
    // kubeadm's own copy stays what the cluster says.
    assert!(!text("/var/lib/kubelet/config.yaml").contains("maxPods: 60"));
    for token in [first, second] {
        let secret = qemu::seed::secret_of(&token);
        assert_eq!(qemu::search::find(disk.path(), secret).unwrap(), [0; 0]);
    }
}
