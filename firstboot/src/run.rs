// SPDX-License-Identifier: Apache-2.0
//! Finds the seed, runs the phases, and does with a fault what its owner calls for.
//!
//! The rules are product decisions: which seed is accepted when, and whose move it is (docs/operations.md).

pub mod facts;
pub mod guard;
pub(crate) mod messages;
pub(crate) mod sealed;
mod seed_file;
pub mod status;

use crate::backoff::{LONGEST, backoff};
use crate::boot_partition::{BootPartition, Places, locate, own, root_disk_name};
use crate::bundle::installed::Installed;
use crate::containerd::images;
use crate::containerd::repair::{self, Ask, Progress, Watch};
use crate::fault::{Fault, OwnedBy, Owner};
use crate::firewall::discover_peers;
use crate::host::{Host, System};
use crate::image::ImageInfo;
use crate::journal::Record;
use crate::phase::{self, Event, Phase, Stopped};
use crate::phases::PHASES;
use crate::phases::context::Cx;
use crate::phases::seal::{erase, finish_without_seed, is_half_erased};
use crate::report::show_again;
use crate::reset::by_seed::{Answer, answer};
use crate::seed::{self, Seed};
use crate::status::Status;
use crate::{clock, reset};
use messages::{
    and_told, finished, left_to_do, refuse_seed, reporter, reporter_at, tell_joined_at_last, tell_repair, without_host,
};
use sealed::{Lost, look_after};
use seed_file::{Found, look};
use std::path::Path;
use std::time::Duration;

/// How often a waiting device looks for a seed.
const LOOK: Duration = Duration::from_secs(5);
/// How old the status on the boot partition may get while phases go by.
const STALE: Duration = Duration::from_secs(5);

const NO_SEED: &str =
    "find seed.toml on the boot partition: there is none; copy seed.toml.example to seed.toml and fill it in";

const STICK_RESETS: &str = "the seed on the stick asks for a reset, and there is nothing to take back";

/// Runs or resumes; returns when the device is sealed (or `until` is reached). A sealed device's clock is compared
/// with the cluster's.
///
/// # Errors
/// A fault that this process can do nothing more about: of the image or the host.
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
    phases: &[Phase<Cx>],
    places: Places<'_>,
) -> Result<(), Fault> {
    run_beside(root, sys, until, phases, places, &images::missing)
}

/// [`run_phases`] with another runtime, of which is asked what it lacks: for tests on a machine that has none.
fn run_beside(
    root: &Path,
    sys: Box<dyn System>,
    until: Option<&str>,
    phases: &[Phase<Cx>],
    places: Places<'_>,
    runtime: Ask<'_>,
) -> Result<(), Fault> {
    sys.notify("READY=1");
    let mut host = Host::open_or_back(root, sys).map_err(|(error, sys)| without_host(root, &*sys, places, error))?;
    let started = host.sys().uptime();
    let image = and_told(&host, places, ImageInfo::read(&host))?;
    if host.journal().resetting().is_some() {
        // The power went while it was at work.
        return reset::by_service(&host, None);
    }
    let mut lost = None;
    if host.journal().sealed() {
        // A card that cannot be read, and a disk that cannot be written, must not keep a good node from working.
        if let Err(error) = show_again(&host) {
            reporter_at(&host, None, &image).say(&format!("status not written: {error:#}"));
        }
        let there = places(&image.boot_label).unwrap_or_default();
        let boot = own(&there);
        let seen = look(there).ok().flatten();
        if let Some(found) = &seen
            && let Some(digest) = asks_for_reset(&host, found)
        {
            return be_reset(&host, found, &image, digest);
        }
        let tell = |progress: &Progress<'_>| tell_repair(&host, places, progress);
        let mut runtime = Watch::new(&host, runtime, &tell);
        let refuse = |until| refuse_seed(&host, &image, until, seen.as_ref());
        lost = look_after(&host, &image, &refuse, &mut || runtime.look(&host))?;
        if lost.is_none() {
            let carried = seen.is_some_and(|found| found.place.carried);
            tell_joined_at_last(&host, &image, boot, carried);
            let learned = and_told(&host, places, discover_peers::of_sealed(&host));
            let settled = runtime.settle(&host);
            return learned.and(settled).and(repair::tell(&host));
        }
    }
    let mut tries = 0;
    // What failed stays on show while it is tried again: the next look at the status must not find nothing.
    let mut last: Option<Status> = None;
    loop {
        let found = wait_for_seed(&host, &image, lost.as_mut(), places)?;
        let Some(found) = found else { return Ok(()) };
        let answer = seed::asked(&found.bytes).map(|asked| answer(&host.journal(), asked, found.place.carried));
        let seed = match answer {
            Ok(Answer::Join(seed)) => *seed,
            Ok(Answer::Reset(digest)) => return be_reset(&host, &found, &image, digest),
            Ok(Answer::NothingToReset) => {
                nothing_to_reset(&host, &found, &image, places)?;
                continue;
            }
            Err(error) => {
                let mut reporter = reporter(&host, &found, &image);
                reporter.failed(None, &Fault::new(Owner::Seed, error), None);
                wait_for_change(&host, &image, &found, None, places)?;
                continue;
            }
        };
        and_told(&host, places, begin(&host, &seed))?;
        let bundle = and_told(&host, places, Installed::read(&host))?;
        let cx = Cx {
            host,
            seed,
            bundle,
            boot: found.place.partition.clone(),
            seed_name: found.name,
            carried: found.place.carried,
            image: image.clone(),
        };
        let outcome = once(&cx, &found, until, phases, last.as_ref());
        host = cx.host;
        let Stopped { number, of, phase, fault } = match outcome {
            Ok(()) => {
                finished(&host, &found, &image, until, started);
                return Ok(());
            }
            Err(stopped) => stopped,
        };
        let mut reporter = reporter(&host, &found, &image);
        let at = Some((number, of, phase));
        match fault.owner {
            Owner::Cluster => {
                let wait = wait(tries, host.sys().random(), fault.retry_after);
                tries += 1;
                reporter.failed(at, &fault, Some(wait));
                last = Some(reporter.status);
                if wait_for_change(&host, &image, &found, Some(wait), places)? {
                    (tries, last) = (0, None);
                }
            }
            Owner::Seed => {
                reporter.failed(at, &fault, None);
                wait_for_change(&host, &image, &found, None, places)?;
                (tries, last) = (0, None);
            }
            Owner::Image | Owner::Host => {
                reporter.failed(at, &fault, None);
                return Err(fault);
            }
        }
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
            discover_peers::of_sealed(host)
        }
        false => Ok(()),
    }
}

/// The digest of a seed that asks for a sealed device's reset. A file that is no seed is not the node's trouble.
fn asks_for_reset(host: &Host, found: &Found) -> Option<String> {
    match answer(&host.journal(), seed::asked(&found.bytes).ok()?, found.place.carried) {
        Answer::Reset(digest) => Some(digest),
        Answer::Join(_) | Answer::NothingToReset => None,
    }
}

/// Hands this device over to firstboot-reset.service, which starts firstboot again when it is done.
fn be_reset(host: &Host, found: &Found, image: &ImageInfo, digest: String) -> Result<(), Fault> {
    let mut reporter = reporter(host, found, image);
    reporter.say(&format!("{} asks for a reset", found.name));
    reporter.status.state = "resetting".into();
    reporter.write();
    reset::by_service(host, Some(digest))
}

/// A seed that asks for a reset alone, on a device that has nothing to take back: it is done, so the file goes. On a
/// stick it stays, for the next device.
fn nothing_to_reset(host: &Host, found: &Found, image: &ImageInfo, places: Places<'_>) -> Result<(), Fault> {
    if !found.place.carried {
        return and_told(host, places, erase(host, &found.place.partition, found.name).owned_by(Owner::Host));
    }
    tell_waiting(host, image, found.boot.clone(), STICK_RESETS.to_owned())?;
    wait_for_change(host, image, found, None, places).map(drop)
}

/// How long to wait: as long as the server asks for, if that is longer, but never longer than [`LONGEST`], for the
/// server that asks need not be the cluster's.
fn wait(tries: u32, random: f64, retry_after: Option<Duration>) -> Duration {
    backoff(tries, random).max(retry_after.unwrap_or_default().min(LONGEST))
}

fn begin(host: &Host, seed: &Seed) -> Result<(), Fault> {
    let boot = host.boot_id().owned_by(Owner::Host)?.unwrap_or_default();
    let begun = Record::Begun { version: env!("CARGO_PKG_VERSION").into(), seed: seed.digest().to_owned(), boot };
    let known = host.journal().begun(&begun);
    if known { Ok(()) } else { host.record(begun).owned_by(Owner::Host) }
}

fn once(
    cx: &Cx,
    found: &Found,
    until: Option<&str>,
    phases: &[Phase<Cx>],
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

/// Waits until there is a seed. `None`: there is none and none is needed, because all was done but the last record.
///
/// `lost`: a device that was sealed, and whose credential is worth nothing any more, unless its clock is wrong.
fn wait_for_seed(
    host: &Host,
    image: &ImageInfo,
    mut lost: Option<&mut Lost>,
    places: Places<'_>,
) -> Result<Option<Found>, Fault> {
    let mut told = false;
    loop {
        let there = and_told(host, places, places(&image.boot_label).owned_by(Owner::Host))?;
        let boot = own(&there);
        let all_but_the_record = host.journal().done("ready") && !host.journal().sealed();
        match look(there) {
            // The power went while this one was being destroyed: it is nobody's seed any more.
            Ok(Some(found)) if all_but_the_record && !found.place.carried && is_half_erased(&found.bytes) => {}
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) => {}
            Err(fault) if !told => {
                reporter_at(host, boot.clone(), image).failed(None, &fault, None);
                told = true;
            }
            Err(_) => {}
        }
        if let (true, Some(boot)) = (all_but_the_record, &boot) {
            let mut reporter = reporter_at(host, Some(boot.clone()), image);
            if let Err(fault) = finish_without_seed(host, boot, &Installed::read(host)?.id) {
                reporter.failed(None, &fault, None);
                return Err(fault);
            }
            reporter.status.state = "joined".into();
            left_to_do(host, &mut reporter);
            reporter.write();
            return Ok(None);
        }
        if !told {
            let text = match &lost {
                None => NO_SEED.to_owned(),
                Some(lost) => {
                    format!("{}; this node needs a new seed to join again, its workload's data is kept", lost.why)
                }
            };
            tell_waiting(host, image, boot, text)?;
            told = true;
        } else if let Some(lost) = &mut lost
            && lost.regained(host, image)?
        {
            let mut reporter = reporter_at(host, boot, image);
            reporter.status.state = "joined".into();
            reporter.write();
            return Ok(None);
        }
        host.sys().sleep(LOOK);
    }
}

fn tell_waiting(host: &Host, image: &ImageInfo, boot: Option<BootPartition>, text: String) -> Result<(), Fault> {
    if boot.is_none() {
        let text = format!(
            "find the boot partition: no FAT file system labelled {} on disk {}; flash the image again",
            image.boot_label,
            root_disk_name()
        );
        let fault = Fault::new(Owner::Image, text);
        reporter_at(host, None, image).failed(None, &fault, None);
        return Err(fault);
    }
    let mut reporter = reporter_at(host, boot, image);
    reporter.say(&format!("waiting for a seed: {text}"));
    reporter.status.state = "waiting for a seed".into();
    reporter.status.whose_move = Some(format!("{} ({})", Owner::Seed.word(), Owner::Seed.advice()));
    reporter.status.error = Some(text);
    reporter.write();
    host.sys().notify("STATUS=waiting for a seed");
    Ok(())
}

/// Waits until the seed has changed or `limit` has passed; tells whether it changed.
fn wait_for_change(
    host: &Host,
    image: &ImageInfo,
    old: &Found,
    limit: Option<Duration>,
    places: Places<'_>,
) -> Result<bool, Fault> {
    let until = limit.map(|l| host.sys().uptime() + l);
    loop {
        let now = host.sys().uptime();
        let left = until.map_or(LOOK, |u| u.saturating_sub(now).min(LOOK));
        if left.is_zero() {
            return Ok(false);
        }
        host.sys().sleep(left);
        let there = and_told(host, places, places(&image.boot_label).owned_by(Owner::Host))?;
        // An unreadable card is the same as an unchanged one here: the next look may be better.
        if let Ok(Some(new)) = look(there)
            && new.bytes != old.bytes
        {
            return Ok(true);
        }
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod table_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_with_jitter_and_stay_below_five_minutes() {
        let at = |tries, random| backoff(tries, random).as_secs_f64();
        assert_eq!(at(0, 1.0), 2.0);
        assert_eq!(at(0, 0.0), 1.0);
        assert_eq!(at(3, 0.5), 8.0);
        assert_eq!(at(7, 1.0), 256.0);
        assert_eq!(at(8, 1.0), 300.0);
        assert_eq!(at(1000, 1.0), 300.0);
    }

    #[test]
    fn a_server_that_asks_for_time_gets_it_within_limits() {
        let at = |tries, after: u64| wait(tries, 0.5, Some(Duration::from_secs(after))).as_secs();
        assert_eq!((at(0, 7), at(3, 7), at(0, 86_400)), (7, 8, 300));
        assert_eq!(wait(3, 0.5, None).as_secs(), 8);
    }
}
