// SPDX-License-Identifier: Apache-2.0
//! Finds the seed, runs the phases, and does with a fault what its owner calls for.
//!
//! The rules are product decisions: which seed is accepted when, and who must act (docs/operations.md).

mod admit;
pub mod confirm;
pub mod facts;
pub mod guard;
pub(crate) mod messages;
mod repairs;
pub(crate) mod sealed;
mod seed_file;
pub mod status;
pub mod stick;
mod wait_for_seed;
mod waits;

use crate::boot_partition::{SeedLocator, internal_partition, locate};
use crate::bundle::installed::Installed;
use crate::containerd::images;
use crate::containerd::repair::{self, Ask, Progress, Watch};
use crate::control_plane::card;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::firewall::discover_peers;
use crate::host::{Host, RETRY, System};
use crate::image::ImageInfo;
use crate::journal::Record;
use crate::journal::facts::{self as journal_facts, Fact};
use crate::node::recover::recover;
use crate::phase::{self, Event, Phase, Stopped};
use crate::phases::PHASES;
use crate::phases::context::PhaseContext;
use crate::phases::seal::erase;
use crate::report::{Reporter, reporter_with, show_again};
use crate::reset::by_seed::{Decision, decide};
use crate::seed::{self, Seed};
use crate::status::Status;
use crate::{clock, reset};
use admit::may_reset;
use anyhow::Context;
use facts::DeviceFacts;
use messages::{finished, refuse_seeds, report_late_join, report_repair, reporter, reporter_at};
use sealed::{LostCredential, look_after};
use seed_file::SeedFile;
use std::cell::OnceCell;
use std::path::Path;
use std::time::Duration;
use stick::{Asked, be_reset};
use wait_for_seed::{report_waiting, wait_for_change, wait_for_seed};
use waits::LOOK;

/// How old the status on the boot partition may get while phases go by.
const STALE: Duration = Duration::from_secs(5);

const STICK_RESETS: &str = "the seed on the stick asks for a reset, and there is nothing to take back";

/// Runs or resumes; returns when the device is sealed (or `until` is reached). A sealed device's clock is compared
/// with the cluster's.
///
/// # Errors
/// A fault that this process can do nothing more about: of the image, or what preflight found of the host.
pub fn run(root: &Path, sys: Box<dyn System>, until: Option<&str>) -> Result<(), Fault> {
    run_phases(root, sys, until, PHASES, &locate)
}

/// [`run`] with another order of work and other places: for tests on a machine that has no disk of its own.
///
/// # Errors
/// As [`run`].
pub fn run_phases(
    root: &Path,
    sys: Box<dyn System>,
    until: Option<&str>,
    phases: &[Phase<PhaseContext>],
    places: SeedLocator<'_>,
) -> Result<(), Fault> {
    run_with(root, sys, until, phases, places, &images::missing)
}

/// [`run_phases`] with another runtime, of which is asked what it lacks: for tests on a machine that has none.
fn run_with(
    root: &Path,
    sys: Box<dyn System>,
    until: Option<&str>,
    phases: &[Phase<PhaseContext>],
    places: SeedLocator<'_>,
    runtime: Ask<'_>,
) -> Result<(), Fault> {
    sys.notify("READY=1");
    let host = Host::open(root, sys).owned_by(Owner::Host)?;
    let started = host.sys().uptime();
    if host.journal().resetting().is_none()
        && let Err(error) = repairs::repair_state(&host)
    {
        host.sys().say(&format!("firstboot: damaged files not repaired: {error:#}"));
    }
    // firstboot-confirm.service reports what hinders this; it also may run only after the first status of this boot.
    if host.journal().resetting().is_none() {
        let _ = confirm::note_failed(&host);
    }
    Session { host: Some(host), until, phases, places, runtime, started, lost: None, last: None, tries: 0 }.run()
}

/// One process of firstboot.service.
struct Session<'a> {
    /// The machine; a phase that runs has it.
    host: Option<Host>,
    until: Option<&'a str>,
    phases: &'a [Phase<PhaseContext>],
    places: SeedLocator<'a>,
    runtime: Ask<'a>,
    /// Uptime at the start.
    started: Duration,
    /// A sealed device whose credential is unusable.
    lost: Option<LostCredential>,
    /// What failed stays on show while it is tried again: the next look at the status must not find nothing.
    last: Option<Status>,
    /// Failed tries in a row.
    tries: u32,
}

/// What follows after one try.
enum Next {
    /// The work is over.
    End,
    /// The next try begins at once.
    Again,
}

/// What ended one try.
struct Failed {
    /// The phase that failed, its place in the table and the length of the table.
    phase: Option<(usize, usize, &'static str)>,
    fault: Fault,
    /// The seed by which it was tried, if there was one.
    seed: Option<Box<SeedFile>>,
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Failed { phase: None, fault, seed: None }
    }
}

impl Session<'_> {
    fn run(mut self) -> Result<(), Fault> {
        loop {
            let mut failed = match self.attempt() {
                Ok(Next::End) => return Ok(()),
                Ok(Next::Again) => None,
                Err(failed) => Some(failed),
            };
            while let Some(this) = failed {
                failed = self.after(this)?;
            }
        }
    }

    /// One try, from whatever state the device is in.
    fn attempt(&mut self) -> Result<Next, Failed> {
        let host = self.host();
        recover(host).owned_by(Owner::Host)?;
        let image = ImageInfo::read(host)?;
        if host.journal().resetting().is_some() {
            // The power went while it was at work, or it stopped; meanwhile it may have been said that the cluster may end.
            let card = internal_partition(&(self.places)(&image.boot_label).unwrap_or_default());
            let bytes = card.and_then(|card| card.seed().ok().flatten()).map(|(_, bytes)| bytes);
            let ends = bytes.is_some_and(|b| seed::parse_request(&b).is_ok_and(|asked| asked.destroys_cluster()));
            reset::by_service(host, None, ends)?;
            return Ok(Next::End);
        }
        if reset::restart_due(host).owned_by(Owner::Host)? {
            reset::restart(host)?;
            return Ok(Next::End);
        }
        if host.journal().sealed() && self.lost.is_none() {
            match self.sealed(&image)? {
                Next::End => return Ok(Next::End),
                Next::Again => {}
            }
        }
        // Taken out while it is asked, for it asks by way of the same machine.
        let mut lost = self.lost.take();
        let found = wait_for_seed(self.host(), self.places, &image, &mut lost)?;
        let Some(found) = found else { return Ok(Next::End) };
        self.lost = lost;
        self.obey(found, image)
    }

    /// A sealed device at a later boot. It goes on as an unsealed one where its credential is lost.
    fn sealed(&mut self, image: &ImageInfo) -> Result<Next, Fault> {
        let (host, places) = (self.host(), self.places);
        // A card that cannot be read, and a disk that cannot be written, must not keep a good node from working.
        if let Err(error) = show_again(host) {
            reporter_at(host, None, image).say(&format!("status not written: {error:#}"));
        }
        let before = Reporter::last(host);
        let Asked { boot, seen, reset, refused } = stick::asked(host, places(&image.boot_label).unwrap_or_default());
        if let Some((found, request)) = reset {
            return be_reset(host, &found, image, request).map(|()| Next::End);
        }
        let tell = |progress: &Progress<'_>| report_repair(host, places, progress);
        let mut runtime = Watch::new(host, self.runtime, &tell);
        let refuse = |until| refuse_seeds(host, image, until, seen.as_ref(), refused.as_ref());
        if let Some(lost) = look_after(host, image, &refuse, &mut || runtime.look(host))? {
            self.lost = Some(lost);
            return Ok(Next::Again);
        }
        let on_stick = seen.as_ref().is_some_and(|found| found.place.removable);
        if refused.is_none() && (on_stick || seen.is_none()) {
            report_late_join(host, image, boot, on_stick, before.as_ref());
        }
        repairs::keep_copies(host);
        let learned = repairs::unless_read_only(host, discover_peers::refresh_sealed(host));
        let settled = runtime.settle(host);
        learned.and(settled).and(repair::report_rebuild(host))?;
        repairs::unless_read_only(host, repairs::report_damage(host).owned_by(Owner::Host))?;
        Ok(Next::End)
    }

    /// Does what a seed asks for.
    fn obey(&mut self, found: SeedFile, image: ImageInfo) -> Result<Next, Failed> {
        let host = self.host();
        match seed::parse_request(&found.bytes).map(|asked| decide(&host.journal(), asked, found.place.removable)) {
            Ok(Decision::Join(mut seed)) => match found.complete(&mut seed) {
                Ok(()) => self.join(found, *seed, image),
                Err(fault) => Err(Failed { phase: None, fault, seed: Some(Box::new(found)) }),
            },
            Ok(Decision::Reset(request)) => {
                if let Err(fault) = may_reset(host, &found.name, &request) {
                    return Err(Failed { phase: None, fault, seed: Some(Box::new(found)) });
                }
                be_reset(host, &found, &image, request)?;
                Ok(Next::End)
            }
            Ok(Decision::NothingToReset) => {
                nothing_to_reset(host, &found, &image, self.places)?;
                Ok(Next::Again)
            }
            Err(error) => Err(Failed { phase: None, fault: error.into(), seed: Some(Box::new(found)) }),
        }
    }

    /// Runs the phases for a seed.
    fn join(&mut self, found: SeedFile, seed: Seed, image: ImageInfo) -> Result<Next, Failed> {
        begin(self.host(), &seed)?;
        let bundle = Installed::read(self.host())?;
        let Some(host) = self.host.take() else { return Ok(Next::Again) };
        let (boot, seed_name, removable) = (found.place.partition.clone(), found.name.clone(), found.place.removable);
        let card = found.boot.clone();
        let preflight = OnceCell::new();
        let cx = PhaseContext { host, seed, bundle, boot, card, seed_name, removable, image, preflight };
        let outcome = run_table(&cx, &found, self.until, self.phases, self.last.as_ref());
        let (host, image) = (self.host.insert(cx.host), cx.image);
        match outcome {
            Ok(()) => {
                finished(host, &found, &image, self.until, self.started);
                Ok(Next::End)
            }
            Err(Stopped { number, of, phase, fault }) => {
                Err(Failed { phase: Some((number, of, phase)), fault, seed: Some(Box::new(found)) })
            }
        }
    }

    /// Reports a failed try, and waits for what its owner may do about it; gives what failed meanwhile.
    ///
    /// # Errors
    /// The fault itself, where this process can do nothing more about it.
    fn after(&mut self, failed: Failed) -> Result<Option<Failed>, Fault> {
        let Failed { phase, fault, seed } = failed;
        let wait = self.wait(phase, &fault);
        let host = self.host();
        let image = ImageInfo::read(host).ok();
        let reporter = || match (&seed, &image) {
            (Some(found), Some(image)) => reporter(host, found, image),
            _ => reporter_with(host, &DeviceFacts, self.places),
        };
        let mut reporter = reporter();
        let waits = wait.is_some() || fault.owner() == Owner::Seed;
        reporter.failed(phase, &fault, wait);
        let status = reporter.status;
        if !waits {
            return Err(fault);
        }
        let changed = match (&seed, &image) {
            (Some(found), Some(image)) => match wait_for_change(host, image, found, wait, self.places) {
                Ok(changed) => changed,
                Err(fault) => return Ok(Some(fault.into())),
            },
            // A device without a description of its image, or without a seed, has nothing to look at meanwhile.
            _ => {
                host.sys().sleep(wait.unwrap_or(LOOK));
                false
            }
        };
        (self.tries, self.last) = match changed || fault.owner() == Owner::Seed && wait.is_none() {
            true => (0, None),
            false => (self.tries + 1, Some(status)),
        };
        Ok(None)
    }

    /// How long to wait before the next try; none where trying again does not help.
    fn wait(&self, phase: Option<(usize, usize, &str)>, fault: &Fault) -> Option<Duration> {
        match fault.owner() {
            Owner::Cluster => Some(waits::for_cluster(self.tries, self.host().sys().random(), fault.retry_after)),
            // Memory, disk and processor stay as they are while the device is on.
            Owner::Host if phase.is_some_and(|(_, _, name)| name == "preflight") => None,
            Owner::Host if self.host().sys().before_effect(RETRY).is_err() => None,
            Owner::Host => Some(waits::for_host(self.tries)),
            // It may not fit yet: a driver or an adapter that is late. A changed seed ends the wait.
            Owner::Seed if fault.code == Code::SettingDoesNotFit && phase.is_some() => {
                Some(waits::for_host(self.tries))
            }
            Owner::Seed | Owner::Image => None,
        }
    }

    /// The machine, which [`Session::join`] gives away only for as long as the phases run.
    #[allow(clippy::expect_used)] // held by `join` alone, which puts it back
    fn host(&self) -> &Host {
        self.host.as_ref().expect("the machine is at work in a phase")
    }
}

/// What the daily timer runs: compares a sealed device's clock with the cluster's, and asks who its API servers are.
/// Before that the phases see to both.
///
/// # Errors
/// As [`clock::compare`], and a host fault when the packet filter cannot be applied.
pub fn clock(host: &Host) -> Result<(), Fault> {
    match host.journal().sealed() {
        true => {
            clock::compare(host, &ImageInfo::read(host)?)?;
            discover_peers::refresh_sealed(host)
        }
        false => Ok(()),
    }
}

/// What `firstboot-control-plane.timer` runs: renews the seed for the next device of the cluster that this one created.
///
/// # Errors
/// As [`card::renew`]; an image fault without a boot partition.
pub fn control_plane(host: &Host) -> Result<(), Fault> {
    if !host.journal().sealed() || card::JoinSeed::all(host).is_empty() {
        return Ok(());
    }
    let places = locate(&ImageInfo::read(host)?.boot_label).coded(Code::BootDisk)?;
    let own = internal_partition(&places).context("find the boot partition of this device");
    card::renew(host, &own.coded(Code::NoBootPartition)?)
}

/// A seed that asks for a reset alone, on a device that has nothing to take back: it is done, so the file goes. On a
/// stick it stays, for the next device.
fn nothing_to_reset(host: &Host, found: &SeedFile, image: &ImageInfo, places: SeedLocator<'_>) -> Result<(), Fault> {
    if !found.place.removable {
        return erase(host, &found.place.partition, &found.name).owned_by(Owner::Host);
    }
    report_waiting(host, image, found.boot.clone(), Fault::new(Code::NoSeed, STICK_RESETS))?;
    wait_for_change(host, image, found, None, places).map(drop)
}

fn begin(host: &Host, seed: &Seed) -> Result<(), Fault> {
    let boot = host.boot_id().owned_by(Owner::Host)?.unwrap_or_default();
    let begun = Record::Begun { version: env!("CARGO_PKG_VERSION").into(), seed: seed.digest().to_owned(), boot };
    host.note(Fact::OwnerKeys, &journal_facts::lines(seed.owner.iter().map(ToString::to_string)))
        .owned_by(Owner::Host)?;
    let known = host.journal().begun(&begun);
    if known { Ok(()) } else { host.record(begun).owned_by(Owner::Host) }
}

/// Runs the table of phases once, and reports each.
fn run_table(
    cx: &PhaseContext,
    found: &SeedFile,
    until: Option<&str>,
    phases: &[Phase<PhaseContext>],
    last: Option<&Status>,
) -> Result<(), Stopped> {
    let mut reporter = reporter(&cx.host, found, &cx.image);
    if let Some(last) = last {
        reporter.status = last.clone();
    }
    let mut written: Option<Duration> = None;
    phase::run(&cx.host, cx, phases, until, &mut |event| match event {
        Event::Begins(number, of, name) => {
            reporter.begins(number, of, name);
            let now = cx.host.sys().uptime();
            if written.is_none_or(|at| now >= at + STALE) {
                reporter.write();
                written = Some(now);
            }
        }
        Event::Holds(number, of, name, took) => reporter.holds(number, of, name, took),
    })
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod table_tests;

#[cfg(test)]
#[path = "run_damage_tests.rs"]
mod damage_tests;

#[cfg(test)]
#[path = "run_attack_tests.rs"]
mod attack_tests;
