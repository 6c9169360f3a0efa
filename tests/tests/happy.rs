// SPDX-License-Identifier: Apache-2.0
//! The whole way on both targets: Ready, pods, seed destroyed, nothing of the token left. Boots 2 guests.

#![allow(clippy::unwrap_used)]

use imagebuild::arch::Arch;
use qemu::control_plane::{ControlPlane, audit, is_ready};
use qemu::device::Options;
use qemu::pods;
use qemu::progress::Progress;
use qemu::scenario;

#[test]
fn generic_amd64_joins_by_itself() {
    joins_by_itself(Arch::Amd64);
}

#[test]
fn generic_arm64_joins_by_itself() {
    joins_by_itself(Arch::Arm64);
}

fn joins_by_itself(arch: Arch) {
    if !e2e::can_boot(arch) {
        return;
    }
    let image = e2e::image(arch).unwrap();
    let plane = ControlPlane::start(&Default::default()).unwrap();
    pods::create(&plane).unwrap();
    let options = Options { serial: Some("0001".into()), guest_ports: vec![pods::PORT], ..Options::new(arch) };
    let (device, token) = scenario::seeded(&plane, &image, &options).unwrap();
    let mut joined = scenario::join(&plane, device, token, &mut Progress::default()).unwrap();

    assert_eq!(joined.name, "edge-0001");
    assert!(is_ready(&joined.node));
    let labels = &joined.node["metadata"]["labels"];
    assert_eq!(labels["superedge.io/node-edge"], "enable");
    assert_eq!(labels["superedge.io.hostname"], "edge-0001");
    assert_eq!(labels["kubernetes.io/arch"], arch.name());

    // `prove` compares pod and node names itself.
    joined.prove(&plane).unwrap();
    assert_eq!(pods::pulled(&plane).unwrap(), [""; 0]);
    only_firstboot_joined(&plane);

    let left = joined.switch_off_and_search().unwrap();
    assert_eq!(left.token_at, [0; 0], "offsets of the token's secret on the raw disk");
    assert!(!left.seed_present, "seed.toml is still listed");
    assert_eq!(e2e::status_value(&left.status, "state"), "joined");
    assert_eq!(e2e::status_value(&left.status, "node"), "edge-0001");
    let phases: Vec<String> = left.phases().into_iter().map(|p| p.name).collect();
    let all: Vec<&str> = firstboot::phases::PHASES.iter().map(|p| p.name).collect();
    assert_eq!(phases, all);
    let disk = joined.device.disk();
    assert!(disk.exists("/var/lib/kubelet/pki/kubelet-client-current.pem").unwrap());
}

/// The requests of identities without a certificate came from firstboot, and were few.
fn only_firstboot_joined(plane: &ControlPlane) {
    let events = plane.audit().unwrap();
    let token: Vec<&audit::Event> =
        events.iter().filter(|e| e.user.username.starts_with("system:bootstrap:")).collect();
    assert!(!token.is_empty());
    for event in &token {
        assert!(event.user_agent.starts_with("firstboot/"), "{} asked by {}", event.request_uri, event.user_agent);
    }
    let csrs = plane.csrs().unwrap();
    assert_eq!(csrs.len(), 1, "{csrs:?}");
    assert!(csrs[0].issued && csrs[0].requester.starts_with("system:bootstrap:"), "{csrs:?}");
}
