// SPDX-License-Identifier: Apache-2.0
//! What a start of firstboot does about damaged files: repair, copies for the next time, an Event for the cluster.

use crate::fault::{Code, Fault};
use crate::host::Host;
use crate::journal::facts::Fact;
use crate::node::{self, credential, events};

/// Makes the journal and every kept file whole again: what was damaged, and what a power cut has left half updated. Nothing
/// is written where nothing is wrong.
pub(super) fn repair_state(host: &Host) -> anyhow::Result<()> {
    host.settle_journal()?;
    host.repair_kept()
}

/// Keeps copies of what the node does not start without, where that was changed since the last boot.
pub(super) fn keep_copies(host: &Host) {
    let kept = node::repair::keep(host).and_then(|()| credential::keep_copy(host));
    if let Err(error) = kept {
        host.sys().say(&format!("firstboot: copies of the node's files not kept: {error:#}"));
    }
}

/// Tells the cluster, once for each time, what of this device was damaged and repaired.
pub(super) fn report_damage(host: &Host) -> anyhow::Result<()> {
    let damage = host.journal().fact(Fact::Damage).unwrap_or_default().to_owned();
    if damage.is_empty() || host.journal().fact(Fact::DamageReported) == Some(&damage) {
        return Ok(());
    }
    let text = format!("firstboot repaired damaged files of this device: {}", damage.replace('\n', "; "));
    events::create_event(host, "StateRepaired", true, text, &host.boot_id()?.unwrap_or_default());
    host.note(Fact::DamageReported, &damage)
}

/// The same result, but for a root that is read-only: what could not be written is reported on the console, and no reason
/// to show a node that works as failed. `firstboot-clock.timer` tries again every day.
pub(super) fn unless_read_only(host: &Host, done: Result<(), Fault>) -> Result<(), Fault> {
    match done {
        Err(fault) if fault.code == Code::DiskReadOnly => {
            host.sys().say(&format!("firstboot: not kept ({}): {fault}", fault.tag()));
            Ok(())
        }
        other => other,
    }
}
