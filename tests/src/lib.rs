// SPDX-License-Identifier: Apache-2.0
//! What end-to-end tests share. The tests themselves: `tests/`, one file per scenario, each guest test naming what
//! it boots.
//!
//! All of them together may boot at most 19 guests: a boot costs a minute or more under emulation, where it is not of
//! firmware alone. A test for which the
//! boot itself does not matter goes on from a saved one ([`waiting_device`], [`prepared_device`]).

#![allow(clippy::disallowed_methods)] // runs on a build machine, not on a device

pub mod audit;
pub mod base;
pub mod cis;
pub mod consumers;
pub mod fuzzing;
pub mod native;
pub mod ports;
pub mod schedule;
#[path = "../skip.rs"]
pub mod skip;
pub mod torture;
pub mod wifi;

use anyhow::{Context, Result};
use imagebuild::arch::Arch;
use imagebuild::sign::Signer;
use qemu::control_plane::{self, ControlPlane, is_ready};
use qemu::device::{Device, Options};
use qemu::disk::tree::{Tree, difference};
use qemu::disk::{DiskImage, ROOT};
use qemu::link::namespace::Namespace;
use qemu::saved::Moment;
use serde_json::Value;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

/// Deadline for a device to say something definite: it ends what hangs, and is long enough for emulation on a
/// machine that does other work as well.
pub const SOON: Duration = Duration::from_secs(600);

/// kubeadm's binding that approves the certificates of bootstrap tokens automatically.
pub const APPROVER: &str = "kubeadm:node-autoapprove-bootstrap";

/// What the console shows when a device has booted and has no seed.
pub const WAITS: &str = "firstboot: waiting for a seed (seed, FB101)";

/// Deadline for a device to switch itself off.
pub const OFF: Duration = Duration::from_secs(120);

/// Whether what the guest tests need is installed. Where it is not, the test is skipped with the reason, except in
/// CI (environment variable `CI`), where it fails.
///
/// # Panics
/// In CI, when something is missing.
pub fn can_boot(arch: Arch) -> bool {
    let missing = missing(&["setpriv", "cp"]).or_else(|| imagebuild::setup::qemu(arch).err().map(|e| format!("{e:#}")));
    let firmware = qemu::firmware::find(arch).err().map(|e| e.to_string());
    goes(missing.or(firmware))
}

/// Whether a network of our own can be made: namespaces, tap interfaces and the programs that run in them. Skips and
/// fails like [`can_boot`].
///
/// # Panics
/// In CI, when something is missing.
pub fn can_network() -> bool {
    let missing = missing(&["unshare", "nsenter", "setpriv", "ip", "nft", "dnsmasq", "tinyproxy", "timeout", "bash"]);
    goes(missing.or_else(|| Namespace::probe().err().map(|e| format!("no network of our own: {e:#}"))))
}

/// Whether systemd-networkd can run in namespaces of its own. Skips and fails like [`can_boot`].
///
/// # Panics
/// In CI, when something is missing.
pub fn can_run_networkd() -> bool {
    let program = "/usr/lib/systemd/systemd-networkd";
    let missing = missing(&["unshare"]).or_else(|| (!Path::new(program).is_file()).then(|| format!("no {program}")));
    goes(missing.or_else(|| (!rustix::process::geteuid().is_root()).then(|| "not root".to_owned())))
}

/// Whether rules can be made as kube-proxy's mode iptables makes them. Skips and fails like [`can_boot`].
///
/// # Panics
/// In CI, when it is missing.
pub fn can_iptables() -> bool {
    goes(missing(&["iptables-nft"]))
}

/// Whether a login to a device is possible. Skips and fails like [`can_boot`].
///
/// # Panics
/// In CI, when something is missing.
pub fn can_log_in() -> bool {
    goes(missing(&["ssh", "ssh-keygen", "python3"]))
}

fn missing(tools: &[&str]) -> Option<String> {
    let here = |tool: &&&str| imagebuild::cmd::found(tool) || Path::new("/usr/sbin").join(tool).is_file();
    tools.iter().find(|tool| !here(tool)).map(|tool| format!("{tool} is not installed"))
}

fn goes(reason: Option<String>) -> bool {
    let Some(reason) = reason else { return true };
    skip::skip_unless_ci(&reason);
    false
}

/// The image of a generic target, built when needed. Its bundle is signed, by this machine's own key.
pub fn image(arch: Arch) -> Result<DiskImage> {
    let image = imagebuild::build::ensure_signed(&format!("generic-{arch}"), Signer::open(None)?)?;
    DiskImage::open(&image.raw())
}

/// The build machine's own architecture: its guests are the fastest.
///
/// # Panics
/// On a machine that is neither arm64 nor amd64.
#[allow(clippy::expect_used)] // a test's helper
pub fn own_arch() -> Arch {
    Arch::host().expect("run on a supported machine")
}

/// Deadline for a reset: it overwrites all that is free on the disk.
pub const RESET: Duration = Duration::from_secs(1200);

/// The runtime's state as every boot puts it in place where there is none, that of a flashed device included.
pub const PREPARED: [&str; 4] = [
    "io.containerd.content.v1.content",
    "io.containerd.metadata.v1.bolt",
    "io.containerd.snapshotter.v1.overlayfs",
    "layers.fstab",
];

/// A public key without a private key, for seeds whose SSH is not used.
pub const UNUSED_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA someone";

/// An ordinary device of the build machine's own architecture whose node is to be called `edge-SERIAL`. It has one
/// processor: other guests run beside it, and with a second one the emulator takes a seventh more time for a boot.
pub fn device_options(serial: &str) -> Options {
    let mut options = Options::new(own_arch());
    options.cpus = 1;
    options.serial = Some(serial.to_owned());
    options
}

/// A device of the build machine's own architecture that is on and waits for a seed; its node will be [`WAITING_NODE`].
/// Its boot is the same for all tests, and done once.
///
/// # Errors
/// When that boot fails, or cannot be gone on with.
pub fn waiting_device() -> Result<Device> {
    Device::saved(Moment::Waiting, &image(own_arch())?, &device_options("waiting"))
}

/// The same device, on and with everything installed; it tries in vain to reach an API server, and joins with the next
/// seed ([`Device::change_seed`]).
///
/// # Errors
/// As [`waiting_device`].
pub fn prepared_device() -> Result<Device> {
    Device::saved(Moment::Prepared, &image(own_arch())?, &device_options("waiting"))
}

/// Name of the node that [`waiting_device`] and [`prepared_device`] become.
pub const WAITING_NODE: &str = "edge-waiting";

/// The control plane that all tests of one program share, without kube-proxy and CoreDNS: their pods would start in every
/// boot of every node. Tests that look at pods have a control plane of their own. Its servers end with the program.
///
/// # Panics
/// When it does not start.
#[allow(clippy::expect_used)] // a test's helper
pub fn shared_plane() -> &'static ControlPlane {
    static PLANE: OnceLock<ControlPlane> = OnceLock::new();
    PLANE.get_or_init(|| ControlPlane::start(&control_plane::Options::without_addons()).expect("start a control plane"))
}

/// The Node once it is Ready as reported from another boot than `before`.
///
/// # Errors
/// When that takes too long, or the device ended; with the device's output.
pub fn ready_again(plane: &ControlPlane, device: &Device, name: &str, before: &str) -> Result<Value> {
    let what = format!("node {name} to be Ready from another boot");
    let ready = qemu::wait::every(Duration::from_secs(1), &what, SOON, || {
        device.check()?;
        Ok(plane.node(name)?.filter(|node| is_ready(node) && boot_id(node) != before))
    });
    ready.map_err(|e| e.context(device.report()))
}

/// The boot from which kubelet reported `node`.
pub fn boot_id(node: &Value) -> String {
    node["status"]["nodeInfo"]["bootID"].as_str().unwrap_or_default().to_owned()
}

/// Lets a switched-off device run `script` (bash, as root) at its next boot, beside everything else that it starts.
/// What the script prints goes to the console. The script is gone from the disk with [`remove_script`]. A device that was
/// never on gets its data partition now.
///
/// # Errors
/// When the disk cannot be written.
pub fn add_script(disk: &DiskImage, script: &str) -> Result<()> {
    disk.prepare_data()?;
    disk.write_file(SCRIPT, self::script(script).as_bytes(), 0o755)?;
    disk.write_file(SCRIPT_UNIT, SCRIPT_UNIT_TEXT.as_bytes(), 0o644)?;
    disk.link_file(SCRIPT_WANTED, SCRIPT_UNIT)
}

/// The program of a script.
fn script(lines: &str) -> String {
    format!("#!/bin/bash\n{lines}")
}

/// Takes away what [`add_script`] added.
///
/// # Errors
/// When the disk cannot be written.
pub fn remove_script(disk: &DiskImage) -> Result<()> {
    [SCRIPT_WANTED, SCRIPT_UNIT, SCRIPT].into_iter().try_for_each(|path| disk.remove_file(path))
}

/// What kubelet of the node `name` made of its configuration (`/configz`), asked by way of the API server.
///
/// # Errors
/// When the API server does not reach it, or its answer is no JSON.
pub fn configz(plane: &ControlPlane, name: &str) -> Result<Value> {
    let said = plane.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{name}/proxy/configz")])?;
    serde_json::from_str(&said).context("read /configz")
}

/// A Python program that ends well where the API server at a URL (`https://HOST:PORT`) says within so many seconds that it
/// is ready, whatever its certificate: URL SECONDS.
pub const READY: &str = r#"
import ssl, sys, urllib.request
url, seconds = sys.argv[1:]
urllib.request.urlopen(f"{url}/readyz", timeout=int(seconds), context=ssl._create_unverified_context())
"#;

/// Where scripts leave what they found on a device.
pub const FOUND: &str = "/var/lib/firstboot-test";

/// What a script left in [`FOUND`] under `name`, read from the disk.
///
/// # Errors
/// When it is not there.
pub fn found(device: &Device, name: &str) -> Result<String> {
    let path = format!("{FOUND}/{name}");
    let bytes = device.disk().read_file(&path)?.with_context(|| format!("find {path} on the device"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where a script is that [`add_script`] adds.
const SCRIPT: &str = "/etc/test-script";
const SCRIPT_UNIT: &str = "/etc/systemd/system/test-script.service";
const SCRIPT_WANTED: &str = "/etc/systemd/system/multi-user.target.wants/test-script.service";
const SCRIPT_UNIT_TEXT: &str = "\
[Unit]
Description=What a test does on this device

[Service]
Type=exec
ExecStart=/etc/test-script
StandardOutput=journal+console
StandardError=journal+console
";

/// The value that the status file gives for `key`.
pub fn status_value(status: &str, key: &str) -> String {
    qemu::status::value(status, key).unwrap_or_default().to_owned()
}

/// What systemd keeps at any boot, firstboot's own directory (its status and journal), and containerd's, which the guard
/// fills with the bundle's state.
const KEPT_AT_ANY_BOOT: [&str; 5] =
    ["/etc/machine-id", "/var/lib/containerd", "/var/lib/firstboot", "/var/lib/systemd", "/var/log/journal"];
/// What systemd makes once at the first boot of any image (tmpfiles.d, ldconfig.service), with or without firstboot.
const MADE_AT_FIRST_BOOT: [&str; 11] = [
    "~/etc/credstore",
    "~/etc/credstore.encrypted",
    "+/etc/default/locale",
    "+/etc/ld.so.cache",
    "+/etc/vconsole.conf",
    "+/var/roothome/.ssh",
    "+/var/cache/ldconfig/aux-cache",
    "+/var/cache/private",
    "+/var/lib/private",
    "+/var/log/README",
    "+/var/log/private",
];

/// Whether a disk has the root file system of its image, byte for byte: nothing writes to it.
///
/// # Errors
/// When one of them cannot be read.
pub fn root_is_as_flashed(image: &DiskImage, disk: &DiskImage) -> Result<bool> {
    let length = image.partition(ROOT)?.length;
    Ok(disk.digest(ROOT, length)? == image.digest(ROOT, length)?)
}

/// What differs between the files of two disks, but for what every boot leaves with or without firstboot, and firstboot's
/// own directory.
pub fn changes(before: &Tree, after: &Tree) -> Vec<String> {
    let ours = |change: &String| {
        !KEPT_AT_ANY_BOOT.iter().any(|path| change[1..].starts_with(path))
            && !MADE_AT_FIRST_BOOT.contains(&change.as_str())
    };
    difference(before, after).into_iter().filter(ours).collect()
}
