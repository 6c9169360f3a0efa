// SPDX-License-Identifier: Apache-2.0
//! The disk of one first boot at every kind of moment: at its flushes, and between them with the writes since the last
//! one lost, torn or in another order.

use super::{Figures, comes_back, options, seeded};
use crate::{OFF, SOON};
use anyhow::{Context, Result, ensure};
use imagebuild::repo;
use qemu::control_plane::ControlPlane;
use qemu::device::{Device, Options};
use qemu::disk::DiskImage;
use qemu::progress::Progress;
use qemu::run_dir::RunDir;
use qemu::writes::{Entry, Moment, Replay};
use serde_json::{Value, json};
use std::time::Instant;

const SERIAL: &str = "recorded";
const NODE: &str = "edge-recorded";
/// Where the disk of the first moment that failed is kept, below the clone.
const KEPT: &str = "out/torture/failed.img";

pub(super) fn run(
    plane: &ControlPlane,
    figures: Figures,
    rng: &mut fastrand::Rng,
    progress: &mut Progress,
    failures: &mut Vec<String>,
) -> Result<Value> {
    let dir = RunDir::new("torture")?;
    progress.say("a first boot, every write recorded");
    let options = Options { record: true, ..options(SERIAL) };
    let (mut device, token) = seeded(plane, &options)?;
    let before = device.disk().copy(&dir.path().join("before.img"), 0)?;
    let start = Instant::now();
    device.power_on()?;
    device.wait_console(&format!("node {NODE} is Ready, seed destroyed"), SOON)?;
    let seconds = start.elapsed().as_secs_f64();
    device.power_off(OFF)?;
    let log = device.recording()?;
    drop(device);
    let writes = log.entries().iter().filter(|entry| matches!(entry, Entry::Write { .. })).count();
    let mut replay = Replay::new(&before, log)?;
    progress.say(&format!("joined in {seconds:.0} s: {writes} writes, {} flushes", replay.flushes()));

    let moments = moments(replay.flushes(), figures.moments, rng);
    let (mut converged, mut booted) = (0, 0);
    for (number, moment) in moments.iter().enumerate() {
        let disk = replay.disk_at(*moment, &dir.path().join("at.img"))?;
        // Spread over the whole boot.
        let boots = booted * moments.len() < figures.boots * (number + 1) && booted < figures.boots;
        booted += usize::from(boots);
        let shown = format!("moment {} of {}: {}", number + 1, moments.len(), shown(*moment));
        match tried(plane, &disk, &token, boots) {
            Ok(how) => {
                converged += 1;
                progress.say(&format!("{shown}: {how}"));
            }
            Err(error) => {
                if failures.is_empty() {
                    keep(&disk)?;
                }
                let failure = format!("{shown}: {error:#}");
                progress.say(&failure);
                failures.push(failure);
            }
        }
    }
    Ok(json!({
        "seconds to join": seconds, "writes": writes, "flushes": replay.flushes(), "moments tried": moments.len(),
        "moments between flushes": moments.iter().filter(|m| m.lost.is_some()).count(), "moments booted": booted,
        "moments converged": converged,
    }))
}

fn shown(moment: Moment) -> String {
    match moment.lost {
        None => format!("at flush {}", moment.flushes),
        Some(seed) => format!("after flush {}, losses {seed}", moment.flushes),
    }
}

/// `count` moments in order, half of them at flushes, spread over the whole recording, the others after a random one.
fn moments(flushes: usize, count: usize, rng: &mut fastrand::Rng) -> Vec<Moment> {
    let at = count / 2;
    let even = (0..at).map(|i| Moment { flushes: i * flushes / at.saturating_sub(1).max(1), lost: None });
    let mut moments: Vec<Moment> = even.collect();
    moments
        .extend((at..count).map(|_| Moment { flushes: rng.usize(..flushes.max(1)), lost: Some(rng.u64(..1 << 32)) }));
    moments.sort();
    moments.dedup();
    moments
}

/// What a boot would find, and what becomes of it.
fn tried(plane: &ControlPlane, disk: &DiskImage, token: &str, boots: bool) -> Result<&'static str> {
    // The guest's own check comes first when it boots.
    if boots {
        plane.forget_nodes()?;
        let mut device = Device::new(disk, &options(SERIAL))?;
        device.power_on()?;
        comes_back(plane, &mut device, NODE, token, "")?;
        return Ok("booted, Ready");
    }
    disk.check_root()?;
    let boot = disk.boot()?;
    for name in boot.list().context("list the boot partition")? {
        boot.read(&name).with_context(|| format!("read {name} of the boot partition"))?;
    }
    ensure!(disk.exists("/etc/machine-id")?, "find /etc/machine-id");
    Ok("checked")
}

/// Keeps a disk for whoever looks into it.
fn keep(disk: &DiskImage) -> Result<()> {
    let path = repo::root()?.join(KEPT);
    std::fs::create_dir_all(path.parent().context("find a folder")?).context("make out/torture")?;
    disk.copy(&path, 0).map(drop)
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
    }
}
