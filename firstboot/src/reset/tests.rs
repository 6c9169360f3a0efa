// SPDX-License-Identifier: Apache-2.0
//! A whole installation below a root of its own, as far as it goes without a kernel, and its end: the tree is what it was
//! before, however often the power goes meanwhile.

use super::*;
use crate::boot_partition::{BootPartition, Place, formatted_for_tests};
use crate::bundle::{BUNDLE_DIR, Manifest};
use crate::flush::FlushSite;
use crate::flush::medium::{self, Entry, Outcome, State};
use crate::flush::tests::records_of;
use crate::host::fake::{Fake, Recorded};
use crate::image::{IMAGE_INFO, ImageInfo};
use crate::journal::facts::Fact;
use crate::phase::Phase;
use crate::phases::PHASES;
use crate::phases::context::PhaseContext;
use crate::run::facts::DeviceFacts;
use crate::run::run_phases;
use crate::status::{STATUS_FOR_ALL, STATUS_NAME};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::rc::Rc;

/// Rows of the table that need neither a runtime nor a cluster.
const PHASES_HERE: [&str; 5] = ["identity", "kernel", "clock", "network", "bundle"];
const MACHINE_ID: &str = "0f6dd9b27b0c4d2f9d3c2b1a4c5d6e7f\n";
/// What may differ from the tree before: firstboot's own record, which no image holds.
const DIFFERS: [&str; 3] = ["/var/lib/firstboot", "/var/lib/firstboot/journal", "/var/lib/firstboot/journal.copy"];

/// A directory in memory, where there is one: thousands of flushes cost nothing there.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn put(root: &Path, path: &str, text: &str, mode: u32) {
    let path = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A device as it was flashed, after systemd has made a machine-id.
fn flashed(root: &Path) {
    let image = ImageInfo::for_tests();
    let manifest = Manifest::for_tests();
    put(root, IMAGE_INFO, &serde_json::to_string(&image).unwrap(), 0o644);
    put(root, &format!("{BUNDLE_DIR}/manifest.json"), &serde_json::to_string(&manifest).unwrap(), 0o644);
    put(root, "/etc/machine-id", MACHINE_ID, 0o444);
    put(root, "/etc/hostname", "image\n", 0o644);
    put(root, "/etc/hosts", "127.0.0.1 localhost\n", 0o644);
    put(root, "/etc/default/kubelet", "# of the image\n", 0o600);
    put(root, "/proc/swaps", "Filename Type Size Used Priority\n", 0o444);
    symlink("../run/systemd/resolve/stub-resolv.conf", root.join("etc/resolv.conf")).unwrap();
    for directory in ["var/lib", "var/log/journal", "opt", "run", "usr/bin", "etc/systemd/system"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
}

fn table() -> Vec<Phase<PhaseContext>> {
    let rows = PHASES.iter().filter(|p| PHASES_HERE.contains(&p.name));
    rows.map(|p| Phase { name: p.name, check: p.check, apply: p.apply }).collect()
}

fn seed() -> String {
    format!(
        "version = 1\n[cluster]\napiserver = \"10.0.2.2\"\ntoken = \"abcdef.0123456789abcdef\"\nca-cert-hashes = \
         \"sha256:{}\"\n[time]\nservers = \"10.0.0.5\"\n",
        "0".repeat(64)
    )
}

/// SeedLocator with this partition alone; the third look at an empty one ends the run.
fn run(root: &Path, boot: &BootPartition, until: Option<&str>) -> (Result<(), Fault>, Rc<Recorded>) {
    let (fake, seen) = Fake::new();
    let fake = fake.kernel_below(root);
    let empty = Cell::new(0);
    let places = |_: &str| {
        empty.set(empty.get() + u32::from(boot.seed()?.is_none()));
        anyhow::ensure!(empty.get() < 3, "no seed is added");
        Ok(vec![Place { partition: boot.clone(), removable: false }])
    };
    (run_phases(root, Box::new(fake), until, &table(), &places), seen)
}

/// What the phases make by way of the door that cannot run here, and what kubelet, runtime and pods make beside it.
fn joined(root: &Path) {
    let host = Host::open(root, Box::new(Fake::new().0)).unwrap();
    let wants = "/etc/systemd/system/multi-user.target.wants";
    host.write("/etc/containerd/config.toml", b"version = 3\n", 0o600).unwrap();
    for directory in ["/etc/cni/net.d", "/opt/cni/bin", "/etc/kubernetes/manifests", "/var/lib/kubelet/pki"] {
        host.mkdir(directory, 0o755).unwrap();
    }
    for unit in ["containerd.service", "kubelet.service"] {
        host.enable_unit(&format!("{wants}/{unit}"), &format!("/usr/lib/systemd/system/{unit}")).unwrap();
        host.start_unit(unit).unwrap();
    }
    host.start_unit(crate::offline::UNIT).unwrap();
    host.write("/etc/default/kubelet", b"KUBELET_EXTRA_ARGS=--config-dir=/x\n", 0o600).unwrap();
    host.write("/etc/firstboot/proxy.env", b"HTTPS_PROXY=\"http://u:hunter22@p:1\"\n", 0o600).unwrap();
    host.write("/var/lib/kubelet/pki/kubelet-client-1.pem", b"-----BEGIN EC PRIVATE KEY-----\n", 0o600).unwrap();
    host.symlink("/var/lib/kubelet/pki/kubelet-client-current.pem", "kubelet-client-1.pem").unwrap();
    host.write("/etc/kubernetes/kubelet.conf", b"apiVersion: v1\n", 0o600).unwrap();
    host.write("/var/lib/firstboot/receipt.json", b"{}", 0o600).unwrap();
    crate::node::repair::keep(&host).unwrap();
    host.record(Record::Sealed).unwrap();
    for (path, mode) in [
        ("/var/lib/kubelet/pods/1/volumes/data/file", 0o644),
        ("/var/lib/kubelet/pki/kubelet.key", 0o600),
        ("/var/lib/containerd/io.containerd.content.v1.content/blobs/1", 0o444),
        ("/run/containerd/io.containerd.runtime.v2.task/k8s.io/1/config.json", 0o644),
        ("/var/lib/cni/networks/firstboot/10.244.1.2", 0o644),
        ("/var/lib/cni/firstboot-flannel/subnet.env", 0o644),
        ("/etc/cni/net.d/10-flannel.conflist", 0o644),
        ("/opt/cni/bin/flannel", 0o755),
        ("/etc/kubernetes/tmp/kubeadm-backup", 0o600),
        ("/var/log/pods/a_b_1/c/0.log", 0o640),
        ("/var/log/journal/0f6dd9b27b0c4d2f9d3c2b1a4c5d6e7f/system.journal", 0o640),
        // What a power cut left of a file that was being replaced.
        ("/etc/.hosts.firstboot", 0o644),
    ] {
        put(root, path, "x", mode);
    }
    symlink("/var/lib/cni/firstboot-flannel", root.join("run/flannel")).unwrap();
    symlink("/var/lib/containerd/nowhere", root.join("var/lib/kubelet/pods/1/link")).unwrap();
}

/// A device that has joined, and how it was before.
fn installed() -> (tempfile::TempDir, BootPartition, Tree) {
    let disk = directory();
    let root = disk.path().join("root");
    flashed(&root);
    let before = tree(&root);
    let boot = formatted_for_tests(&disk.path().join("boot.img"), 0, 16 << 20).unwrap();
    boot.write("seed.toml", seed().as_bytes()).unwrap();
    run(&root, &boot, Some("bundle")).0.unwrap();
    boot.remove("seed.toml").unwrap();
    joined(&root);
    (disk, boot, before)
}

/// Path, and what is there: kind, mode, content.
type Tree = BTreeMap<String, String>;

fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let (path, meta) = (entry.path(), entry.path().symlink_metadata().unwrap());
            // The kernel's settings are in memory: a reset restarts no kernel.
            if path == root.join("proc/sys") {
                continue;
            }
            let what = if meta.is_symlink() {
                format!("link to {}", fs::read_link(&path).unwrap().display())
            } else if meta.is_dir() {
                directories.push(path.clone());
                format!("directory {:o}", meta.permissions().mode())
            } else {
                let text = fs::read(&path).unwrap();
                format!("file {:o} {}", meta.permissions().mode(), String::from_utf8_lossy(&text))
            };
            found.insert(format!("/{}", path.strip_prefix(root).unwrap().display()), what);
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, from.metadata().unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let meta = path.symlink_metadata().unwrap();
        if meta.is_symlink() {
            symlink(fs::read_link(&path).unwrap(), target).unwrap();
        } else if meta.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Differences between two trees, but for those that may be.
fn differences(before: &Tree, after: &Tree) -> Vec<String> {
    let paths: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differs = |path: &&&String| before.get(**path) != after.get(**path) && !DIFFERS.contains(&path.as_str());
    let shown = |path: &String| format!("{path}: {:?}, now {:?}", before.get(path), after.get(path));
    paths.iter().filter(differs).map(|path| shown(path)).collect()
}

fn reset_on(root: &Path, fuse: Option<u32>) -> (Result<(), Fault>, Rc<Recorded>) {
    let (fake, seen) = Fake::new();
    seen.fuse.set(fuse);
    (work_with(root, Box::new(fake), &DeviceFacts, &|_| Ok(vec![])), seen)
}

fn ask(root: &Path, keep: &Exclusions) {
    let host = Host::open(root, Box::new(Fake::new().0)).unwrap();
    assert_eq!(
        by_command(&host, keep, false).unwrap(),
        Done::Reset(Some(format!("kubectl delete node {}", node(&host))))
    );
}

fn node(host: &Host) -> String {
    host.journal().fact(Fact::Node).unwrap().to_owned()
}

#[test]
fn after_a_reset_the_tree_is_what_it_was_before_the_seed() {
    let (disk, _, mut before) = installed();
    let root = &disk.path().join("root");
    let made = differences(&before, &tree(root));
    assert!(made.len() > 25, "{made:#?}");
    // No reset was asked for.
    reset_on(root, None).0.unwrap();
    assert_eq!(differences(&before, &tree(root)), made);
    ask(root, &Exclusions::default());
    let name = node(&Host::open(root, Box::new(Fake::new().0)).unwrap());
    let (done, seen) = reset_on(root, None);
    done.unwrap();
    // A new one is made at the next boot.
    before.insert("/etc/machine-id".into(), "file 100444 ".into());
    assert_eq!(differences(&before, &tree(root)), Vec::<String>::new());
    let host = Host::open(root, Box::new(Fake::new().0)).unwrap();
    assert_eq!(host.journal().records()[1..], [Record::Fact { name: Fact::NodeBefore, value: name.clone() }]);
    assert_eq!(host.list("/var/lib/firstboot").unwrap(), ["journal", "journal.copy"]);
    assert_eq!(question(&host, false), None);
    assert_eq!(by_command(&host, &Exclusions::default(), false).unwrap(), Done::Nothing);
    let commands = seen.commands.take();
    let at = |command: &str| commands.iter().position(|c| c == command).unwrap_or_else(|| panic!("{commands:#?}"));
    let order = [
        "systemctl stop firstboot.service",
        "systemctl stop kubelet.service",
        "systemctl stop containerd.service",
        "journalctl --relinquish-var",
        "journalctl --flush",
        "nft -f -",
        "zero /var/lib /etc",
        "fstrim /var",
        "systemctl --no-block start firstboot.service",
    ];
    assert!(order.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{commands:#?}");
    let lines = seen.lines.take();
    assert_eq!(
        lines[lines.len() - 2..],
        [
            "firstboot: reset done: this device waits for a seed".to_owned(),
            format!("firstboot: left for an administrator of the cluster: kubectl delete node {name}"),
        ]
    );
}

#[test]
fn a_cut_at_every_effect_of_a_reset_ends_in_the_same_tree() {
    let (disk, _, _) = installed();
    let root = &disk.path().join("root");
    ask(root, &Exclusions::default());
    let whole = disk.path().join("whole");
    copy(root, &whole);
    reset_on(&whole, None).0.unwrap();
    // The content of /run is gone with the power, and the status is written there anew.
    let on_disk = |root: &Path| {
        let mut tree = tree(root);
        tree.retain(|path, _| !path.starts_with("/run/"));
        tree
    };
    let whole = on_disk(&whole);
    let mut cuts = 0;
    loop {
        let cut = disk.path().join("cut");
        copy(root, &cut);
        let (done, _) = reset_on(&cut, Some(cuts));
        if done.is_ok() {
            break;
        }
        // At once, or at the next boot, whose guard puts nothing back; and a second cut on the way.
        let host = Host::open(&cut, Box::new(Fake::new().0)).unwrap();
        let there = on_disk(&cut);
        crate::run::guard::guard(&host).unwrap();
        assert_eq!(on_disk(&cut), there, "cut at effect {cuts}");
        drop(host);
        fs::remove_dir_all(cut.join("run")).unwrap();
        fs::create_dir(cut.join("run")).unwrap();
        let _ = reset_on(&cut, Some(cuts / 2));
        reset_on(&cut, None).0.unwrap();
        assert_eq!(on_disk(&cut), whole, "cut at effect {cuts}");
        // What stood there would be kept as if it had been there before the next installation.
        assert!(!tree(&cut).contains_key(STATUS_FOR_ALL), "cut at effect {cuts}");
        fs::remove_dir_all(&cut).unwrap();
        cuts += 1;
    }
    assert!(cuts > 60, "only {cuts} effects");
}

#[test]
fn what_is_kept_stays_and_a_dry_run_changes_nothing() {
    let (disk, _, before) = installed();
    let root = &disk.path().join("root");
    let keep = Exclusions::parse(&["/var/lib/kubelet/pods/1/volumes", "/etc/hosts"]).unwrap();
    let there = tree(root);
    let host = Host::open(root, Box::new(Fake::new().0)).unwrap();
    let reported = dry_run(&host, &keep).unwrap();
    assert_eq!(tree(root), there);
    for line in [
        "stop firstboot.service",
        "cordon the node and evict its pods, if the cluster answers",
        "remove /etc/systemd/system/multi-user.target.wants/kubelet.service",
        "remove /var/lib/kubelet and everything in it",
        "put /etc/hostname back as it was",
        "remove /etc/firstboot/proxy.env",
        "begin a new journal",
        "keep /etc/hosts",
    ] {
        assert!(reported.lines().any(|l| l == line), "{line} is not in:\n{reported}");
    }
    assert!(!reported.contains("put /etc/hosts back"), "{reported}");
    assert!(question(&host, false).unwrap().starts_with(&format!("This device is node {}.", node(&host))));
    drop(host);
    ask(root, &keep);
    reset_on(root, None).0.unwrap();
    let after = tree(root);
    assert_eq!(after["/etc/hosts"], there["/etc/hosts"]);
    let file = "/var/lib/kubelet/pods/1/volumes/data/file";
    assert_eq!(after[file], there[file]);
    let rest: Vec<String> = differences(&before, &after)
        .into_iter()
        .filter(|d| {
            // The file that a power cut left beside what is kept stays with it.
            let kept = ["/var/lib/kubelet", "/etc/hosts", "/etc/.hosts.firstboot"];
            !kept.iter().any(|k| d.starts_with(k)) && !d.starts_with("/etc/machine-id")
        })
        .collect();
    assert_eq!(rest, Vec::<String>::new());
    assert!(!after.contains_key("/var/lib/kubelet/pki"), "{after:#?}");
}

#[test]
fn a_seed_that_says_reset_takes_the_device_back_and_is_gone_then() {
    let (disk, boot, _) = installed();
    let root = &disk.path().join("root");
    boot.write("seed.toml", b"version = 1\nreset = true\n").unwrap();
    let (done, seen) = run(root, &boot, None);
    done.unwrap();
    let started = "systemctl --no-block start firstboot-reset.service";
    assert_eq!(seen.commands.take(), [started]);
    assert_eq!(seen.lines.take(), ["firstboot: seed.toml asks for a reset"]);
    let status = || String::from_utf8(boot.read(STATUS_NAME).unwrap().unwrap()).unwrap().replace('\r', "");
    assert!(status().starts_with("state: resetting\n"), "{}", status());
    // The power goes in the middle of it: the next boot hands over again.
    assert!(reset_on(root, Some(20)).0.is_err());
    let (done, seen) = run(root, &boot, None);
    done.unwrap();
    assert_eq!(seen.commands.take(), [started]);
    reset_on(root, None).0.unwrap();
    // There is nothing to take back now: the file has done its work.
    let (done, seen) = run(root, &boot, None);
    assert_eq!(done.unwrap_err().to_string(), "no seed is added");
    assert_eq!(boot.seed().unwrap(), None);
    assert!(seen.lines.take()[0].starts_with("firstboot: waiting for a seed (seed, FB101): find seed.toml"));
    assert!(
        status().starts_with("state: waiting for a seed\n") && status().contains("\nowner: seed\ncode: FB101\n"),
        "{}",
        status()
    );
    // Another seed begins another installation, under the same name.
    boot.write("seed.toml", seed().as_bytes()).unwrap();
    let name = Host::open(root, Box::new(Fake::new().0)).unwrap().journal().fact(Fact::NodeBefore).unwrap().to_owned();
    put(root, "/proc/sys/kernel/random/uuid", "aaaaaaaa-bbbb-4d2f-9d3c-2b1a4c5d6e7f\n", 0o444);
    run(root, &boot, Some("bundle")).0.unwrap();
    assert_eq!(node(&Host::open(root, Box::new(Fake::new().0)).unwrap()), name);
}

#[test]
fn a_reset_that_stops_says_so_on_the_card_and_can_be_told_to_keep_more() {
    let (disk, boot, _) = installed();
    let root = &disk.path().join("root");
    fs::rename(root.join("var/lib/cni"), root.join("srv")).unwrap();
    symlink("/srv", root.join("var/lib/cni")).unwrap();
    let hosts = fs::read(root.join("etc/hosts")).unwrap();
    ask(root, &Exclusions::parse(&["/etc/hosts"]).unwrap());
    let places = |_: &str| Ok(vec![Place { partition: boot.clone(), removable: false }]);
    let (fake, seen) = Fake::new();
    let stopped = work_with(root, Box::new(fake), &DeviceFacts, &places).unwrap_err();
    let error = "remove /var/lib/cni: it is a symbolic link, and its target may be a person's data";
    assert_eq!((stopped.code, stopped.to_string().as_str()), (Code::ResetStopped, error));
    assert_eq!(seen.lines.take().last().unwrap(), &format!("firstboot: failed (host, FB323): {error}; stopped"));
    let status = String::from_utf8(boot.read(STATUS_NAME).unwrap().unwrap()).unwrap().replace('\r', "");
    assert!(status.starts_with("state: stopped\n") && status.contains(&format!("\nerror: {error}\n")), "{status}");
    // The second command says what to leave alone; what the first said still holds.
    ask(root, &Exclusions::parse(&["/var/lib/cni"]).unwrap());
    reset_on(root, None).0.unwrap();
    assert!(root.join("var/lib/cni").is_symlink() && root.join("srv/networks/firstboot/10.244.1.2").exists());
    assert_eq!(fs::read(root.join("etc/hosts")).unwrap(), hosts);
    assert!(!root.join("var/lib/containerd").exists());
}

/// What a reset leaves of a state: all of it but its own record and what is in memory.
fn left(state: &State) -> BTreeMap<String, Entry> {
    let ours = |path: &str| path.starts_with("/var/lib/firstboot") || path.starts_with("/run");
    state.0.iter().filter(|(path, _)| !ours(path)).map(|(path, entry)| (path.clone(), entry.clone())).collect()
}

/// A whole reset, with the power cut at every flush of its end.
pub(crate) fn recorded(root: &Path, without: Option<FlushSite>) -> Outcome {
    record(root, without, false)
}

/// The same on a disk whose flush fails before the free space is zeroed, which does not stop a reset.
pub(crate) fn recorded_with_a_failing_flush(root: &Path, without: Option<FlushSite>) -> Outcome {
    record(root, without, true)
}

fn record(root: &Path, without: Option<FlushSite>, failing: bool) -> Outcome {
    let (disk, _, _) = installed();
    copy(&disk.path().join("root"), root);
    ask(root, &Exclusions::default());
    let whole = disk.path().join("whole");
    copy(root, &whole);
    reset_on(&whole, None).0.unwrap();
    let wanted = std::cell::RefCell::new(None);
    medium::record(&whole, None, || {
        medium::check("", &|state| {
            *wanted.borrow_mut() = Some(left(state));
            Ok(())
        })
    });
    let wanted = Rc::new(wanted.take().unwrap());
    let zeroed = wanted.clone();
    let flushes = Cell::new(0);
    let fake = Fake::new().0.before(move |what| {
        if what == "zero" {
            // What is removed has to be free by now, the state directory as well.
            let there = |path: &&String| path.starts_with("/var/lib/firstboot/") && !path.contains("/journal");
            medium::check("before the free space is zeroed", &|state| match state.0.keys().find(there) {
                Some(path) => Err(format!("{path} is back")),
                None => Ok(()),
            });
        }
        flushes.set(flushes.get() + u32::from(what == "flush"));
        anyhow::ensure!(!(failing && what == "flush" && flushes.get() == 2), "the flush failed");
        Ok(())
    });
    medium::record(root, without, || {
        medium::always(move |state| {
            let records = records_of(state, None);
            let restored = records.iter().any(|r| matches!(r, Record::Fact { name: Fact::Restored, .. }));
            let resetting = records.iter().any(|r| matches!(r, Record::Resetting { .. }));
            let done = restored || !resetting;
            let back =
                state.0.keys().find(|path| path.starts_with("/var/lib/firstboot/") && !path.contains("/journal"));
            match back {
                _ if done && left(state) != *zeroed => Err("the reset counts as done, and its effects are back".into()),
                Some(path) if !resetting => Err(format!("the journal is a new one, and {path} is back")),
                _ => Ok(()),
            }
        });
        work_with(root, Box::new(fake), &DeviceFacts, &|_| Ok(vec![])).unwrap();
        medium::cut("after the reset");
    })
}
