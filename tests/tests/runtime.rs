// SPDX-License-Identifier: Apache-2.0
//! containerd's data base, torn by a power cut: set aside at the next boot, and rebuilt from the bundle's images. Boots 1
//! guest, twice, so only `make test-long` runs it.

#![allow(clippy::unwrap_used)]

use e2e::{OFF, SOON, boot_id, device_options, own_arch, ready_again};
use qemu::control_plane::ControlPlane;
use qemu::device::Device;
use qemu::progress::Progress;
use qemu::scenario;
use qemu::{pods, status, wait};
use std::time::Duration;

const NAME: &str = "edge-runtime";
const DATABASE: &str = "/var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db";
const ASIDE: &str = "/var/lib/containerd.set-aside-1/io.containerd.metadata.v1.bolt/meta.db";

#[test]
#[ignore = "boots a guest twice"]
fn a_torn_data_base_of_containerd_is_rebuilt_and_the_node_is_ready_again() {
    if !e2e::can_boot(own_arch()) {
        return;
    }
    let plane = &ControlPlane::start(&Default::default()).unwrap();
    let image = e2e::image(own_arch()).unwrap();
    let options = qemu::device::Options { guest_ports: vec![pods::PORT], ..device_options("runtime") };
    let (device, token) = scenario::seeded(plane, &image, &options).unwrap();
    let joined = scenario::join(plane, device, token, &mut Progress::default()).unwrap();
    assert_eq!(joined.name, NAME);
    let mut device: Device = joined.device;
    device.power_off(OFF).unwrap();

    // What a journaled ext4 may leave of a file that grew before the power went: its length, and nothing in it.
    let whole = device.disk().read_file(DATABASE).unwrap().unwrap();
    device.disk().write_file(DATABASE, &vec![0; whole.len()], 0o644).unwrap();
    device.power_on().unwrap();
    let line = "firstboot: containerd's state is damaged (it says \"invalid database\"): it is set aside and rebuilt";
    device.wait_console(line, SOON).unwrap();
    device.wait_console("firstboot: containerd's state is rebuilt from the bundle's images", SOON).unwrap();
    ready_again(plane, &device, NAME, &boot_id(&joined.node)).unwrap();
    // Pods run again, by images that were not pulled.
    pods::create(plane).unwrap();
    pods::prove(plane, &device, NAME, SOON).unwrap();
    assert_eq!(pods::pulled(plane).unwrap(), [""; 0]);
    let reported = wait::every(Duration::from_secs(1), "Event RuntimeRebuilt", SOON, || {
        Ok(plane.events("RuntimeRebuilt")?.into_iter().find(|event| event.starts_with(&format!("/{NAME}: "))))
    });
    let reported = reported.map_err(|e| e.context(device.report())).unwrap();
    assert!(reported.contains("rebuilt it from the bundle's images"), "{reported}");
    device.power_off(OFF).unwrap();

    let disk = device.disk();
    assert_eq!(disk.read_file(ASIDE).unwrap().unwrap(), vec![0; whole.len()]);
    assert!(disk.read_file(DATABASE).unwrap().is_some_and(|bytes| bytes.iter().any(|b| *b != 0)));
    let text = disk.status().unwrap();
    assert_eq!(status::value(&text, "state"), Some("joined"));
    assert!(text.contains("warning: RuntimeRebuilt: "), "{text}");
}
