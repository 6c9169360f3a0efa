// SPDX-License-Identifier: Apache-2.0
//! The data partition and the kernel's view of a disk, for real: loop devices and ext4 in a mount namespace of its own.
//! Skipped, with a reason, where this process may not mount or has no loop devices.
#![allow(clippy::unwrap_used, missing_docs)]

use initrd::data::{Outcome, decide};
use initrd::disks::{self, Machine};
use initrd::ext4::{self, COPIES};
use initrd::layers::Layers;
use initrd::report::State;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Set in the process that has a mount namespace of its own.
const INSIDE: &str = "INITRD_TEST_NAMESPACE";
const MIB: u64 = 1 << 20;

/// Whether the test is to go on here; else it was run in another process, or cannot be run.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let may = Command::new("unshare").args(["--mount", "losetup", "--find"]).output();
    if !may.is_ok_and(|out| out.status.success()) {
        println!("SKIPPED: {test}: this process may not mount, or there are no loop devices");
        return false;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
    // Its output is not shown: `make test` adds up all results that it sees.
    let out = command.args(["--exact", test, "--nocapture"]).env(INSIDE, "1").output().unwrap();
    let text = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// A file as a block device.
struct Loop(PathBuf);

impl Loop {
    fn new(file: &Path, options: &[&str]) -> Loop {
        let out = Command::new("losetup").args(["--find", "--show"]).args(options).arg(file).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Loop(String::from_utf8(out.stdout).unwrap().trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

/// A root directory, and a disk that is a file.
struct Device {
    dir: tempfile::TempDir,
}

impl Device {
    fn new(mib: u64) -> Device {
        let device = Device { dir: tempfile::tempdir().unwrap() };
        for path in ["root/data", "root/run/firstboot", "root/etc", "root/var/lib"] {
            fs::create_dir_all(device.at(path)).unwrap();
        }
        fs::write(device.at("root/etc/os-release"), "ours").unwrap();
        fs::write(device.at("root/var/lib/brought"), "by the root").unwrap();
        fs::set_permissions(device.at("root/etc"), Permissions::from_mode(0o755)).unwrap();
        File::create(device.at("disk")).unwrap().set_len(mib * MIB).unwrap();
        device
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn disk(&self) -> File {
        File::options().read(true).write(true).open(self.at("disk")).unwrap()
    }

    /// Puts the layers together, looks with `look`, and switches off.
    fn boot(&self, options: &[&str], look: impl FnOnce(&Path)) -> Outcome {
        let device = Loop::new(&self.at("disk"), options);
        let writable = !options.contains(&"--read-only");
        let content = ext4::content(&File::open(&device.0).unwrap()).unwrap();
        let mut layers = Layers { root: self.at("root"), device: Some(device.0.clone()), say: |_| {} };
        let outcome = decide(&mut layers, Some(content), writable, None).unwrap();
        look(&self.at("root"));
        for path in ["root/etc", "root/var", "root/run/firstboot/memory", "root/data"] {
            let path = self.at(path);
            while Command::new("mountpoint").arg("--quiet").arg(&path).status().is_ok_and(|status| status.success()) {
                assert!(Command::new("umount").arg(&path).status().unwrap().success());
            }
        }
        outcome
    }

    /// A first boot, with a file in /etc and one in /var.
    fn first_boot(&self) -> Outcome {
        self.boot(&[], |root| {
            fs::write(root.join("etc/mine"), "kept").unwrap();
            fs::write(root.join("var/mine"), "kept").unwrap();
        })
    }

    /// A later boot: whether the files of the first are there.
    fn later_boot(&self, options: &[&str]) -> (Outcome, bool) {
        let mut kept = false;
        let outcome = self.boot(options, |root| {
            let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
            assert_eq!((read("etc/os-release"), read("var/lib/brought")), ("ours".into(), "by the root".into()));
            fs::write(root.join("etc/new"), "").unwrap();
            fs::write(root.join("var/new"), "").unwrap();
            kept = read("etc/mine") == "kept" && read("var/mine") == "kept";
        });
        (outcome, kept)
    }
}

fn options(root: &Path, path: &str) -> String {
    let out = Command::new("findmnt").args(["--noheadings", "--output", "OPTIONS"]).arg(root.join(path)).output();
    String::from_utf8(out.unwrap().stdout).unwrap()
}

#[test]
fn a_first_boot_and_later_ones() {
    if !inside("a_first_boot_and_later_ones") {
        return;
    }
    let device = Device::new(256);
    let outcome = device.first_boot();
    assert_eq!((outcome.state, outcome.reason), (State::Created, None));
    let (outcome, kept) = device.later_boot(&[]);
    assert_eq!((outcome, kept), (Outcome { state: State::Kept, reason: None, repaired: vec![] }, true));
    // Its root directory is not written at each boot.
    let changed = || {
        let mut changed = None;
        device.boot(&[], |root| {
            let meta = fs::metadata(root.join("data")).unwrap();
            changed = Some((meta.ctime(), meta.ctime_nsec()));
        });
        changed.unwrap()
    };
    assert_eq!(changed(), changed());
    device.boot(&[], |root| {
        for path in ["data", "var", "etc"] {
            let options = options(root, path);
            assert!(["nodev", "nosuid", "noatime"].iter().all(|o| options.contains(o)), "{path}: {options}");
        }
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(["data", "etc", "var"].map(mode), [0o700, 0o755, 0o755]);
    });
    // Little is written for a new file system: the rest of the file is a hole.
    let out = Command::new("du").arg("--block-size=1").arg(device.at("disk")).output().unwrap();
    let bytes: u64 = String::from_utf8(out.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert!(bytes < 2 * MIB, "{bytes}");
}

#[test]
fn damage_is_repaired_or_the_file_system_is_made_anew() {
    if !inside("damage_is_repaired_or_the_file_system_is_made_anew") {
        return;
    }
    let device = Device::new(256);
    device.first_boot();
    // The kernel found errors: the bit, and a checksum that no longer holds.
    device.disk().write_all_at(&[3], 1024 + 0x3a).unwrap();
    let (outcome, kept) = device.later_boot(&[]);
    assert_eq!((outcome.state, outcome.repaired.len(), kept), (State::Kept, 1, true), "{outcome:?}");
    // A block was lost: the superblock, then a group descriptor.
    for at in [0, 4096] {
        device.disk().write_all_at(&[0xff; 4096], at).unwrap();
        let (outcome, kept) = device.later_boot(&[]);
        assert_eq!((outcome.state, outcome.repaired.len(), kept), (State::Kept, 1, true), "{at}: {outcome:?}");
        assert_eq!(device.later_boot(&[]).0.repaired, [""; 0], "{at}: once");
    }
    // Zeros at the start are no blank partition. This disk is so large that no inode is in what was lost.
    let large = Device::new(2048);
    large.first_boot();
    large.disk().write_all_at(&[0; ext4::START], 0).unwrap();
    let (outcome, kept) = large.later_boot(&["--read-only"]);
    assert_eq!((outcome.state, kept), (State::ReadOnly, true), "{outcome:?}");
    let (outcome, kept) = large.later_boot(&[]);
    assert_eq!((outcome.state, outcome.repaired.len(), kept), (State::Kept, 1, true), "{outcome:?}");
    // Nothing is left of it.
    device.disk().write_all_at(&vec![0xff; 4 * MIB as usize], 0).unwrap();
    device.disk().write_all_at(&[0xff; 4096], COPIES[2]).unwrap();
    let (outcome, kept) = device.later_boot(&[]);
    let reason = Some("the data partition holds no file system".to_owned());
    assert_eq!((outcome.state, outcome.reason, kept), (State::Recreated, reason, false));
    assert_eq!(device.later_boot(&[]).0.state, State::Kept);
}

#[test]
fn a_filling_that_was_cut_off_is_begun_anew() {
    if !inside("a_filling_that_was_cut_off_is_begun_anew") {
        return;
    }
    let device = Device::new(256);
    device.first_boot();
    device.boot(&[], |root| {
        let rename = Command::new("mv").arg(root.join("data/var")).arg(root.join("data/var.new")).status();
        assert!(rename.unwrap().success());
        fs::remove_file(root.join("data/var.new/lib/brought")).unwrap();
    });
    let outcome =
        device.boot(&[], |root| assert!(root.join("var/lib/brought").exists() && root.join("etc/mine").exists()));
    assert_eq!((outcome.state, outcome.reason), (State::Created, None));
}

#[test]
fn a_write_protected_disk_is_not_changed() {
    if !inside("a_write_protected_disk_is_not_changed") {
        return;
    }
    let device = Device::new(256);
    device.first_boot();
    let before = fs::read(device.at("disk")).unwrap();
    let (outcome, kept) = device.later_boot(&["--read-only"]);
    assert_eq!((outcome.state, kept), (State::ReadOnly, true), "{outcome:?}");
    assert!(fs::read(device.at("disk")).unwrap() == before);
    // A blank one has nothing to show.
    let (outcome, kept) = Device::new(256).later_boot(&["--read-only"]);
    assert_eq!((outcome.state, kept), (State::Memory, false));
}

#[test]
fn a_full_partition_is_kept_and_etc_is_writable() {
    if !inside("a_full_partition_is_kept_and_etc_is_writable") {
        return;
    }
    let device = Device::new(128);
    device.first_boot();
    device.boot(&[], |root| {
        let zeros = vec![7; MIB as usize];
        let file = File::create(root.join("var/big")).unwrap();
        let mut at = 0;
        for step in [MIB as usize, 4096, 1] {
            while file.write_all_at(&zeros[..step], at).is_ok() {
                at += step as u64;
            }
        }
        assert!(fs::write(root.join("var/more"), [1; 4096]).is_err(), "it is full");
    });
    let outcome = device.boot(&[], |root| {
        assert_eq!(fs::read_to_string(root.join("etc/mine")).unwrap(), "kept");
        assert!(root.join("var/big").exists());
        // Not read-only, which programs would not expect; full is what it is.
        if let Err(error) = fs::create_dir(root.join("etc/new")) {
            assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        }
    });
    assert_eq!((outcome.state, outcome.reason), (State::Kept, None));
}

#[test]
fn a_layer_that_is_no_directory_is_set_aside() {
    if !inside("a_layer_that_is_no_directory_is_set_aside") {
        return;
    }
    let device = Device::new(256);
    device.first_boot();
    for n in 1..3 {
        device.boot(&[], |root| {
            Command::new("umount").arg(root.join("etc")).status().unwrap();
            fs::remove_dir_all(root.join("data/etc/upper")).unwrap();
            fs::write(root.join("data/etc/upper"), format!("{n}")).unwrap();
        });
        let outcome = device.boot(&[], |root| {
            assert_eq!(fs::read_to_string(root.join(format!("data/etc/upper.damaged-{n}"))).unwrap(), n.to_string());
            fs::write(root.join("etc/new"), "").unwrap();
            assert!(root.join("var/mine").exists());
        });
        assert_eq!(outcome.state, State::Kept);
        assert!(outcome.reason.unwrap().contains("was no directory"));
    }
}

/// The real `/sys` and `/dev`.
struct Here;

impl Machine for Here {
    fn sys(&self) -> PathBuf {
        "/sys".into()
    }
    fn dev(&self) -> PathBuf {
        "/dev".into()
    }
    fn now(&self) -> Duration {
        // A deadline that has passed after the second look.
        static LOOKS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        Duration::from_secs(LOOKS.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }
    fn load_drivers(&mut self) -> bool {
        false
    }
    fn wait(&mut self, _: Duration) {}
    fn say(&mut self, _: &str) {}
}

#[test]
fn the_kernel_is_informed_of_partitions_one_by_one() {
    if !inside("the_kernel_is_informed_of_partitions_one_by_one") {
        return;
    }
    use initrd::table::Entry;
    let device = Device::new(64);
    let disk = Loop::new(&device.at("disk"), &["--partscan"]);
    let name = disk.0.file_name().unwrap().to_str().unwrap().to_owned();
    let entry = |first_mib: u64, mib: u64| Entry {
        kind: initrd::layout::LINUX_DATA,
        id: Default::default(),
        first: first_mib * 2048,
        last: (first_mib + mib) * 2048 - 1,
        flags: 0,
        name: String::new(),
    };
    let shown = |number: u32| {
        let path = Path::new("/sys/block").join(&name).join(disks::partition_name(&name, number));
        let read = |file: &str| Some(fs::read_to_string(path.join(file)).ok()?.trim().parse::<u64>().unwrap() / 2048);
        Some((read("start")?, read("size")?))
    };
    disks::inform(&mut Here, &name, &[(1, entry(1, 10)), (3, entry(20, 5))]).unwrap();
    assert_eq!([1, 2, 3].map(shown), [Some((1, 10)), None, Some((20, 5))]);
    // The first is in use while it becomes longer; the third moves.
    let open = File::open(format!("/dev/{name}p1"));
    disks::inform(&mut Here, &name, &[(1, entry(1, 15)), (2, entry(16, 2)), (3, entry(30, 5))]).unwrap();
    assert_eq!([1, 2, 3].map(shown), [Some((1, 15)), Some((16, 2)), Some((30, 5))]);
    drop(open);
    let error = disks::inform(&mut Here, &name, &[(4, entry(2, 3))]).unwrap_err();
    assert!(format!("{error:#}").starts_with(&format!("inform the kernel of partition 4 of {name}: ")), "{error:#}");
}
