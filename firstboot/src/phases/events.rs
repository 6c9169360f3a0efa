// SPDX-License-Identifier: Apache-2.0
//! The Event of the join. Best effort: a refusal is reported once and stops nothing.

use super::context::PhaseContext;
use crate::fault::{Fault, OwnedBy, Owner};
use crate::journal::Record;
use crate::journal::facts::Fact;
use crate::node::events::create_event;

/// Tells once in this installation that it is Ready, how long each phase took and which image it is.
pub(super) fn joined(cx: &PhaseContext) -> Result<(), Fault> {
    if cx.host.journal().fact(Fact::JoinedEvent) == Some(cx.seed.digest()) {
        return Ok(());
    }
    create_event(&cx.host, "FirstbootJoined", false, message(cx), cx.seed.digest());
    cx.host.record(Record::Fact { name: Fact::JoinedEvent, value: cx.seed.digest().into() }).owned_by(Owner::Host)
}

fn message(cx: &PhaseContext) -> String {
    let seconds = cx.host.journal().seconds();
    let total: f64 = seconds.iter().map(|(_, s)| s).sum();
    let each: Vec<String> = seconds.iter().map(|(phase, s)| format!("{phase} {s:.2}")).collect();
    format!(
        "firstboot {} made this device a Ready node in {total:.1} s, image {} ({}); seconds: {}",
        env!("CARGO_PKG_VERSION"),
        cx.image.target,
        cx.image.build_id,
        each.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::cx;
    use super::*;
    use crate::host::fake::Fake;

    const SEED: &str = "version = 1\n[cluster]\napiserver = \"a\"\ntoken = \"abcdef.0123456789abcdef\"\nca-cert-hashes = \
                        \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n";

    #[test]
    fn what_cannot_be_told_is_said_once_and_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (fake, seen) = Fake::new();
        let cx = cx(dir.path(), fake, SEED);
        cx.host.record(Record::Done { phase: "join".into(), seconds: 1.25 }).unwrap();
        cx.host.record(Record::Done { phase: "ready".into(), seconds: 2.0 }).unwrap();
        let text = "firstboot 0.1.0 made this device a Ready node in 3.2 s, image generic-amd64 (test); \
                    seconds: join 1.25, ready 2.00";
        assert_eq!(message(&cx), text);
        // There is no certificate to show to anybody.
        joined(&cx).unwrap();
        joined(&cx).unwrap();
        let said = seen.lines.take();
        assert!(
            matches!(&said[..], [one] if one.starts_with("firstboot: no Event for the cluster (host, FB317): ")),
            "{said:?}"
        );
    }
}
