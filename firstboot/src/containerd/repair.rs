// SPDX-License-Identifier: Apache-2.0
//! containerd's own state, /var/lib/containerd, after a power cut: found damaged, set aside, and replaced by the bundle's.
//!
//! Nothing is set aside on a suspicion: containerd does not answer on CRI (it ends again and again, or runs without its
//! data base) and its log of this boot says why, or it knows no image of the bundle, or a file says why it lacks one. A boot
//! that is only slow shows none of it. At most once a boot. An image that a person removed stays removed. What pods keep in
//! /var/lib/kubelet is not touched.

use super::damage::{self, Unit, sign};
use super::rebuild_record::{RebuildRecord, Stage};
use super::{RUNTIME, images, prepared, ready};
use crate::bundle::installed::Installed;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::exclusions::Exclusions;
use crate::host::{Host, mounts};
use crate::node::events;
use crate::paths::CONTAINERD_ROOT;
use crate::paths::CONTAINERD_STATE;
use anyhow::Result;
use std::time::Duration;

/// Names of the bundle's images that the runtime lacks; an error where it does not answer.
pub(crate) type Ask<'a> = &'a dyn Fn(&Host, &Installed) -> Result<Vec<String>>;

const KUBELET: &str = "kubelet.service";
const CUT_OFF: &str = "it was being set aside";
/// Limit while the cluster's clock has not answered yet: the boot is not over.
const EARLY: Duration = Duration::from_secs(20);
/// Between two looks at a runtime that is not up, at first and at most.
const LOOK: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// A runtime that is not up after that, and does not say why, is not repaired here.
const LIMIT: Duration = Duration::from_secs(1800);
/// What has to be free for the old state to be kept beside the new one.
const ROOM: u64 = 128 << 20;

/// Ends everything that runs in containers, moves containerd's state aside, and starts containerd on the bundle's. What was
/// cut off goes on; a second time in one boot is refused.
///
/// # Errors
/// A host fault, or the refusal.
pub(crate) fn set_aside(host: &Host, why: &str) -> Result<(), Fault> {
    let boot = host.boot_id().owned_by(Owner::Host)?.unwrap_or_default();
    let past = RebuildRecord::read(host);
    let number = next_number(host, past.as_ref()).owned_by(Owner::Host)?;
    let mut now = match past {
        Some(past) if past.boot == boot && past.stage >= Stage::Rebuilt => {
            let text = format!("use containerd's state: it is damaged again in the same boot ({why}); another card?");
            return Err(Fault::new(Code::MediumWorn, text));
        }
        Some(past) if past.boot == boot => past,
        _ => RebuildRecord { number, boot, stage: Stage::Begun },
    };
    let mut work = || -> Result<()> {
        if now.stage == Stage::Begun {
            now.reach(host, Stage::Begun)?;
            let text = "it is set aside and rebuilt from the bundle's images";
            host.sys().say(&format!("firstboot: containerd's state is damaged ({why}): {text}"));
            end_containers(host)?;
            make_way(host, &now)?;
            now.reach(host, Stage::Moved)?;
        }
        prepared::place(host)?;
        host.start_unit(RUNTIME)
    };
    work().owned_by(Owner::Host)
}

/// Above that of the record and of every directory that is there: one of the same number would look as if this state
/// had been moved already.
fn next_number(host: &Host, past: Option<&RebuildRecord>) -> Result<u32> {
    let aside = format!("{CONTAINERD_ROOT}.set-aside-");
    let number = |name: String| format!("/var/lib/{name}").strip_prefix(&aside)?.parse::<u32>().ok();
    let there = host.list("/var/lib")?.into_iter().filter_map(number);
    Ok(there.chain(past.map(|past| past.number)).max().unwrap_or(0).saturating_add(1))
}

/// What holds containers together stays when containerd stops, and keeps mounts busy. What is mounted is unmounted by
/// systemd: this process has a view of the file system of its own.
fn end_containers(host: &Host) -> Result<()> {
    for unit in [KUBELET, RUNTIME] {
        host.run(&["systemctl", "stop", unit])?;
    }
    let _ = host.run(&["systemctl", "kill", "--signal=SIGKILL", RUNTIME]);
    let _ = host.run(&["systemctl", "stop", "kubepods.slice"]);
    let mounted = mounts::mounted(host)?;
    for mount in
        mounts::below(mounted, &[CONTAINERD_STATE.to_owned(), CONTAINERD_ROOT.to_owned()], &Exclusions::default())
    {
        // One that stays hides nothing from the new containers, whose names are others.
        let _ = host.run(&["systemctl", "stop", &mount.point]);
    }
    // Addresses that pods had: no plugin releases them any more.
    host.empty_directory("/var/lib/cni", &|_: &str| false)
}

/// Moves the directory. Earlier ones are removed, and this one is kept only where there is room.
fn make_way(host: &Host, now: &RebuildRecord) -> Result<()> {
    let directory = now.directory();
    for name in host.list("/var/lib")? {
        let path = format!("/var/lib/{name}");
        if path.starts_with(&format!("{CONTAINERD_ROOT}.set-aside-")) && path != directory {
            host.remove_tree(&path, &|_: &str| false)?;
        }
    }
    if !host.exists(&directory)? {
        host.move_aside(CONTAINERD_ROOT, &directory)?;
    }
    if host.free_bytes("/var/lib")? < ROOM {
        host.remove_tree(&directory, &|_: &str| false)?;
    }
    Ok(())
}

/// Waits for the new state, and starts kubelet in any case: it can do no harm, and pulls what it needs.
fn resume(host: &Host, bundle: &Installed, ask: Ask<'_>) -> Result<(), Fault> {
    let missing = ready::wait_for(host, Duration::from_millis(500), || ask(host, bundle)).owned_by(Owner::Host);
    host.start_unit(KUBELET).owned_by(Owner::Host)?;
    missing?.first().map_or(Ok(()), |name| Err(images::unknown(name)))
}

/// The runtime works, with all images: what was begun is over.
pub(crate) fn whole(host: &Host) -> Result<()> {
    let Some(mut past) = RebuildRecord::read(host) else { return Ok(()) };
    // The power may have gone between the move and its record.
    if past.stage == Stage::Moved || (past.stage == Stage::Begun && host.exists(&past.directory())?) {
        past.reach(host, Stage::Rebuilt)?;
        host.sys().say("firstboot: containerd's state is rebuilt from the bundle's images");
    }
    Ok(())
}

/// The runtime works; what it lacks someone has removed.
fn sound(host: &Host, missing: &[String]) -> Result<()> {
    if !missing.is_empty() {
        let names = missing.join(", ");
        host.sys()
            .say(&format!("firstboot: the runtime lacks {names}: removed on this device, kubelet pulls what it needs"));
    }
    whole(host)
}

/// A line for the status file, as long as the damaged state is kept.
pub(crate) fn warning(host: &Host) -> Option<String> {
    let past = RebuildRecord::read(host).filter(|past| past.stage >= Stage::Rebuilt)?;
    let directory = past.directory();
    let text = "containerd's state was damaged and is rebuilt; remove its old state when it is not needed";
    host.exists(&directory).unwrap_or(false).then(|| format!("RuntimeRebuilt: {text}: {directory}"))
}

/// Tells the cluster, once for each time, after it has answered.
pub(crate) fn report_rebuild(host: &Host) -> Result<(), Fault> {
    let Some(mut past) = RebuildRecord::read(host).filter(|past| past.stage == Stage::Rebuilt) else { return Ok(()) };
    let text = "firstboot set containerd's damaged state aside and rebuilt it from the bundle's images: containers and \
                other images of this node are gone, volumes are kept";
    let occasion = format!("{:02x}{}", past.number, past.boot);
    events::create_event(host, "RuntimeRebuilt", true, text.to_owned(), &occasion);
    past.reach(host, Stage::Reported).owned_by(Owner::Host)
}

/// How a repair goes on.
pub(crate) enum Progress<'a> {
    /// The damaged state is about to be set aside.
    Begun,
    /// All that is needed is there again.
    Rebuilt,
    /// It cannot be helped.
    Failed(&'a Fault),
}

/// Is called with each step of a repair, for people.
pub(crate) type Tell<'a> = &'a dyn Fn(&Progress<'_>);

/// Looks after the runtime of a sealed device, beside what else there is to do at a boot.
pub(crate) struct Watch<'a> {
    ask: Ask<'a>,
    tell: Tell<'a>,
    next: Duration,
    wait: Duration,
    until: Duration,
    over: bool,
    fault: Option<Fault>,
}

impl<'a> Watch<'a> {
    /// Begins with a boot.
    pub(crate) fn new(host: &Host, ask: Ask<'a>, tell: Tell<'a>) -> Self {
        let now = host.sys().uptime();
        Watch { ask, tell, next: now + EARLY, wait: LOOK.0, until: now + LIMIT, over: false, fault: None }
    }

    /// One look, unless all is known or the last was a moment ago.
    pub(crate) fn look(&mut self, host: &Host) {
        let now = host.sys().uptime();
        if self.over || now < self.next {
            return;
        }
        (self.next, self.wait) = (now + self.wait, (self.wait * 2).min(LOOK.1));
        match self.judged(host) {
            Ok(over) => self.over = over || now >= self.until,
            Err(fault) => {
                (self.tell)(&Progress::Failed(&fault));
                (self.over, self.fault) = (true, Some(fault));
            }
        }
    }

    /// Looks until it is known that the runtime works, or cannot be helped.
    ///
    /// # Errors
    /// Why it was not rebuilt, as reported.
    pub(crate) fn settle(mut self, host: &Host) -> Result<(), Fault> {
        // The earlier waits took time: a runtime that starts with the boot is up by now.
        self.next = host.sys().uptime();
        loop {
            self.look(host);
            match self.fault {
                Some(fault) => return Err(fault),
                None if self.over => return Ok(()),
                None => host.sys().sleep(self.wait.min(LOOK.0)),
            }
        }
    }

    /// Whether nothing more is to be seen.
    fn judged(&self, host: &Host) -> Result<bool, Fault> {
        // Without a bundle there is nothing to rebuild from.
        let Ok(bundle) = Installed::read(host) else { return Ok(true) };
        let unit = Unit::asked(host).owned_by(Owner::Host)?;
        let boot = host.boot_id().owned_by(Owner::Host)?.unwrap_or_default();
        let begun = RebuildRecord::read(host).filter(|past| past.stage < Stage::Rebuilt && past.boot == boot);
        let moved = begun.as_ref().is_some_and(|past| past.stage == Stage::Moved);
        let why = match unit {
            // That was us, and we were ended: kubelet is still to be started.
            Unit::Runs if moved => Some(CUT_OFF.to_owned()),
            Unit::Runs => match (self.ask)(host, &bundle) {
                Ok(missing) => match damage::of_images(host, &bundle.manifest, &missing).owned_by(Owner::Host)? {
                    Some(why) => Some(why),
                    None => return sound(host, &missing).owned_by(Owner::Host).map(|()| true),
                },
                Err(_) => sign(host),
            },
            Unit::Fails => sign(host),
            Unit::Starts => None,
            // An administrator who stopped it has a reason, unless firstboot stopped it and was cut off.
            Unit::Stopped if begun.is_some() => Some(CUT_OFF.to_owned()),
            Unit::Stopped => return Ok(true),
        };
        match why {
            None => Ok(false),
            Some(why) => self.rebuild(host, &bundle, &why).map(|()| true),
        }
    }

    fn rebuild(&self, host: &Host, bundle: &Installed, why: &str) -> Result<(), Fault> {
        (self.tell)(&Progress::Begun);
        set_aside(host, why)?;
        resume(host, bundle, self.ask)?;
        whole(host).owned_by(Owner::Host)?;
        (self.tell)(&Progress::Rebuilt);
        Ok(())
    }
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
