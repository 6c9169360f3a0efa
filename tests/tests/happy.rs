// SPDX-License-Identifier: Apache-2.0
//! The whole way on both targets: Ready, pods, seed destroyed, nothing of the token left. Boots 2 guests.

#![allow(clippy::unwrap_used)]

use firstboot::bundle::{BUNDLE_DIR, SIGNING_KEYS};
use firstboot::status_page::HTML_NAME;
use imagebuild::arch::Arch;
use imagebuild::sign::Signer;
use qemu::control_plane::{ControlPlane, audit, is_ready};
use qemu::device::Options;
use qemu::disk::DiskImage;
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
    trap_kubeadm(device.disk());
    let mut joined = scenario::join(&plane, device, token, &mut Progress::default()).unwrap();

    let keys = joined.device.disk().read_file(SIGNING_KEYS).unwrap().unwrap();
    let own = Signer::open(None).unwrap();
    let own = format!("{} {}\n", own.public().algorithm, own.public().key);
    assert_eq!(String::from_utf8(keys).unwrap(), own, "the device verified its bundle by this key");
    assert_eq!(joined.name, "edge-0001");
    assert!(is_ready(&joined.node));
    let labels = &joined.node["metadata"]["labels"];
    assert_eq!(labels["superedge.io/node-edge"], "enable");
    assert_eq!(labels["superedge.io.hostname"], "edge-0001");
    assert_eq!(labels["kubernetes.io/arch"], arch.name());

    // `prove` compares pod and node names itself.
    joined.prove(&plane).unwrap();
    let count = |when: &str| {
        let line = joined.device.wait_console(&format!("test: kubeadm was run {when}: "), e2e::SOON).unwrap();
        line.rsplit(' ').next().unwrap().trim().to_owned()
    };
    assert_eq!(count("before"), "0", "kubeadm was run on the device");
    assert_eq!(count("after"), "1", "the trap tells nothing");
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
    let page = disk.boot().unwrap().read(HTML_NAME).unwrap().unwrap();
    assert!(String::from_utf8(page).unwrap().contains("<title>edge-0001: joined</title>"));
    assert!(disk.exists("/var/lib/kubelet/pki/kubelet-client-current.pem").unwrap());
}

/// Stands over kubeadm, which is in the verified root, from the start: it counts how often it is run. firstboot finds a
/// file of the right length and mode.
const TRAP: &str = "#!/bin/sh\necho run >>/run/kubeadm-runs\nexit\n";
const TRAP_UNIT: &str = "\
[Unit]
DefaultDependencies=no
Before=sysinit.target
[Mount]
What=/etc/kubeadm-trap
Where=/usr/lib/firstboot/bundle/bin/kubeadm
Options=bind
";
/// What the trap has counted once the device has joined; then it is tried.
const COUNT: &str = r#"
until grep -q '"joined"' /var/lib/firstboot/status.json 2>/dev/null; do sleep 1; done
touch /run/kubeadm-runs
echo "test: kubeadm was run before: $(wc -l </run/kubeadm-runs)"
/usr/bin/kubeadm version
echo "test: kubeadm was run after: $(wc -l </run/kubeadm-runs)"
"#;

fn trap_kubeadm(disk: &DiskImage) {
    let kubeadm = format!("{BUNDLE_DIR}/bin/kubeadm");
    assert!(TRAP_UNIT.contains(&format!("Where={kubeadm}\n")));
    e2e::add_script(disk, COUNT).unwrap();
    let mut trap = TRAP.as_bytes().to_vec();
    trap.resize(disk.read_file(&kubeadm).unwrap().unwrap().len(), 0);
    disk.write_file("/etc/kubeadm-trap", &trap, 0o755).unwrap();
    let unit = "usr-lib-firstboot-bundle-bin-kubeadm.mount";
    disk.write_file(&format!("/etc/systemd/system/{unit}"), TRAP_UNIT.as_bytes(), 0o644).unwrap();
    disk.link_file(&format!("/etc/systemd/system/sysinit.target.wants/{unit}"), &format!("../{unit}")).unwrap();
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
