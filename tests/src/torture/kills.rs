// SPDX-License-Identifier: Apache-2.0
//! First boots that are killed at a random moment; the cluster stays as that leaves it. The next boot joins.

use super::{comes_back, keep, options, seeded};
use crate::boot_id;
use anyhow::{Context, Result};
use qemu::control_plane::ControlPlane;
use qemu::progress::Progress;
use qemu::run_dir::RunDir;
use qemu::wait;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Before it the firmware is at work, and nothing of ours.
const FIRST: Duration = Duration::from_secs(4);
/// How long beyond an ordinary join a device may have worked.
const BEYOND: f64 = 1.1;

pub(super) fn run(
    plane: &ControlPlane,
    kills: usize,
    joins: Duration,
    rng: &mut fastrand::Rng,
    progress: &mut Progress,
    failures: &mut Vec<String>,
) -> Result<Value> {
    let dir = RunDir::new("killed")?;
    let mut tried = Vec::new();
    for number in 1..=kills {
        let last = joins.mul_f64(BEYOND).max(FIRST);
        let after = FIRST + (last - FIRST).mul_f64(rng.f64());
        let serial = format!("killed-{number}");
        let start = Instant::now();
        let outcome = killed(plane, &serial, after, &dir, failures.is_empty());
        let shown = format!("kill {number} of {kills}, {:.1} s after power-on", after.as_secs_f64());
        let (joined, text) = match outcome {
            Ok(phase) => (true, format!("{shown}, {phase}: Ready, {:.0} s in all", start.elapsed().as_secs_f64())),
            Err(error) => (false, format!("{shown}: {error:#}")),
        };
        progress.say(&text);
        if !joined {
            failures.push(text);
        }
        tried.push(json!({ "seconds": after.as_secs_f64(), "joined": joined }));
    }
    let joined = tried.iter().filter(|kill| kill["joined"] == true).count();
    Ok(json!({ "kills": tried.len(), "joined": joined, "each": tried }))
}

/// Kills a first boot and waits until the second has joined; how far the first was. If it does not, and `kept`, the disk is kept as
/// the kill left it.
fn killed(plane: &ControlPlane, serial: &str, after: Duration, dir: &RunDir, kept: bool) -> Result<String> {
    let (mut device, token) = seeded(plane, &options(serial))?;
    let name = format!("edge-{serial}");
    device.power_on()?;
    let until = Instant::now() + after;
    wait::until("the moment of the kill", after + Duration::from_secs(60), || {
        device.check()?;
        Ok((Instant::now() >= until).then_some(()))
    })?;
    device.power_cut()?;
    let left = device.disk().copy(&dir.path().join("left.img"), 0)?;
    let text = device.console().text()?;
    let phase =
        text.lines().rev().find_map(|line| line.split_once("firstboot: ")).map_or("before firstboot", |(_, l)| l);
    let phase = phase.to_owned();
    // A node that was Ready already has to be so again, from the new boot.
    let before = plane.node(&name)?.map(|node| boot_id(&node)).unwrap_or_default();
    device.power_on()?;
    let back = comes_back(plane, &mut device, &name, &token, &before);
    if back.is_err() && kept {
        keep(&left)?;
    }
    back.with_context(|| format!("come back from `{phase}`"))?;
    Ok(phase)
}
