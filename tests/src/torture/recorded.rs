// SPDX-License-Identifier: Apache-2.0
//! The disk of one first boot at very many moments: at its flushes, and between them with the writes since the last one
//! lost, or torn.

use super::resumed::Resumed;
use super::{Figures, comes_back, keep, options, seeded};
use crate::native::cluster::publish_server;
use crate::{OFF, SOON};
use anyhow::{Context, Result};
use qemu::control_plane::ControlPlane;
use qemu::device::{Device, Options};
use qemu::disk::DiskImage;
use qemu::progress::Progress;
use qemu::run_dir::RunDir;
use qemu::writes::{Entry, Moment, Replay};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

pub(super) const SERIAL: &str = "recorded";
pub(super) const NODE: &str = "edge-recorded";

pub(super) fn run(
    plane: &ControlPlane,
    figures: Figures,
    rng: &mut fastrand::Rng,
    progress: &mut Progress,
    failures: &mut Vec<String>,
) -> Result<(Value, Recorded)> {
    let dir = RunDir::new("torture")?;
    let recorded = record(plane, dir.path(), progress)?;
    let Recorded { device, token, before, seconds } = &recorded;
    let log = device.recording()?;
    let (flushes, writes) = (log.flushes(), log.entries().iter().filter(|e| matches!(e, Entry::Write { .. })).count());
    progress.say(&format!("joined in {seconds:.0} s: {writes} writes, {flushes} flushes"));

    let all = moments(flushes, figures.moments, rng);
    let (booted, resumed) = shares(&all, figures.boots);
    let at = dir.path().join("at.img");
    let mut converged = 0;
    let mut each = |moments: &[Moment], how: &str, one: &dyn Fn(&DiskImage) -> Result<()>| -> Result<()> {
        let replay = Replay::new(before, device.recording()?)?;
        converged += each_moment(replay, moments, &at, [how, "Ready"], progress, failures, one)?;
        Ok(())
    };
    each(&booted, "booted", &|disk| boots(plane, disk, token))?;
    if !resumed.is_empty() {
        let natively = Resumed::new(plane, before, dir.path())?;
        each(&resumed, "resumed", &|disk| {
            reads_boot(disk)?;
            natively.go_on(disk, token)
        })?;
        publish_server(plane, &plane.endpoint_for_guest())?;
    }
    let report = json!({
        "seconds to join": seconds, "writes": writes, "flushes": flushes, "moments tried": all.len(),
        "moments between flushes": all.iter().filter(|m| m.lost.is_some()).count(), "moments booted": booted.len(),
        "moments resumed natively": resumed.len(), "moments converged": converged,
    });
    Ok((report, recorded))
}

/// Goes on from each of these moments of a recording, whose disk is written to `at`; how many converged. `how` says what is
/// done with each, `end` where it ends. The disk of the first failure is kept.
///
/// # Errors
/// When a disk cannot be made; a moment that fails is in `failures`.
pub fn each_moment(
    mut replay: Replay,
    moments: &[Moment],
    at: &Path,
    [how, end]: [&str; 2],
    progress: &mut Progress,
    failures: &mut Vec<String>,
    one: &dyn Fn(&DiskImage) -> Result<()>,
) -> Result<usize> {
    let mut converged = 0;
    for (number, moment) in moments.iter().enumerate() {
        let disk = replay.disk_at(*moment, at)?;
        let shown = format!("{how} {} of {}, {}", number + 1, moments.len(), shown(*moment));
        let start = Instant::now();
        match one(&disk) {
            Ok(()) => {
                converged += 1;
                progress.say(&format!("{shown}: {end}, {:.0} s", start.elapsed().as_secs_f64()));
            }
            Err(error) => {
                if failures.is_empty() {
                    keep(&replay.disk_at(*moment, at)?)?;
                }
                progress.say(&format!("{shown}: {error:#}"));
                failures.push(format!("{shown}: {error:#}"));
            }
        }
    }
    Ok(converged)
}

/// A first boot that was recorded.
pub(super) struct Recorded {
    /// Switched off again.
    pub(super) device: Device,
    /// What it joined by.
    pub(super) token: String,
    /// Its disk as it was before.
    before: DiskImage,
    /// From power-on to Ready.
    seconds: f64,
}

/// Records a first boot. It is repeated, once, when the build machine refused the disk: a recording cannot hold a request
/// that is made again.
fn record(plane: &ControlPlane, dir: &Path, progress: &mut Progress) -> Result<Recorded> {
    let mut again = true;
    loop {
        progress.say("a first boot, every write recorded");
        let (mut device, token) = seeded(plane, &Options { record: true, ..options(SERIAL) })?;
        let before = device.disk().copy(&dir.join("before.img"), 0)?;
        let start = Instant::now();
        device.power_on()?;
        let joined = device.wait_console(&format!("node {NODE} is Ready, seed destroyed"), SOON);
        let seconds = start.elapsed().as_secs_f64();
        match (joined, device.check_disk()) {
            (Err(_), Err(refused)) if again => progress.say(&format!("{refused:#}; once more")),
            (joined, _) => {
                joined?;
                device.power_off(OFF)?;
                return Ok(Recorded { device, token, before, seconds });
            }
        }
        again = false;
        plane.forget_nodes()?;
    }
}

fn shown(moment: Moment) -> String {
    match moment.lost {
        None => format!("at flush {}", moment.flushes),
        Some(seed) => format!("after flush {}, losses {seed}", moment.flushes),
    }
}

/// `count` moments in order, half of them at flushes, spread over the whole recording, the others after a random one.
pub fn moments(flushes: usize, count: usize, rng: &mut fastrand::Rng) -> Vec<Moment> {
    let at = count / 2;
    let even = (0..at).map(|i| Moment { flushes: i * flushes / at.saturating_sub(1).max(1), lost: None });
    let mut moments: Vec<Moment> = even.collect();
    moments
        .extend((at..count).map(|_| Moment { flushes: rng.usize(..flushes.max(1)), lost: Some(rng.u64(..1 << 32)) }));
    moments.sort();
    moments.dedup();
    moments
}

/// Those that are booted, spread over all, and the others.
fn shares(all: &[Moment], boots: usize) -> (Vec<Moment>, Vec<Moment>) {
    let (mut booted, mut others) = (Vec::new(), Vec::new());
    for (number, moment) in all.iter().enumerate() {
        // The middle of each share.
        let its = (number * boots + boots / 2) / all.len() < ((number + 1) * boots + boots / 2) / all.len();
        if its { &mut booted } else { &mut others }.push(*moment);
    }
    (booted, others)
}

/// An emulated device boots from it, with the cluster as it was before.
fn boots(plane: &ControlPlane, disk: &DiskImage, token: &str) -> Result<()> {
    plane.forget_nodes()?;
    let mut device = Device::new(disk, &options(SERIAL))?;
    device.power_on()?;
    comes_back(plane, &mut device, NODE, token, "")
}

/// What is read without being mounted, all of it.
fn reads_boot(disk: &DiskImage) -> Result<()> {
    let boot = disk.boot()?;
    for name in boot.list().context("list the boot partition")? {
        boot.read(&name).with_context(|| format!("read {name} of the boot partition"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn moments_are_in_order_and_reach_from_the_first_write_to_the_last_flush() {
        let moments = moments(300, 220, &mut fastrand::Rng::with_seed(1));
        assert!(moments.is_sorted());
        assert!(moments.len() > 210, "{}", moments.len());
        assert_eq!(moments.iter().filter(|m| m.lost.is_none()).count(), 110);
        assert_eq!(moments.iter().find(|m| m.lost.is_none()).unwrap().flushes, 0);
        assert_eq!(moments.last().unwrap().flushes, 300);
        assert!(moments.iter().all(|m| m.flushes < 300 || m.lost.is_none()));
        for boots in [0, 1, 20] {
            let (booted, others) = shares(&moments, boots);
            assert_eq!((booted.len(), booted.len() + others.len()), (boots, moments.len()));
        }
    }
}
