// SPDX-License-Identifier: Apache-2.0
//! A small part of `make torture`: moments of a recorded first boot, one of them booted. Boots 2 guests. `make test-long`
//! boots moments of a reset as well.

#![allow(clippy::unwrap_used)]

use e2e::torture::{self, Figures};
use qemu::progress::Progress;

/// Always the same choices, so that a change of the code is what makes it fail.
const FIGURES: Figures = Figures { moments: 20, boots: 1, kills: 0, resets: 0, seed: 1 };

#[test]
fn the_power_may_go_at_any_moment_of_a_first_boot() {
    if !e2e::can_boot(e2e::own_arch()) {
        return;
    }
    let outcome = torture::run(FIGURES, &mut Progress::default()).unwrap();
    assert_eq!(outcome.failures, [""; 0]);
    let recorded = &outcome.report["recorded"];
    assert_eq!(recorded["moments converged"], recorded["moments tried"]);
    assert!(recorded["moments tried"].as_u64().unwrap() > 15, "{recorded}");
    // A first boot writes and flushes far more often than there are moments to try.
    assert!(recorded["flushes"].as_u64().unwrap() > 100, "{recorded}");
    assert_eq!(recorded["moments booted"], 1);
}

#[test]
#[ignore = "boots 14 guests"]
fn the_power_may_go_at_any_moment_of_a_reset() {
    if !e2e::can_boot(e2e::own_arch()) {
        return;
    }
    let figures = Figures { moments: 0, boots: 0, kills: 0, resets: 12, seed: 1 };
    let outcome = torture::run(figures, &mut Progress::default()).unwrap();
    assert_eq!(outcome.failures, [""; 0]);
    let reset = &outcome.report["reset"];
    assert_eq!(reset["moments converged"], reset["moments booted"]);
    assert!(reset["moments booted"].as_u64().unwrap() > 10, "{reset}");
    assert!(reset["flushes"].as_u64().unwrap() > 20, "{reset}");
}
