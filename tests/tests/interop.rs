// SPDX-License-Identifier: Apache-2.0
//! A device that firstboot joined, in the hands of the real kubeadm and of kubelet's own rotation; and two Kubernetes
//! minors against each other. Boots 5 and 3 guests.

#![allow(clippy::unwrap_used)]

use e2e::{OFF, SOON, add_script, boot_id, ready_again, remove_script, status_value};
use qemu::control_plane::{ControlPlane, Options, is_ready};
use qemu::device::Device;
use qemu::disk::DiskImage;
use qemu::progress::Progress;
use qemu::scenario;
use qemu::seed::Seed;
use serde_json::{Value, json};
use std::time::Duration;

const NAME: &str = "edge-interop";
/// kubelet renews after 70 to 90 % of a certificate's validity, which the cluster dates back by 5 minutes: 5.5 to 8.5
/// minutes after it was signed.
const SHORT: &str = "10m";
const ROTATION: Duration = Duration::from_secs(900);
/// kubelet serves its health before kubeadm can ask for the Node that it keeps.
const WAIT_FOR_KUBELET: &str = "until (exec 3<>/dev/tcp/127.0.0.1/10248) 2>/dev/null; do sleep 1; done\n";

#[test]
#[ignore = "boots 5 guests"]
fn kubelet_rotates_and_kubeadm_upgrades_and_resets_a_joined_device() {
    if !e2e::can_boot(e2e::own_arch()) {
        return;
    }
    let options = Options { signing_duration: Some(SHORT.to_owned()), ..Options::default() };
    let plane = ControlPlane::start(&options).unwrap();
    let image = e2e::image(e2e::own_arch()).unwrap();
    let (device, token) = scenario::seeded(&plane, &image, &e2e::device_options("interop")).unwrap();
    let mut joined = scenario::join(&plane, device, token, &mut Progress::default()).unwrap();
    assert_eq!(joined.name, NAME);
    let first = boot_id(&joined.node);
    let device = &mut joined.device;

    certificate_is_renewed(&plane, device);
    device.power_off(OFF).unwrap();
    let second = upgraded_by_kubeadm(&plane, device, &first);
    survives_the_next_boot(&plane, device, &second);
    reset_by_kubeadm(device);
    joins_again_by_a_new_seed(&plane, device);
}

/// kubelet asks for the next certificate with the one that firstboot gave it.
fn certificate_is_renewed(plane: &ControlPlane, device: &Device) {
    let requester = format!("system:node:{NAME}");
    qemu::wait::until("kubelet's next certificate", ROTATION, || {
        device.check()?;
        Ok(plane.csrs()?.into_iter().any(|csr| csr.requester == requester && csr.issued).then_some(()))
    })
    .unwrap();
    // kubelet still has to fetch and store it; it is given two heartbeats for that.
    let heartbeat = || -> anyhow::Result<Value> {
        Ok(plane.get(&["-n", "kube-node-lease", "lease", NAME])?["spec"]["renewTime"].take())
    };
    for _ in 0..2 {
        let last = heartbeat().unwrap();
        let next = qemu::wait::until("kubelet's next heartbeat", SOON, || Ok((heartbeat()? != last).then_some(())));
        next.unwrap();
    }
}

/// `kubeadm upgrade node` finds all that it needs and brings a changed cluster-wide setting to the device.
fn upgraded_by_kubeadm(plane: &ControlPlane, device: &mut Device, before: &str) -> String {
    let pems = device.disk().list("/var/lib/kubelet/pki").unwrap();
    let pems = pems.iter().filter(|n| n.starts_with("kubelet-client-2")).count();
    assert!(pems >= 2, "the renewed certificate is not on the disk");
    set_max_pods(plane, 77);
    add_script(device.disk(), &format!("{WAIT_FOR_KUBELET}kubeadm upgrade node; echo \"test: upgrade $?\"\n")).unwrap();
    device.power_on().unwrap();
    let line = device.wait_console("test: upgrade ", SOON).unwrap();
    assert!(line.trim().ends_with("test: upgrade 0"), "{}", device.console().tail(30));
    let node = ready_again(plane, device, NAME, before).unwrap();
    device.power_off(OFF).unwrap();
    remove_script(device.disk()).unwrap();
    let config = device.disk().read_file("/var/lib/kubelet/config.yaml").unwrap().unwrap();
    assert!(String::from_utf8(config).unwrap().contains("maxPods: 77"));
    boot_id(&node)
}

/// firstboot does not undo what differs from what it wrote.
fn survives_the_next_boot(plane: &ControlPlane, device: &mut Device, before: &str) {
    device.power_on().unwrap();
    let node = ready_again(plane, device, NAME, before).unwrap();
    assert_eq!(node["status"]["capacity"]["pods"], "77");
    device.power_off(OFF).unwrap();
}

/// `kubeadm reset -f` takes the credential away; the device then asks for a seed and says why.
fn reset_by_kubeadm(device: &mut Device) {
    let script = format!("{WAIT_FOR_KUBELET}kubeadm reset -f; echo \"test: reset $?\"; systemctl restart firstboot\n");
    add_script(device.disk(), &script).unwrap();
    device.power_on().unwrap();
    let line = device.wait_console("test: reset ", SOON).unwrap();
    assert!(line.trim().ends_with("test: reset 0"), "{}", device.console().tail(30));
    let error = "find /etc/kubernetes/kubelet.conf: it is missing or empty; this node needs a new seed to join again, \
                 its workload's data is kept";
    let status = device.wait_status(error, SOON).unwrap();
    assert_eq!(status_value(&status, "error"), error);
    assert_eq!(status_value(&status, "state"), "waiting for a seed");
    device.power_off(OFF).unwrap();
    remove_script(device.disk()).unwrap();
    assert!(!device.disk().exists("/etc/kubernetes/kubelet.conf").unwrap());
}

fn joins_again_by_a_new_seed(plane: &ControlPlane, device: &mut Device) {
    let token = plane.create_token("1h").unwrap();
    device.disk().put_seed(&Seed::for_guest(plane, &token).unwrap().text()).unwrap();
    let joins = |device: &Device| device.console().count(&format!("node {NAME} is Ready, seed destroyed")).unwrap();
    let before = joins(device);
    device.power_on().unwrap();
    qemu::wait::until("the second join", SOON, || {
        device.check()?;
        Ok((joins(device) > before).then_some(()))
    })
    .unwrap();
    assert!(is_ready(&plane.node(NAME).unwrap().unwrap()));
    device.power_off(OFF).unwrap();
    assert!(!device.disk().seed_present().unwrap());
    let secret = qemu::seed::secret_of(&token);
    assert_eq!(qemu::search::find(device.disk().path(), secret).unwrap(), [0; 0]);
}

fn set_max_pods(plane: &ControlPlane, pods: u32) {
    let map = plane.get(&["-n", "kube-system", "configmap", "kubelet-config"]).unwrap();
    let text = format!("{}maxPods: {pods}\n", map["data"]["kubelet"].as_str().unwrap());
    let patch = json!({ "data": { "kubelet": text } }).to_string();
    plane
        .kubectl(&["-n", "kube-system", "patch", "configmap", "kubelet-config", "--type=merge", "-p", &patch])
        .unwrap();
}

#[test]
#[ignore = "boots 3 guests"]
fn the_minor_before_joins_either_cluster_and_a_newer_kubelet_is_refused() {
    if !e2e::can_boot(e2e::own_arch()) {
        return;
    }
    let target = format!("generic-{}", e2e::own_arch());
    let image_with = |version| DiskImage::open(&qemu::image_with(&target, version).unwrap()).unwrap();
    let (older, newer) = (image_with("1.35"), image_with("1.36"));
    let plane_of = |version: &str| {
        ControlPlane::start(&Options { kubernetes_version: version.to_owned(), ..Options::default() }).unwrap()
    };
    let plane = plane_of("v1.35.4");
    assert_eq!(joins(&plane, &older, "old-old"), "v1.35.4");
    let (mut device, _) = scenario::seeded(&plane, &newer, &e2e::device_options("new-old")).unwrap();
    device.power_on().unwrap();
    let status = device.wait_status("owner: ", SOON).unwrap();
    let error = format!(
        "kubelet 1.36.3 of this image is newer than the cluster, 1.35.4: kubeadm upgrade apply on the control \
         plane, or imagebuild build --target {target} --kubernetes-version 1.35"
    );
    assert_eq!(status_value(&status, "error"), error);
    assert_eq!(status_value(&status, "code"), "FB432");
    assert_eq!(status_value(&status, "owner"), "cluster");
    assert_eq!(plane.node("edge-new-old").unwrap(), None);
    drop((device, plane));
    assert_eq!(joins(&plane_of("v1.36.3"), &older, "old-new"), "v1.35.4");
}

/// Joins a device of `image`; returns the version of its kubelet.
fn joins(plane: &ControlPlane, image: &DiskImage, serial: &str) -> String {
    let (device, token) = scenario::seeded(plane, image, &e2e::device_options(serial)).unwrap();
    let joined = scenario::join(plane, device, token, &mut Progress::default()).unwrap();
    assert!(is_ready(&joined.node));
    joined.node["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap().to_owned()
}
