// SPDX-License-Identifier: Apache-2.0
//! Which seed is accepted when: each row of the table in docs/operations.md (and docs/testing.md), below a root of its own,
//! with a TLS server of this process for the cluster. And what a boot of a sealed device writes.

use super::wait_for_seed::NO_SEED;
use super::*;
use crate::boot_partition::{BootPartition, Place, formatted_for_tests};
use crate::bundle::{BUNDLE_DIR, Manifest};
use crate::harden::overrides::SeedOverrides;
use crate::host::fake::{Fake, Recorded};
use crate::host::kept::{OVERRIDES, VERIFIED_TIME, copy_path};
use crate::image::IMAGE_INFO;
use crate::journal::facts::Fact;
use crate::kube::kubeconfig::kubelet_conf;
use crate::kube::pin;
use crate::kube::wire_tests::{Ca, ok_json, serve};
use crate::node::repair;
use crate::paths::CURRENT_PEM;
use crate::paths::{CA_FILE, KUBELET_CONF, PKI};
use crate::reset::work_with;
use crate::run::guard::guard;
use crate::status::STATUS_NAME;
use crate::test_files::put_for_tests;
use base64::Engine;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::SystemTime;

/// `Date` of the server's answers: 2026-11-22T16:31:48Z.
pub(super) const DATE: u64 = 1_795_365_108;
pub(super) const DATA: &str = "var/lib/kubelet/pods/1/volumes/data/file";
/// The pause image, as the runtime has unpacked it.
const LAYER: &str = "var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs/pause";

/// Each row says on record that it was applied; the first belongs to one seed, the last seals.
pub(super) const ROWS: [Phase<PhaseContext>; 3] = [
    Phase {
        name: "first",
        check: |cx| Ok(cx.host.read_text("/etc/first").owned_by(Owner::Host)?.as_deref() == Some(cx.seed.digest())),
        apply: |cx| {
            let run = || cx.host.run(&["apply", "first"]);
            run().and_then(|_| cx.host.write("/etc/first", cx.seed.digest().as_bytes(), 0o644)).owned_by(Owner::Host)
        },
    },
    Phase { name: "second", check: |_| Ok(true), apply: |cx| applied(cx, "second") },
    Phase {
        name: "third",
        check: |cx| Ok(cx.host.journal().sealed()),
        apply: |cx| {
            applied(cx, "third")?;
            let seal = || cx.boot.destroy(&cx.seed_name).and_then(|()| cx.host.record(Record::Sealed));
            seal().owned_by(Owner::Host)
        },
    },
];

fn applied(cx: &PhaseContext, row: &str) -> Result<(), Fault> {
    cx.host.run(&["apply", row]).map(drop).owned_by(Owner::Host)
}

pub(super) fn seed(token: &str, more: &str) -> String {
    format!(
        "version = 1\n{more}[cluster]\napiserver = \"10.0.2.2\"\ntoken = \"{token}.0123456789abcdef\"\nca-cert-hashes = \
         \"sha256:{}\"\n",
        "0".repeat(64)
    )
}

pub(super) struct Device {
    pub(super) disk: tempfile::TempDir,
    pub(super) boot: BootPartition,
    pub(super) ca: Ca,
}

impl Device {
    /// As it was flashed.
    pub(super) fn new() -> Self {
        let disk = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let root = disk.path().join("root");
        let image = ImageInfo { build_time: DATE - 86_400, ..ImageInfo::for_tests() };
        let manifest = Manifest::for_tests();
        put_for_tests(&root, &IMAGE_INFO[1..], &serde_json::to_string(&image).unwrap());
        let path = format!("{BUNDLE_DIR}/manifest.json");
        put_for_tests(&root, &path[1..], &serde_json::to_string(&manifest).unwrap());
        put_for_tests(&root, DATA, "data");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        let boot = formatted_for_tests(&disk.path().join("boot.img"), 0, 16 << 20).unwrap();
        Device { disk, boot, ca: Ca::new() }
    }

    /// One that is sealed, with a certificate that is good until then.
    pub(super) fn sealed(until: i32) -> Self {
        let device = Device::new();
        device.drop_seed(&seed("aaaaaa", ""));
        device.boots(None).0.unwrap();
        let server = serve(device.ca.leaf("127.0.0.1", 2020, 2090), ok_json("{}"));
        let (host, _) = device.on();
        host.write(KUBELET_CONF, kubelet_conf(&format!("https://{server}"), &device.ca.pem).as_bytes(), 0o600).unwrap();
        host.write(CA_FILE, device.ca.pem.as_bytes(), 0o644).unwrap();
        let (certificate, key) = device.ca.node("edge-1", 2020, until);
        let der = base64::engine::general_purpose::STANDARD.encode(certificate);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n{}", key.serialize_pem());
        host.write(CURRENT_PEM, pem.as_bytes(), 0o600).unwrap();
        host.record(Record::Fact { name: Fact::Node, value: "edge-1".into() }).unwrap();
        repair::keep(&host).unwrap();
        put_for_tests(&device.root(), LAYER, "program");
        device
    }

    pub(super) fn root(&self) -> PathBuf {
        self.disk.path().join("root")
    }

    pub(super) fn on(&self) -> (Host, Rc<Recorded>) {
        let (fake, seen) = Fake::new();
        seen.clock.set(Some(SystemTime::UNIX_EPOCH + Duration::from_secs(DATE)));
        (Host::open(&self.root(), Box::new(fake)).unwrap(), seen)
    }

    /// A seed for the cluster of which it is a node.
    pub(super) fn seed_of_its_cluster(&self, token: &str) -> String {
        let pin = pin::pin_of(&self.ca.trusted()[0]).unwrap().to_string();
        seed(token, "").replace(&format!("sha256:{}", "0".repeat(64)), &pin)
    }

    pub(super) fn drop_seed(&self, text: &str) {
        self.boot.write("seed.toml", text.as_bytes()).unwrap();
    }

    /// One boot. The third look at a card without a seed ends it, unless there is something to drop then.
    fn boots_with(&self, fails: Option<&'static str>, drop: Option<&str>) -> (Result<(), Fault>, Rc<Recorded>) {
        let (fake, seen) = Fake::new();
        seen.clock.set(Some(SystemTime::UNIX_EPOCH + Duration::from_secs(DATE)));
        let fake = fake.answering(move |argv| match argv {
            ["apply", row] if fails == Some(*row) => Some(Err(anyhow::anyhow!("apply {row}"))),
            ["systemctl", "show", ..] => Some(Ok("ActiveState=active\nNRestarts=0\n".into())),
            _ => None,
        });
        let empty = Cell::new(0);
        let places = |_: &str| {
            empty.set(empty.get() + u32::from(self.boot.seed()?.is_none()));
            match drop.filter(|_| empty.get() == 3) {
                Some(text) => self.drop_seed(text),
                None => anyhow::ensure!(empty.get() < 3, "no seed is added"),
            }
            Ok(vec![Place { partition: self.boot.clone(), removable: false }])
        };
        (run_with(&self.root(), Box::new(fake), None, &ROWS, &places, &|_, _| Ok(Vec::new())), seen)
    }

    pub(super) fn boots(&self, fails: Option<&'static str>) -> (Result<(), Fault>, Rc<Recorded>) {
        self.boots_with(fails, None)
    }

    pub(super) fn status(&self) -> String {
        String::from_utf8(self.boot.read(STATUS_NAME).unwrap().unwrap()).unwrap().replace('\r', "")
    }

    /// Which file it is, when it was changed, and how long it is: whatever was written is another one. /run is memory.
    fn files(&self) -> BTreeMap<PathBuf, (u64, i64, i64, u64)> {
        let (mut files, mut directories) = (BTreeMap::new(), vec![self.root()]);
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
                let (path, meta) = (entry.path(), entry.metadata().unwrap());
                if meta.is_dir() && path != self.root().join("run") {
                    directories.push(path);
                } else if !meta.is_dir() {
                    files.insert(path, (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()));
                }
            }
        }
        files
    }
}

pub(super) fn applied_by(seen: &Recorded) -> Vec<String> {
    seen.commands.take().iter().filter_map(|c| c.strip_prefix("apply ").map(str::to_owned)).collect()
}

#[test]
fn row_1_without_a_seed_it_waits_and_looks_again() {
    let device = Device::new();
    // At every boot, and says so.
    for _ in 0..2 {
        let (done, seen) = device.boots(None);
        assert_eq!(done.unwrap_err().to_string(), "no seed is added");
        // The second is of the error by which this test ends the wait.
        let ended = "firstboot: failed (host, FB302): no seed is added; stopped".to_owned();
        assert_eq!(seen.lines.take(), [format!("firstboot: waiting for a seed (seed, FB101): {NO_SEED}"), ended]);
        assert!(
            device.status().starts_with("state: waiting for a seed\n")
                && device.status().contains("\nowner: seed\ncode: FB101\n")
        );
    }
    let (done, seen) = device.boots_with(None, Some(&seed("aaaaaa", "")));
    done.unwrap();
    assert_eq!(applied_by(&seen), ["first", "second", "third"]);
}

#[test]
fn what_imager_wrote_completes_the_seed_and_a_mistake_in_it_is_the_seeds() {
    const NAMED: &[Phase<PhaseContext>] = &[Phase {
        name: "named",
        check: |cx| cx.host.exists("/etc/named").owned_by(Owner::Host),
        apply: |cx| {
            applied(cx, cx.seed.node.name.as_ref().map_or("none", |name| name.as_str()))?;
            cx.host.write("/etc/named", b"", 0o644).owned_by(Owner::Host)
        },
    }];
    let device = Device::new();
    device.drop_seed(&seed("aaaaaa", ""));
    let boots = || {
        let (fake, seen) = Fake::new();
        let looks = Cell::new(0);
        let places = |_: &str| {
            looks.set(looks.get() + 1);
            anyhow::ensure!(looks.get() < 4, "no seed is added");
            Ok(vec![Place { partition: device.boot.clone(), removable: false }])
        };
        (run_with(&device.root(), Box::new(fake), None, NAMED, &places, &|_, _| Ok(Vec::new())), seen)
    };
    device.boot.write("rpi-preseed.toml", b"[system]\nhostname = 7\n").unwrap();
    boots().0.unwrap_err();
    let status = device.status();
    let error = "\nerror: read rpi-preseed.toml: malformed hostname in [system]: expected a text in quotes\n";
    assert!(status.contains(error) && status.contains("\nowner: seed\ncode: FB107\n"), "{status}");
    device.boot.write("rpi-preseed.toml", &[b'#'; 65_537]).unwrap();
    boots().0.unwrap_err();
    let status = device.status();
    assert!(status.contains("\nerror: read rpi-preseed.toml: it has more than the 65536 bytes allowed\n"), "{status}");
    device.boot.write("rpi-preseed.toml", b"[system]\nhostname = \"shop-7\"\n").unwrap();
    let (done, seen) = boots();
    done.unwrap();
    assert_eq!(applied_by(&seen), ["shop-7"]);
}

#[test]
fn row_2_the_same_seed_resumes() {
    let device = Device::new();
    device.drop_seed(&seed("aaaaaa", ""));
    let (done, seen) = device.boots(Some("second"));
    assert_eq!(done.unwrap_err().code, Code::Host);
    assert_eq!(applied_by(&seen), ["first", "second"]);
    let (done, seen) = device.boots(None);
    done.unwrap();
    assert_eq!(applied_by(&seen), ["second", "third"]);
}

#[test]
fn row_3_another_seed_is_taken_and_what_holds_no_longer_is_done_again() {
    let device = Device::new();
    device.drop_seed(&seed("aaaaaa", ""));
    assert!(device.boots(Some("third")).0.is_err());
    device.drop_seed(&seed("bbbbbb", ""));
    let (done, seen) = device.boots(None);
    done.unwrap();
    assert_eq!(applied_by(&seen), ["first", "third"]);
}

#[test]
fn what_kubelet_made_and_a_power_cut_tore_is_gone_before_kubelet_starts_again() {
    let device = Device::new();
    device.drop_seed(&seed("aaaaaa", ""));
    assert!(device.boots(Some("third")).0.is_err());
    let torn = format!("{PKI}/kubelet.crt");
    put_for_tests(&device.root(), &torn[1..], "");
    let (host, seen) = device.on();
    guard(&host).unwrap();
    assert_eq!(host.list(PKI).unwrap(), [""; 0]);
    let line = format!("firstboot: removed {torn} and kubelet.key, which were torn: kubelet makes them anew");
    assert_eq!(seen.lines.take(), [line]);
}

#[test]
fn row_4_a_sealed_device_has_nothing_to_do_and_writes_the_verified_time_alone() {
    let device = Device::sealed(2027);
    let (host, _) = device.on();
    // This stand-in was joined without the phase that writes them.
    host.keep(OVERRIDES, &SeedOverrides::default().bytes().unwrap()).unwrap();
    // What the first boot learns about the cluster is kept.
    device.boots(None).0.unwrap();
    let kept = "/var/lib/firstboot/verified-time";
    host.keep(VERIFIED_TIME, format!("{}\n", DATE - 3600).as_bytes()).unwrap();
    let (before, card) = (device.files(), std::fs::read(device.disk.path().join("boot.img")).unwrap());
    let (host, seen) = device.on();
    guard(&host).unwrap();
    assert_eq!((seen.commands.take(), seen.lines.take()), (vec!["nft -f -".to_owned()], vec![]));
    let (done, seen) = device.boots(None);
    done.unwrap();
    assert_eq!(seen.commands.take(), ["systemctl show --property=ActiveState,NRestarts containerd.service"]);
    let reported = seen.lines.take();
    assert!(
        reported.iter().all(|line| line.starts_with("firstboot: kubelet stays closed to API servers")),
        "{reported:?}"
    );
    let after = device.files();
    let changed: Vec<&PathBuf> =
        after.iter().filter(|(path, file)| before.get(*path) != Some(file)).map(|c| c.0).collect();
    assert_eq!(changed, [kept.to_owned(), copy_path(kept)].map(|path| device.root().join(&path[1..])).each_ref());
    assert!(before.keys().all(|path| after.contains_key(path)));
    assert_eq!(std::fs::read(device.disk.path().join("boot.img")).unwrap(), card);
    // Ten minutes have not passed: nothing at all.
    guard(&device.on().0).unwrap();
    device.boots(None).0.unwrap();
    assert_eq!(device.files(), after);
}

#[test]
fn row_5_a_sealed_device_refuses_a_seed_and_leaves_it_alone() {
    let device = Device::sealed(2027);
    let text = seed("bbbbbb", "");
    device.drop_seed(&text);
    let (done, seen) = device.boots(None);
    done.unwrap();
    let why = "take seed.toml: this device is node edge-1 and its certificate is good until 2027-01-01T00:00:00Z; the file \
               is left alone, remove it";
    assert!(seen.lines.take().contains(&format!("firstboot: refused (seed, FB111): {why}")));
    assert_eq!(applied_by(&seen), [""; 0]);
    assert_eq!(device.boot.read("seed.toml").unwrap().unwrap(), text.as_bytes());
    let status = device.status();
    assert!(status.starts_with("state: joined\n") && status.contains(&format!("\nerror: {why}\n")), "{status}");
}

#[test]
fn row_6_with_reset_it_is_reset_and_joins_by_that_seed() {
    let device = Device::sealed(2027);
    device.drop_seed(&seed("bbbbbb", "reset = true\n"));
    let (done, seen) = device.boots(None);
    done.unwrap();
    assert_eq!(seen.commands.take(), ["systemctl --no-block start firstboot-reset.service"]);
    let places = |_: &str| Ok(vec![Place { partition: device.boot.clone(), removable: false }]);
    work_with(&device.root(), Box::new(Fake::new().0), &facts::DeviceFacts, &places).unwrap();
    assert!(!device.root().join("etc/first").exists());
    let (done, seen) = device.boots(None);
    done.unwrap();
    assert_eq!(applied_by(&seen), ["first", "second", "third"]);
    assert_eq!(device.boot.seed().unwrap(), None);
}

#[test]
fn row_7_a_lost_credential_needs_a_seed_of_its_cluster_and_the_data_stays() {
    for (how, until) in [("missing", 2027), ("unreadable", 2027), ("expired", 2026)] {
        let device = Device::sealed(until);
        match how {
            "missing" => device.on().0.remove(CURRENT_PEM).unwrap(),
            "unreadable" => device.on().0.write(CURRENT_PEM, b"torn", 0o600).unwrap(),
            _ => {}
        }
        // Without a seed it says what it needs.
        let (done, seen) = device.boots(None);
        assert_eq!(done.unwrap_err().to_string(), "no seed is added", "{how}");
        let asks = "; this node needs a new seed to join again, its workload's data is kept";
        assert!(
            seen.lines
                .take()
                .iter()
                .any(|l| l.starts_with("firstboot: waiting for a seed (seed, FB112): ") && l.ends_with(asks))
        );
        device.drop_seed(&device.seed_of_its_cluster("bbbbbb"));
        let (done, seen) = device.boots(None);
        done.unwrap();
        assert_eq!(applied_by(&seen), ["first", "second", "third"], "{how}");
        assert_eq!(std::fs::read(device.root().join(DATA)).unwrap(), b"data");
        assert!(device.on().0.journal().sealed());
    }
}

/// One card for many devices: each takes its own seed, and a card without one says by what it looked.
#[test]
fn a_device_takes_its_own_seed_of_many_and_names_what_it_looked_for() {
    let device = Device::new();
    put_for_tests(&device.root(), "sys/firmware/devicetree/base/serial-number", "10000000A3F2B1C0\0");
    for (name, kind, address) in [("eth0", "0", "dc:a6:32:01:02:03"), ("usb0", "1", "02:00:00:00:00:01")] {
        let at = format!("sys/class/net/{name}");
        put_for_tests(&device.root(), &format!("{at}/address"), &format!("{address}\n"));
        put_for_tests(&device.root(), &format!("{at}/addr_assign_type"), &format!("{kind}\n"));
        put_for_tests(&device.root(), &format!("{at}/device/uevent"), "DRIVER=x\n");
    }
    let text = seed("aaaaaa", "");
    let put = |names: &[&str]| {
        let files: Vec<_> = names.iter().map(|name| ((*name).to_owned(), text.as_bytes())).collect();
        device.boot.write_seeds(&files).unwrap();
    };
    put(&["10000000a3f2b1c1.toml", "dca632010204.toml"]);
    let (done, seen) = device.boots(None);
    assert!(done.unwrap_err().to_string().contains("no seed is added"));
    let status = device.status();
    let want = "find a seed for this device on the boot partition: seeds has 2 for other devices and none for this one (serial \
                number 10000000a3f2b1c0, MAC address dc:a6:32:01:02:03); add seeds/10000000a3f2b1c0.toml";
    let lines: Vec<&str> = status.lines().take(8).collect();
    assert!(lines.contains(&"state: waiting for a seed") && lines.contains(&"code: FB117"), "{status}");
    assert!(lines.contains(&format!("error: {want}").as_str()) && lines.contains(&"owner: seed"), "{status}");
    assert_eq!(seen.lines.borrow().iter().filter(|line| line.contains("FB117")).count(), 1);
    // By MAC address; then one by serial number, which goes before.
    put(&["DC-A6-32-01-02-03.toml"]);
    device.boots(Some("second")).0.unwrap_err();
    let begun = |device: &Device| device.on().0.journal().seed().unwrap().to_owned();
    assert_eq!(begun(&device), crate::seed::parse(text.as_bytes()).unwrap().digest());
    let mine = seed("bbbbbb", "");
    device.boot.write("seeds/10000000A3F2B1C0.toml", mine.as_bytes()).unwrap();
    let (done, seen) = device.boots(None);
    done.unwrap();
    assert_eq!(begun(&device), crate::seed::parse(mine.as_bytes()).unwrap().digest());
    assert!(seen.lines.borrow().iter().any(|line| line.contains("is Ready")), "{:?}", seen.lines);
    assert_eq!(device.boot.read("seeds/10000000A3F2B1C0.toml").unwrap(), None);
}
