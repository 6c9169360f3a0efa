// SPDX-License-Identifier: Apache-2.0
//! The device's own loop (`firstboot::run`) on a scripted machine: real files, a real FAT partition with the seed, the
//! real identity, join, ready and seal phases, the real cluster; no commands, and waits that take no time.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use firstboot::boot_partition::{BootPartition, Place, formatted_for_tests};
use firstboot::bundle::{BUNDLE_DIR, Manifest};
use firstboot::fault::Fault;
use firstboot::host::Host;
use firstboot::host::fake::{Fake, Recorded};
use firstboot::image::{IMAGE_INFO, ImageInfo};
use firstboot::join_worker;
use firstboot::phase::Phase;
use firstboot::phases::PHASES;
use firstboot::phases::context::PhaseContext;
use firstboot::run::run_phases;
use firstboot::status::STATUS_NAME;
use qemu::control_plane::ControlPlane;
use qemu::seed::secret_of;
use serde_json::json;

use super::bench::*;
use super::cluster::create_node;

const WAITING: &str = "waiting for a changed seed";

/// A machine that is switched off: its disk and its boot partition.
pub struct Machine {
    pub disk: tempfile::TempDir,
    pub boot: BootPartition,
}

impl Machine {
    pub fn new() -> Self {
        let disk = tempdir();
        let put = |path: &str, text: &str| {
            let path = disk.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let image = ImageInfo { build_time: 1_700_000_000, ..ImageInfo::for_tests() };
        let manifest = Manifest::for_tests();
        put(IMAGE_INFO, &serde_json::to_string(&image).unwrap());
        put(&format!("{BUNDLE_DIR}/manifest.json"), &serde_json::to_string(&manifest).unwrap());
        put("/etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        let boot = formatted_for_tests(&disk.path().join("boot.img"), 0, 16 << 20).unwrap();
        Machine { disk, boot }
    }

    /// Switches it on. `look` is called each time that the device looks for a seed.
    pub fn run(
        &self,
        phases: &[&str],
        fuse: Option<u32>,
        look: impl Fn(&Recorded),
    ) -> (Result<(), Fault>, Vec<String>) {
        let (fake, seen) = Fake::new();
        seen.fuse.set(fuse);
        self.run_on(fake, seen, phases, look)
    }

    pub fn run_on(
        &self,
        fake: Fake,
        seen: Rc<Recorded>,
        phases: &[&str],
        look: impl Fn(&Recorded),
    ) -> (Result<(), Fault>, Vec<String>) {
        let places = {
            let seen: Rc<Recorded> = seen.clone();
            let boot = self.boot.clone();
            move |_label: &str| {
                look(&seen);
                Ok(vec![Place { partition: boot.clone(), removable: false }])
            }
        };
        // The join worker, unconfined, in this process.
        let fake = fake.serving(join_worker::SOCKET, |stream| drop(join_worker::confined::serve(&stream)));
        let done = run_phases(self.disk.path(), Box::new(fake), phases.last().copied(), &table(phases), &places);
        let lines = seen.lines.take();
        (done, lines)
    }

    pub fn status(&self) -> String {
        String::from_utf8(self.boot.read(STATUS_NAME).unwrap().unwrap_or_default()).unwrap().replace('\r', "")
    }

    pub fn file(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.disk.path().join(path.trim_start_matches('/'))).ok()
    }
}

/// These rows of the device's table.
fn table(names: &[&str]) -> Vec<Phase<PhaseContext>> {
    let rows = PHASES.iter().filter(|p| names.contains(&p.name));
    rows.map(|p| Phase { name: p.name, check: p.check, apply: p.apply }).collect()
}

/// Without the seconds that a phase took and the time of the next try.
fn plain(lines: &[String]) -> Vec<String> {
    let cut = |line: &String| {
        let line = line.split(" done ").next().unwrap_or_default();
        line.split(" s, at ").next().unwrap_or_default().to_owned()
    };
    lines.iter().map(cut).collect()
}

pub fn value<'t>(status: &'t str, key: &str) -> Option<&'t str> {
    status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(": "))
}

pub fn changed_seed_is_picked_up_during_the_wait(plane: &ControlPlane) {
    let token = plane.create_token("1h").unwrap();
    let (endpoint, pin) = (plane.endpoint_for_host(), plane.ca_pin().unwrap());
    let named = |text: String| format!("{text}[node]\nname = \"changed-seed\"\n");
    let (good, wrong) = (pinned_text(&endpoint, &token, &pin), format!("sha256:{}", "0".repeat(64)));
    let broken = good.replace("version = 1", "version = 2");
    let machine = Machine::new();
    machine.boot.write("seed.toml", broken.as_bytes()).unwrap();
    let mismatch = format!("CA of the cluster at {endpoint} does not match ca-cert-hashes: it is {pin}");

    let (shown, step) = (RefCell::new(Vec::new()), Cell::new(0));
    let (done, lines) = machine.run(&["identity", "join"], None, |seen| {
        let reported = |text: &str| seen.lines.borrow().iter().filter(|l| l.contains(text)).count();
        // What a person sees who pulls the card now, and what he does then.
        let next = match step.get() {
            0 if reported(WAITING) == 1 => Some(named(pinned_text(&endpoint, &token, &wrong))),
            1 if reported(&mismatch) == 3 => Some(named(good.clone())),
            _ => None,
        };
        if let Some(next) = next {
            shown.borrow_mut().push(machine.status());
            machine.boot.write("seed.toml", next.as_bytes()).unwrap();
            step.set(step.get() + 1);
        }
    });
    done.unwrap();
    let failed = format!("firstboot: phase 2/2 join failed (cluster, FB418): {mismatch}; next try in ");
    assert_eq!(
        plain(&lines),
        [
            "firstboot: failed (seed, FB104): seed.toml:1: this firstboot reads seeds of version = 1 only; waiting for a \
             changed seed"
                .to_owned(),
            "firstboot: phase 1/2 identity".to_owned(),
            format!("{failed}1"),
            format!("{failed}2"),
            format!("{failed}4"),
            "firstboot: phase 2/2 join".to_owned(),
            "firstboot: stopped after phase join, as asked".to_owned(),
        ]
    );
    let [by_seed, by_cluster] = <[String; 2]>::try_from(shown.into_inner()).unwrap();
    assert_eq!(value(&by_seed, "state"), Some("stopped"));
    assert_eq!(value(&by_seed, "owner"), Some("seed"));
    assert_eq!(value(&by_seed, "code"), Some("FB104"));
    assert_eq!(value(&by_seed, "advice"), Some("edit seed.toml on the boot partition"));
    assert_eq!(value(&by_cluster, "state"), Some("retrying"));
    assert_eq!(value(&by_cluster, "phase"), Some("2/2 join"));
    assert_eq!(value(&by_cluster, "node"), Some("changed-seed"));
    assert_eq!(value(&by_cluster, "error"), Some(mismatch.as_str()));
    let next = value(&by_cluster, "next try").unwrap();
    assert!(next.starts_with("in 4 s, at 20") && next.ends_with('Z'), "{next}");

    let secret = token.split('.').nth(1).unwrap();
    for text in [&lines.join("\n"), &by_seed, &by_cluster, &machine.status()] {
        assert!(!text.contains(secret), "{text}");
    }
    // The certificate works, so the token's bytes are overwritten, here and for good.
    let seed = String::from_utf8(machine.boot.read("seed.toml").unwrap().unwrap()).unwrap();
    assert!(seed.contains(&format!("{}.****************", id(&token))), "{seed}");
    assert!(machine.file("/etc/kubernetes/kubelet.conf").unwrap().contains(&format!("server: https://{endpoint}")));
    assert_eq!(csrs_by(plane, &token).len(), 1);
}

/// The power goes before the first effect, the second, and so on; the machine is switched on again each time.
pub fn power_cut_at_every_effect_leaves_one_csr(plane: &ControlPlane) {
    let token = plane.create_token("1h").unwrap();
    let seed = pinned_text(&plane.endpoint_for_host(), &token, &plane.ca_pin().unwrap());
    let machine = Machine::new();
    machine.boot.write("seed.toml", format!("{seed}[node]\nname = \"cut\"\n").as_bytes()).unwrap();
    let phases = ["identity", "join"];
    let mut cuts = 0;
    // A resumed run has fewer effects before it than the one before, so the same fuse reaches further each time.
    while let (Err(fault), lines) = machine.run(&phases, Some(cuts / 2 + 1), |_| ()) {
        let text = fault.to_string();
        assert!(text.contains("power lost before "), "{text}\n{}", lines.join("\n"));
        cuts += 1;
        assert!(cuts < 200, "never done: {text}");
    }
    assert!(cuts > 10, "only {cuts} cuts");
    assert_eq!(csrs_by(plane, &token).len(), 1, "after {cuts} cuts");
    let conf = machine.file("/etc/kubernetes/kubelet.conf").unwrap();
    assert!(conf.contains("client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem"), "{conf}");
    assert_eq!(machine.file("/var/lib/firstboot/join.key"), None);
    // Nothing to do any more.
    let (done, lines) = machine.run(&phases, Some(0), |_| ());
    done.unwrap();
    assert_eq!(lines, ["firstboot: stopped after phase join, as asked"]);
}

/// A device whose kubelet runs is given another seed: its own Ready Node does not count as another device's.
pub fn own_ready_node_is_no_other_machine(plane: &ControlPlane) {
    let machine = Machine::new();
    let put = |token: &str| {
        let seed = pinned_text(&plane.endpoint_for_host(), token, &plane.ca_pin().unwrap());
        machine.boot.write("seed.toml", format!("{seed}[node]\nname = \"own-node\"\n").as_bytes()).unwrap();
    };
    let (first, second) = (plane.create_token("1h").unwrap(), plane.create_token("1h").unwrap());
    put(&first);
    let phases = ["identity", "join"];
    machine.run(&phases, None, |_| ()).0.unwrap();
    let host = Host::open(machine.disk.path(), Box::new(Fake::new().0)).unwrap();
    host.start_unit("kubelet.service").unwrap();
    drop(host);
    create_node(plane, "own-node", &json!({}), &json!([]));
    report_ready(plane, "own-node", "True");

    put(&second);
    let stopped = Arc::new(AtomicBool::new(false));
    let (fake, seen) = Fake::new();
    let seen_stop = stopped.clone();
    let fake = fake.answering(move |argv| {
        seen_stop.fetch_or(argv == ["systemctl", "stop", "kubelet.service"], Ordering::Relaxed);
        None
    });
    let (done, lines) = std::thread::scope(|scope| {
        // What the cluster does once kubelet is gone, sooner.
        scope.spawn(|| {
            let reported = || Ok(stopped.load(Ordering::Relaxed).then_some(()));
            qemu::wait::until("kubelet to be stopped", Duration::from_secs(20), reported).unwrap();
            report_ready(plane, "own-node", "Unknown");
        });
        machine.run_on(fake, seen, &phases, |_| ())
    });
    done.unwrap();
    assert!(!lines.iter().any(|l| l.contains("failed")), "{lines:?}");
    assert_eq!(csrs_by(plane, &second).len(), 1);
}

pub fn remaining_steps_for_an_administrator_are_reported(plane: &ControlPlane) {
    let token = plane.create_token("1h").unwrap();
    let seed = pinned_text(&plane.endpoint_for_host(), &token, &plane.ca_pin().unwrap());
    let node = "[node]\nname = \"reported\"\ntaints = [\"edge=true:NoSchedule\"]\nlabels = { \"shop\" = \"12\" }\n";
    let machine = Machine::new();
    machine.boot.write("seed.toml", format!("{seed}{node}").as_bytes()).unwrap();
    create_node(plane, "reported", &json!({}), &json!([]));
    report_ready(plane, "reported", "False");
    let (done, lines) = std::thread::scope(|scope| {
        let disk = machine.disk.path().to_owned();
        scope.spawn(move || kubelet(plane, &disk, "reported"));
        machine.run(&["identity", "join", "ready", "seal"], None, |_| ())
    });
    done.unwrap();
    let command = "kubectl taint --overwrite node reported edge=true:NoSchedule";
    let shown = plain(&lines);
    let [.., left, ready] = &shown[..] else { panic!("{lines:?}") };
    assert_eq!(left, &format!("firstboot: left for an administrator of the cluster: {command}"));
    assert!(ready.starts_with("firstboot: node reported is Ready, seed destroyed ("), "{ready}");
    let status = machine.status();
    assert_eq!((value(&status, "state"), value(&status, "left to do")), (Some("joined"), Some(command)));
    assert_eq!(machine.boot.read("seed.toml").unwrap(), None);
    let labels = plane.node("reported").unwrap().unwrap()["metadata"]["labels"].clone();
    assert_eq!((&labels["shop"], &labels["superedge.io/node-edge"]), (&json!("12"), &json!("enable")));
    let events = plane.events("FirstbootJoined").unwrap();
    let ours: Vec<&String> = events.iter().filter(|e| e.starts_with("/reported: ")).collect();
    let [event] = &ours[..] else { panic!("{events:?}") };
    assert!(
        event.contains(" made this device a Ready node in ") && event.contains(", image generic-amd64 (test); "),
        "{event}"
    );
    assert!(event.contains("seconds: identity ") && event.contains(", join ") && event.contains(", ready "), "{event}");
    assert!(!event.contains(secret_of(&token)), "{event}");
}

/// What kubelet would do once it is started: report Ready, renew the Lease.
pub fn kubelet(plane: &ControlPlane, disk: &Path, node: &str) {
    qemu::wait::until("kubelet.conf", Duration::from_secs(60), || {
        Ok(disk.join("etc/kubernetes/kubelet.conf").exists().then_some(()))
    })
    .unwrap();
    report_ready(plane, node, "True");
    create(
        plane,
        &json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": node, "namespace": "kube-node-lease" },
            "spec": { "holderIdentity": node, "renewTime": "2030-01-01T00:00:00.000000Z" },
        }),
    );
}
