// SPDX-License-Identifier: Apache-2.0
//! A newer version in slot b: confirmed when it is good, and left again after three attempts when it is not. Boots 7
//! guests, most of them several times.

#![allow(clippy::unwrap_used)]

use e2e::{OFF, SOON, WAITS, device_options, own_arch, status_value};
use imagebuild::arch::Arch;
use qemu::control_plane::ControlPlane;
use qemu::device::{Device, Options};
use qemu::disk::slot::Fault;
use qemu::progress::Progress;
use qemu::{scenario, wait};
use std::time::Duration;

/// Four boots under emulation, three of which wait until the time of a trial is over.
const RETURN: Duration = Duration::from_secs(2400);
const FAILED: &str = "warning: Slot: slot b did not start in its tries, so the other one runs (FB326)";

/// A device without a seed that was on once, so that its disk is laid out.
fn booted(arch: Arch) -> Device {
    let image = e2e::image(arch).unwrap();
    let mut device = Device::new(&image, &Options { arch, ..device_options("slots") }).unwrap();
    device.power_on().unwrap();
    device.wait_console(WAITS, SOON).unwrap();
    device.power_off(OFF).unwrap();
    device
}

/// Switches the device on and waits until slot a runs again after three attempts with slot b, each of which shows `line`.
fn returns(device: &mut Device, line: &str) {
    let before = device.console().count(line).unwrap();
    let waits = device.console().count(WAITS).unwrap();
    device.power_on().unwrap();
    let returned = wait::every(Duration::from_secs(2), "slot a to run again", RETURN, || {
        device.check()?;
        Ok((device.console().count(WAITS)? > waits).then_some(()))
    });
    returned.map_err(|e| e.context(device.report())).unwrap();
    assert_eq!(device.console().count(line).unwrap() - before, 3, "{}", device.console().tail(60));
    device.wait_status(FAILED, SOON).unwrap();
    device.power_off(OFF).unwrap();
    assert_eq!(device.disk().boot_entries().unwrap(), ["firstboot-a.conf", "firstboot-b+0-3.conf"]);
    let status = device.disk().status().unwrap();
    assert_eq!(status_value(&status, "state"), "waiting for a seed");
}

#[test]
#[ignore = "long: five boots"]
fn a_good_version_is_confirmed_and_stays() {
    if !e2e::can_boot(own_arch()) {
        return;
    }
    let mut device = booted(own_arch());
    device.disk().fill_slot_b(Fault::None, "").unwrap();
    for boot in 0..2 {
        device.power_on().unwrap();
        let waits = wait::until("the device to wait for a seed", SOON, || {
            device.check()?;
            Ok((device.console().count(WAITS)? == boot + 2).then_some(()))
        });
        waits.map_err(|e| e.context(device.report())).unwrap();
        device.wait_console("firstboot: slot b is confirmed", SOON).unwrap();
        device.power_off(OFF).unwrap();
        assert_eq!(device.disk().boot_entries().unwrap(), ["firstboot-a.conf", "firstboot-b.conf"]);
    }
    assert_eq!(device.console().count("initrd: root is /dev/vda4").unwrap(), 2);
    assert_eq!(device.console().count("firstboot: slot b is confirmed").unwrap(), 1);
}

fn a_broken_kernel_is_left(arch: Arch) {
    if !e2e::can_boot(arch) {
        return;
    }
    let mut device = booted(arch);
    device.disk().fill_slot_b(Fault::Kernel, "").unwrap();
    returns(&mut device, "firstboot: \\EFI\\firstboot\\b.efi");
}

fn a_root_that_fails_is_left(arch: Arch) {
    if !e2e::can_boot(arch) {
        return;
    }
    let mut device = booted(arch);
    device.disk().fill_slot_b(Fault::Root, "").unwrap();
    returns(&mut device, "is damaged, or of another image: its root hash is not");
}

/// A node whose new version has no kubelet that becomes Ready is Ready again with the version that it had.
fn a_node_that_is_not_ready_is_left(arch: Arch) {
    if !e2e::can_boot(arch) {
        return;
    }
    let image = e2e::image(arch).unwrap();
    let plane = ControlPlane::start(&Default::default()).unwrap();
    let options = Options { arch, ..device_options("slots") };
    let (device, token) = scenario::seeded(&plane, &image, &options).unwrap();
    let mut joined = scenario::join(&plane, device, token, &mut Progress::default()).unwrap();
    let first = e2e::boot_id(&joined.node);
    joined.device.power_off(OFF).unwrap();
    // Both slots have the same /etc, so the new version is known by its command line.
    let no_kubelet = "[Unit]\nConditionKernelCommandLine=!test.no-kubelet\n";
    let drop_in = "/etc/systemd/system/kubelet.service.d/90-test.conf";
    joined.device.disk().write_file(drop_in, no_kubelet.as_bytes(), 0o644).unwrap();
    joined.device.disk().fill_slot_b(Fault::None, "test.no-kubelet firstboot.trial=150").unwrap();
    joined.device.power_on().unwrap();
    let line = "firstboot: confirm slot b: not Ready within 150 s of power-on";
    let ended = wait::every(Duration::from_secs(5), "three attempts with slot b", RETURN, || {
        joined.device.check()?;
        Ok((joined.device.console().count(line)? == 3).then_some(()))
    });
    ended.map_err(|e| e.context(joined.device.report())).unwrap();
    e2e::ready_again(&plane, &joined.device, &joined.name, &first).unwrap();
    joined.device.wait_status(FAILED, SOON).unwrap();
    joined.device.power_off(OFF).unwrap();
    assert_eq!(joined.device.disk().boot_entries().unwrap(), ["firstboot-a.conf", "firstboot-b+0-3.conf"]);
    assert_eq!(status_value(&joined.device.disk().status().unwrap(), "state"), "joined");
}

#[test]
#[ignore = "long: five boots"]
fn amd64_leaves_a_broken_kernel() {
    a_broken_kernel_is_left(Arch::Amd64);
}

#[test]
#[ignore = "long: five boots"]
fn arm64_leaves_a_broken_kernel() {
    a_broken_kernel_is_left(Arch::Arm64);
}

#[test]
#[ignore = "long: five boots"]
fn amd64_leaves_a_root_that_fails() {
    a_root_that_fails_is_left(Arch::Amd64);
}

#[test]
#[ignore = "long: five boots"]
fn arm64_leaves_a_root_that_fails() {
    a_root_that_fails_is_left(Arch::Arm64);
}

#[test]
#[ignore = "long: five boots, three of which wait for kubelet"]
fn amd64_leaves_a_kubelet_that_is_never_ready() {
    a_node_that_is_not_ready_is_left(Arch::Amd64);
}

#[test]
#[ignore = "long: five boots, three of which wait for kubelet"]
fn arm64_leaves_a_kubelet_that_is_never_ready() {
    a_node_that_is_not_ready_is_left(Arch::Arm64);
}
