// SPDX-License-Identifier: Apache-2.0
//! The runner: runs the table of phases in order, skips phases that already hold, stops at the first fault.
//!
//! The runner depends on no specific phase and no file. It skips a phase if the journal lists the phase as done *and*
//! the check holds; otherwise it applies the phase, and the check must hold afterwards. So applying a phase again also
//! repairs one that was interrupted or has drifted.

use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::journal::Record;
use std::time::Duration;

/// One row of the table; `C` is the context that the phases share.
pub struct Phase<C> {
    /// Name on the console and in the journal.
    pub name: &'static str,
    /// Whether the device has everything that `apply` sets up.
    pub check: fn(&C) -> Result<bool, Fault>,
    /// Sets it up.
    pub apply: fn(&C) -> Result<(), Fault>,
}

/// Progress that the runner reports.
pub enum Event<'a> {
    /// The phase begins: its number (from 1), the number of phases, its name.
    Begins(usize, usize, &'a str),
    /// The phase holds: number, number of phases, name, and its duration, or `None` when it was skipped.
    Holds(usize, usize, &'a str, Option<Duration>),
}

/// A fault and the phase that it stopped.
#[derive(Debug)]
pub struct Stopped {
    /// Number of the phase in the table, from 1.
    pub number: usize,
    /// Number of phases.
    pub of: usize,
    /// Name of the phase.
    pub phase: &'static str,
    /// What failed.
    pub fault: Fault,
}

/// Runs the phases up to and including `until` (all of them when it is `None`).
///
/// # Errors
/// The first fault, with its phase.
pub fn run<C>(
    host: &Host,
    cx: &C,
    phases: &[Phase<C>],
    until: Option<&str>,
    report: &mut dyn FnMut(Event<'_>),
) -> Result<(), Stopped> {
    let of = phases.len();
    for (index, phase) in phases.iter().enumerate() {
        let number = index + 1;
        let stopped = |fault| Stopped { number, of, phase: phase.name, fault };
        let done = host.journal().done(phase.name);
        if done && (phase.check)(cx).map_err(stopped)? {
            report(Event::Holds(number, of, phase.name, None));
        } else {
            report(Event::Begins(number, of, phase.name));
            let started = host.sys().uptime();
            (phase.apply)(cx).map_err(stopped)?;
            if !(phase.check)(cx).map_err(stopped)? {
                return Err(stopped(Fault::new(Code::SettingUndone, "phase applied, but its check does not hold")));
            }
            let took = host.sys().uptime().saturating_sub(started);
            host.record(Record::Done { phase: phase.name.into(), seconds: took.as_secs_f64() })
                .owned_by(Owner::Host)
                .map_err(stopped)?;
            report(Event::Holds(number, of, phase.name, Some(took)));
        }
        if until == Some(phase.name) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;
    use std::cell::{Cell, RefCell};

    #[derive(Default)]
    struct Made {
        log: RefCell<Vec<&'static str>>,
        first_holds: Cell<bool>,
        second_fails: Cell<bool>,
    }

    const PHASES: &[Phase<Made>] = &[
        Phase {
            name: "first",
            check: |m| Ok(m.first_holds.get()),
            apply: |m| {
                m.log.borrow_mut().push("first");
                m.first_holds.set(true);
                Ok(())
            },
        },
        Phase {
            name: "second",
            check: |_| Ok(true),
            apply: |m| {
                m.log.borrow_mut().push("second");
                if m.second_fails.get() { Err(Fault::new(Code::Cluster, "reach it")) } else { Ok(()) }
            },
        },
    ];

    fn once(host: &Host, made: &Made, until: Option<&str>) -> Result<Vec<String>, Stopped> {
        let mut reported = Vec::new();
        run(host, made, PHASES, until, &mut |e| {
            reported.push(match e {
                Event::Begins(n, of, p) => format!("{n}/{of} {p} begins"),
                Event::Holds(n, of, p, t) => format!("{n}/{of} {p} {}", if t.is_some() { "done" } else { "held" }),
            });
        })
        .map(|()| reported)
    }

    #[test]
    fn stops_at_a_fault_resumes_there_and_repairs_drift() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        let made = Made::default();
        made.second_fails.set(true);
        let stopped = once(&host, &made, None).unwrap_err();
        assert_eq!((stopped.number, stopped.of, stopped.phase), (2, 2, "second"));
        assert_eq!(stopped.fault.to_string(), "reach it");
        made.second_fails.set(false);
        assert_eq!(once(&host, &made, None).unwrap(), ["1/2 first held", "2/2 second begins", "2/2 second done"]);
        assert_eq!(once(&host, &made, None).unwrap(), ["1/2 first held", "2/2 second held"]);
        made.first_holds.set(false);
        assert_eq!(once(&host, &made, Some("first")).unwrap(), ["1/2 first begins", "1/2 first done"]);
        assert_eq!(made.log.take(), ["first", "second", "second", "first"]);
    }

    #[test]
    fn phase_whose_check_never_holds_is_a_fault() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        let table = &[Phase::<()> { name: "void", check: |_| Ok(false), apply: |_| Ok(()) }];
        let stopped = run(&host, &(), table, None, &mut |_| ()).unwrap_err();
        assert_eq!(stopped.fault.to_string(), "phase applied, but its check does not hold");
        assert!(!host.journal().done("void"));
    }
}
