// SPDX-License-Identifier: Apache-2.0
//! `imagebuild bake` on images that others' tools make: what changes, that the device joins, and what a reset leaves.
//! Boots 6 guests, three of them twice and one three times.

#![allow(clippy::unwrap_used)]

use e2e::base::{self, Kind};
use e2e::{OFF, PREPARED, RESET, SOON, wifi};
use imagebuild::arch::Arch;
use imagebuild::bake::{self, Disk, Reader, Report};
use imagebuild::target::Target;
use qemu::control_plane::{ControlPlane, is_ready};
use qemu::device::{Device, Options};
use qemu::disk::DiskImage;
use qemu::progress::Progress;
use qemu::seed::Seed;
use qemu::{pods, scenario};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a reset leaves, as docs/bake.md says: an identity of its own, what every boot prepares, and that it was reset.
const LEFT: [&str; 3] = ["/etc/machine-id", "/var/lib/containerd", "/var/lib/firstboot"];

/// Everything on the root: path, and what is there. The size of a directory is what its entries take.
fn inventory(image: &Path, root: u32) -> BTreeMap<String, String> {
    fn walk(reader: &Reader, path: &str, all: &mut BTreeMap<String, String>) {
        for name in reader.names(if path.is_empty() { "/" } else { path }).unwrap() {
            let below = format!("{path}/{name}");
            let node = reader.node(&below).unwrap().unwrap();
            let content = match node.kind {
                'l' => reader.link(&below).unwrap().unwrap(),
                '-' => format!("{:x}", Sha256::digest(reader.read(&below).unwrap().unwrap())),
                _ => String::new(),
            };
            let size = if node.kind == 'd' { 0 } else { node.size };
            let text = format!("{} {} {:o} {:?} {size} {content}", node.modified, node.kind, node.mode, node.owner);
            all.insert(below.clone(), text);
            if node.kind == 'd' {
                walk(reader, &below, all);
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(&Reader::open(image, &partition(image, root)).unwrap(), "", &mut all);
    all
}

fn partition(image: &Path, number: u32) -> bake::Partition {
    let disk = Disk::read(&mut File::open(image).unwrap()).unwrap();
    disk.partitions.into_iter().find(|p| p.number == number).unwrap()
}

/// All files of the EFI system partition, by mtools.
fn boot_files(image: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let place = format!("{}@@{}", image.display(), partition(image, 1).offset);
    let mut command = Command::new("mcopy");
    imagebuild::cmd::run(command.args(["-s", "-Q", "-i", &place, "::*"]).arg(dir.path())).unwrap();
    let (mut all, mut open) = (BTreeMap::new(), vec![dir.path().to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => {
                    drop(all.insert(path.strip_prefix(dir.path()).unwrap().to_owned(), std::fs::read(&path).unwrap()))
                }
            }
        }
    }
    all
}

/// The difference between base and result is what the report names, and nothing else.
fn differs_by_the_report_alone(base: &Path, result: &Path, kind: Kind, report: &Report) {
    let root = kind.root();
    let (before, mut after) = (inventory(base, root), inventory(result, root));
    for one in &report.added {
        assert!(!before.contains_key(&one.path) && after.remove(&one.path).is_some(), "{}", one.path);
    }
    assert!(before.len() > 5000, "{}", before.len());
    let changed: Vec<_> = before.iter().filter(|(path, what)| after.get(*path) != Some(what)).collect();
    assert!(changed.is_empty(), "{changed:#?}");
    let more: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(more.is_empty(), "{more:#?}");
    let (before, mut after) = (boot_files(base), boot_files(result));
    for name in &report.added_to_boot {
        assert!(after.remove(Path::new(name)).is_some(), "{name}");
    }
    // GRUB and its configuration alone, or kernel and initrd as well.
    let least = if kind == Kind::Ubuntu { 2 } else { 5 };
    assert!(before.len() >= least && before == after);
    assert_eq!(others(base, root), others(result, root));
}

/// SHA-256 of the partitions between the EFI system partition and the root.
fn others(image: &Path, root: u32) -> Vec<String> {
    let digest = |number| DiskImage::open(image).unwrap().digest(number, u64::MAX).unwrap();
    (2..root).map(digest).collect()
}

/// A file of the switched-off device.
fn text(disk: &Path, root: u32, path: &str) -> String {
    Reader::open(disk, &partition(disk, root)).unwrap().text(path).unwrap().unwrap_or_default()
}

/// Whether a base can be made and booted here.
fn can_bake(arch: Arch) -> bool {
    let missing = base::missing();
    missing.iter().for_each(|missing| e2e::skip::skip_unless_ci(missing));
    missing.is_none() && e2e::can_boot(arch)
}

/// Bakes a base, holds the result against it, boots it to Ready, and looks at what is left.
fn joins(kind: Kind) -> Baked {
    let base = base::ensure(kind).unwrap();
    let out = tempfile::tempdir_in(imagebuild::cache::dir().unwrap().join("bases")).unwrap();
    let target = Target::load(kind.target()).unwrap();
    let report = bake::bake(&target, &base, &bake::Choices::default(), out.path()).unwrap();
    assert_eq!(report.missing, [""; 0]);
    let result = PathBuf::from(report.result.as_ref().unwrap());
    differs_by_the_report_alone(&base, &result, kind, &report);
    let mut left: Vec<_> = std::fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["base-firstboot.img", "base-firstboot.json"]);

    let plane = ControlPlane::start(&Default::default()).unwrap();
    pods::create(&plane).unwrap();
    let options = Options { guest_ports: vec![pods::PORT], ..Options::for_target(&target) };
    let token = plane.create_token("1h").unwrap();
    let mut device = Device::new(&DiskImage::open(&result).unwrap(), &options).unwrap();
    let seed = Seed { more: more(kind), ..Seed::for_guest(&plane, &token).unwrap() };
    imagebuild::seed::put(seed.text().as_bytes(), None, device.disk().path()).unwrap();
    device.power_on().unwrap();
    if kind == Kind::RaspberryPi {
        first_boots(&mut device);
    }
    let mut joined = scenario::joined(&plane, device, token, &mut Progress::default()).unwrap();
    assert!(is_ready(&joined.node));
    assert_eq!(joined.name, "edge-0001");
    if kind == Kind::Ubuntu {
        assert_eq!(joined.node["status"]["addresses"][0]["address"], "10.0.2.77");
    }
    joined.prove(&plane).unwrap();
    let left = joined.switch_off_and_search().unwrap();
    assert!(!left.seed_present);
    assert_eq!(left.token_at, [0; 0]);
    assert_eq!(e2e::status_value(&left.status, "state"), "joined");
    // The root of a board that lost its power needs its journal first.
    if joined.device.has_power_button() {
        let text = |path| text(joined.device.disk().path(), kind.root(), path);
        assert_eq!(text("/etc/hostname").trim(), "edge-0001");
        assert!(text("/etc/hosts").contains("edge-0001"), "{}", text("/etc/hosts"));
    }
    Baked { base, root: kind.root(), report, device: joined.device, node: joined.node, plane }
}

/// What the form of Raspberry Pi OS does alone: a boot without systemd for a longer partition, and one for `firstrun.sh` of
/// Raspberry Pi Imager. Each ends with a restart, and firstboot does nothing in either.
fn first_boots(device: &mut Device) {
    device.wait_console("base: the partition is longer; restarting", SOON).unwrap();
    assert_eq!(device.wait_restarted(SOON).unwrap(), 1);
    device.wait_console("base: firstrun.sh is done", SOON).unwrap();
    assert_eq!(device.wait_restarted(SOON).unwrap(), 1);
    assert_eq!(device.console().count("firstboot: ").unwrap(), 0);
    assert!(device.disk().seed_present().unwrap());
}

/// Further lines of a seed. netplan of Ubuntu asks for an address by DHCP, which is 10.0.2.15; the seed has another one as
/// well, that the node is to have. Over Wi-Fi DHCP would give another one than the network card had at first.
fn more(kind: Kind) -> String {
    let fixed =
        |addresses: &str| format!("[network]\naddresses = [{addresses}]\ngateway = \"10.0.2.2\"\ndns = \"10.0.2.3\"\n");
    match kind {
        Kind::Networkd | Kind::NetworkManager | Kind::RaspberryPi => String::new(),
        Kind::RadioOff => fixed("\"10.0.2.15/24\"") + &wifi::table(wifi::PASSWORD),
        Kind::Ubuntu => fixed("\"10.0.2.77/24\", \"10.0.2.15/24\""),
    }
}

/// A baked device that has joined, switched off.
struct Baked {
    base: PathBuf,
    root: u32,
    report: Report,
    device: Device,
    /// The Node as it was when it was Ready.
    node: serde_json::Value,
    plane: ControlPlane,
}

/// Whether an operating system writes this by itself, at any boot and at other moments than at the next one.
fn is_of_any_boot(path: &str) -> bool {
    ["/var/log/journal/", "/var/log/wtmp", "/var/lib/systemd/", "/var/cache/"]
        .iter()
        .any(|begin| path.starts_with(begin))
}

/// After a reset, the root has what the base has after a boot without firstboot, and what `bake` added.
fn reset_leaves_the_base(mut baked: Baked) {
    let mut plain = Device::new(&DiskImage::open(&baked.base).unwrap(), &Options::new(Arch::Amd64)).unwrap();
    plain.power_on().unwrap();
    plain.wait_console(" login:", SOON).unwrap();
    plain.power_off(OFF).unwrap();
    let plain = undated(inventory(plain.disk().path(), baked.root));

    let (device, root) = (&mut baked.device, baked.root);
    device.disk().put_seed("version = 1\nreset = true\n").unwrap();
    device.power_on().unwrap();
    device.wait_status("state: waiting for a seed", RESET).unwrap();
    device.power_off(OFF).unwrap();
    let mut reset = undated(inventory(device.disk().path(), root));
    for one in &baked.report.added {
        assert!(reset.remove(&one.path).is_some(), "{}", one.path);
    }
    let paths: BTreeSet<&String> = plain.keys().chain(reset.keys()).collect();
    let differs = paths.into_iter().filter(|path| !is_of_any_boot(path) && plain.get(*path) != reset.get(*path));
    let differs: Vec<_> = differs.map(|path| (path.as_str(), plain.get(path), reset.get(path))).collect();
    let of = |path: &str| LEFT.into_iter().find(|left| path == *left || path.starts_with(&format!("{left}/")));
    let left: BTreeSet<Option<&str>> = differs.iter().map(|(path, ..)| of(path)).collect();
    assert_eq!(left, LEFT.map(Some).into(), "{differs:#?}");
    let containerd = Reader::open(device.disk().path(), &partition(device.disk().path(), root)).unwrap();
    let mut containerd = containerd.names("/var/lib/containerd").unwrap();
    containerd.sort();
    assert_eq!(containerd, PREPARED);
}

/// What starts sshd in an Ubuntu, which a join takes away and a reset brings back.
const SSH: [&str; 3] = [
    "/etc/ssh/sshd_config",
    "/etc/systemd/system/sockets.target.wants/ssh.socket",
    "/etc/systemd/system/ssh.service.requires/ssh.socket",
];

/// What the first boot of an Ubuntu changes of its own files, above all cloud-init: accounts, keys, sources of packages.
const OF_FIRST_BOOT: [&str; 14] = [
    "/etc/apt/sources.list",
    "/etc/console-setup/",
    "/etc/group",
    "/etc/gshadow",
    "/etc/locale.conf",
    "/etc/machine-id",
    "/etc/passwd",
    "/etc/shadow",
    "/etc/ssh/ssh_host_",
    "/etc/subgid",
    "/etc/subuid",
    "/etc/sudoers.d",
    "/var/cache/",
    "/var/log/",
];
/// What a path would contain that a join has left.
const OF_A_JOIN: [&str; 5] = ["firstboot", "containerd", "kube", "/cni", "/pods"];

/// After a reset, all files of the base are there as before, SSH's too, but for what its own first boot changes; and nothing
/// else is there that a join makes.
fn reset_leaves_an_ubuntu(mut baked: Baked) {
    let (device, root) = (&mut baked.device, baked.root);
    let base = undated(inventory(&baked.base, root));
    let joined = undated(inventory(device.disk().path(), root));
    assert!(SSH.iter().all(|path| base.contains_key(*path) && !joined.contains_key(*path)));
    device.disk().put_seed("version = 1\nreset = true\n").unwrap();
    device.power_on().unwrap();
    device.wait_status("state: waiting for a seed", RESET).unwrap();
    device.power_off(OFF).unwrap();
    let reset = undated(inventory(device.disk().path(), root));
    let begins = |path: &str, list: &[&str]| list.iter().any(|begin| path.starts_with(begin));
    let differs = base.iter().filter(|(path, what)| reset.get(*path) != Some(what) && !begins(path, &OF_FIRST_BOOT));
    let differs: Vec<_> = differs.map(|(path, what)| (path, what, reset.get(path))).collect();
    assert!(differs.is_empty(), "{differs:#?}");
    let known = |path: &String| base.contains_key(path) || baked.report.added.iter().any(|one| one.path == *path);
    let left = reset.keys().filter(|path| OF_A_JOIN.iter().any(|word| path.contains(word)));
    let left: Vec<_> = left.filter(|path| !known(path) && !begins(path, &LEFT)).collect();
    assert!(left.is_empty(), "{left:#?}");
}

/// What is there, without the time of its last change.
fn undated(all: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let undated = |what: String| what.split_once(' ').unwrap().1.to_owned();
    all.into_iter().map(|(path, what)| (path, undated(what))).collect()
}

#[test]
#[ignore = "long: makes a base by mmdebstrap"]
fn a_minimal_debian_is_baked_and_joins() {
    if can_bake(Arch::Amd64) {
        reset_leaves_the_base(joins(Kind::Networkd));
    }
}

#[test]
#[ignore = "long: a second base"]
fn network_manager_and_cloud_init_are_baked_and_join() {
    if can_bake(Arch::Amd64) {
        joins(Kind::NetworkManager);
    }
}

/// A join over Wi-Fi by NetworkManager, with radios that are off until the seed has named the country; and so at the next boot.
#[test]
#[ignore = "long: a base with Wi-Fi alone"]
fn a_radio_that_is_off_is_switched_on_and_joins() {
    if can_bake(Arch::Amd64) {
        let mut baked = joins(Kind::RadioOff);
        let state = text(baked.device.disk().path(), baked.root, "/var/lib/NetworkManager/NetworkManager.state");
        assert!(state.contains("WirelessEnabled=true"), "{state}");
        baked.device.power_on().unwrap();
        let (plane, booted) = (&baked.plane, e2e::boot_id(&baked.node));
        e2e::ready_again(plane, &baked.device, "edge-0001", &booted).unwrap();
        baked.device.power_off(OFF).unwrap();
    }
}

#[test]
#[ignore = "long: a base for another processor, and three boots of a board"]
fn an_image_like_raspberry_pi_os_is_baked_and_joins() {
    if can_bake(Arch::Arm64) {
        joins(Kind::RaspberryPi);
    }
}

#[test]
#[ignore = "long: a third base"]
fn an_ubuntu_server_is_baked_and_joins() {
    if can_bake(Arch::Amd64) {
        reset_leaves_an_ubuntu(joins(Kind::Ubuntu));
    }
}
