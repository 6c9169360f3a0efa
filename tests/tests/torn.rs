// SPDX-License-Identifier: Apache-2.0
//! What editors leave beside a seed, and what a power cut or a worn card may leave of a sealed device's files; what its lights
//! show then. Boots 1 guest, twice.

#![allow(clippy::unwrap_used)]

use e2e::{OFF, SOON, add_script, boot_id, device_options, found, own_arch, ready_again};
use firstboot::boot_partition::encodings;
use firstboot::kube::files::KUBELET_CONF;
use imagebuild::arch::Arch;
use qemu::device::Device;
use qemu::seed::{Seed, secret_of};
use qemu::{search, status};

const NAME: &str = "edge-torn";
const CONFIG: &str = "/var/lib/kubelet/config.yaml";
const FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
/// What kubelet signs itself, and does not flush.
const SERVING: [&str; 2] = ["/var/lib/kubelet/pki/kubelet.crt", "/var/lib/kubelet/pki/kubelet.key"];

/// Lights of keyboards, once firstboot has ended: joined is steady. And the modules by which they would blink.
const LIGHTS: &str = r#"
mkdir -p /var/lib/firstboot-test
until [ "$(systemctl show --value --property=ExecMainExitTimestampMonotonic firstboot.service)" -gt 0 ]; do sleep 1; done
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
    let mut device = Device::new(&e2e::image(own_arch()).unwrap(), &device_options("torn")).unwrap();
    let boot = device.disk().boot().unwrap();
    boot.write("seed.toml", seed.as_bytes()).unwrap();
    for (name, bytes) in ["seed.toml~", ".seed.toml.swp", "._seed.toml"].iter().zip(encodings(&seed)) {
        boot.write(name, &bytes).unwrap();
    }
    let files = boot.list().unwrap();
    device.power_on().unwrap();
    device.wait_console(&format!("node {NAME} is Ready, seed destroyed"), SOON).unwrap();
    let node = plane.wait_node_ready(NAME, SOON, || device.check()).unwrap();
    device.power_off(OFF).unwrap();

    let left = device.disk().boot().unwrap().list().unwrap();
    let mut gone: Vec<&String> = files.iter().filter(|name| !left.contains(name)).collect();
    gone.sort();
    assert_eq!(gone, ["._seed.toml", ".seed.toml.swp", "seed.toml", "seed.toml~"]);
    assert_eq!(search::find(device.disk().path(), secret_of(&token)).unwrap(), [0; 0]);

    let disk = device.disk();
    let whole = [CONFIG, FLAGS, KUBELET_CONF].map(|path| disk.read_file(path).unwrap().unwrap());
    disk.write_file(CONFIG, b"", 0o600).unwrap();
    disk.write_file(FLAGS, &vec![0; whole[1].len()], 0o600).unwrap();
    disk.remove_file(KUBELET_CONF).unwrap();
    let served = SERVING.map(|path| disk.read_file(path).unwrap().unwrap());
    disk.write_file(SERVING[0], b"", 0o600).unwrap();
    add_script(disk, LIGHTS).unwrap();
    device.power_on().unwrap();
    for path in [CONFIG, FLAGS, KUBELET_CONF] {
        let line = format!("firstboot: repaired: read {path}: it was missing or damaged, its copy stands in");
        device.wait_console(&line, SOON).unwrap();
    }
    let line =
        "firstboot: removed /var/lib/kubelet/pki/kubelet.crt and kubelet.key, which were torn: kubelet makes them anew";
    device.wait_console(line, SOON).unwrap();
    ready_again(plane, &device, NAME, &boot_id(&node)).unwrap();
    device.wait_console("test: lights looked at", SOON).unwrap();
    device.power_off(OFF).unwrap();
    let lights = found(&device, "lights").unwrap();
    // The emulated PC has a keyboard; the other target names no lights.
    let on = lights.lines().filter(|line| line.starts_with("1 ") && line.contains("[none]")).count();
    assert!(own_arch() != Arch::Amd64 || on > 0, "{lights}");
    assert!(own_arch() != Arch::Amd64 || lights.contains("ledtrig_pattern"), "{lights}");
    assert_eq!(whole, [CONFIG, FLAGS, KUBELET_CONF].map(|path| device.disk().read_file(path).unwrap().unwrap()));
    for (path, before) in SERVING.iter().zip(&served) {
        let now = device.disk().read_file(path).unwrap().unwrap();
        assert!(now.starts_with(b"-----BEGIN ") && now != *before, "{path}");
    }
    assert_eq!(status::value(&device.disk().status().unwrap(), "state"), Some("joined"));
}
