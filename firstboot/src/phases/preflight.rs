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
    // By name: figures in a message may change from one try to the next.
    let kept = cx.host.journal().fact(Fact::Warnings).unwrap_or_default().to_owned();
    let kept = kept.lines().filter_map(|l| l.split_once(": ")).map(|(id, _)| id);
    Ok(judge(outcomes).is_ok() && kept.eq(warnings(outcomes).map(|o| o.id.as_str())))
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    let outcomes = early(cx);
    judge(outcomes)?;
    let lines: Vec<String> = warnings(outcomes).map(|o| format!("{}: {}", o.id, o.message)).collect();
    let value = lines.join("\n");
    if cx.host.journal().fact(Fact::Warnings).unwrap_or_default() == value {
        return Ok(());
    }
    for line in &lines {
        cx.host.sys().say(&format!("firstboot: warning: {line}"));
    }
    cx.host.record(Record::Fact { name: Fact::Warnings, value }).owned_by(Owner::Host)
}

/// What this try found, at its first look: voltage, heat and the time of a flush are others a second later.
fn early(cx: &PhaseContext) -> &[Outcome] {
    let look = || run_checks(&CheckContext::new(&cx.host, &cx.image, &cx.bundle, Some(Ok(&cx.seed))), true);
    cx.preflight.get_or_init(look)
}

fn warnings(outcomes: &[Outcome]) -> impl Iterator<Item = &Outcome> {
    outcomes.iter().filter(|o| o.level == Level::Warning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;
    use crate::phases::tests::cx;
    use crate::test_files::put_for_tests;

    const SEED: &str = "version = 1\n[cluster]\ncreate = true\n";

    #[test]
    fn what_changes_while_it_is_looked_at_stops_no_device() {
        let dir = tempfile::tempdir().unwrap();
        let power = |value: &str| {
            put_for_tests(dir.path(), "sys/devices/platform/soc/soc:firmware/get_throttled", value);
        };
        let warned = |cx: &PhaseContext| warnings(early(cx)).any(|outcome| outcome.id == "Power");
        let one = cx(dir.path(), Fake::new().0, SEED);
        power("50005\n");
        assert!(warned(&one));
        power("0\n");
        assert!(warned(&one), "the same try");
        let mut again = cx(dir.path(), Fake::new().0, SEED);
        assert!(!warned(&again), "the next one");

        // Of all that was found, what a device that fits has.
        let power = warnings(early(&one)).filter(|outcome| outcome.id == "Power").cloned().collect::<Vec<_>>();
        again.preflight = power.into();
        assert!(!check(&again).unwrap(), "its warning was not kept yet");
        apply(&again).unwrap();
        assert!(check(&again).unwrap());
    }
}
