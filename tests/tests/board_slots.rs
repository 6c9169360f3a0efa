// SPDX-License-Identifier: Apache-2.0
//! A newer version in slot b of a board whose firmware counts nothing: tried by a restart into its partition, confirmed
//! when it is good, and left when it is not. Boots 1 guest, twice; 3 more in `make test-long`.

#![allow(clippy::unwrap_used)]

use e2e::{SOON, WAITS, status_value};
use firstboot::boot_slot::autoboot::State;
use firstboot::boot_slot::entry::{Slot, TRIES};
use imagebuild::arch::Arch;
use imagebuild::target::Target;
use qemu::control_plane::{self, ControlPlane};
use qemu::device::{Device, Options};
use qemu::disk::DiskImage;
use qemu::disk::slot::Fault;
use qemu::progress::Progress;
use qemu::{raspberry_pi, scenario, wait};
use std::time::Duration;

const TARGET: &str = "raspberrypi";
const SERIAL: &str = "00000000abcd1234";
/// Numbers of the partitions that the slots are started from.
const SLOT_A: u32 = 2;
const SLOT_B: u32 = 3;
const FAILED: &str = "warning: Slot: slot b did not start in its tries, so the other one runs (FB326)";
const TRIED: &str = "firstboot: slot b is tried, 1 of 3: restarting";

fn options() -> Options {
    Options { serial: Some(SERIAL.to_owned()), ..Options::for_target(&Target::load(TARGET).unwrap()) }
}

fn image() -> DiskImage {
    DiskImage::open(&qemu::image_of(TARGET).unwrap()).unwrap()
}

/// A device that was never on, with a version in slot b that is to be tried.
fn device(fault: Fault, words: &str) -> Device {
    let device = Device::new(&image(), &options()).unwrap();
    device.disk().prepare_data().unwrap();
    device.disk().fill_slot_b(fault, words).unwrap();
    device
}

/// Waits until firstboot has begun to wait for a seed `times` times.
fn waits(device: &Device, times: usize) {
    let waits = wait::every(Duration::from_secs(1), "the device to wait for a seed", SOON, || {
        device.check()?;
        Ok((device.console().count(WAITS)? >= times).then_some(()))
    });
    waits.map_err(|e| e.context(device.report())).unwrap();
}

/// Slot a runs, and says that slot b failed.
fn has_returned(mut device: Device, left: u32) {
    device.wait_status(FAILED, SOON).unwrap();
    device.power_cut().unwrap();
    assert_eq!(device.disk().autoboot().unwrap(), Some(State::Trial { of: Slot::B, left, ran: left == 0 }));
    assert_eq!(status_value(&device.disk().status().unwrap(), "state"), "waiting for a seed");
}

#[test]
fn a_good_version_is_confirmed_and_stays() {
    if !e2e::can_boot(Arch::Arm64) {
        return;
    }
    let mut device = device(Fault::None, "");
    device.power_on().unwrap();
    device.wait_console(TRIED, SOON).unwrap();
    assert_eq!(device.wait_restarted(SOON).unwrap(), SLOT_B);
    device.wait_console("initrd: root is /dev/mmcblk0p5", SOON).unwrap();
    device.wait_console("firstboot: slot b is confirmed", SOON).unwrap();
    device.power_cut().unwrap();
    assert_eq!(device.disk().autoboot().unwrap(), Some(State::Settled(Slot::B)));
    let next = raspberry_pi::boot(device.disk(), &raspberry_pi::PI_3B, SERIAL, 0).unwrap();
    assert_eq!(next.partition, SLOT_B);
    // Without the file, the first slot is started.
    device.disk().boot().unwrap().remove("autoboot.txt").unwrap();
    let next = raspberry_pi::boot(device.disk(), &raspberry_pi::PI_3B, SERIAL, 0).unwrap();
    assert_eq!(next.partition, SLOT_A);
}

#[test]
#[ignore = "long: three boots"]
fn a_root_that_fails_is_left() {
    if !e2e::can_boot(Arch::Arm64) {
        return;
    }
    let mut device = device(Fault::Root, "");
    device.power_on().unwrap();
    device.wait_console(TRIED, SOON).unwrap();
    assert_eq!(device.wait_restarted(SOON).unwrap(), SLOT_B);
    device.wait_console("is damaged, or of another image: its root hash is not", SOON).unwrap();
    assert_eq!(device.wait_restarted(SOON).unwrap(), SLOT_A);
    waits(&device, 1);
    has_returned(device, TRIES - 1);
}

/// Nothing restarts a device whose kernel does not start, but a person: then slot a runs at once.
#[test]
#[ignore = "long: two boots"]
fn a_kernel_that_does_not_start_is_left_after_a_power_cut() {
    if !e2e::can_boot(Arch::Arm64) {
        return;
    }
    let mut device = device(Fault::Kernel, "");
    device.power_on().unwrap();
    device.wait_console(TRIED, SOON).unwrap();
    assert_eq!(device.wait_restarted(SOON).unwrap(), SLOT_B);
    device.power_cut().unwrap();
    device.power_on().unwrap();
    waits(&device, 1);
    has_returned(device, TRIES - 1);
}

/// A node whose new version has no kubelet that becomes Ready is Ready again with the version that it had.
#[test]
#[ignore = "long: eight boots, three of which wait for kubelet"]
fn a_kubelet_that_is_never_ready_is_left() {
    if !e2e::can_boot(Arch::Arm64) {
        return;
    }
    let plane = ControlPlane::start(&control_plane::Options::without_addons()).unwrap();
    let (device, token) = scenario::seeded(&plane, &image(), &options()).unwrap();
    // Both slots have the same /etc, so the new version is known by its command line.
    device.disk().prepare_data().unwrap();
    let no_kubelet = "[Unit]\nConditionKernelCommandLine=!test.no-kubelet\n";
    let drop_in = "/etc/systemd/system/kubelet.service.d/90-test.conf";
    device.disk().write_file(drop_in, no_kubelet.as_bytes(), 0o644).unwrap();
    let mut joined = scenario::join(&plane, device, token, &mut Progress::default()).unwrap();
    let first = e2e::boot_id(&joined.node);
    let device = &mut joined.device;
    device.power_cut().unwrap();
    device.disk().fill_slot_b(Fault::None, "test.no-kubelet firstboot.trial=150").unwrap();
    device.power_on().unwrap();
    for number in 1..=TRIES {
        device.wait_console(&format!("firstboot: slot b is tried, {number} of 3: restarting"), SOON).unwrap();
        assert_eq!(device.wait_restarted(SOON).unwrap(), SLOT_B);
        let limit = Duration::from_secs(900);
        assert_eq!(device.wait_restarted(limit).unwrap(), SLOT_A);
    }
    let line = "firstboot: confirm slot b: not Ready within 150 s of power-on";
    assert_eq!(device.console().count(line).unwrap(), 3);
    e2e::ready_again(&plane, device, &joined.name, &first).unwrap();
    device.wait_status(FAILED, SOON).unwrap();
    device.power_cut().unwrap();
    let state = State::Trial { of: Slot::B, left: 0, ran: true };
    assert_eq!(device.disk().autoboot().unwrap(), Some(state));
}
