// SPDX-License-Identifier: Apache-2.0
//! Two installations of one device, in two clusters, then the flashed state: `firstboot --reset` on the device, then
//! a seed that says so, with the power cut in the middle, on both targets. Boots 2 guests, four times each, so only `make test-long` runs it.

#![allow(clippy::unwrap_used)]

use e2e::{OFF, PREPARED, RESET, SOON, UNUSED_KEY, add_script, changes, found, remove_script, status_value};
use imagebuild::arch::Arch;
use qemu::control_plane::{ControlPlane, condition, is_ready};
use qemu::device::{Device, Options};
use qemu::disk::tree::Tree;
use qemu::seed::{Seed, secret_of};
use qemu::{pods, search, wait};
use std::time::Duration;

const NAME: &str = "edge-reset";
/// Smaller than usual: a reset writes all of it.
const DISK: u64 = 4 << 30;
const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key.pub";
/// How a private key begins in PEM, and its first Base64 letters: programs hold such headings without a key after them.
const KEYS: [&str; 4] = [
    "-----BEGIN EC PRIVATE KEY-----\nM",
    "-----BEGIN RSA PRIVATE KEY-----\nM",
    "-----BEGIN PRIVATE KEY-----\nM",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk",
];
/// What an account, made and removed again, leaves: the empty file by which tools that change accounts wait for each other
/// (lckpwdf(3)).
const LOCK: &str = "+/etc/.pwd.lock";
const ALONE: &str = "version = 1\nreset = true\n";

/// Waits until a pod called `go` runs, then asks for a reset: without a terminal, and as it should be asked for. A line of
/// the node's key goes past the disk, so that it can be searched for.
const SCRIPT: &str = r#"
out=/var/lib/firstboot-test
mkdir -p $out
until ls /var/log/containers/go_default_* >/dev/null 2>&1; do sleep 1; done
grep -A1 'PRIVATE KEY' /var/lib/kubelet/pki/kubelet-client-current.pem | sed -n 's/^M/test: key M/p' >/dev/console
cat /etc/machine-id >$out/machine-id
cat /etc/ssh/ssh_host_ed25519_key.pub >$out/host-key
/usr/bin/firstboot --reset --dry-run >$out/dry-run 2>&1
/usr/bin/firstboot --reset >$out/refused 2>&1; echo "rc $?" >>$out/refused
systemctl is-active kubelet >>$out/refused
/usr/bin/firstboot --reset --yes >$out/reset 2>&1; echo "rc $?" >>$out/reset
cat /proc/self/mountinfo >$out/mountinfo
ip -oneline link | cut -d: -f2 >$out/links
nft list ruleset >$out/ruleset
cat /proc/[0-9]*/comm >$out/processes
systemctl --failed --no-legend --plain >$out/failed
hostname >$out/hostname
sync
echo "test: looked"
"#;

#[test]
#[ignore = "boots a guest four times"]
fn an_amd64_device_lives_twice_and_nothing_of_either_life_is_left() {
    two_lives(Arch::Amd64);
}

#[test]
#[ignore = "boots a guest four times"]
fn an_arm64_device_lives_twice_and_nothing_of_either_life_is_left() {
    two_lives(Arch::Arm64);
}

fn two_lives(arch: Arch) {
    if !e2e::can_boot(arch) {
        return;
    }
    let image = e2e::image(arch).unwrap();
    let serial = Some("reset".to_owned());
    let options = Options { disk_size: DISK, guest_ports: vec![pods::PORT], serial, ..Options::new(arch) };
    let mut device = Device::new(&image, &options).unwrap();
    add_script(device.disk(), SCRIPT).unwrap();
    let before = device.disk().tree().unwrap();
    let (first, first_key) = first_installation(&mut device, &before);
    remove_script(device.disk()).unwrap();
    let before = without_script(before);

    let plane = ControlPlane::start(&Default::default()).unwrap();
    let second = second_installation(&mut device, &plane);
    // The search finds a key where there is one: the second installation's, and none of the first.
    assert_ne!(search::find(device.disk().path(), KEYS[0]).unwrap(), [0; 0]);
    for secret in [secret_of(&first), secret_of(&second), &first_key] {
        assert_eq!(search::find(device.disk().path(), secret).unwrap(), [0; 0], "{secret}");
    }
    ends_by_a_seed_and_a_power_cut(&mut device, &plane);
    as_flashed(&device, &before, &PREPARED, &[&first, &second], &first_key);
    assert!(e2e::root_is_as_flashed(&image, device.disk()).unwrap());
}

/// Joins, runs pods, and is reset by a command on the device; gives its token and a line of its key.
fn first_installation(device: &mut Device, before: &Tree) -> (String, String) {
    let plane = ControlPlane::start(&Default::default()).unwrap();
    pods::create(&plane).unwrap();
    let token = joins(device, &plane);
    pods::prove(&plane, device, NAME, SOON).unwrap();
    assert_eq!(pods::pulled(&plane).unwrap(), [""; 0]);
    plane.kubectl(&["run", "go", "--image=firstboot.local/demo:1", "--restart=Never", "--", "confined"]).unwrap();
    device.wait_console("test: looked", RESET).unwrap();
    let key = device.wait_console("test: key M", SOON).unwrap();
    let key = key.split("test: key ").nth(1).unwrap().trim().to_owned();
    assert!(key.len() > 60, "{key}");
    left_the_cluster(&plane);
    // What the device printed for an administrator is a command that does it.
    plane.kubectl(&["delete", "node", NAME]).unwrap();
    assert_eq!(plane.node(NAME).unwrap(), None);
    let status = device.wait_status("state: waiting for a seed", SOON).unwrap();
    assert_eq!(status_value(&status, "error").split(':').next(), Some("find seed.toml on the boot partition"));
    device.power_off(OFF).unwrap();
    reported(device);
    gone_from_the_kernel(device);
    // Nothing of the runtime is left until the next boot.
    as_flashed(device, before, &[], &[&token], &key);
    (token, key)
}

/// Switches it on with a seed for `plane`, and waits until it has joined; gives the token.
fn joins(device: &mut Device, plane: &ControlPlane) -> String {
    let token = plane.create_token("2h").unwrap();
    // The account and its host key belong to this installation as well.
    let access = format!("\n[access]\nssh-keys = [\"{UNUSED_KEY}\"]\n");
    let seed = Seed { more: access, ..Seed::for_guest(plane, &token).unwrap() };
    device.disk().put_seed(&seed.text()).unwrap();
    let joined = Line::once_more(device, format!("node {NAME} is Ready, seed destroyed"));
    device.power_on().unwrap();
    joined.wait(device, SOON);
    let node = plane.wait_node_ready(NAME, SOON, || device.check()).unwrap();
    assert!(node["spec"].get("unschedulable").is_none(), "{node}");
    token
}

/// A line that the console may have shown in an earlier boot, and is to show again.
struct Line {
    text: String,
    seen: usize,
}

impl Line {
    fn once_more(device: &Device, text: impl Into<String>) -> Self {
        let text = text.into();
        let seen = device.console().count(&text).unwrap();
        Line { text, seen }
    }

    fn wait(&self, device: &Device, limit: Duration) {
        let shown = wait::until(&format!("`{}` on the console, again", self.text), limit, || {
            device.check()?;
            Ok((device.console().count(&self.text)? > self.seen).then_some(()))
        });
        shown.map_err(|e| e.context(device.report())).unwrap();
    }
}

/// Cordoned, not Ready, without Lease, CSINode and pods of its own.
fn left_the_cluster(plane: &ControlPlane) {
    let node = plane.node(NAME).unwrap().unwrap();
    assert_eq!(node["spec"]["unschedulable"], true, "{node}");
    let ready = condition(&node, "Ready").unwrap();
    // The cluster may have noticed by itself meanwhile.
    assert!(ready["status"] == "False" && ready["reason"] == "DeviceReset" || ready["status"] == "Unknown", "{ready}");
    for kind in [&["-n", "kube-node-lease", "lease", NAME][..], &["csinode", NAME]] {
        let left = plane.kubectl(&[&["get", "--ignore-not-found", "-o", "name"], kind].concat()).unwrap();
        assert_eq!(left, "");
    }
    assert_eq!(plane.kubectl(&["get", "pods", "-n", "default", "-o", "name"]).unwrap(), "");
}

/// What the commands on the device said.
fn reported(device: &Device) {
    let read = |name: &str| found(device, name).unwrap();
    let steps = read("dry-run");
    for step in [
        "stop firstboot.service",
        "cordon the node and evict its pods, if the cluster answers",
        "remove /var/lib/kubelet and everything in it",
        "put /etc/hostname back as it was",
        "begin a new journal",
    ] {
        assert!(steps.lines().any(|line| line == step), "{step} is not in:\n{steps}");
    }
    assert_eq!(
        read("refused"),
        "firstboot: reset this device: there is no terminal to ask on; --yes says that it is meant\nrc 2\nactive\n"
    );
    assert_eq!(
        read("reset"),
        format!(
            "this device is reset and waits for a seed\nleft for an administrator of the cluster: kubectl delete node {NAME}\nrc 0\n"
        )
    );
    let console = device.console().text().unwrap();
    let failed: Vec<&str> =
        console.lines().filter(|l| l.contains("firstboot: reset: ") && l.contains("; it goes on")).collect();
    assert_eq!(failed, [""; 0]);
}

/// No mount, process, interface or rule of Kubernetes was left when the reset had ended, before any restart.
fn gone_from_the_kernel(device: &Device) {
    let read = |name: &str| found(device, name).unwrap();
    let none = |name: &str, words: &[&str]| {
        let text = read(name);
        let left: Vec<&str> = text.lines().filter(|line| words.iter().any(|word| line.contains(word))).collect();
        assert_eq!(left, [""; 0], "{name}");
    };
    none("mountinfo", &["/var/lib/kubelet", "/containerd", "/run/netns/cni-"]);
    none("processes", &["kubelet", "containerd", "kube-proxy", "coredns", "pause", "demo"]);
    none("links", &["cni", "veth", "flannel", "kube-"]);
    none("ruleset", &["KUBE-", "CNI-", "kube-proxy", "cni_"]);
    none("failed", &["firstboot", "kubelet", "containerd"]);
    assert!(read("ruleset").contains("table inet firstboot"));
    assert_ne!(read("hostname").trim(), NAME);
}

/// The files are the image's, and no secret of an installation is anywhere on the disk.
fn as_flashed(device: &Device, before: &Tree, runtime: &[&str], tokens: &[&str], key: &str) {
    let disk = device.disk();
    let mut changes = changes(before, &disk.tree().unwrap());
    changes.retain(|change| change != LOCK);
    assert_eq!(changes, [""; 0]);
    let mut kept = disk.list("/var/lib/firstboot").unwrap();
    // The status of a device that waits.
    kept.retain(|name| !name.starts_with("status.json"));
    assert_eq!(kept, ["journal", "journal.copy"]);
    assert!(!disk.seed_present().unwrap());
    assert_eq!(disk.list("/var/lib/containerd").unwrap_or_default(), runtime);
    let secrets = tokens.iter().map(|token| secret_of(token)).chain([key]).chain(KEYS);
    for secret in secrets {
        assert_eq!(search::find(disk.path(), secret).unwrap(), [0; 0], "{secret}");
    }
}

/// In another cluster, by the same name, with a machine-id and a host key of its own.
fn second_installation(device: &mut Device, plane: &ControlPlane) -> String {
    pods::create(plane).unwrap();
    let token = joins(device, plane);
    pods::prove(plane, device, NAME, SOON).unwrap();
    assert_eq!(pods::pulled(plane).unwrap(), [""; 0]);
    assert!(is_ready(&plane.node(NAME).unwrap().unwrap()));
    device.power_off(OFF).unwrap();
    let now = |path: &str| String::from_utf8(device.disk().read_file(path).unwrap().unwrap()).unwrap();
    assert_ne!(now("/etc/machine-id"), found(device, "machine-id").unwrap());
    assert_ne!(now(HOST_KEY), found(device, "host-key").unwrap());
    token
}

/// A device without a login. The power goes while its free space is being zeroed; the next boot goes on.
fn ends_by_a_seed_and_a_power_cut(device: &mut Device, plane: &ControlPlane) {
    device.disk().put_seed(ALONE).unwrap();
    let zeroing = Line::once_more(device, "reset: zeroing the free space");
    device.power_on().unwrap();
    device.wait_console("seed.toml asks for a reset", SOON).unwrap();
    zeroing.wait(device, RESET);
    device.power_cut().unwrap();
    left_the_cluster(plane);
    let done = Line::once_more(device, "reset done: this device waits for a seed");
    device.power_on().unwrap();
    done.wait(device, RESET);
    device.wait_status("state: waiting for a seed", SOON).unwrap();
    device.power_off(OFF).unwrap();
}

/// The image as it was before a test laid its script on it.
fn without_script(mut tree: Tree) -> Tree {
    tree.retain(|path, _| !path.contains("/test-script"));
    tree
}
