// SPDX-License-Identifier: Apache-2.0
//! `make torture`: the power goes while a device joins, at very many moments, and each time the next boot ends with the
//! same Ready node.
//!
//! Two levels. A *recorded* boot gives the disk as it stood at any moment, what was not flushed in part or not at all
//! ([`recorded`]). And real boots are *killed* ([`kills`]), so that the cluster stands where a power cut leaves it, too.
//! The device whose boot was recorded is reset in the end, and that is recorded as well ([`reset`]).

mod kills;
mod recorded;
mod reset;
mod resumed;

pub use recorded::{each_moment, moments};

use crate::{SOON, device_options, own_arch};
use anyhow::{Context, Result, ensure};
use imagebuild::repo;
use qemu::control_plane::{ControlPlane, is_ready};
use qemu::device::{Device, Options};
use qemu::disk::DiskImage;
use qemu::progress::Progress;
use qemu::search;
use qemu::seed::{Seed, secret_of};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How much of it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Moments of a recorded boot that are tried.
    pub moments: usize,
    /// How many of those are booted; the others are checked and resumed natively.
    pub boots: usize,
    /// Boots that are killed.
    pub kills: usize,
    /// Moments of a recorded reset that are booted.
    pub resets: usize,
    /// What the random choices come from.
    pub seed: u64,
}

impl Figures {
    /// What `make torture` does.
    pub fn whole(seed: u64) -> Self {
        Figures { moments: 220, boots: 20, kills: 30, resets: 20, seed }
    }
}

/// What came of it.
pub struct Outcome {
    /// For `report.json`.
    pub report: Value,
    /// Every moment from which a device did not come back, and how.
    pub failures: Vec<String>,
}

/// Smaller than usual: it is copied once for every moment.
const DISK: u64 = 4 << 30;
/// Where the disk of the first power cut that a device did not come back from is kept, below the clone.
const KEPT: &str = "out/torture/failed.img";

/// Does all of it.
///
/// # Errors
/// When the control plane or the recorded boot fails. A moment that fails is in the outcome.
pub fn run(figures: Figures, progress: &mut Progress) -> Result<Outcome> {
    let start = Instant::now();
    progress.say(&format!("control plane; random choices come from --seed {}", figures.seed));
    let plane = ControlPlane::start(&Default::default())?;
    let mut rng = fastrand::Rng::with_seed(figures.seed);
    let mut failures = Vec::new();
    let (recorded, joined) = recorded::run(&plane, figures, &mut rng, progress, &mut failures)?;
    let reset = match figures.resets {
        0 => Value::Null,
        count => reset::run(joined, count, &mut rng, progress, &mut failures)?,
    };
    let joins = Duration::from_secs_f64(recorded["seconds to join"].as_f64().unwrap_or(90.0));
    let killed = kills::run(&plane, figures.kills, joins, &mut rng, progress, &mut failures)?;
    let report = json!({
        "seed": figures.seed, "seconds": start.elapsed().as_secs(), "recorded": recorded, "reset": reset,
        "killed": killed, "failures": failures,
    });
    Ok(Outcome { report, failures })
}

fn options(serial: &str) -> Options {
    // Two processors: writes from both are recorded.
    Options { disk_size: DISK, cpus: 2, ..device_options(serial) }
}

/// A switched-off device with a seed that stays good for as long as all this takes; its token.
fn seeded(plane: &ControlPlane, options: &Options) -> Result<(Device, String)> {
    let token = plane.create_token("24h")?;
    let device = Device::new(&crate::image(own_arch())?, options)?;
    device.disk().put_seed(&Seed::for_guest(plane, &token)?.text())?;
    Ok((device, token))
}

/// Waits until a device that was switched on has come to where every device comes: Ready in another boot than `before`,
/// no seed, a status that says so; then cuts its power and looks for the token's secret on the whole disk.
fn comes_back(plane: &ControlPlane, device: &mut Device, name: &str, token: &str, before: &str) -> Result<()> {
    crate::ready_again(plane, device, name, before)?;
    device.wait_status("state: joined", SOON)?;
    // The record that ends it, and what the last line says.
    let ended = qemu::wait::every(Duration::from_secs(1), "the seed to be gone", SOON, || {
        device.check()?;
        Ok((!device.disk().seed_present()?).then_some(()))
    });
    ended.map_err(|e| e.context(device.report()))?;
    device.power_cut()?;
    let left = search::find(device.disk().path(), secret_of(token))?;
    ensure!(left.is_empty(), "find no token on the disk: its secret stands at {left:?}");
    let node = plane.node(name)?.context("find the node")?;
    ensure!(is_ready(&node), "find node {name} Ready");
    Ok(())
}

/// Keeps a disk for later inspection.
fn keep(disk: &DiskImage) -> Result<()> {
    let path = repo::root()?.join(KEPT);
    std::fs::create_dir_all(path.parent().context("find a directory")?).context("make out/torture")?;
    disk.copy(&path, 0).map(drop)
}
