// SPDX-License-Identifier: Apache-2.0
//! Whether this device can become a node at all, before anything is installed on it ([`crate::preflight`]).
//!
//! Errors stop the run. Warnings are said once, and kept for the status file.

use super::context::PhaseContext;
use crate::check::judge;
use crate::fault::{Fault, OwnedBy, Owner};
use crate::journal::Record;
use crate::journal::facts::Fact;
use crate::preflight::check::{CheckContext, Level, Outcome};
use crate::preflight::run_checks;

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    let outcomes = early(cx);
    // By name: figures in a message may change from one look to the next.
    let kept = cx.host.journal().fact(Fact::Warnings).unwrap_or_default().to_owned();
    let kept = kept.lines().filter_map(|l| l.split_once(": ")).map(|(id, _)| id);
    Ok(judge(&outcomes).is_ok() && kept.eq(warnings(&outcomes).map(|o| o.id.as_str())))
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    let outcomes = early(cx);
    judge(&outcomes)?;
    let lines: Vec<String> = warnings(&outcomes).map(|o| format!("{}: {}", o.id, o.message)).collect();
    let value = lines.join("\n");
    if cx.host.journal().fact(Fact::Warnings).unwrap_or_default() == value {
        return Ok(());
    }
    for line in &lines {
        cx.host.sys().say(&format!("firstboot: warning: {line}"));
    }
    cx.host.record(Record::Fact { name: Fact::Warnings, value }).owned_by(Owner::Host)
}

fn early(cx: &PhaseContext) -> Vec<Outcome> {
    run_checks(&CheckContext::new(&cx.host, &cx.image, &cx.bundle, Some(Ok(&cx.seed))), true)
}

fn warnings(outcomes: &[Outcome]) -> impl Iterator<Item = &Outcome> {
    outcomes.iter().filter(|o| o.level == Level::Warning)
}
