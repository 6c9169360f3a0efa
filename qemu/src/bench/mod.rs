// SPDX-License-Identifier: Apache-2.0
//! `make bench`: firstboot's join compared with `kubeadm join`, on the same image, emulated machine and control plane.
//!
//! Both start from the same state: after `firstboot --until runtime`, with containerd running on the bundle's images. The
//! programs alternate, so that a build machine that gets slower does not favour one. Only ratios and their spread are
//! meaningful.

mod build;
mod flash;
mod report;
mod sample;
mod sealed;

use crate::control_plane::ControlPlane;
use crate::disk::DiskImage;
use crate::pairs::{self, Row, row};
use crate::progress::Progress;
use crate::timeline;
use anyhow::{Context, Result};
use firstboot::bundle::{BUNDLE_DIR, Manifest};
use imagebuild::target::Target;
use sample::Sample;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Arguments of `qemu bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Target to measure on; the build machine's own architecture by default.
    #[arg(long)]
    target: Option<String>,
    /// Pairs of joins.
    #[arg(long, default_value_t = 3)]
    pairs: u32,
    /// Measure only how cards are written.
    #[arg(long)]
    flash: bool,
    /// Measure only how long an image takes to build.
    #[arg(long, conflicts_with = "flash")]
    build: bool,
    /// Where the report is written.
    #[arg(long, default_value = "out/bench/report.json")]
    report: PathBuf,
}

/// A program that joins a device to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Program {
    /// Ours.
    Firstboot,
    /// The peer.
    Kubeadm,
}

/// Runs the bench.
pub fn main(args: &Args) -> Result<()> {
    let progress = Progress::default();
    let name = crate::target_or_own(args.target.as_deref())?;
    let target = Target::load(&name)?;
    let image = DiskImage::open(&crate::image_of(&name)?)?;
    if args.flash {
        let report = json!({ "target": name, "flash": cards(&image, args.pairs, &progress)? });
        return write(&args.report, &report, "cards measured");
    }
    if args.build {
        let report = json!({ "target": name, "build": builds(&target, args.pairs, &progress)? });
        return write(&args.report, &report, "builds measured");
    }
    progress.say("control plane");
    let plane = ControlPlane::start(&Default::default())?;
    let mut samples = Vec::new();
    for pair in 1..=args.pairs {
        for program in [Program::Firstboot, Program::Kubeadm] {
            let sample = sample::take(&plane, &image, target.arch, program)
                .with_context(|| format!("measure pair {pair}, {program:?}"))?;
            progress.say(&shown(pair, &sample));
            samples.push(sample);
        }
    }
    let (boots, stages) = sealed::take(&plane, &image, target.arch).context("measure boots of a sealed device")?;
    boots.iter().for_each(|boot| progress.say(&boot.shown()));
    let rows = report::rows(&samples, sizes(&image)?);
    let installs: Vec<f64> = samples.iter().map(|s| s.install).collect();
    let install = installs.iter().sum::<f64>() / installs.len().max(1) as f64;
    println!("\n{}", pairs::table(&rows, ["firstboot", "kubeadm"]));
    println!(
        "phases bundle and runtime, before either program starts: {install:.1} s on average, {} runs",
        installs.len()
    );
    println!("timeline of a first boot: {}", timeline::write(&args.report, &[("first boot", stages)])?.display());
    let cards = cards(&image, args.pairs, &progress)?;
    let report = json!({
        "target": name, "pairs": args.pairs, "install_seconds": installs, "rows": rows, "samples": samples,
        "sealed_boots_ms": boots, "flash": cards,
    });
    write(&args.report, &report, &format!("{} pairs measured", args.pairs))
}

fn write(path: &Path, report: &Value, verdict: &str) -> Result<()> {
    let text = serde_json::to_string_pretty(report).context("encode the report")? + "\n";
    crate::write_report(path, &text)?;
    println!("verdict: {verdict}, report in {}", path.display());
    Ok(())
}

/// How long cards take, by rows; nothing where this machine cannot measure it.
fn cards(image: &DiskImage, rounds: u32, progress: &Progress) -> Result<Vec<Row>> {
    if let Some(why) = flash::missing() {
        println!("skipped: writing cards is not measured: {why}");
        return Ok(Vec::new());
    }
    let flash::Times { flash, dd, bmaptool } = flash::measure(image.path(), rounds, progress).context("write cards")?;
    let rows = [row("beside dd and cmp, s", flash.clone(), dd), row("beside bmaptool, s", flash, bmaptool)];
    println!("\na card of {} MB/s\n{}", flash::SPEED / 1_000_000, pairs::table(&rows, ["flash", "peer"]));
    Ok(rows.into())
}

/// How long builds take, by rows; nothing where this machine cannot measure it.
fn builds(target: &Target, rounds: u32, progress: &Progress) -> Result<Vec<Row>> {
    if let Some(why) = build::missing(target) {
        println!("skipped: builds are not measured: {why}");
        return Ok(Vec::new());
    }
    let times = build::measure(target, rounds, progress).context("build images")?;
    let build::Times { again, changed, packages, mmdebstrap, mkosi } = times;
    let rows = vec![
        row("packages, mmdebstrap, s", packages.clone(), mmdebstrap.clone()),
        row("packages, mkosi, s", packages, mkosi),
        row("a line, mmdebstrap, s", changed, mmdebstrap.clone()),
        row("again, mmdebstrap, s", again, mmdebstrap),
    ];
    println!("\n{}", pairs::table(&rows, ["imagebuild", "peer"]));
    Ok(rows)
}

/// The program that users call, as it was built with this one.
fn imagebuild() -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name("imagebuild")
}

fn shown(pair: u32, s: &Sample) -> String {
    format!(
        "pair {pair} {:?}: certificate {:.1} s, kubelet healthy {:.1} s, Ready {:.1} s, CPU {:.2} s, peak {:.1} MiB, \
         {} requests, token in {} places",
        s.program, s.certificate, s.kubelet_healthy, s.ready, s.cpu, s.peak_mib, s.requests, s.token_places
    )
}

/// Bytes of the two programs, as they are installed.
fn sizes(image: &DiskImage) -> Result<[u64; 2]> {
    let ours = image.read_file("/usr/bin/firstboot")?.context("find the device binary")?.len() as u64;
    let manifest = image.read_file(&format!("{BUNDLE_DIR}/manifest.json"))?.context("find the bundle's manifest")?;
    let manifest: Manifest = serde_json::from_slice(&manifest).context("parse the bundle's manifest")?;
    let kubeadm = manifest.files.iter().find(|f| f.path == "bin/kubeadm").context("find kubeadm in the bundle")?;
    Ok([ours, kubeadm.size])
}
