// SPDX-License-Identifier: Apache-2.0
//! The disk of a reset at many moments. From each of them a device boots, and ends where a reset ends: it waits for a
//! seed, its files are those of a device that was reset without a power cut, and no secret of its life is on its disk.

use super::options;
use super::recorded::{Recorded, SERIAL, each_moment, moments};
use crate::{OFF, RESET, SOON, changes};
use anyhow::{Context, Result, ensure};
use qemu::device::Device;
use qemu::disk::DiskImage;
use qemu::disk::tree::Tree;
use qemu::progress::Progress;
use qemu::run_dir::RunDir;
use qemu::search;
use qemu::seed::secret_of;
use qemu::writes::Replay;
use serde_json::{Value, json};
use std::time::Instant;

/// A seed that asks for a reset alone.
const SEED: &str = "version = 1\nreset = true\n";
/// kubelet's certificate and private key, PEM.
const PAIR: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
/// What the console shows where a reset has ended.
const WAITS: &str = "firstboot: waiting for a seed (";

/// What a reset has to take from the disk.
struct Secrets {
    token: String,
    /// The first line of the node's private key.
    key: String,
}

/// Records the reset of a device that has joined and was switched off, and boots from `count` moments of it.
///
/// # Errors
/// When the reset itself fails. A moment that fails is in `failures`.
pub(super) fn run(
    joined: Recorded,
    count: usize,
    rng: &mut fastrand::Rng,
    progress: &mut Progress,
    failures: &mut Vec<String>,
) -> Result<Value> {
    let dir = RunDir::new("reset")?;
    let Recorded { mut device, token, .. } = joined;
    let secrets = Secrets { key: key_of(device.disk())?, token };
    device.disk().put_seed(SEED)?;
    let before = device.disk().copy(&dir.path().join("before.img"), 0)?;
    ensure!(!search::find(before.path(), &secrets.key)?.is_empty(), "find the key of a device that has joined");
    progress.say("a reset, every write recorded");
    let start = Instant::now();
    device.power_on()?;
    device.wait_console(WAITS, RESET)?;
    let seconds = start.elapsed().as_secs_f64();
    device.power_off(OFF)?;
    let end = ended(device.disk(), &secrets)?;
    let flushes = device.recording()?.flushes();
    progress.say(&format!("reset in {seconds:.0} s: {flushes} flushes"));

    let all = moments(flushes, count, rng);
    let (replay, at) = (Replay::new(&before, device.recording()?)?, dir.path().join("at.img"));
    let one = |disk: &DiskImage| boots(disk, &end, &secrets);
    let converged = each_moment(replay, &all, &at, ["reset", "waits for a seed"], progress, failures, &one)?;
    Ok(json!({
        "seconds to reset": seconds, "flushes": flushes, "moments booted": all.len(), "moments converged": converged,
    }))
}

/// The first line of the node's private key.
fn key_of(disk: &DiskImage) -> Result<String> {
    // The name is a link to the file of the day (kubelet's certificate store).
    let pair = disk.read_file(PAIR)?.with_context(|| format!("find {PAIR}"))?;
    let text = String::from_utf8(pair).with_context(|| format!("read {PAIR} as text"))?;
    let mut lines = text.lines().skip_while(|line| !line.contains("PRIVATE KEY"));
    lines.nth(1).map(str::to_owned).with_context(|| format!("find a private key in {PAIR}"))
}

/// A device boots from it, and goes on until it waits for a seed.
fn boots(disk: &DiskImage, end: &Tree, secrets: &Secrets) -> Result<()> {
    let mut device = Device::new(disk, &options(SERIAL))?;
    device.power_on()?;
    device.wait_console(WAITS, RESET)?;
    device.wait_status("state: waiting for a seed", SOON)?;
    device.power_off(OFF)?;
    let now = ended(device.disk(), secrets)?;
    let differ = changes(end, &now);
    ensure!(differ.is_empty(), "find the files of a reset without a power cut: {differ:?} differ");
    Ok(())
}

/// The files of a disk from which everything was taken.
fn ended(disk: &DiskImage, secrets: &Secrets) -> Result<Tree> {
    ensure!(!disk.seed_present()?, "find no seed");
    for (what, secret) in [("token", secret_of(&secrets.token)), ("key", &*secrets.key)] {
        let left = search::find(disk.path(), secret)?;
        ensure!(left.is_empty(), "find no {what} on the disk: it stands at {left:?}");
    }
    disk.tree()
}
