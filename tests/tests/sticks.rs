// SPDX-License-Identifier: Apache-2.0
//! A joined device from the position of a person at its USB port, and of a pod that writes to a disk which is built in:
//! nothing of either is obeyed but a stick with the owner's signature. That one resets the device, which restarts, takes the
//! stick's seed, and has no log of its first life. Boots 1 guest, three times.

#![allow(clippy::unwrap_used)]

use e2e::{RESET, SOON, add_script, boot_id, device_options, own_arch, ready_again, status_value};
use imagebuild::cmd;
use qemu::control_plane::ControlPlane;
use qemu::device::{Device, Options};
use qemu::seed::Seed;
use std::path::{Path, PathBuf};
use std::process::Command;

const FIRST: &str = "edge-sticks";
const SECOND: &str = "edge-again";
/// Smaller than usual: a reset writes all of it.
const DISK: u64 = 4 << 30;
const ALONE: &str = "version = 1\nreset = true\n";

/// Logs a mark in the first boot, and counts in every later one the log files that hold it.
const SCRIPT: &str = r#"
out=/var/lib/firstboot-test
if [ ! -e $out/mark ]; then
    mkdir -p $out
    tr -d - </proc/sys/kernel/random/uuid >$out/mark
    echo "test: mark $(cat $out/mark)"
    sync
else
    journalctl --flush
    echo "test: $(grep -rlaF "mark $(cat $out/mark)" /var/log/journal /run/log/journal | wc -l) log files of the first boot"
fi
"#;

#[test]
#[ignore = "boots a guest three times"]
fn s03_s04_only_the_owners_stick_is_obeyed_and_nothing_of_the_first_life_is_left() {
    if !e2e::can_boot(own_arch()) || !e2e::can_log_in() {
        return;
    }
    let plane = ControlPlane::start(&Default::default()).unwrap();
    let keys = tempfile::tempdir().unwrap();
    let (owner, stranger) = (key(keys.path(), "owner"), key(keys.path(), "stranger"));
    // A pod with a raw block volume has written this.
    let second_disk = Some(ALONE.to_owned());
    let options = Options { second_disk, usb_ports: true, disk_size: DISK, ..device_options("sticks") };
    let mut device = Device::new(&e2e::image(own_arch()).unwrap(), &options).unwrap();
    add_script(device.disk(), SCRIPT).unwrap();
    let public = std::fs::read_to_string(owner.with_extension("pub")).unwrap();
    let more = format!("\n[owner]\nkeys = [\"{}\"]\n", public.trim());
    let token = plane.create_token("2h").unwrap();
    let seed = Seed { more, ..Seed::for_guest(&plane, &token).unwrap() };
    device.disk().put_seed(&seed.text()).unwrap();
    device.power_on().unwrap();
    device.wait_console(&format!("node {FIRST} is Ready, seed destroyed"), SOON).unwrap();
    let node = plane.wait_node_ready(FIRST, SOON, || device.check()).unwrap();

    // The disk is there at a boot of the joined device, too; and the count finds a mark where there is one.
    device.wait_console("test: mark ", SOON).unwrap();
    device.power_off(e2e::OFF).unwrap();
    device.power_on().unwrap();
    ready_again(&plane, &device, FIRST, &boot_id(&node)).unwrap();
    let line = device.wait_console("log files of the first boot", SOON).unwrap();
    assert!(!line.contains("test: 0 "), "{line}");

    let other_token = plane.create_token("2h").unwrap();
    let more = format!("\n[node]\nname = \"{SECOND}\"\n");
    let next = Seed { more, ..Seed::for_guest(&plane, &other_token).unwrap() }.text();
    let next = next.replacen("version = 1\n", ALONE, 1);
    device.plug_in("unsigned", &[("seed.toml", &next)]).unwrap();
    refused(&device, "find seed.toml.sig on the stick");
    device.pull_out("unsigned").unwrap();
    device.plug_in("strangers", &[("seed.toml", &next), ("seed.toml.sig", &signature(&stranger, &next))]).unwrap();
    refused(&device, "it is by a key that is not one of this device's owner");
    device.pull_out("strangers").unwrap();
    let console = device.console().text().unwrap();
    assert!(!console.contains("asks for a reset"), "{console}");
    assert!(plane.node(FIRST).unwrap().is_some() && plane.node(SECOND).unwrap().is_none());

    device.plug_in("owners", &[("seed.toml", &next), ("seed.toml.sig", &signature(&owner, &next))]).unwrap();
    device.wait_console("seed.toml asks for a reset", SOON).unwrap();
    device.wait_console("this device restarts before it takes a seed", RESET).unwrap();
    let console = device.console().text().unwrap();
    assert!(!console.contains(&format!("node {SECOND}")), "it took the seed before it restarted:\n{console}");
    device.wait_console(&format!("node {SECOND} is Ready, seed left on its stick"), SOON + SOON).unwrap();
    let again = plane.wait_node_ready(SECOND, SOON, || device.check()).unwrap();
    assert_ne!(boot_id(&again), boot_id(&node));
    device.wait_console("test: 0 log files of the first boot", SOON).unwrap();
    // The stick is still there, asks for a reset, and is obeyed once.
    let status = device.wait_status("state: joined", SOON).unwrap();
    assert_eq!(status_value(&status, "code"), "");
    assert_eq!(device.console().count("seed.toml asks for a reset").unwrap(), 1);
}

/// The joined device says why a stick is not obeyed.
fn refused(device: &Device, why: &str) {
    let status = device.wait_status(why, SOON).unwrap();
    assert_eq!(status_value(&status, "state"), "joined");
    assert_eq!(status_value(&status, "code"), "FB115");
}

/// A new key of OpenSSH.
fn key(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    cmd::run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&path)).unwrap();
    path
}

/// What `imagebuild seed sign` writes beside a seed.
fn signature(key: &Path, seed: &str) -> String {
    let file = key.with_extension("toml");
    std::fs::write(&file, seed).unwrap();
    imagebuild::seed::sign(key, &file).unwrap();
    std::fs::read_to_string(key.with_extension("toml.sig")).unwrap()
}
