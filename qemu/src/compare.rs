// SPDX-License-Identifier: Apache-2.0
//! `make compare`: the image of this tree compared with another one, such as an older release's, from power-on to
//! Ready.
//!
//! Both join the same control plane on the same emulated machine, in alternating pairs of which every second one begins
//! with the other image.

use crate::control_plane::ControlPlane;
use crate::device::Options;
use crate::disk::DiskImage;
use crate::pairs::{self, Row};
use crate::progress::Progress;
use crate::{scenario, status};
use anyhow::{Context, Result};
use imagebuild::arch::Arch;
use imagebuild::target::Target;
use serde::Serialize;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SERIAL: &str = "compare";
const NODE: &str = "edge-compare";
/// Generous: it only ends a device that hangs.
const LIMIT: Duration = Duration::from_secs(900);

/// Arguments of `qemu compare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Raw image to compare with, such as `make image` in a clone of another commit left in out/images.
    #[arg(long)]
    with: PathBuf,
    /// Target to measure; the build machine's own architecture by default.
    #[arg(long)]
    target: Option<String>,
    /// Pairs of devices.
    #[arg(long, default_value_t = 5)]
    pairs: u32,
    /// Where the report is written.
    #[arg(long, default_value = "out/compare/report.json")]
    report: PathBuf,
}

/// What was measured of one device.
#[derive(Debug, Clone, Serialize)]
struct Sample {
    /// Of this tree, or the other.
    ours: bool,
    /// Seconds from power-on until the API server knew the node as Ready.
    ready: f64,
    /// Seconds from power-on until the device said that its seed is destroyed.
    sealed: f64,
    /// Seconds of each phase, as the device reported.
    phases: Vec<status::PhaseTime>,
}

/// Measures and reports.
pub fn main(args: &Args) -> Result<()> {
    let progress = Progress::default();
    let name = crate::target_or_own(args.target.as_deref())?;
    let arch = Target::load(&name)?.arch;
    let ours = DiskImage::open(&crate::image_of(&name)?)?;
    let other = DiskImage::open(&args.with)?;
    progress.say("control plane");
    let plane = ControlPlane::start(&Default::default())?;
    let mut samples = Vec::new();
    for pair in 1..=args.pairs {
        let first = pair % 2 == 1;
        for which in [first, !first] {
            let image = if which { &ours } else { &other };
            let sample = take(&plane, image, arch, which).with_context(|| format!("measure pair {pair}"))?;
            let (name, ready, sealed) = (label(which), sample.ready, sample.sealed);
            progress.say(&format!("pair {pair}, {name}: Ready {ready:.1} s, seed destroyed {sealed:.1} s"));
            samples.push(sample);
        }
    }
    let rows = rows(&samples);
    println!("\n{}", pairs::table(&rows, [label(true), label(false)]));
    let report = json!({ "target": name, "pairs": args.pairs, "rows": rows, "samples": samples });
    let text = serde_json::to_string_pretty(&report).context("encode the report")? + "\n";
    crate::write_report(&args.report, &text)?;
    println!("verdict: {} pairs measured, report in {}", args.pairs, args.report.display());
    Ok(())
}

fn label(ours: bool) -> &'static str {
    if ours { "this tree" } else { "other image" }
}

/// Boots a fresh device of `image` and waits until it has joined.
fn take(plane: &ControlPlane, image: &DiskImage, arch: Arch, ours: bool) -> Result<Sample> {
    let options = Options { serial: Some(SERIAL.to_owned()), ..Options::new(arch) };
    let (mut device, _) = scenario::seeded(plane, image, &options)?;
    device.power_on()?;
    let start = Instant::now();
    let ready = std::thread::scope(|scope| -> Result<f64> {
        let ready = scope.spawn(|| plane.wait_ready(NODE, LIMIT).map(|()| start.elapsed().as_secs_f64()));
        device.wait_console(&format!("node {NODE} is Ready, seed destroyed"), LIMIT)?;
        ready.join().unwrap_or_else(|_| anyhow::bail!("watch the node"))
    })?;
    let sealed = start.elapsed().as_secs_f64();
    let phases = status::phases(&device.disk().status()?);
    device.power_cut()?;
    plane.forget_nodes()?;
    Ok(Sample { ours, ready, sealed, phases })
}

fn rows(samples: &[Sample]) -> Vec<Row> {
    let of = |ours: bool, read: fn(&Sample) -> f64| samples.iter().filter(|s| s.ours == ours).map(read).collect();
    let row = |measure, read| pairs::row(measure, of(true, read), of(false, read));
    vec![row("power-on to Ready, s", |s| s.ready), row("to seed destroyed, s", |s| s.sealed)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_keep_together_whichever_came_first() {
        let sample = |ours, ready| Sample { ours, ready, sealed: ready, phases: Vec::new() };
        let samples = [sample(true, 2.0), sample(false, 1.0), sample(false, 4.0), sample(true, 2.0)];
        let row = &rows(&samples)[0];
        assert_eq!((row.ours, row.peer, row.spread), (2.0, 2.5, Some([0.5, 2.0])));
    }
}
