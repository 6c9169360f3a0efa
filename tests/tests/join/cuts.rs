// SPDX-License-Identifier: Apache-2.0
//! The power goes before every effect of the whole way, in every way: what is left goes on to the same node, or is taken
//! back to the flashed image.

use std::time::Instant;

use e2e::native::compare::left_by_reset;
use e2e::native::tree;
use qemu::control_plane::ControlPlane;

use super::faults;
use super::life::{Failures, Life, seed_of_choice};

/// How many installations run at the same time: each has its own node, token and directory.
const LIVES: usize = 2;

/// Every effect, once cut and once failing, each in one way of several.
pub fn every_effect(plane: &ControlPlane) {
    lives(plane, "cut", |life, n, failures| {
        let mut random = fastrand::Rng::with_seed(seed_of_choice() << 32 | n as u64);
        let damages = life.damages(n);
        let damage = &damages[random.usize(..damages.len())];
        let what = format!("cut {n} before {:?}, {}", life.cuts[n].what, damage.how);
        failures.note(&what, life.from(n, &damage.state, || life.goes_on(false)));
        let damage = &damages[random.usize(..damages.len())];
        let what = format!("reset after cut {n} before {:?}, {}", life.cuts[n].what, damage.how);
        failures.note(&what, life.from(n, &damage.state, || resets(life)));
        let errno = faults::ERRNOS[random.usize(..faults::ERRNOS.len())];
        failures.note(&format!("fault {n}, {errno} at {:?}", life.cuts[n].what), faults::fails_once(life, n, errno));
    });
}

/// All of the ways.
pub fn every_effect_in_every_way(plane: &ControlPlane) {
    lives(plane, "all", |life, n, failures| {
        for damage in life.damages(n) {
            let what = format!("cut {n} before {:?}, {}", life.cuts[n].what, damage.how);
            failures.note(&what, life.from(n, &damage.state, || life.goes_on(false)));
            failures.note(&format!("reset after {what}"), life.from(n, &damage.state, || resets(life)));
        }
        for errno in faults::ERRNOS {
            failures
                .note(&format!("fault {n}, {errno} at {:?}", life.cuts[n].what), faults::fails_once(life, n, errno));
        }
    });
}

/// Lives each of [`LIVES`] once, then goes through its cuts, the last of them first: the cluster has the Node then.
fn lives(plane: &ControlPlane, name: &str, one: impl Fn(&Life, usize, &mut Failures) + Sync) {
    let started = Instant::now();
    let share = |number: usize| {
        let life = Life::lived(plane, &format!("{name}{number}"));
        let mut failures = Failures::default();
        let cuts: Vec<usize> = (0..life.cuts.len()).rev().filter(|n| n % LIVES == number).collect();
        for n in &cuts {
            one(&life, *n, &mut failures);
            if n % 50 == number {
                eprintln!("life {number}: down to cut {n}, {:.0} s", started.elapsed().as_secs_f64());
            }
        }
        failures.tell(0);
        (life.cuts.len(), cuts.len())
    };
    let counts: Vec<(usize, usize)> = std::thread::scope(|scope| {
        let share = &share;
        let threads: Vec<_> = (0..LIVES).map(|number| scope.spawn(move || share(number))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let all = counts[0].0;
    assert!(all > 250 && counts.iter().all(|(of, _)| *of == all), "{counts:?}");
    assert_eq!(counts.iter().map(|(_, share)| share).sum::<usize>(), all);
    eprintln!("{all} cuts, {:.0} s", started.elapsed().as_secs_f64());
}

/// Takes a device back to the flashed image.
pub fn resets(life: &Life) -> Result<(), String> {
    let outcome = life.device.reset().map_err(|e| format!("{e:#}"))?;
    if let Err(fault) = outcome.done {
        return Err(format!("{fault}\n{:#?}", outcome.lines));
    }
    let left = left_by_reset(&life.flashed, &tree::read(&life.device.root, &life.flashed).unwrap());
    if left.is_empty() { Ok(()) } else { Err(format!("{}\n{:#?}", left.join("\n"), outcome.lines)) }
}
