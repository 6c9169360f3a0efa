// SPDX-License-Identifier: Apache-2.0
//! A device whose only way to the cluster is Wi-Fi ([`e2e::wifi`]). Boots a guest three times, by an image of its own.

#![allow(clippy::unwrap_used)]

use e2e::wifi::{ACCESS_POINT, PACKAGES, PASSWORD, table};
use e2e::{OFF, SOON, add_script, boot_id, ready_again, status_value};
use imagebuild::target::Target;
use qemu::device::Device;
use qemu::disk::DiskImage;
use qemu::search;
use qemu::seed::Seed;

const NAME: &str = "edge-wifi";

/// The image of the machine's own architecture, with what Wi-Fi and the access point need.
fn image(dir: &std::path::Path) -> DiskImage {
    let plain = Target::directory().unwrap().join(format!("generic-{}.toml", e2e::own_arch()));
    let more: String = PACKAGES.iter().map(|package| format!("\"{package}\", ")).collect();
    let text = std::fs::read_to_string(plain).unwrap();
    let begin = "\npackages = [\n";
    assert_eq!(text.matches(begin).count(), 1);
    let path = dir.join("wifi.toml");
    std::fs::write(&path, text.replace(begin, &format!("{begin}  {more}\n"))).unwrap();
    DiskImage::open(&qemu::image_of(path.to_str().unwrap()).unwrap()).unwrap()
}

/// With a password that is wrong the device says so; with the right one it joins, and is there again after a restart.
#[test]
#[ignore = "boots a guest three times"]
fn a_device_joins_over_wifi() {
    if !e2e::can_boot(e2e::own_arch()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let plane = e2e::shared_plane();
    let token = plane.create_token("2h").unwrap();
    let seed = |password: &str| Seed { more: table(password), ..Seed::for_guest(plane, &token).unwrap() }.text();
    let mut device = Device::new(&image(dir.path()), &e2e::device_options("wifi")).unwrap();
    add_script(device.disk(), ACCESS_POINT).unwrap();
    device.disk().put_seed(&seed("not the password")).unwrap();
    device.power_on().unwrap();
    let status = device.wait_status("code: FB403", SOON).unwrap();
    let error = format!(
        "find a route to {}: wlan0 is not connected: wrong ssid or password, or out of reach",
        plane.endpoint_for_guest()
    );
    assert_eq!(status_value(&status, "error"), error);
    device.power_off(OFF).unwrap();

    device.disk().put_seed(&seed(PASSWORD)).unwrap();
    device.power_on().unwrap();
    device.wait_console(&format!("node {NAME} is Ready, seed destroyed"), SOON).unwrap();
    let node = plane.wait_node_ready(NAME, SOON, || device.check()).unwrap();
    device.power_off(OFF).unwrap();
    assert_eq!(search::find(device.disk().path(), qemu::seed::secret_of(&token)).unwrap(), [0; 0]);

    device.power_on().unwrap();
    ready_again(plane, &device, NAME, &boot_id(&node)).unwrap();
    device.power_off(OFF).unwrap();
}
