// SPDX-License-Identifier: Apache-2.0
//! Devices, images and clusters that do not fit: each stops with one line that says who must act. Boots 3 guests and
//! goes on from a saved boot once.

#![allow(clippy::unwrap_used)]

use e2e::{SOON, WAITING_NODE, status_value};
use firstboot::bundle::BUNDLE_DIR;
use qemu::control_plane::ControlPlane;
use qemu::device::{Device, Options};
use qemu::seed::Seed;

const REFLASH: &str = "rebuild the image, or flash another one";
const LOOK_HERE: &str = "look at this device; it tries again by itself, or at the next boot";

/// A seeded device that is switched off, or nothing where guests cannot be booted.
fn seeded(plane: &ControlPlane, serial: &str, change: impl FnOnce(&mut Options)) -> Option<Device> {
    if !e2e::can_boot(e2e::own_arch()) {
        return None;
    }
    let mut options = e2e::device_options(serial);
    change(&mut options);
    let device = Device::new(&e2e::image(e2e::own_arch()).unwrap(), &options).unwrap();
    let token = plane.create_token("1h").unwrap();
    device.disk().put_seed(&Seed::for_guest(plane, &token).unwrap().text()).unwrap();
    Some(device)
}

fn expect_stop(device: &Device, code: &str, advice: &str, error: &str) -> String {
    let status = device.wait_status("state: stopped", SOON).unwrap();
    assert!(status_value(&status, "error").starts_with(error), "{status}");
    assert_eq!(status_value(&status, "code"), code);
    assert_eq!(status_value(&status, "advice"), advice);
    status_value(&status, "error")
}

#[test]
fn a_disk_that_is_too_small() {
    let plane = e2e::shared_plane();
    // As large as the image: no room for data.
    let Some(mut device) = seeded(plane, "small-disk", |options| options.disk_size = 0) else { return };
    device.power_on().unwrap();
    let error = expect_stop(&device, "FB303", LOOK_HERE, "Disk: keep data: /var is in memory and lost at power-off ");
    assert!(
        error.ends_with("(the disk has no data partition, and no room for one); use a larger or another disk"),
        "{error}"
    );
}

/// The manifest of the bundle, in the verified root: the kernel refuses the block that it is in.
#[test]
fn one_flipped_byte_in_the_bundle() {
    let plane = e2e::shared_plane();
    let Some(mut device) = seeded(plane, "flipped", |_| {}) else { return };
    let manifest = format!("{BUNDLE_DIR}/manifest.json");
    let at = device.disk().root_offset(&manifest).unwrap();
    device.disk().flip_at(at + 100).unwrap();
    device.power_on().unwrap();
    let error = expect_stop(&device, "FB203", REFLASH, &format!("read {manifest}: "));
    assert!(error.ends_with("I/O error (os error 5)"), "{error}");
}

#[test]
fn no_fat_partition() {
    let plane = e2e::shared_plane();
    let Some(mut device) = seeded(plane, "no-fat", |_| {}) else { return };
    let boot = device.disk().partition(1).unwrap();
    device.disk().damage(boot.offset, &[0; 1 << 20]).unwrap();
    device.power_on().unwrap();
    let line = device.wait_console("find the boot partition", SOON).unwrap();
    assert_eq!(
        line.trim(),
        "firstboot: failed (image, FB206): find the boot partition: no FAT file system labelled BOOT on disk vda; \
         flash the image again; stopped"
    );
}

#[test]
fn a_kubelet_newer_than_the_cluster() {
    let plane = e2e::shared_plane();
    let was = set_cluster_version(plane, "v1.35.0");
    if !e2e::can_boot(e2e::own_arch()) {
        return;
    }
    let device = e2e::prepared_device().unwrap();
    let token = plane.create_token("1h").unwrap();
    device.change_seed(&Seed::for_guest(plane, &token).unwrap().text()).unwrap();
    let target = format!("generic-{}", e2e::own_arch());
    let error = format!(
        "kubelet 1.36.3 of this image is newer than the cluster, 1.35.0: kubeadm upgrade apply on the control plane, or \
         imagebuild build --target {target} --kubernetes-version 1.35"
    );
    let status = device.wait_status(&error, SOON).unwrap();
    let found = ["error", "state", "owner", "code"].map(|key| status_value(&status, key));
    assert_eq!(found, [error.as_str(), "retrying", "cluster", "FB432"]);
    // As an upgrade of the cluster does.
    assert_eq!(plane.nodes().unwrap().len(), 0);
    set_cluster_version(plane, &was);
    device.wait_console(&format!("node {WAITING_NODE} is Ready, seed destroyed"), SOON).unwrap();
}

/// Changes what kubeadm-config says; returns what it said before.
fn set_cluster_version(plane: &ControlPlane, version: &str) -> String {
    let map = plane.get(&["-n", "kube-system", "configmap", "kubeadm-config"]).unwrap();
    let text = map["data"]["ClusterConfiguration"].as_str().unwrap();
    let line = text.lines().find(|l| l.starts_with("kubernetesVersion: ")).unwrap();
    let patch = serde_json::json!({
        "data": { "ClusterConfiguration": text.replace(line, &format!("kubernetesVersion: {version}")) }
    });
    let patch = patch.to_string();
    plane
        .kubectl(&["-n", "kube-system", "patch", "configmap", "kubeadm-config", "--type=merge", "-p", &patch])
        .unwrap();
    line.trim_start_matches("kubernetesVersion: ").to_owned()
}
