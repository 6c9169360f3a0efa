// SPDX-License-Identifier: Apache-2.0
//! The power goes before every effect of the whole way, in every way: what is left goes on to the same node, or is taken
//! back to the flashed image.

use std::time::Instant;

use e2e::native::compare::left_by_reset;
use e2e::native::cut::BOOT;
use e2e::native::tree;
use firstboot::status::STATUS_NAME;
use qemu::control_plane::ControlPlane;

use super::faults;
use super::installation::{Failures, Installation, seed_of_choice};

/// Number of installations in parallel: each has its own node, token and directory.
const INSTALLATIONS: usize = 2;

/// Every effect, once cut and once failing, each in one way of several.
pub fn every_effect(plane: &ControlPlane) {
    installations(plane, "cut", |installation, n, failures| {
        let mut random = fastrand::Rng::with_seed(seed_of_choice() << 32 | n as u64);
        let damages = installation.damages(n);
        let damage = &damages[random.usize(..damages.len())];
        let what = format!("cut {n} before {:?}, {}", installation.cuts[n].what, damage.how);
        failures.note(&what, installation.from(n, &damage.state, || installation.resumes(false)));
        let damage = &damages[random.usize(..damages.len())];
        let what = format!("reset after cut {n} before {:?}, {}", installation.cuts[n].what, damage.how);
        failures.note(&what, installation.from(n, &damage.state, || resets(installation)));
        let errno = faults::ERRNOS[random.usize(..faults::ERRNOS.len())];
        failures.note(
            &format!("fault {n}, {errno} at {:?}", installation.cuts[n].what),
            faults::fails_once(installation, n, errno),
        );
    });
}

/// All of the ways.
pub fn every_effect_in_every_way(plane: &ControlPlane) {
    installations(plane, "all", |installation, n, failures| {
        for damage in installation.damages(n) {
            let what = format!("cut {n} before {:?}, {}", installation.cuts[n].what, damage.how);
            failures.note(&what, installation.from(n, &damage.state, || installation.resumes(false)));
            failures.note(&format!("reset after {what}"), installation.from(n, &damage.state, || resets(installation)));
        }
        for errno in faults::ERRNOS {
            failures.note(
                &format!("fault {n}, {errno} at {:?}", installation.cuts[n].what),
                faults::fails_once(installation, n, errno),
            );
        }
    });
}

/// Runs each of [`INSTALLATIONS`] once, then tests its cuts, the last first: the cluster has the Node then.
fn installations(plane: &ControlPlane, name: &str, one: impl Fn(&Installation, usize, &mut Failures) + Sync) {
    let started = Instant::now();
    let share = |number: usize| {
        let installation = Installation::recorded(plane, &format!("{name}{number}"));
        let mut failures = Failures::default();
        let cuts: Vec<usize> = (0..installation.cuts.len()).rev().filter(|n| n % INSTALLATIONS == number).collect();
        for n in &cuts {
            one(&installation, *n, &mut failures);
            if n % 50 == number {
                eprintln!("installation {number}: down to cut {n}, {:.0} s", started.elapsed().as_secs_f64());
            }
        }
        failures.tell(0);
        (installation.cuts.len(), cuts.len())
    };
    let counts: Vec<(usize, usize)> = std::thread::scope(|scope| {
        let share = &share;
        let threads: Vec<_> = (0..INSTALLATIONS).map(|number| scope.spawn(move || share(number))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let all = counts[0].0;
    assert!(all > 250 && counts.iter().all(|(of, _)| *of == all), "{counts:?}");
    assert_eq!(counts.iter().map(|(_, share)| share).sum::<usize>(), all);
    eprintln!("{all} cuts, {:.0} s", started.elapsed().as_secs_f64());
}

/// A card with the seeds of many devices: cut at every change of it, in every way, it ends without a token of any.
pub fn many_seeds(plane: &ControlPlane) {
    let installation = Installation::recorded_with(plane, "many", 20);
    let (mut failures, mut states) = (Failures::default(), 0);
    let of_seeds = |what: &str| what.starts_with(BOOT) && !what.ends_with(STATUS_NAME);
    let changes: Vec<usize> = (0..installation.cuts.len()).filter(|n| of_seeds(&installation.cuts[*n].what)).collect();
    let words: Vec<&str> = changes.iter().map(|n| &installation.cuts[*n].what[BOOT.len()..]).collect();
    assert_eq!(words[..2], ["overwrite the seeds in seeds", "remove the seeds in seeds"], "{words:?}");
    assert_eq!(words[2], "overwrite the token in seeds/MANY.toml", "{words:?}");
    // The Node is there at the last ones.
    for n in changes.into_iter().rev() {
        for damage in installation.damages(n) {
            states += 1;
            let what = format!("cut {n} before {:?}, {}", installation.cuts[n].what, damage.how);
            failures.note(&what, installation.from(n, &damage.state, || installation.resumes(false)));
        }
    }
    failures.tell(0);
    eprintln!("many seeds: {states} states of {} changes", words.len());
    assert!(states > 3 * words.len(), "{states}");
}

/// Takes a device back to the flashed image.
pub fn resets(installation: &Installation) -> Result<(), String> {
    let outcome = installation.device.reset().map_err(|e| format!("{e:#}"))?;
    if let Err(fault) = outcome.done {
        return Err(format!("{fault}\n{:#?}", outcome.lines));
    }
    let left =
        left_by_reset(&installation.flashed, &tree::read(&installation.device.root, &installation.flashed).unwrap());
    if left.is_empty() { Ok(()) } else { Err(format!("{}\n{:#?}", left.join("\n"), outcome.lines)) }
}
