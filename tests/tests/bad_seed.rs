// SPDX-License-Identifier: Apache-2.0
//! Bad seeds on a real device, each by its exact message in firstboot-status.txt. Goes on from a saved boot three times.
//!
//! A device that waits for a changed seed looks again every few seconds, so one device sees several seeds; the disk is
//! looked at when it is switched off, before the next kind of seed.

#![allow(clippy::unwrap_used)]

use e2e::{OFF, SOON, WAITING_NODE, status_value};
use qemu::control_plane::ControlPlane;
use qemu::device::Device;
use qemu::disk::tree::Tree;
use qemu::seed::Seed;

const EDIT: &str = "edit seed.toml on the boot partition";
const FIX: &str = "fix the cluster or the network, or change seed.toml; it keeps trying";

#[test]
fn bad_seeds_are_named_and_change_nothing_until_the_right_one_joins() {
    if !e2e::can_boot(e2e::own_arch()) {
        return;
    }
    let plane = e2e::shared_plane();
    let token = plane.create_token("1h").unwrap();
    let good = Seed::for_guest(plane, &token).unwrap();
    seeds_that_cannot_be_read(&good);
    seeds_that_do_not_fit_the_cluster(plane, &good);
    a_cluster_that_refuses_connections(plane, &good);
}

/// Device 1: no seed, an unknown key, a malformed token. All files stay as they were flashed.
fn seeds_that_cannot_be_read(good: &Seed) {
    let image = e2e::image(e2e::own_arch()).unwrap();
    let mut device = e2e::waiting_device().unwrap();
    let missing =
        "find seed.toml on the boot partition: there is none; copy seed.toml.example to seed.toml and fill it in";
    let status = device.wait_status(missing, SOON).unwrap();
    assert_eq!(status_value(&status, "error"), missing);
    assert_eq!(status_value(&status, "state"), "waiting for a seed");
    assert_eq!(status_value(&status, "code"), "FB101");
    assert_eq!(status_value(&status, "advice"), EDIT);

    let unknown_key = good.text().replace("ca-cert-hashes", "colour = \"blue\"\nca-cert-hashes");
    device.change_seed(&unknown_key).unwrap();
    expect_seed_error(&device, "FB105", "seed.toml:6: unknown key \"colour\" in [cluster]");

    let malformed = Seed { token: "abcdef.0123".to_owned(), ..good.clone() };
    device.change_seed(&malformed.text()).unwrap();
    expect_seed_error(
        &device,
        "FB107",
        "seed.toml:5: malformed token in [cluster]: expected 6 and 16 characters a-z0-9, as in abcdef.0123456789abcdef",
    );
    device.power_off(OFF).unwrap();
    unchanged(&image.tree().unwrap(), &device.disk().tree().unwrap());
    assert!(e2e::root_is_as_flashed(&image, device.disk()).unwrap());
}

/// Device 2, with everything installed: a wrong CA hash, an unknown token. Nothing of the cluster comes to the device, nor the other way.
fn seeds_that_do_not_fit_the_cluster(plane: &ControlPlane, good: &Seed) {
    let at = &good.apiserver;
    let wrong_pin = Seed { pin: format!("sha256:{}", "0f".repeat(32)), ..good.clone() };
    let mut device = e2e::prepared_device().unwrap();
    device.change_seed(&wrong_pin.text()).unwrap();
    let pin = &good.pin;
    expect_cluster_error(
        &device,
        "FB418",
        &format!("CA of the cluster at {at} does not match ca-cert-hashes: it is {pin}"),
    );

    let unknown = Seed { token: "unknwn.0123456789abcdef".to_owned(), ..good.clone() };
    device.change_seed(&unknown.text()).unwrap();
    expect_cluster_error(
        &device,
        "FB420",
        "join token \"unknwn\" is unknown to the cluster (no JWS signature for it in cluster-info): \
         it may have expired, or never existed",
    );
    device.power_off(OFF).unwrap();
    let disk = device.disk();
    for path in ["/etc/kubernetes/kubelet.conf", "/etc/kubernetes/pki", "/var/lib/kubelet/pki"] {
        assert!(!disk.exists(path).unwrap(), "{path} exists");
    }
    // kubelet makes this file when it starts.
    assert!(!disk.exists("/var/lib/kubelet/cpu_manager_state").unwrap(), "kubelet was started");
    assert_eq!(plane.csrs().unwrap(), []);
    assert_eq!(plane.nodes().unwrap().len(), 0);
}

/// Device 3, with everything installed: no server listens; the device reports that, retries, and joins when the server is up.
fn a_cluster_that_refuses_connections(plane: &ControlPlane, good: &Seed) {
    plane.stop_apiserver().unwrap();
    let mut device = e2e::prepared_device().unwrap();
    device.change_seed(&good.text()).unwrap();
    expect_cluster_error(&device, "FB407", &format!("connect to API server {}: connection refused", good.apiserver));
    // It tries again by itself.
    let tries = |device: &Device| device.console().count("connection refused; next try in ").unwrap();
    let first = tries(&device);
    qemu::wait::until("a second try", SOON, || Ok((tries(&device) > first).then_some(()))).unwrap();
    plane.start_apiserver().unwrap();
    device.wait_console(&format!("node {WAITING_NODE} is Ready, seed destroyed"), SOON).unwrap();
    let node = plane.node(WAITING_NODE).unwrap().unwrap();
    assert!(qemu::control_plane::is_ready(&node));
    device.power_off(OFF).unwrap();
    assert!(!device.disk().seed_present().unwrap());
}

fn expect_seed_error(device: &Device, code: &str, error: &str) {
    let status = device.wait_status(error, SOON).unwrap();
    assert_eq!(status_value(&status, "error"), error);
    assert_eq!(status_value(&status, "owner"), "seed");
    assert_eq!(status_value(&status, "code"), code);
    assert_eq!(status_value(&status, "advice"), EDIT);
    assert_eq!(status_value(&status, "state"), "stopped");
}

fn expect_cluster_error(device: &Device, code: &str, error: &str) {
    let status = device.wait_status(error, SOON).unwrap();
    assert_eq!(status_value(&status, "error"), error);
    assert_eq!(status_value(&status, "owner"), "cluster");
    assert_eq!(status_value(&status, "code"), code);
    assert_eq!(status_value(&status, "advice"), FIX);
    assert_eq!(status_value(&status, "state"), "retrying");
}

/// Every path of /etc and /var, its owner, mode and content, but for what any boot changes.
fn unchanged(before: &Tree, after: &Tree) {
    assert_eq!(e2e::changes(before, after), [""; 0], "changed although no seed could be read");
}
