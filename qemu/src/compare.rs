// SPDX-License-Identifier: Apache-2.0
//! `make compare`: the image of this tree compared with another one, such as an older release's, from power-on to
//! Ready.
//!
//! Both join the same control plane on the same emulated machine, in alternating pairs of which every second one begins
//! with the other image.

use crate::args::DiskLimits;
use crate::control_plane::ControlPlane;
use crate::device::Options;
use crate::disk::DiskImage;
use crate::pairs::{self, Row};
use crate::progress::Progress;
use crate::timeline::{self, Stage};
use crate::{accel, scenario, status, wait};
use anyhow::{Context, Result};
use imagebuild::target::Target;
use serde::Serialize;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SERIAL: &str = "compare";
const NODE: &str = "edge-compare";
/// What the initrd says when it has made the data partition.
const MADE: &str = "initrd: data is created";
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
    /// Give both a disk that is as slow as an SD card of Application Performance Class A1 may be.
    #[arg(long)]
    card: bool,
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
    /// MiB written to its disk until then.
    written: f64,
    /// MiB of them before user space ran: the partition table, and an empty file system for data. None where the initrd
    /// makes nothing.
    written_by_initrd: Option<f64>,
    /// Seconds of each phase, as the device reported.
    phases: Vec<status::PhaseTime>,
    /// All of it, from power-on.
    stages: Vec<Stage>,
}

/// Measures and reports.
pub fn main(args: &Args) -> Result<()> {
    let progress = Progress::default();
    let name = crate::target_or_own(args.target.as_deref())?;
    let arch = Target::load(&name)?.arch;
    let ours = DiskImage::open(&crate::image_of(&name)?)?;
    let other = DiskImage::open(&args.with)?;
    // Chosen with our own image: the other one may have another layout, from which no kernel can be taken.
    accel::find(arch, &ours)?;
    progress.say("control plane");
    let plane = ControlPlane::start(&Default::default())?;
    let disk_limits = args.card.then_some(DiskLimits::A1);
    let options = Options { serial: Some(SERIAL.to_owned()), disk_limits, ..Options::new(arch) };
    let mut samples = Vec::new();
    for pair in 1..=args.pairs {
        let first = pair % 2 == 1;
        for which in [first, !first] {
            let image = if which { &ours } else { &other };
            let sample = take(&plane, image, &options, which).with_context(|| format!("measure pair {pair}"))?;
            let (name, ready, sealed) = (label(which), sample.ready, sample.sealed);
            progress.say(&format!("pair {pair}, {name}: Ready {ready:.1} s, seed destroyed {sealed:.1} s"));
            samples.push(sample);
        }
    }
    let rows = rows(&samples);
    println!("\n{}", pairs::table(&rows, [label(true), label(false)]));
    let report = json!({ "target": name, "card": args.card, "pairs": args.pairs, "rows": rows, "samples": samples });
    let text = serde_json::to_string_pretty(&report).context("encode the report")? + "\n";
    crate::write_report(&args.report, &text)?;
    let pictured = [true, false].map(|which| (label(which), typical(&samples, which)));
    println!("timeline of a typical boot of each: {}", timeline::write(&args.report, &pictured)?.display());
    println!("verdict: {} pairs measured, report in {}", args.pairs, args.report.display());
    Ok(())
}

/// The stages of the boot in the middle.
fn typical(samples: &[Sample], ours: bool) -> Vec<Stage> {
    let mut all: Vec<&Sample> = samples.iter().filter(|sample| sample.ours == ours).collect();
    all.sort_by(|a, b| a.ready.total_cmp(&b.ready));
    all.get(all.len() / 2).map(|sample| sample.stages.clone()).unwrap_or_default()
}

fn label(ours: bool) -> &'static str {
    if ours { "this tree" } else { "other image" }
}

/// Boots a fresh device of `image` and waits until it has joined.
fn take(plane: &ControlPlane, image: &DiskImage, options: &Options, ours: bool) -> Result<Sample> {
    let (mut device, _) = scenario::seeded(plane, image, options)?;
    device.power_on()?;
    let start = Instant::now();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut written_by_initrd = None;
    let ((ready, sealed), lines) = timeline::watched(device.console(), start, || {
        std::thread::scope(|scope| {
            let ready = scope.spawn(|| plane.wait_ready(NODE, LIMIT).map(|()| start.elapsed().as_secs_f64()));
            wait::every(Duration::from_millis(200), "the seed to be destroyed", LIMIT, || {
                device.check()?;
                if written_by_initrd.is_none() && device.console().find(MADE)?.is_some() {
                    written_by_initrd = Some(mib(device.written()?));
                }
                device.console().find(&format!("node {NODE} is Ready, seed destroyed"))
            })
            .map_err(|e| e.context(device.report()))?;
            let sealed = start.elapsed().as_secs_f64();
            Ok((ready.join().unwrap_or_else(|_| anyhow::bail!("watch the node"))?, sealed))
        })
    })?;
    let written = mib(device.written()?);
    let phases = status::phases(&device.disk().status()?);
    device.power_cut()?;
    plane.forget_nodes()?;
    let stages = timeline::stages(&lines, ready);
    Ok(Sample { ours, ready, sealed, written, written_by_initrd, phases, stages })
}

fn rows(samples: &[Sample]) -> Vec<Row> {
    let of = |ours: bool, read: fn(&Sample) -> f64| samples.iter().filter(|s| s.ours == ours).map(read).collect();
    let row = |measure, read| pairs::row(measure, of(true, read), of(false, read));
    vec![
        row("power-on to Ready, s", |s| s.ready),
        row("to seed destroyed, s", |s| s.sealed),
        row("written until then, MiB", |s| s.written),
        row("of these by the initrd, MiB", |s| s.written_by_initrd.unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_keep_together_whichever_came_first() {
        let stage = |to| timeline::Stage { name: "x".to_owned(), from: 0.0, to };
        let sample = |ours, ready| Sample {
            ours,
            ready,
            sealed: ready,
            written: 8.0 * ready,
            written_by_initrd: None,
            phases: Vec::new(),
            stages: vec![stage(ready)],
        };
        let samples = [sample(true, 2.0), sample(false, 1.0), sample(false, 4.0), sample(true, 2.0)];
        let row = &rows(&samples)[0];
        assert_eq!((row.ours, row.peer, row.spread), (2.0, 2.5, Some([0.5, 2.0])));
        let row = &rows(&samples)[2];
        assert_eq!((row.ours, row.peer), (16.0, 20.0));
        assert_eq!((typical(&samples, false), typical(&samples, true)), (vec![stage(4.0)], vec![stage(2.0)]));
    }
}
