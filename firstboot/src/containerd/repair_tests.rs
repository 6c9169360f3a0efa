// SPDX-License-Identifier: Apache-2.0
//! A sealed device whose containerd was cut off: what is found, each step in order, and a cut before each of them. What
//! containerd says was tried with the real one (2.4): zeros, rubbish or a wrong sum in meta.db leave it running without CRI,
//! a data base that is cut short or has torn pages ends it in a panic, one of no length loses all images.

use super::*;
use crate::boot_partition::{BootPartition, Place, formatted_for_tests};
use crate::bundle::{BUNDLE_DIR, Image, Manifest};
use crate::containerd::damage::damage;
use crate::host::fake::{Fake, Recorded};
use crate::image::{IMAGE_INFO, ImageInfo};
use crate::journal::facts::Fact;
use crate::journal::{Effect, Record};
use crate::reset;
use crate::run::messages::report_repair;
use crate::status::STATUS_NAME;
use crate::test_files::put_for_tests;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

const PAUSE: &str = "registry.k8s.io/pause:3.10.2";
const PROXY: &str = "registry.k8s.io/kube-proxy:v1.36.3";
const LAYERS: &str = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";
const BLOBS: &str = "/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256";
const HEX: &str = "c6de179502e0825045ba010d36ea56e84be84ccaf0405e9e582fbf59fa0e3d95";
const CHAIN: &str = "sha256:c6de179502e0825045ba010d36ea56e84be84ccaf0405e9e582fbf59fa0e3d95";
/// Names that the runtime knows, in the place of its data base.
const KNOWN: &str = "/var/lib/containerd/known";
/// SHA-256 of no bytes.
const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const SNAPSHOTS: &str = "/usr/bin/ctr --namespace k8s.io --timeout 10s snapshots --snapshotter overlayfs";
const SHOW: &str = "systemctl show --property=ActiveState,NRestarts containerd.service";
const LOG: &str = "journalctl --quiet --no-pager --boot --unit=containerd.service --output=cat --lines=2000";
const RUNS: &str = "ActiveState=active\nNRestarts=0\n";
const PANICS: &str = "ActiveState=activating\nNRestarts=2\n";
const TORN: &str = "time=\"x\" level=warning msg=\"failed to load plugin\" error=\"invalid database\" \
                    id=io.containerd.metadata.v1.bolt";

/// A device between two boots.
struct Device {
    disk: tempfile::TempDir,
    boot: BootPartition,
    /// What systemd says of containerd, and what containerd has logged in this boot.
    unit: Rc<RefCell<String>>,
    log: Rc<RefCell<String>>,
    /// Which snapshot containerd has for the bundle's pause image, if it has one.
    own: Rc<RefCell<Option<u64>>>,
}

impl Device {
    fn new() -> Self {
        let disk = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let root = disk.path().join("root");
        let image = |name: &str, content: &str| Image {
            name: name.into(),
            sha256: content.into(),
            layers: vec![HEX.into()],
            chain_id: CHAIN.into(),
            content: vec![content.into(), NOTHING.into()],
            component: "pause".into(),
            version: "3.10.2".into(),
        };
        let manifest = Manifest { images: vec![image(PAUSE, "abc"), image(PROXY, "def")], ..Manifest::for_tests() };
        let info = ImageInfo::for_tests();
        let put = |path: &str, text: &str| put_for_tests(&root, path.trim_start_matches('/'), text);
        put(IMAGE_INFO, &serde_json::to_string(&info).unwrap());
        put(&format!("{BUNDLE_DIR}/manifest.json"), &serde_json::to_string(&manifest).unwrap());
        put(&format!("{BUNDLE_DIR}/layers/{HEX}/pause"), "program");
        let template = |path: &str| path.replace("/var/lib", BUNDLE_DIR);
        put(&template(KNOWN), &format!("{PAUSE}\n{PROXY}\n"));
        for (blob, text) in [("abc", "{1}"), ("def", "{2}"), (NOTHING, "")] {
            put(&template(&format!("{BLOBS}/{blob}")), text);
        }
        // In the place of what containerd.service mounts there.
        put(&template(&format!("{LAYERS}/1/fs/pause")), "program");
        put("/var/lib/kubelet/pods/1/volumes/data/file", "data");
        put("/var/lib/cni/networks/firstboot/10.244.1.2", "x");
        put(
            "/proc/self/mountinfo",
            "30 22 0:24 / /tmp rw - tmpfs tmpfs rw\n\
             40 22 0:40 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/1/rootfs rw - overlay overlay rw\n\
             44 22 0:4 net:[4026532000] /run/netns/cni-1 rw - nsfs nsfs rw\n",
        );
        let boot = formatted_for_tests(&disk.path().join("boot.img"), 0, 16 << 20).unwrap();
        let text = |text: &str| Rc::new(RefCell::new(text.to_owned()));
        let own = Rc::new(RefCell::new(Some(1)));
        let device = Device { boot, unit: text(RUNS), log: text(""), own, disk };
        device.another_boot("1");
        let (host, _) = device.on();
        for unit in [RUNTIME, KUBELET] {
            host.record(Record::Effect(Effect::Started { unit: unit.into() })).unwrap();
        }
        host.record(Record::Fact { name: Fact::Node, value: "edge-1".into() }).unwrap();
        host.record(Record::Sealed).unwrap();
        device
    }

    fn root(&self) -> PathBuf {
        self.disk.path().join("root")
    }

    fn put(&self, path: &str) {
        put_for_tests(&self.root(), path.trim_start_matches('/'), "");
    }

    fn has(&self, path: &str) -> bool {
        self.root().join(path.trim_start_matches('/')).symlink_metadata().is_ok()
    }

    fn remove(&self, path: &str) {
        std::fs::remove_file(self.root().join(path.trim_start_matches('/'))).unwrap();
    }

    fn another_boot(&self, id: &str) {
        put_for_tests(&self.root(), "proc/sys/kernel/random/boot_id", id);
        // The guard is first. Then systemd starts it, and it finds its data base torn or not.
        prepared::place(&self.on().0).unwrap();
        self.unit.replace(RUNS.to_owned());
        self.log.replace(if self.has("/var/lib/containerd/torn") { TORN.to_owned() } else { String::new() });
    }

    fn on(&self) -> (Host, Rc<Recorded>) {
        let (fake, seen) = Fake::new();
        let (root, unit, log) = (self.root(), self.unit.clone(), self.log.clone());
        let own = self.own.clone();
        let fake = fake.answering(move |argv| {
            match argv {
                ["systemctl", "show", ..] => return Some(Ok(unit.borrow().clone())),
                ["journalctl", ..] => return Some(Ok(log.borrow().clone())),
                ["systemctl", "stop", RUNTIME] => drop(unit.replace("ActiveState=inactive\nNRestarts=0\n".to_owned())),
                ["systemctl", "start", RUNTIME] => {
                    own.replace(Some(1));
                    std::fs::create_dir_all(root.join("var/lib/containerd")).unwrap();
                    unit.replace(RUNS.to_owned());
                }
                // In the words of containerd 2.4.
                [.., "view", "--target", "/", "firstboot-pause", CHAIN] => {
                    return Some(match *own.borrow() {
                        Some(number) => Ok(format!("mount -t bind {LAYERS}/{number}/fs / -o ro,rbind\n")),
                        None => Err(anyhow::anyhow!(
                            "run ctr: exit status: 1: ctr: parent snapshot {CHAIN} does not exist: not found"
                        )),
                    });
                }
                _ => {}
            }
            None
        });
        (Host::open(&self.root(), Box::new(fake)).unwrap(), seen)
    }

    /// Looks until all is known; effects that may still happen before the power goes.
    fn settle(&self, fuse: Option<u32>) -> (Result<(), Fault>, Rc<Recorded>) {
        let (host, seen) = self.on();
        seen.fuse.set(fuse);
        let (root, unit) = (self.root(), self.unit.clone());
        let ask = |_: &Host, _: &Installed| asked(&root, &unit.borrow());
        let boot = self.boot.clone();
        let places = move |_: &str| Ok(vec![Place { partition: boot.clone(), removable: false }]);
        let tell = |progress: &Progress<'_>| report_repair(&host, &places, progress);
        (Watch::new(&host, &ask, &tell).settle(&host), seen)
    }

    fn past(&self) -> Option<(u32, Stage)> {
        RebuildRecord::read(&self.on().0).map(|past| (past.number, past.stage))
    }

    fn status(&self) -> String {
        String::from_utf8(self.boot.read(STATUS_NAME).unwrap().unwrap()).unwrap().replace('\r', "")
    }
}

fn asked(root: &Path, unit: &str) -> Result<Vec<String>> {
    let state = root.join("var/lib/containerd");
    anyhow::ensure!(unit.starts_with("ActiveState=active\n") && !state.join("torn").exists(), "unknown service");
    let known = std::fs::read_to_string(state.join("known")).unwrap_or_default();
    let lacks = |name: &&str| !known.lines().any(|line| line == *name);
    Ok([PAUSE, PROXY].into_iter().filter(lacks).map(str::to_owned).collect())
}

const STEPS: [&str; 8] = [
    "systemctl stop kubelet.service",
    "systemctl stop containerd.service",
    "systemctl kill --signal=SIGKILL containerd.service",
    "systemctl stop kubepods.slice",
    "systemctl stop /run/netns/cni-1",
    "systemctl stop /run/containerd/io.containerd.runtime.v2.task/k8s.io/1/rootfs",
    "systemctl start containerd.service",
    "systemctl start kubelet.service",
];

#[test]
fn a_sound_runtime_costs_one_question_and_no_effect_on_disk() {
    let device = Device::new();
    device.put("/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256/empty");
    let before = std::fs::read(device.root().join("var/lib/firstboot/journal")).unwrap();
    let (done, seen) = device.settle(Some(0));
    done.unwrap();
    assert_eq!(seen.commands.take(), [SHOW]);
    assert_eq!(std::fs::read(device.root().join("var/lib/firstboot/journal")).unwrap(), before);
    assert!(seen.lines.take().is_empty() && device.past().is_none());
}

#[test]
fn a_slow_boot_is_waited_for_and_nothing_else() {
    let device = Device::new();
    device.unit.replace("ActiveState=activating\nNRestarts=1\n".to_owned());
    device.log.replace(TORN.to_owned());
    let (done, seen) = device.settle(None);
    done.unwrap();
    let asked = seen.commands.take();
    assert!(asked.len() > 10 && asked.iter().all(|c| c == SHOW), "{asked:?}");
    assert!(device.has(KNOWN) && device.past().is_none());
    // One that was stopped, by an administrator for instance, is not asked twice.
    device.unit.replace("ActiveState=inactive\nNRestarts=0\n".to_owned());
    assert_eq!(device.settle(None).1.commands.take(), [SHOW]);
}

#[test]
fn a_runtime_that_fails_for_another_reason_is_left_alone() {
    let device = Device::new();
    for (unit, torn) in [(PANICS, false), (RUNS, true)] {
        if torn {
            device.put("/var/lib/containerd/torn");
        }
        device.unit.replace(unit.to_owned());
        let (done, seen) = device.settle(None);
        done.unwrap();
        assert!(seen.commands.take().iter().all(|c| [SHOW, LOG].contains(&c.as_str())));
        assert!(device.has(KNOWN) && device.past().is_none());
    }
}

#[test]
fn a_torn_data_base_is_set_aside_and_all_is_rebuilt_in_order() {
    let device = Device::new();
    device.put("/var/lib/containerd/torn");
    device.another_boot("2");
    let (done, seen) = device.settle(None);
    done.unwrap();
    assert_eq!(seen.commands.take(), [&[SHOW, LOG][..], &STEPS].concat());
    assert_eq!(
        seen.lines.take(),
        [
            "firstboot: containerd's state is damaged (it says \"invalid database\"): it is set aside and rebuilt from \
             the bundle's images",
            "firstboot: containerd's state is rebuilt from the bundle's images",
        ]
    );
    assert!(device.has("/var/lib/containerd.set-aside-1/torn") && !device.has("/var/lib/containerd/torn"));
    assert!(device.has(KNOWN));
    assert!(device.has("/var/lib/kubelet/pods/1/volumes/data/file"));
    assert!(device.has("/var/lib/cni") && !device.has("/var/lib/cni/networks"));
    assert_eq!(device.past(), Some((1, Stage::Rebuilt)));
    let status = device.status();
    assert!(status.starts_with("state: joined\n"), "{status}");
    assert!(
        status.contains(
            "\nwarning: RuntimeRebuilt: containerd's state was damaged and is rebuilt; remove its old state when it is not \
             needed: /var/lib/containerd.set-aside-1\n"
        ),
        "{status}"
    );
    // The Event is created once; here it cannot be.
    let (host, seen) = device.on();
    report_rebuild(&host).unwrap();
    report_rebuild(&host).unwrap();
    let said = seen.lines.take();
    assert!(
        matches!(&said[..], [one] if one.starts_with("firstboot: no Event for the cluster (host, FB317): ")),
        "{said:?}"
    );
    assert_eq!(device.past(), Some((1, Stage::Reported)));
    // A reset takes away what was set aside.
    let plan = reset::dry_run(&host, &Exclusions::default()).unwrap();
    assert!(plan.contains("\nremove /var/lib/containerd.set-aside-1 and everything in it\n"), "{plan}");
    // The next boot is an ordinary one again.
    device.another_boot("3");
    assert_eq!(device.settle(None).1.commands.take(), [SHOW]);
}

#[test]
fn a_panic_again_and_again_and_an_empty_pause_are_damage_too() {
    let device = Device::new();
    device.unit.replace(PANICS.to_owned());
    device.log.replace("go.etcd.io/bbolt.(*Tx).page(0xbc131a4b9a0?, 0xbc131db8600?)".to_owned());
    device.settle(None).0.unwrap();
    assert_eq!(device.past(), Some((1, Stage::Rebuilt)));
    device.another_boot("2");
    // An empty file of that name that is not containerd's does no harm.
    device.put(&format!("{LAYERS}/7/fs/pause"));
    device.put(&format!("{LAYERS}/7/fs/other"));
    device.settle(None).0.unwrap();
    assert_eq!(device.past(), Some((1, Stage::Rebuilt)));
    // A pause image that kubelet pulled, in the place of the bundle's, does none either.
    let own = format!("{LAYERS}/1/fs/pause");
    let ask = format!("{SNAPSHOTS} view --target / firstboot-pause {CHAIN}");
    let remove = format!("{SNAPSHOTS} remove firstboot-pause");
    device.remove(&own);
    put_for_tests(&device.root(), &format!("{LAYERS}/9/fs/pulled")[1..], "program");
    device.own.replace(Some(9));
    let (done, seen) = device.settle(Some(0));
    done.unwrap();
    assert_eq!(seen.commands.take(), [SHOW, &remove, &ask, &remove]);
    assert!(seen.lines.take().is_empty());
    // One without its program is one.
    device.own.replace(Some(8));
    let (done, seen) = device.settle(None);
    done.unwrap();
    let line = format!("damaged (the pause image's layer {LAYERS}/8/fs is empty): it is set aside");
    assert!(seen.lines.take()[0].contains(&line));
    // Of several only the last is kept.
    assert_eq!(device.past(), Some((2, Stage::Rebuilt)));
    assert!(device.has("/var/lib/containerd.set-aside-2") && !device.has("/var/lib/containerd.set-aside-1"));
    assert!(device.has(&own));
    // The snapshotter's data base is lost. That containerd does not answer is no damage.
    device.another_boot("3");
    device.remove(&own);
    device.own.replace(None);
    let (done, seen) = device.settle(None);
    done.unwrap();
    assert_eq!(seen.commands.take()[..4], [SHOW, &remove, &ask, &remove]);
    assert!(seen.lines.take()[0].contains("damaged (the pause image's layer is gone): it is set aside"));
    assert_eq!(device.past(), Some((3, Stage::Rebuilt)));
}

/// The record was lost, or is of an earlier time: what lies there was not moved by this repair.
#[test]
fn a_directory_of_an_earlier_time_does_not_keep_the_state_where_it_is() {
    let device = Device::new();
    for (earlier, number) in [("1", 2), ("7", 8), ("no-number", 9)] {
        device.put(&format!("/var/lib/containerd.set-aside-{earlier}/old"));
        device.put("/var/lib/containerd/torn");
        device.another_boot(&number.to_string());
        device.settle(None).0.unwrap();
        assert_eq!(device.past(), Some((number, Stage::Rebuilt)));
        assert!(device.has(&format!("/var/lib/containerd.set-aside-{number}/torn")));
        assert!(!device.has(&format!("/var/lib/containerd.set-aside-{earlier}")) && device.has(KNOWN));
    }
}

/// An administrator removes an image, and containerd collects its blobs. That is not undone.
#[test]
fn an_image_that_was_removed_stays_removed() {
    let device = Device::new();
    put_for_tests(&device.root(), &KNOWN[1..], PAUSE);
    device.remove(&format!("{BLOBS}/def"));
    let (done, seen) = device.settle(Some(0));
    done.unwrap();
    assert_eq!(seen.commands.take(), [SHOW]);
    let line = format!("firstboot: the runtime lacks {PROXY}: removed on this device, kubelet pulls what it needs");
    assert_eq!(seen.lines.take(), [line]);
    assert!(device.past().is_none());
}

#[test]
fn a_damaged_blob_and_a_data_base_that_is_empty_are_damage() {
    let device = Device::new();
    put_for_tests(&device.root(), &KNOWN[1..], PAUSE);
    put_for_tests(&device.root(), &format!("{BLOBS}/def")[1..], "{0}");
    let (done, seen) = device.settle(None);
    done.unwrap();
    assert_eq!(seen.commands.take(), [&[SHOW][..], &STEPS].concat());
    assert!(seen.lines.take()[0].contains("damaged (blob def is damaged): it is set aside"));
    device.another_boot("2");
    device.remove(KNOWN);
    let (done, seen) = device.settle(None);
    done.unwrap();
    assert!(seen.lines.take()[0].contains("damaged (it knows no image of the bundle): it is set aside"));
    assert!(device.has(KNOWN));
}

/// The bundle's state is not what its manifest says: the image is wrong, and kubelet runs all the same.
#[test]
fn a_state_that_lacks_an_image_is_the_images_fault() {
    let device = Device::new();
    put_for_tests(&device.root(), &KNOWN.replace("/var/lib", BUNDLE_DIR)[1..], PAUSE);
    device.put("/var/lib/containerd/torn");
    device.another_boot("2");
    let (done, seen) = device.settle(None);
    let fault = done.unwrap_err();
    let text = format!("find image {PROXY} in the runtime: the bundle's containerd state has it under another name");
    assert_eq!((fault.code, fault.to_string()), (Code::BundleImageName, text));
    assert_eq!(seen.commands.take().last().unwrap(), "systemctl start kubelet.service");
}

#[test]
fn a_second_time_in_one_boot_is_refused() {
    let device = Device::new();
    device.put("/var/lib/containerd/torn");
    device.log.replace(TORN.to_owned());
    device.settle(None).0.unwrap();
    device.put("/var/lib/containerd/torn");
    let (done, seen) = device.settle(None);
    let text =
        "use containerd's state: it is damaged again in the same boot (it says \"invalid database\"); another card?";
    assert_eq!(done.unwrap_err().to_string(), text);
    assert_eq!(seen.commands.take(), [SHOW, LOG]);
    assert_eq!(device.past(), Some((1, Stage::Rebuilt)));
}

/// The phases `runtime` and `images` take the same steps before the device is sealed; kubelet is for its phase to start.
#[test]
fn a_device_that_is_not_sealed_yet_takes_the_same_steps() {
    let device = Device::new();
    device.unit.replace(PANICS.to_owned());
    let (host, seen) = device.on();
    assert_eq!(damage(&host).unwrap(), None);
    device.log.replace("time=\"x\" level=fatal error=\"checksum error\"".to_owned());
    let why = damage(&host).unwrap().unwrap();
    assert_eq!(why, "it says \"checksum error\"");
    seen.commands.take();
    set_aside(&host, &why).unwrap();
    assert_eq!(seen.commands.take(), STEPS[..7]);
    whole(&host).unwrap();
    assert_eq!(device.past(), Some((1, Stage::Rebuilt)));
    // Without a record of it nothing is wrong either.
    device.log.replace(String::new());
    let bundle = Installed::read(&host).unwrap();
    assert_eq!(damage::of_images(&host, &bundle.manifest, &[]).unwrap(), None);
}

#[test]
fn a_cut_before_any_effect_ends_in_the_same_state() {
    for killed in [false, true] {
        let mut cuts = 0;
        loop {
            let device = Device::new();
            device.put("/var/lib/containerd/torn");
            device.another_boot("2");
            let (done, seen) = device.settle(Some(cuts));
            if done.is_ok() {
                break;
            }
            let before = seen.commands.take();
            // Either the power went, or firstboot alone was ended and systemd starts it again.
            if !killed {
                device.another_boot("3");
            }
            let (done, seen) = device.settle(None);
            done.unwrap_or_else(|fault| panic!("cut {cuts}, killed {killed}: {fault}"));
            // At another boot systemd starts it.
            let commands = if killed { [before, seen.commands.take()].concat() } else { seen.commands.take() };
            let last = commands.iter().rfind(|c| c.ends_with(KUBELET));
            assert!(last.is_none_or(|c| c == "systemctl start kubelet.service"), "cut {cuts}, killed {killed}");
            let aside: Vec<String> = std::fs::read_dir(device.root().join("var/lib"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.starts_with("containerd."))
                .collect();
            assert_eq!(aside.len(), 1, "cut {cuts}, killed {killed}: {aside:?}");
            assert!(device.has(&format!("/var/lib/{}/torn", aside[0])), "cut {cuts}, killed {killed}");
            assert!(device.has(KNOWN) && !device.has("/var/lib/containerd/torn"));
            assert_eq!(device.past().map(|(_, stage)| stage), Some(Stage::Rebuilt), "cut {cuts}, killed {killed}");
            cuts += 1;
        }
        assert!(cuts > 15, "only {cuts} cuts");
    }
}

#[path = "repair_attack_tests.rs"]
mod attacks;
