// SPDX-License-Identifier: Apache-2.0
//! What the kernel refuses on the way to a node: each ends in a clear state and one line, and the next try, with nothing in
//! the way, in the same node.

use std::cell::{Cell, RefCell};
use std::os::fd::AsRawFd;
use std::rc::Rc;

use e2e::native::cut::BOOT;
use e2e::native::{Boot, Outcome, readdress, resume};
use firstboot::boot_partition::BootPartition;
use firstboot::fault::{Code, Fault, Owner};
use qemu::control_plane::ControlPlane;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;

use super::cuts::resets;
use super::installation::{Failures, Installation};
use super::machine::value;

/// A full disk, a read-only one, a broken one.
pub const ERRNOS: [Errno; 3] = [Errno::NOSPC, Errno::ROFS, Errno::IO];

/// Effects that nothing depends on, each with the reason; what failed is said, and the work goes on.
const GO_ON: [(&str, &str); 3] = [
    ("boot partition: write firstboot-status.txt", "a card that cannot be written must not keep a node from joining"),
    ("/run/firstboot", "the status is for people"),
    ("/run/firstboot/status.json", "the same"),
];

/// How a line begins that says so. Of what firstboot keeps for itself there is a copy, and a device that has joined works
/// without it.
const SAID: [&str; 4] = [
    "firstboot: status not written: ",
    "firstboot: verified time not kept: ",
    "firstboot: damaged files not repaired: ",
    "firstboot: copies of the node's files not kept: ",
];

/// Verbs that a message about a refused effect begins with.
const VERBS: [&str; 13] = [
    "copy ",
    "create ",
    "create directory ",
    "create link ",
    "rename to ",
    "remove ",
    "write ",
    "overwrite ",
    "zero ",
    "set ",
    "start ",
    "load ",
    "destroy the seed: ",
];

/// How many effects before the one that is to fail the device may have to begin, for it to come to it again.
const BEFORE: usize = 24;

/// One effect fails as the kernel would have it, then nothing does.
pub fn fails_once(installation: &Installation, n: usize, errno: Errno) -> Result<(), String> {
    let what = &installation.cuts[n].what;
    if what.is_empty() {
        return Ok(());
    }
    let first = (n.saturating_sub(BEFORE)..=n).rev();
    first
        .map(|from| fails_from(installation, from, n, errno))
        .find(|result| result != &Ok(false))
        .map_or_else(|| Err("it is not done again".to_owned()), |result| result.map(drop))
}

/// The same, begun in the state before an earlier effect; whether the device came to it.
fn fails_from(installation: &Installation, from: usize, n: usize, errno: Errno) -> Result<bool, String> {
    let what = installation.cuts[n].what.clone();
    let left = Rc::new(Cell::new(installation.cuts[from..=n].iter().filter(|cut| cut.what == what).count()));
    let failed = Cell::new(false);
    let done = installation.from(from, &installation.cuts[from].state, || {
        let (name, count) = (what.clone(), left.clone());
        let before = move |next: &str| {
            count.set(count.get().wrapping_sub(usize::from(next == name)));
            if next == name && count.get() == 0 { Err(errno.into()) } else { Ok(()) }
        };
        let boot = Boot { before: Box::new(before), restart: true, ..Boot::default() };
        let outcome = installation.device.run(boot).map_err(|e| format!("{e:#}"))?;
        failed.set(left.get() == 0 || left.get() > installation.cuts.len());
        if !failed.get() {
            return Ok(());
        }
        is_clear(&what, &outcome, errno).map_err(|why| format!("{why}: {outcome:#?}"))?;
        installation.resumes(true)
    });
    done.map(|()| failed.get())
}

/// Whether the device says what failed, and who must act; on the card too, unless that is what failed.
fn is_clear(what: &str, outcome: &Outcome, errno: Errno) -> Result<(), &'static str> {
    let words = errno.to_string();
    let Err(fault) = &outcome.done else {
        // The record of a status file, too.
        let kept = ["journal", "/etc/firstboot", "/etc/firstboot/harden.json"].contains(&what);
        let kept = kept || what.starts_with("/var/lib/firstboot/");
        let tolerated = kept || GO_ON.iter().any(|(known, _)| *known == what);
        let said =
            outcome.lines.iter().any(|line| SAID.iter().any(|said| line.starts_with(said)) && line.contains(&words));
        return match tolerated && said {
            true => Ok(()),
            false => Err("it went on, or said nothing"),
        };
    };
    is_reported(fault, outcome, errno)?;
    let text = fault.to_string();
    if !VERBS.iter().any(|verb| text.starts_with(verb)) {
        return Err("no verb first");
    }
    // A path, a program, or a file on the boot partition.
    let words_of = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let object = match what.strip_prefix(BOOT) {
        Some(change) => words_of(change).pop(),
        None => words_of(what).into_iter().next().filter(|word| word.starts_with('/')),
    };
    if object.is_some_and(|object| !text.contains(&object)) { Err("no path") } else { Ok(()) }
}

/// Whether a fault is the host's, in one line with the kernel's words, and console and card end with it.
fn is_reported(fault: &Fault, outcome: &Outcome, errno: Errno) -> Result<(), &'static str> {
    let text = fault.to_string();
    if fault.owner() != Owner::Host || !text.ends_with(&errno.to_string()) || text.contains('\n') {
        return Err("not the host's, not the kernel's words, or more than one line");
    }
    let last = outcome.lines.last().map(String::as_str).unwrap_or_default();
    if !last.starts_with("firstboot: ") || !last.ends_with(&format!("failed (host, {}): {text}; stopped", fault.code)) {
        return Err("another last line");
    }
    let reported = ["state", "owner", "code", "error"].map(|key| value(&outcome.status, key));
    let wanted = [Some("stopped"), Some("host"), Some(fault.code.as_str()), Some(text.as_str())];
    if reported == wanted { Ok(()) } else { Err("the card says something else") }
}

/// Effects of a reset that may fail without a word, each with the reason.
const SILENT: [(&str, &str); 8] = [
    ("systemctl kill --signal=SIGKILL containerd.service", "of a runtime that has stopped, mostly nothing is left"),
    (
        "systemctl show --property=ActiveState --value ",
        "asked after a unit that could not be stopped, which is then reported",
    ),
    ("nft list tables", "a program that is not there has made nothing, and what is in the kernel goes with it"),
    ("iptables-save", "the same"),
    ("ip6tables-save", "the same"),
    ("ipset list -name", "the same"),
    ("systemctl daemon-reload", "the next boot does the same"),
    ("systemctl --no-block start firstboot.service", "the same"),
];

/// Each effect of a reset fails once with a kernel error, which is reported; the next attempt ends at the flashed
/// image.
pub fn a_reset_that_fails(plane: &ControlPlane) {
    let installation = Installation::recorded(plane, "reset-fault");
    let last = installation.cuts.len() - 1;
    let sealed = &installation.cuts[last].state;
    let effects = Rc::new(RefCell::new(Vec::new()));
    installation
        .from(last, sealed, || {
            let noted = effects.clone();
            let note = move |what: &str| {
                noted.borrow_mut().push(what.to_owned());
                Ok(())
            };
            installation.device.reset_with(Box::new(note)).unwrap().done.map_err(|fault| fault.to_string())
        })
        .unwrap();
    let effects = effects.take();
    assert!(effects.len() > 100, "{effects:#?}");
    let mut failures = Failures::default();
    for (n, what) in effects.iter().enumerate() {
        let errno = ERRNOS[n % ERRNOS.len()];
        let done = installation.from(last, sealed, || {
            let left = Cell::new(n);
            let before = move |_: &str| {
                let now = left.get();
                left.set(now.wrapping_sub(1));
                if now == 0 { Err(errno.into()) } else { Ok(()) }
            };
            let outcome = installation.device.reset_with(Box::new(before)).map_err(|e| format!("{e:#}"))?;
            is_clear_reset(what, &outcome, errno).map_err(|why| format!("{why}: {outcome:#?}"))?;
            resets(&installation)
        });
        failures.note(&format!("reset, fault {n}, {errno} at {what:?}"), done);
    }
    eprintln!("{} effects of a reset", effects.len());
    failures.tell(0);
}

/// Whether a reset says what failed: as its end, or on the way, where others are concerned.
fn is_clear_reset(what: &str, outcome: &Outcome, errno: Errno) -> Result<(), &'static str> {
    let words = errno.to_string();
    let Err(fault) = &outcome.done else {
        let reported = outcome.lines.iter().any(|line| line.starts_with("firstboot: ") && line.contains(&words));
        let silent = SILENT.iter().any(|(known, _)| what.starts_with(known));
        return if reported || silent { Ok(()) } else { Err("it went on, and said nothing") };
    };
    is_reported(fault, outcome, errno)
}

/// The process ends at the beginning of each phase, and systemd starts it again.
pub fn killed_at_every_phase(plane: &ControlPlane) {
    let installation = Installation::recorded(plane, "killed");
    let mut failures = Failures::default();
    let mut phases = 0;
    for n in (1..installation.cuts.len()).rev() {
        // The last record before it said that a phase is done.
        let journal = |n: usize| match installation.cuts[n].state.tree.get("var/lib/firstboot/journal") {
            Some(e2e::native::tree::Entry::File(_, bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        };
        let (before, now) = (journal(n - 1), journal(n));
        if before != now && now.lines().last().is_some_and(|line| line.contains(",{\"done\":")) {
            phases += 1;
            failures.note(
                &format!("killed at {n}"),
                installation.from(n, &installation.cuts[n].state, || installation.resumes(true)),
            );
        }
    }
    assert_eq!(phases, firstboot::phases::PHASES.len());
    failures.tell(0);
}

/// The card takes no writes, is pulled while the device works, or can be read only in part; then it is good again.
pub fn a_card_that_fails(plane: &ControlPlane) {
    let installation = Installation::recorded(plane, "card");
    let mut failures = Failures::default();
    let good = installation.device.boot.clone();
    let first = &installation.cuts[0].state;
    failures.note(
        "read-only",
        installation.from(0, first, || {
            let whole = std::fs::read(good.path()).unwrap();
            let memory = memfd_create("card", MemfdFlags::ALLOW_SEALING).unwrap();
            std::io::Write::write_all(&mut std::fs::File::from(memory.try_clone().unwrap()), &whole).unwrap();
            fcntl_add_seals(&memory, SealFlags::WRITE).unwrap();
            let path = std::path::PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
            let card = BootPartition::open_whole(&path).unwrap();
            let outcome = installation
                .device
                .run(Boot { card: Some(Box::new(move || vec![card.clone()])), ..Boot::default() })
                .unwrap();
            stopped(&outcome, "destroy the seed: ", "Operation not permitted (os error 1)")?;
            installation.resumes(true)
        }),
    );
    failures.note(
        "pulled",
        installation.from(0, first, || {
            let aside = good.path().with_extension("pulled");
            let (from, to) = (good.path().to_owned(), aside.clone());
            let pull = move |what: &str| {
                if what == "/etc/containerd/config.toml" && from.exists() {
                    std::fs::rename(&from, &to)?;
                }
                Ok(())
            };
            let outcome = installation.device.run(Boot { before: Box::new(pull), ..Boot::default() }).unwrap();
            stopped(&outcome, "destroy the seed: open ", "No such file or directory (os error 2)")?;
            // systemd starts it again: there is none to be found.
            let gone = Boot { card: Some(Box::new(Vec::new)), restart: true, ..Boot::default() };
            let outcome = installation.device.run(gone).unwrap();
            let fault = outcome.done.as_ref().unwrap_err();
            let text = "find the boot partition: no FAT file system labelled BOOT on disk ";
            if fault.code != Code::NoBootPartition || !fault.to_string().starts_with(text) {
                return Err(format!("{outcome:#?}"));
            }
            std::fs::rename(&aside, good.path()).unwrap();
            installation.resumes(true)
        }),
    );
    failures.note(
        "unreadable",
        installation.from(0, first, || {
            let whole = std::fs::read(good.path()).unwrap();
            let path = good.path().to_owned();
            let tear = move |what: &str| {
                if what == "/etc/containerd/config.toml" {
                    std::fs::OpenOptions::new().write(true).open(&path)?.set_len(512)?;
                }
                Ok(())
            };
            let outcome = installation.device.run(Boot { before: Box::new(tear), ..Boot::default() }).unwrap();
            stopped(&outcome, "destroy the seed: ", "failed to fill whole buffer")?;
            std::fs::write(good.path(), &whole).unwrap();
            installation.resumes(true)
        }),
    );
    failures.tell(0);
}

/// A directory in the place of firstboot's journal: its copy stands in, and the work goes on.
pub fn a_record_that_cannot_be_opened(plane: &ControlPlane) {
    let installation = Installation::recorded(plane, "record");
    let first = installation.cuts.len() / 2;
    installation
        .from(first, &installation.cuts[first].state, || {
            let journal = installation.device.root.join("var/lib/firstboot/journal");
            std::fs::remove_file(&journal).unwrap();
            std::fs::create_dir(&journal).unwrap();
            let outcome = installation.device.run(Boot { restart: true, ..Boot::default() }).unwrap();
            let line = "firstboot: repaired: read /var/lib/firstboot/journal: Is a directory (os error 21)";
            assert!(outcome.lines.iter().any(|said| said == line), "{:#?}", outcome.lines);
            assert!(journal.is_file() && journal.with_file_name("journal.damaged").is_dir());
            std::fs::remove_dir(journal.with_file_name("journal.damaged")).unwrap();
            installation.completed(&outcome)
        })
        .unwrap();
}

/// A state from another machine's disk, where the API server has another address, is resumed as well.
pub fn a_tree_of_another_machine(plane: &ControlPlane) {
    let installation = Installation::recorded(plane, "read-off");
    let (here, there) = (plane.endpoint_for_host(), plane.endpoint_for_guest());
    let joined = installation.cuts.iter().position(|cut| cut.what == "systemctl start kubelet.service").unwrap();
    for n in [joined / 2, joined, installation.cuts.len() - 20] {
        installation
            .from(n, &installation.cuts[n].state, || {
                readdress(&installation.device.root, &installation.device.boot, &here, &there).unwrap();
                let outcome = resume(&installation.device.root, installation.device.boot.clone(), plane);
                assert_eq!(outcome.node.as_ref().unwrap()["metadata"]["name"], "edge-read-off");
                installation.completed(&outcome)
            })
            .unwrap();
    }
}

/// Whether the device stopped at what is its own, said so in one line, and was not sealed.
fn stopped(outcome: &Outcome, begins: &str, ends: &str) -> Result<(), String> {
    let Err(fault) = &outcome.done else { return Err(format!("it went on: {outcome:#?}")) };
    let text = fault.to_string();
    let last = outcome.lines.last().cloned().unwrap_or_default();
    let reported = outcome.lines.iter().any(|line| line.ends_with(&format!("failed (host, FB316): {text}; stopped")));
    let fits = fault.code == Code::SeedNotDestroyed
        && text.starts_with(begins)
        && text.ends_with(ends)
        && !text.contains('\n');
    // What cannot be written on the card either is the very last word.
    let status = last.starts_with("firstboot: status not written: ") || last.contains(&text);
    if fits && reported && status { Ok(()) } else { Err(format!("{outcome:#?}")) }
}
