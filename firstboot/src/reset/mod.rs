// SPDX-License-Identifier: Apache-2.0
//! `firstboot --reset`: back to where a seed can be dropped, without a reflash and without a download.
//!
//! A command, or a seed with `reset = true`, adds one record to the journal and starts
//! firstboot-reset.service, which does the work: it goes on when the terminal is gone, and at the next boot when the
//! power is. The work is a list of steps ([`plan`]) out of the journal; the journal itself goes last. What a seed asked for
//! ends with a restart of the machine: someone with an interest in what is left of the old life may have brought that seed.

pub(crate) mod by_seed;
mod cluster;
mod packets;
mod plan;
mod steps;
#[cfg(test)]
pub(crate) mod tests;

use crate::boot_partition::{SeedLocator, locate};
use crate::control_plane::others::is_last;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::exclusions::Exclusions;
use crate::host::{Host, System};
use crate::journal::facts::Fact;
use crate::journal::{JOURNAL, Record};
use crate::report::{Facts, Reporter, reporter_with};
use crate::status::State;
use std::cell::Cell;
use std::path::Path;
use std::time::Duration;
use steps::Work;

/// What does the work.
const UNIT: &str = "firstboot-reset.service";

/// Whether a reset would end this device's cluster, by what etcd says within `patience`.
pub fn ends_cluster(host: &Host, patience: Duration) -> bool {
    is_last(host, &cluster::api_servers(host), patience)
}

/// Every step and path in order, one line each: what `--dry-run` prints.
///
/// # Errors
/// A host fault when a reset has begun, and its record cannot be read.
pub fn dry_run(host: &Host, keep: &Exclusions) -> Result<String, Fault> {
    let keep = begun(host)?.unwrap_or_default().with(keep);
    let units = plan::OURS.map(|unit| plan::Step::Stop(unit.into()));
    let steps = units.into_iter().chain(plan::plan(host, &keep));
    Ok(steps.map(|step| format!("{step}\n")).chain(keep.paths().iter().map(|p| format!("keep {p}\n"))).collect())
}

/// What a person is asked before anything is done; none where it was asked before and the power went, or where there is
/// nothing to take back. `last` is whether this device is the last control plane of its cluster.
pub fn question(host: &Host, last: bool) -> Option<String> {
    let journal = host.journal();
    if !journal.used() || journal.resetting().is_some() {
        return None;
    }
    if last {
        let node = journal.fact(Fact::Node).unwrap_or_default();
        return Some(format!(
            "This device, {node}, is the last control plane of its cluster that answers. A reset ends that cluster: all its \
             objects, the data of etcd and the keys of its CA are removed.\nType yes to go on: "
        ));
    }
    let node = journal.fact(Fact::Node).map_or("not named as a node yet".to_owned(), |node| format!("node {node}"));
    Some(format!(
        "This device is {node}. A reset ends its pods and removes them with their data on this device, its container \
         images, its certificate and all that its seed set up.\nType yes to go on: "
    ))
}

/// Whether a line that was typed means yes.
pub fn is_yes(line: &str) -> bool {
    line.trim().eq_ignore_ascii_case("yes")
}

/// What came of [`by_command`].
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    /// No seed was ever begun on this device.
    Nothing,
    /// It waits for a seed again; the command that is left for an administrator of the cluster.
    Reset(Option<String>),
}

/// Does it, by the service, and waits until it is done. `destroy`: it was said that the cluster may end with this device.
///
/// # Errors
/// A host fault where the service failed; it goes on at the next boot.
pub fn by_command(host: &Host, keep: &Exclusions, destroy: bool) -> Result<Done, Fault> {
    if !host.journal().used() && host.journal().resetting().is_none() {
        return Ok(Done::Nothing);
    }
    let left = manual_steps(host);
    record(host, keep, None, destroy)?;
    host.run(&["systemctl", "start", UNIT]).owned_by(Owner::Host)?;
    Ok(Done::Reset(left))
}

/// Hands over to the service, which stops the caller: for firstboot.service.
pub(crate) fn by_service(host: &Host, seed: Option<String>, destroy: bool) -> Result<(), Fault> {
    record(host, &Exclusions::default(), seed, destroy)?;
    host.sys().notify("STATUS=being reset");
    host.run(&["systemctl", "--no-block", "start", UNIT]).map(drop).owned_by(Owner::Host)
}

/// From this record on the device is being reset, whatever happens. Once begun, a reset only accepts more paths to keep,
/// for instance where it stopped at a mounted file system, and that the cluster may end.
fn record(host: &Host, keep: &Exclusions, seed: Option<String>, destroy: bool) -> Result<(), Fault> {
    let before = begun(host)?;
    let keep = before.clone().unwrap_or_default().with(keep);
    if before.as_ref() == Some(&keep) && (!destroy || plan::destroys(&host.journal())) {
        return Ok(());
    }
    host.record(Record::Resetting { keep: keep.paths().to_vec(), seed, destroy }).owned_by(Owner::Host)
}

/// What a reset that has begun, and not ended, leaves alone; none where none has begun.
fn begun(host: &Host) -> Result<Option<Exclusions>, Fault> {
    // A list that cannot be read must not be taken for an empty one.
    let keep = host.journal().resetting().map(Exclusions::parse).transpose();
    keep.map_err(|why| Fault::new(Code::StateDamaged, format!("read {JOURNAL}: {why}")))
}

/// What firstboot-reset.service does; nothing on a device without a request to reset.
///
/// # Errors
/// A host fault when something on this device cannot be taken back. The next boot tries again.
pub fn work(root: &Path, sys: Box<dyn System>, facts: &dyn Facts) -> Result<(), Fault> {
    work_with(root, sys, facts, &locate)
}

/// [`work`] with another boot partition: for tests on a machine that has none of its own.
///
/// # Errors
/// As [`work`].
pub fn work_with(root: &Path, sys: Box<dyn System>, facts: &dyn Facts, places: SeedLocator<'_>) -> Result<(), Fault> {
    let host = Host::open(root, sys).owned_by(Owner::Host)?;
    if begun(&host)?.is_none() {
        return Ok(());
    }
    // Before anything is written where they write, too.
    let stopped = plan::OURS.into_iter().try_for_each(|unit| steps::stop(&host, unit)).coded(Code::ResetStopped);
    let mut reporter = reporter_with(&host, facts, places);
    let done = stopped.and_then(|()| take_back(&host, &mut reporter));
    done.inspect_err(|fault| reporter.failed(None, fault, None))
}

/// Restarts the machine: sessions and memory of the life that was reset end with it. By way of systemd alone, which no
/// program that holds off a shutdown delays.
///
/// # Errors
/// A host fault where systemd does not take the order.
pub(crate) fn restart(host: &Host) -> Result<(), Fault> {
    host.sys().say("firstboot: this device restarts before it takes a seed");
    let order = ["systemctl", "--no-block", "--job-mode=replace-irreversibly", "start", "reboot.target"];
    host.run(&order).map(drop).owned_by(Owner::Host)
}

/// Whether a seed's reset ended in this boot: no seed is taken before the machine has restarted, by that order or because
/// the power was cut.
///
/// # Errors
/// When the kernel does not say which boot this is.
pub(crate) fn restart_due(host: &Host) -> anyhow::Result<bool> {
    let ended = host.journal().fact(Fact::RestartDue).map(str::to_owned);
    Ok(ended.is_some() && ended == host.boot_id()?)
}

fn take_back(host: &Host, reporter: &mut Reporter<'_>) -> Result<(), Fault> {
    // What they wrote until they were stopped.
    host.reread_journal();
    let keep = begun(host)?.unwrap_or_default();
    let left = manual_steps(host);
    let restarts = plan::asked_by(&host.journal()).is_some();
    host.sys().say("firstboot: reset begins");
    reporter.status.state = State::Resetting;
    reporter.write();
    let work = Work { host, keep: &keep, deaf: Cell::new(false) };
    for step in plan::plan(host, &keep) {
        work.perform(&step).coded(Code::ResetStopped)?;
    }
    host.sys().say("firstboot: reset done: this device waits for a seed");
    if let Some(left) = left {
        host.sys().say(&format!("firstboot: left for an administrator of the cluster: {left}"));
    }
    if restarts && restart(host).is_ok() {
        return Ok(());
    }
    // Neither is needed for what was done to hold: the next boot does the same. Where the machine has to restart and did
    // not, firstboot.service tries it again.
    let _ = host.run(&["systemctl", "daemon-reload"]);
    let _ = host.run(&["systemctl", "--no-block", "start", "firstboot.service"]);
    Ok(())
}

/// The one thing that a node may not do, where there may be a Node.
fn manual_steps(host: &Host) -> Option<String> {
    let journal = host.journal();
    let ran = journal.records().iter().any(|r| matches!(r, Record::Effect(e) if plan::starts(e, plan::KUBELET)));
    journal.fact(Fact::Node).filter(|_| ran).map(|node| format!("kubectl delete node {node}"))
}
