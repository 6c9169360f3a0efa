// SPDX-License-Identifier: Apache-2.0
//! A sealed device with any one of its files damaged: the guard loads its filter, the node stays what it is, and status,
//! report and reset work. A device whose disk takes no writes, and one whose faults pass.

use super::table_tests::{Device, ROWS, seed};
use super::*;
use crate::boot_partition::Place;
use crate::host::exclusions::Exclusions;
use crate::host::fake::{Fake, Recorded};
use crate::host::kept::{KEPT_FILES, STATUS, copy_path};
use crate::image::IMAGE_INFO;
use crate::journal::facts::Fact;
use crate::journal::{JOURNAL, JOURNAL_COPY};
use crate::paths::{CA_FILE, CURRENT_PEM, KUBELET_CONF, PKI};
use crate::run::guard::guard;
use crate::run::status;
use crate::status::{STATUS_FILE, State};
use crate::support;
use rustix::io::Errno;
use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;

/// A full boot for one case of so many. Each case has the guard.
const BOOT_EACH: usize = 500;
/// Status and the plan of a reset for one case of so many.
const LOOK_EACH: usize = 10;

/// A sealed device whose kubelet keeps its pair as a node's does, after one more boot.
fn sealed() -> Device {
    let device = Device::sealed(2027);
    let (host, _) = device.on();
    let pem = host.read(CURRENT_PEM).unwrap().unwrap();
    let path = format!("{PKI}/kubelet-client-1.pem");
    host.write(&path, &pem, 0o600).unwrap();
    host.remove(CURRENT_PEM).unwrap();
    host.symlink(CURRENT_PEM, &path).unwrap();
    let image = host.read(IMAGE_INFO).unwrap().unwrap();
    host.write(&copy_path(IMAGE_INFO), &crate::host::kept::copy_of(&image, None), 0o644).unwrap();
    device.boots(None).0.unwrap();
    device
}

/// What the next boot of this device is to look like, whatever is damaged.
fn is_well(device: &Device, shown: &str, boot: bool, look: bool) {
    let (host, seen) = device.on();
    guard(&host).unwrap_or_else(|fault| panic!("{shown}: {fault}"));
    assert!(seen.commands.take().contains(&"nft -f -".to_owned()), "{shown}: no packet filter");
    assert!(host.journal().sealed(), "{shown}: not sealed");
    assert_eq!(host.journal().fact(Fact::Node), Some("edge-1"), "{shown}");
    if boot {
        let (done, seen) = device.boots(None);
        done.unwrap_or_else(|fault| panic!("{shown}: {fault}"));
        assert!(!seen.commands.take().iter().any(|command| command.starts_with("apply")), "{shown}");
        assert!(device.status().starts_with("state: joined\n"), "{shown}: {}", device.status());
        let host = Host::reading(&device.root(), Box::new(Fake::new().0)).unwrap();
        support::archive(&host, &[], &support::collect_secrets(&host, None))
            .unwrap_or_else(|fault| panic!("{shown}: {fault}"));
    }
    if !look {
        return;
    }
    let host = Host::reading(&device.root(), Box::new(Fake::new().0)).unwrap();
    assert_eq!(status::look(&host).unwrap().state, State::Joined, "{shown}");
    let plan = reset::dry_run(&host, &Exclusions::default()).unwrap();
    assert!(plan.contains("remove /etc/first\n") && plan.contains("begin a new journal"), "{shown}: {plan}");
}

/// Flipped in each byte, cut at each length, empty (the shortest cut), of zeros.
fn damages(good: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> + '_ {
    let flipped = (0..good.len()).map(|at| {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1 << (at % 8);
        (format!("byte {at} flipped"), bytes)
    });
    let cut = (0..good.len()).map(|length| (format!("cut at {length}"), good[..length].to_vec()));
    flipped.chain(cut).chain([("zeros".to_owned(), vec![0; good.len()])])
}

#[test]
fn no_damage_to_any_one_file_costs_the_node_its_state_or_a_command() {
    let device = sealed();
    let on_disk = |path: &str| device.root().join(&path[1..]);
    let pem = format!("{PKI}/kubelet-client-1.pem");
    let mut files: Vec<String> = [JOURNAL, JOURNAL_COPY, CA_FILE, KUBELET_CONF, IMAGE_INFO].map(str::to_owned).into();
    files.extend(KEPT_FILES.iter().flat_map(|file| [file.path.to_owned(), copy_path(file.path)]));
    files.extend([copy_path(IMAGE_INFO), pem.clone(), "/var/lib/firstboot/credential.copy".to_owned()]);
    files.retain(|path| on_disk(path).is_file());
    assert!(files.len() > 12, "{files:?}");
    let mut cases = 0;
    for path in &files {
        let good = std::fs::read(on_disk(path)).unwrap();
        for (how, bytes) in damages(&good) {
            let shown = format!("{path}: {how}");
            let flipped = bytes.len() == good.len();
            let modified = std::fs::metadata(on_disk(path)).unwrap().modified().unwrap();
            std::fs::write(on_disk(path), &bytes).unwrap();
            if flipped {
                // A medium changes nothing of the file system.
                let file = std::fs::File::options().write(true).open(on_disk(path)).unwrap();
                file.set_modified(modified).unwrap();
            }
            cases += 1;
            is_well(&device, &shown, cases % BOOT_EACH == 0, cases % LOOK_EACH == 0);
            let repaired = match path.as_str() {
                // The image's own files are not written; what says the same in another form is as good.
                _ if path.starts_with("/usr") => true,
                path if path == pem => true,
                // A boot writes the status anew, with a warning of what was damaged.
                STATUS_FILE if cases % BOOT_EACH == 0 => true,
                path => {
                    std::fs::read(on_disk(path)).unwrap_or_default() == good
                        || path.ends_with("journal")
                        || path.ends_with(".copy")
                }
            };
            assert!(repaired, "{shown}: not repaired");
            restore(&device, path, &good, &pem);
        }
    }
    println!("{cases} cases in {} files", files.len());
    assert!(cases > 10_000, "only {cases} cases");
}

/// As it was before, copies of files included.
fn restore(device: &Device, path: &str, good: &[u8], pem: &str) {
    let (host, _) = device.on();
    if path == pem {
        host.write(pem, good, 0o600).unwrap();
        host.symlink(CURRENT_PEM, pem).unwrap();
        crate::node::credential::keep_copy(&host).unwrap();
    } else if path.starts_with("/usr") {
        std::fs::write(device.root().join(&path[1..]), good).unwrap();
    } else if path == STATUS_FILE {
        host.keep(STATUS, good).unwrap();
    }
    crate::node::credential::keep_copy(&host).unwrap();
}

#[test]
fn a_lost_journal_is_read_off_the_disk() {
    for how in ["empty", "zeros", "gone"] {
        let device = sealed();
        for path in [JOURNAL, JOURNAL_COPY].map(|path| device.root().join(&path[1..])) {
            match how {
                "empty" => std::fs::write(path, "").unwrap(),
                "zeros" => std::fs::write(path, vec![b'\n'; 4096]).unwrap(),
                _ => std::fs::remove_file(path).unwrap(),
            }
        }
        let (host, seen) = device.on();
        guard(&host).unwrap();
        assert!(host.journal().sealed(), "{how}");
        let line = "firstboot: the journal is lost: this device is node edge-1 by its certificate, and stays it";
        assert!(seen.lines.take().contains(&line.to_owned()), "{how}");
        device.drop_seed(&seed("bbbbbb", ""));
        let (done, seen) = device.boots(None);
        done.unwrap();
        assert!(seen.lines.take().iter().any(|line| line.starts_with("firstboot: refused (seed, FB111): ")), "{how}");
        let host = Host::reading(&device.root(), Box::new(Fake::new().0)).unwrap();
        assert_eq!(status::look(&host).unwrap().node.as_deref(), Some("edge-1"), "{how}");
        assert!(reset::dry_run(&host, &Exclusions::default()).unwrap().contains("begin a new journal"), "{how}");
    }
}

#[test]
fn a_disk_that_takes_no_writes_costs_a_sealed_node_nothing() {
    for found in ["whole", "without a journal", "with damage to report"] {
        let device = sealed();
        if found == "with damage to report" {
            device.on().0.note_damage("read /x: it was damaged").unwrap();
        }
        if found == "without a journal" {
            [JOURNAL, JOURNAL_COPY]
                .iter()
                .for_each(|path| std::fs::remove_file(device.root().join(&path[1..])).unwrap());
        }
        let before = tree(&device);
        let read_only = || {
            let (fake, seen) = Fake::new();
            seen.clock.set(device.on().1.clock.get());
            let fake = fake.answering(|argv| match argv {
                ["systemctl", "show", ..] => Some(Ok("ActiveState=active\nNRestarts=0\n".into())),
                _ => None,
            });
            let fails = |what: &str| match what.starts_with('/') && !what.starts_with("/run") || what == "journal" {
                true => Err(Errno::ROFS.into()),
                false => Ok(()),
            };
            (fake.before(fails), seen)
        };
        let (fake, seen) = read_only();
        let host = Host::open(&device.root(), Box::new(fake)).unwrap();
        guard(&host).unwrap();
        assert!(seen.commands.take().contains(&"nft -f -".to_owned()));
        assert!(host.journal().sealed());
        let (fake, _) = read_only();
        let places = |_: &str| Ok(vec![Place { partition: device.boot.clone(), removable: false }]);
        run_with(&device.root(), Box::new(fake), None, &ROWS, &places, &|_, _| Ok(Vec::new())).unwrap();
        assert!(device.status().starts_with("state: joined\n"), "{found}: {}", device.status());
        assert_eq!(tree(&device), before);
    }
}

fn tree(device: &Device) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut files, mut directories) = (Vec::new(), vec![device.root()]);
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path == device.root().join("run") {
                continue;
            }
            match entry.file_type().unwrap().is_dir() {
                true => directories.push(path),
                false => files.push((path.clone(), std::fs::read(&path).unwrap_or_default())),
            }
        }
    }
    files.sort();
    files
}

#[test]
fn a_fault_of_this_device_that_passes_stops_nothing() {
    let device = Device::new();
    device.drop_seed(&seed("aaaaaa", ""));
    let (fake, seen) = Fake::new();
    seen.clock.set(device.on().1.clock.get());
    let fails = Rc::new(Cell::new(3));
    let left = fails.clone();
    let fake = fake.retrying(10).answering(move |argv| match argv {
        ["apply", "second"] if left.get() > 0 => {
            left.set(left.get() - 1);
            Some(Err(anyhow::anyhow!("run apply: timed out")))
        }
        _ => None,
    });
    let places = |_: &str| Ok(vec![Place { partition: device.boot.clone(), removable: false }]);
    run_with(&device.root(), Box::new(fake), None, &ROWS, &places, &|_, _| Ok(Vec::new())).unwrap();
    assert_eq!(fails.get(), 0);
    let lines: Vec<String> = seen.lines.take().into_iter().filter(|line| line.contains("failed")).collect();
    let waits: Vec<&str> =
        lines.iter().filter_map(|line| line.split("next try in ").nth(1)?.split(',').next()).collect();
    assert_eq!(waits, ["30 s", "60 s", "120 s"], "{lines:?}");
    assert!(lines[0].contains("phase 2/3 second failed (host"), "{lines:?}");
}

#[test]
fn what_preflight_finds_of_this_device_ends_the_run() {
    let phases = [Phase {
        name: "preflight",
        check: |_| Ok(false),
        apply: |_| Err(Fault::new(Code::Memory, "Memory: 100 MiB of memory are too little")),
    }];
    let device = Device::new();
    device.drop_seed(&seed("aaaaaa", ""));
    let (fake, _): (Fake, Rc<Recorded>) = Fake::new();
    let places = |_: &str| Ok(vec![Place { partition: device.boot.clone(), removable: false }]);
    let fake = fake.retrying(10);
    let done = run_with(&device.root(), Box::new(fake), None, &phases, &places, &|_, _| Ok(Vec::new()));
    assert_eq!(done.unwrap_err().to_string(), "Memory: 100 MiB of memory are too little");
    assert!(device.status().starts_with("state: stopped\n"), "{}", device.status());
}
