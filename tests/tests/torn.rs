// SPDX-License-Identifier: Apache-2.0
//! What editors leave beside a seed, and what a power cut or a worn card may leave of a sealed device's files; what its lights
//! show then; a data partition that becomes read-only, and a disk that is. Goes on from a saved boot, then boots that guest twice.

#![allow(clippy::unwrap_used)]

use e2e::{OFF, SOON, WAITING_NODE, add_script, boot_id, found, own_arch, ready_again, remove_script};
use firstboot::boot_partition::encodings;
use firstboot::paths::KUBELET_CONF;
use imagebuild::arch::Arch;
use qemu::control_plane::is_ready;
use qemu::device::Device;
use qemu::disk::tree::difference;
use qemu::seed::{Seed, secret_of};
use qemu::{search, status};
use std::time::Duration;

const NAME: &str = WAITING_NODE;
const CONFIG: &str = "/var/lib/kubelet/config.yaml";
const FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
/// What a power cut may leave in three ways; firstboot keeps copies.
const TORN: [&str; 3] = [CONFIG, FLAGS, KUBELET_CONF];
/// What kubelet signs itself, and does not flush.
const SERVING: [&str; 2] = ["/var/lib/kubelet/pki/kubelet.crt", "/var/lib/kubelet/pki/kubelet.key"];

/// Lights of keyboards, once firstboot has ended: joined is steady. And the modules by which they would blink.
const LIGHTS: &str = r#"
mkdir -p /var/lib/firstboot-test
# Not by asking systemd each second, which is work for an emulated device.
until [ "$(systemctl show --value --property=ExecMainExitTimestampMonotonic firstboot.service)" -gt 0 ]; do
  sleep 1
  while [ -d /sys/fs/cgroup/system.slice/firstboot.service ]; do sleep 1; done
done
for led in /sys/class/leds/input*::scrolllock; do echo "$(cat $led/brightness) $(cat $led/trigger)"; done >/var/lib/firstboot-test/lights
grep ledtrig /proc/modules >>/var/lib/firstboot-test/lights
sync
echo "test: lights looked at"
"#;

#[test]
fn no_copy_of_the_seed_stays_and_torn_files_come_back() {
    if !e2e::can_boot(own_arch()) {
        return;
    }
    let plane = e2e::shared_plane();
    let token = plane.create_token("1h").unwrap();
    let seed = Seed::for_guest(plane, &token).unwrap().text();
    let mut device = e2e::prepared_device().unwrap();
    let files = device.while_paused(|disk| {
        let boot = disk.boot()?;
        boot.write("seed.toml", seed.as_bytes())?;
        for (name, bytes) in ["seed.toml~", ".seed.toml.swp", "._seed.toml"].iter().zip(encodings(&seed)) {
            boot.write(name, &bytes)?;
        }
        boot.list()
    });
    let files = files.unwrap();
    device.wait_console(&format!("node {NAME} is Ready, seed destroyed"), SOON).unwrap();
    let node = plane.wait_node_ready(NAME, SOON, || device.check()).unwrap();
    device.power_off(OFF).unwrap();

    let left = device.disk().boot().unwrap().list().unwrap();
    let mut gone: Vec<&String> = files.iter().filter(|name| !left.contains(name)).collect();
    gone.sort();
    assert_eq!(gone, ["._seed.toml", ".seed.toml.swp", "seed.toml", "seed.toml~"]);
    assert_eq!(search::find(device.disk().path(), secret_of(&token)).unwrap(), [0; 0]);

    damaged_files(&mut device, &boot_id(&node));
    read_only_from_the_start(&mut device);
}

/// Files of which a worn card changes one byte, and that are whole again after the next boot.
const FLIPPED: [&str; 9] = [
    "/var/lib/firstboot/journal",
    "/var/lib/firstboot/status.json",
    "/var/lib/firstboot/firewall.json",
    "/var/lib/firstboot/node-files.json",
    "/var/lib/firstboot/verified-time",
    "/var/lib/firstboot/receipt.json",
    "/etc/firstboot/harden.json",
    "/etc/kubernetes/pki/ca.crt",
    // By another name it would be no node of the cluster.
    "/etc/hostname",
];

/// Once the node is Ready, the data partition becomes read-only; the node goes on, and so do the guard and the commands.
/// Not by an error of ext4: Linux 6.12 refuses every read after one, so that nothing at all goes on (`EXT4_FLAGS_SHUTDOWN`).
const READ_ONLY: &str = r#"
until (exec 3<>/dev/tcp/127.0.0.1/10248 && printf 'GET /healthz HTTP/1.0\r\n\r\n' >&3 && grep -q ok <&3); do sleep 1; done
until firstboot status | grep -q "^state: joined"; do sleep 1; done
sleep 5
echo u >/proc/sysrq-trigger
while touch /var/lib/firstboot-x 2>/dev/null; do sleep 1; done
echo "$T: the disk is read-only"
"#;

/// A disk that is write-protected: once the network is up, or after a minute without it.
const FROM_START: &str = r#"
T=ro
until firstboot status >/dev/null; do sleep 1; done
for i in $(seq 60); do ip route show default | grep -q default && break; sleep 1; done
"#;

/// And what works then.
const COMMANDS: &str = r#"
systemctl restart firstboot-guard.service && echo "$T: guard restarts"
nft list chain inet firstboot input >/dev/null && echo "$T: packet filter loaded"
ip route show default | grep -q default && echo "$T: network up"
firstboot status | grep -q "^state: joined" && echo "$T: status works"
firstboot report - | gzip -t && echo "$T: report works"
firstboot --reset --dry-run | grep -q "begin a new journal" && echo "$T: reset can be planned"
echo "$T: commands tried"
"#;
const WORKS: [&str; 6] =
    ["guard restarts", "packet filter loaded", "network up", "status works", "report works", "reset can be planned"];

/// Waits until all commands were tried, and all of them worked.
fn works(device: &Device, test: &str) {
    device.wait_console(&format!("{test}: commands tried"), SOON).unwrap();
    let console = device.console().text().unwrap();
    let missing: Vec<&str> = WORKS.into_iter().filter(|what| !console.contains(&format!("{test}: {what}"))).collect();
    assert_eq!(missing, [""; 0], "{}", device.report());
}

/// A power cut leaves files empty, full of zeros or not at all; a worn card changes one byte of many others. The node is
/// Ready again, and stays so when the data partition becomes read-only while it works.
fn damaged_files(device: &mut Device, boot: &str) {
    let plane = e2e::shared_plane();
    let disk = device.disk();
    let read = |device: &Device, path: &str| device.disk().read_file(path).unwrap().unwrap();
    let torn = TORN.map(|path| read(device, path));
    let served = SERVING.map(|path| read(device, path));
    let flipped = FLIPPED.map(|path| read(device, path));
    disk.write_file(CONFIG, b"", 0o600).unwrap();
    disk.write_file(FLAGS, &vec![0; torn[1].len()], 0o600).unwrap();
    disk.remove_file(KUBELET_CONF).unwrap();
    disk.write_file(SERVING[0], b"", 0o600).unwrap();
    for (path, bytes) in FLIPPED.iter().zip(&flipped) {
        disk.flip(path, (bytes.len() / 2).min(4000)).unwrap();
    }
    // A damaged byte of the certificate that the node shows to the API server.
    let pair = "/var/lib/kubelet/pki/kubelet-client-current.pem";
    let target =
        disk.list("/var/lib/kubelet/pki").unwrap().into_iter().find(|name| name.starts_with("kubelet-client-2"));
    disk.flip(&format!("/var/lib/kubelet/pki/{}", target.unwrap()), 300).unwrap();
    add_script(disk, &format!("{LIGHTS}T=worn\n{READ_ONLY}{COMMANDS}")).unwrap();
    device.power_on().unwrap();
    let repaired = |path: &str, why: &str| {
        device.wait_console(&format!("firstboot: repaired: read {path}: {why}"), SOON).unwrap();
    };
    TORN.iter().for_each(|path| repaired(path, "it was missing or damaged, its copy stands in"));
    FLIPPED.iter().for_each(|path| repaired(path, ""));
    repaired(pair, "it was damaged, its copy stands in");
    let line =
        "firstboot: removed /var/lib/kubelet/pki/kubelet.crt and kubelet.key, which were torn: kubelet makes them anew";
    device.wait_console(line, SOON).unwrap();
    ready_again(plane, device, NAME, boot).unwrap();
    device.wait_console("worn: the disk is read-only", SOON).unwrap();
    works(device, "worn");
    // kubelet goes on telling the cluster that the node works.
    let renewed = || {
        let lease = plane.kubectl(&["get", "lease", NAME, "-n", "kube-node-lease", "-o", "jsonpath={.spec.renewTime}"]);
        lease.unwrap()
    };
    for _ in 0..2 {
        let before = renewed();
        qemu::wait::every(Duration::from_secs(1), "another Lease", SOON, || {
            device.check()?;
            Ok((renewed() != before).then_some(()))
        })
        .unwrap();
    }
    assert!(is_ready(&plane.node(NAME).unwrap().unwrap()));
    let events =
        plane.kubectl(&["get", "events", "-A", "--field-selector", "reason=StateRepaired", "-o", "name"]).unwrap();
    assert!(!events.trim().is_empty(), "no Event");
    device.power_off(OFF).unwrap();

    let lights = found(device, "lights").unwrap();
    // The emulated PC has a keyboard; the other target names no lights.
    let on = lights.lines().filter(|line| line.starts_with("1 ") && line.contains("[none]")).count();
    assert!(own_arch() != Arch::Amd64 || on > 0, "{lights}");
    assert!(own_arch() != Arch::Amd64 || lights.contains("ledtrig_pattern"), "{lights}");
    for (path, before) in TORN.iter().zip(&torn).chain(FLIPPED.iter().zip(&flipped)) {
        // These go on being written.
        let grows = ["journal", "status.json", "node-files.json", "verified-time", "firewall.json"];
        let whole = read(device, path) == *before || grows.iter().any(|name| path.ends_with(name));
        assert!(whole, "{path} is not as it was");
    }
    for (path, before) in SERVING.iter().zip(&served) {
        let now = read(device, path);
        assert!(now.starts_with(b"-----BEGIN ") && now != *before, "{path}");
    }
    let text = device.disk().status().unwrap();
    assert!(text.contains("\nwarning: Damage: ") && status::value(&text, "state") == Some("joined"), "{text}");
}

/// A disk that is write-protected when the device starts.
fn read_only_from_the_start(device: &mut Device) {
    let disk = device.disk();
    disk.check_data().unwrap();
    remove_script(disk).unwrap();
    add_script(disk, &format!("{FROM_START}{COMMANDS}")).unwrap();
    let before = disk.tree().unwrap();
    device.set_write_protected(true);
    device.power_on().unwrap();
    device.wait_console("initrd: data is read-only: the disk is write-protected", SOON).unwrap();
    works(device, "ro");
    device.power_off(OFF).unwrap();
    device.set_write_protected(false);
    assert_eq!(difference(&before, &device.disk().tree().unwrap()), [""; 0]);
}
