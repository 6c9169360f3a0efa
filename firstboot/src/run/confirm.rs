// SPDX-License-Identifier: Apache-2.0
//! Ends the trial of a slot (systemd.io, "Automatic Boot Assessment"): `firstboot-confirm.service` runs this at every boot.
//!
//! A boot is good when the node is Ready, as reported from this boot, or when the device waits for its first seed. A slot
//! on trial that is not good in time is restarted; the boot loader counts, and after the last try starts the other slot.
//! Where the firmware does not count, the good slot does: at its boot it restarts the device into the slot on trial.

use crate::boot_report::BootReport;
use crate::boot_slot::Slots;
use crate::boot_slot::autoboot::Due;
use crate::boot_slot::entry::{Slot, TRIES};
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::journal::facts::Fact;
use crate::node::client::node_client;
use crate::status::{STATUS_FOR_ALL, State, Status};
use std::time::Duration;

/// How long a boot of a slot on trial may take until it is good, from power-on, where the kernel's command line does not
/// say otherwise. A first join takes two to three minutes.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// The word of the kernel's command line that says how many seconds it may take.
const LIMIT_WORD: &str = "firstboot.trial=";
/// Time between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// How long one question to the cluster may take.
const ASK: Duration = Duration::from_secs(30);

/// Where the slots are, and whether this boot is good: for tests without a disk and a cluster.
pub struct Surroundings<'a> {
    /// Where the slots are.
    pub slots: &'a dyn Fn(&Host) -> anyhow::Result<Option<Slots>>,
    /// Whether the node is Ready, as reported from this boot.
    pub ready: &'a dyn Fn(&Host) -> Result<(), Fault>,
}

/// Confirms the slot that runs, if it is on trial, and notes whether the other one failed.
///
/// # Errors
/// [`Code::SlotFailed`] when this boot was not good in time; the device is then restarting. A host fault when the
/// partition that says so cannot be read or written.
pub fn confirm(host: &Host) -> Result<(), Fault> {
    confirm_with(host, &Surroundings { slots: &Slots::find, ready: &ready })
}

/// [`confirm`] in other surroundings.
///
/// # Errors
/// As [`confirm`].
pub fn confirm_with(host: &Host, surroundings: &Surroundings<'_>) -> Result<(), Fault> {
    let Some((running, mut slots)) = note_failed_with(host, surroundings.slots)? else { return Ok(()) };
    match slots.begin(host, running).owned_by(Owner::Host)? {
        Due::Nothing => return Ok(()),
        Due::Try(slot) => return try_slot(host, slot, slots.trial(slot).map_or(1, |tries| tries.done)),
        Due::Confirm(_) => {}
    }
    let limit = limit(host).owned_by(Owner::Host)?;
    let mut why = "it neither joined nor waits for a seed".to_owned();
    while host.sys().uptime() < limit {
        match good(host, surroundings) {
            Ok(true) => {
                slots.confirm(host, running).owned_by(Owner::Host)?;
                host.sys().say(&format!("firstboot: slot {running} is confirmed"));
                return Ok(());
            }
            Ok(false) => {}
            Err(fault) => why = fault.to_string(),
        }
        host.sys().sleep(LOOK);
    }
    let fault = Fault::new(
        Code::SlotFailed,
        format!("confirm slot {running}: not Ready within {} s of power-on: {why}; restarting", limit.as_secs()),
    );
    host.sys().say(&format!("firstboot: {} ({})", fault, fault.tag()));
    host.run(&["systemctl", "--no-block", "reboot"]).owned_by(Owner::Host)?;
    Err(fault)
}

/// Restarts the device into a slot, once. The kernel passes the name on to the firmware by the board's device tree (Linux,
/// Documentation/devicetree/bindings/power/reset/reboot-mode.yaml).
fn try_slot(host: &Host, slot: Slot, number: u32) -> Result<(), Fault> {
    host.sys().say(&format!("firstboot: slot {slot} is tried, {number} of {TRIES}: restarting"));
    let argument = format!("--reboot-argument=slot-{slot}");
    host.run(&["systemctl", "--no-block", &argument, "reboot"]).map(drop).owned_by(Owner::Host)
}

/// Notes whether the slot that does not run failed its trial, before anything is said of this boot.
///
/// # Errors
/// A host fault when the partition of the slots cannot be read, or the journal cannot be written.
pub(super) fn note_failed(host: &Host) -> Result<(), Fault> {
    note_failed_with(host, &Slots::find).map(drop)
}

/// The slot that runs, and the slots; `None` where this system has none.
fn note_failed_with(
    host: &Host,
    slots: &dyn Fn(&Host) -> anyhow::Result<Option<Slots>>,
) -> Result<Option<(Slot, Slots)>, Fault> {
    let running = BootReport::read(host).and_then(|report| Slot::parse(&report.slot));
    let Some(running) = running else { return Ok(None) };
    let Some(slots) = slots(host).owned_by(Owner::Host)? else { return Ok(None) };
    let other = running.other();
    let failed = if slots.failed(other) { other.to_string() } else { String::new() };
    host.note(Fact::FailedSlot, &failed).owned_by(Owner::Host)?;
    Ok(Some((running, slots)))
}

/// Until when this boot has to be good.
fn limit(host: &Host) -> anyhow::Result<Duration> {
    let line = host.read_text("/proc/cmdline")?.unwrap_or_default();
    let seconds = line.split_whitespace().find_map(|word| word.strip_prefix(LIMIT_WORD)?.parse().ok());
    Ok(seconds.map_or(LIMIT, Duration::from_secs))
}

/// Whether this boot did what the device is for.
fn good(host: &Host, surroundings: &Surroundings<'_>) -> Result<bool, Fault> {
    // A version that cannot use the data would wait for a seed for ever. A disk too small for data has no other slot.
    let volatile = BootReport::read(host).and_then(|report| report.volatile());
    if let Some((code, text)) = volatile.filter(|(code, _)| *code == Code::DiskFull) {
        return Err(Fault::new(code, text));
    }
    // What firstboot.service wrote since.
    host.reread_journal();
    if host.journal().sealed() {
        return (surroundings.ready)(host).map(|()| true);
    }
    // The one in /run is of this boot.
    let status = host.read(STATUS_FOR_ALL).owned_by(Owner::Host)?;
    let status: Option<Status> = status.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Ok(status.is_some_and(|status| status.state == State::Waiting && status.code == Some(Code::NoSeed)))
}

fn ready(host: &Host) -> Result<(), Fault> {
    let boot = host.boot_id().owned_by(Owner::Host)?;
    node_client(host)?.wait_ready(boot.as_deref(), ASK).map(drop)
}

/// What the status says of a slot that failed.
pub(super) fn warning(host: &Host) -> Option<String> {
    let journal = host.journal();
    let slot = journal.fact(Fact::FailedSlot).filter(|slot| !slot.is_empty())?;
    Some(format!("Slot: slot {slot} did not start in its tries, so the other one runs ({})", Code::SlotFailed))
}

#[cfg(test)]
#[path = "confirm_tests.rs"]
mod tests;
