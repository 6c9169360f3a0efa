// SPDX-License-Identifier: Apache-2.0
//! `make demo`: builds an image, starts a real control plane and boots a device with a seed. The device joins, runs
//! pods and destroys its seed; then it is switched off and its raw disk searched. The last line is the verdict.

use crate::control_plane::ControlPlane;
use crate::device::Options;
use crate::disk::DiskImage;
use crate::pods::{self, Proof};
use crate::progress::{Progress, rounded};
use crate::scenario::{self, Joined, LeftBehind};
use crate::status::PhaseTime;
use anyhow::{Context, Result, bail};
use imagebuild::target::Target;
use serde::Serialize;

/// Arguments of `qemu demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Target to boot; the build machine's own architecture by default.
    #[arg(long)]
    target: Option<String>,
    /// Create a cluster on the device, and have a second one join it, without any other control plane.
    #[arg(long)]
    cluster: bool,
    /// Where the report is written; by default out/demo/report.json, or cluster.json beside it.
    #[arg(long)]
    report: Option<std::path::PathBuf>,
}

impl Args {
    fn report(&self) -> std::path::PathBuf {
        let default = if self.cluster { "out/demo/cluster.json" } else { "out/demo/report.json" };
        self.report.clone().unwrap_or_else(|| default.into())
    }
}

/// `out/demo/report.json`.
#[derive(Debug, Serialize)]
struct Report {
    target: String,
    accelerator: &'static str,
    node: String,
    ready: bool,
    pods: Proof,
    images_pulled: usize,
    seed_present: bool,
    token_bytes_on_disk: usize,
    token_found_at: Vec<u64>,
    /// On the build machine, in order.
    stages: Vec<PhaseTime>,
    /// On the device, in order.
    phases: Vec<PhaseTime>,
    seconds: f64,
    binary_bytes: usize,
    image_bytes: u64,
}

/// Runs the demo. Prints the verdict in any case.
pub fn main(args: &Args) -> Result<()> {
    let mut progress = Progress::default();
    let verdict = match args.cluster {
        true => crate::cluster::run(&crate::target_or_own(args.target.as_deref())?, &args.report(), &mut progress),
        false => run(args, &mut progress),
    };
    match verdict {
        Ok(line) => {
            println!("verdict: {line}");
            Ok(())
        }
        Err(error) => {
            // The reason in full, then one line that says what failed.
            println!("{}", crate::explain(&error));
            println!("verdict: FAILED: {}", error.root_cause().to_string().lines().next().unwrap_or_default());
            Err(Reported.into())
        }
    }
}

/// The failure was printed already.
#[derive(Debug)]
pub struct Reported;

impl std::fmt::Display for Reported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("demo failed")
    }
}

impl std::error::Error for Reported {}

fn run(args: &Args, progress: &mut Progress) -> Result<String> {
    let name = crate::target_or_own(args.target.as_deref())?;
    let target = Target::load(&name)?;
    progress.stage("image", &format!("image for target {name}: building what has changed"));
    let image = DiskImage::open(&crate::image_of(&name)?)?;
    progress.stage("control plane", "control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler");
    let plane = ControlPlane::start(&Default::default())?;
    pods::create(&plane)?;
    progress.stage(
        "boot to Ready",
        &format!("device: a fresh token in its seed, power on; cluster at {}", plane.endpoint_for_guest()),
    );
    let mut options = Options::for_target(&target);
    options.guest_ports = vec![pods::PORT];
    let (device, token) = scenario::seeded(&plane, &image, &options)?;
    let accelerator = device.accelerator().name();
    let mut joined = scenario::join(&plane, device, token, progress)?;
    progress.stage("pods", &format!("node {}: waiting for the demo's pods", joined.name));
    let proof = joined.prove(&plane)?;
    progress.say(&format!("pod {} on node {} answered through hostPort", proof.from_outside.pod, joined.name));
    progress.say(&format!("pod {} was reached by its Service name", proof.by_service_name.pod));
    let pulled = pods::pulled(&plane)?;
    let row = plane.kubectl(&["get", "nodes", "-o", "wide"])?;
    progress.stage("switch off and search", "device: power off; searching its raw disk for the token");
    let left = joined.switch_off_and_search()?;
    progress.end();
    let binary_bytes = joined.device.disk().read_file("/usr/bin/firstboot")?.context("find the device binary")?.len();
    let image_bytes = std::fs::metadata(image.path()).context("measure the image")?.len();
    let report = Report {
        target: name,
        accelerator,
        node: joined.name.clone(),
        ready: crate::control_plane::is_ready(&joined.node),
        pods: proof,
        images_pulled: pulled.len(),
        seed_present: left.seed_present,
        token_bytes_on_disk: left.token_at.len() * crate::seed::secret_of(&joined.token).len(),
        token_found_at: left.token_at.clone(),
        stages: progress.times().to_vec(),
        phases: left.phases(),
        seconds: rounded(progress.elapsed()),
        binary_bytes,
        image_bytes,
    };
    let text = serde_json::to_string_pretty(&report).context("encode the report")? + "\n";
    crate::write_report(&args.report(), &text)?;
    show(&report, &row);
    judge(&joined, &left, &pulled)?;
    let ready = report.stages.iter().find(|s| s.name == "boot to Ready").map_or(0.0, |s| s.seconds);
    Ok(format!(
        "node {} joined by itself {ready:.0} s after power-on, runs pods that find each other by name, and its seed \
         is gone: token found 0 times on its raw disk",
        report.node
    ))
}

fn judge(joined: &Joined, left: &LeftBehind, pulled: &[String]) -> Result<()> {
    if let Some(first) = pulled.first() {
        bail!("run pods from the bundle's images: {first}");
    }
    if left.seed_present {
        bail!("destroy the seed: node {} still has it on its boot partition", joined.name);
    }
    if let Some(first) = left.token_at.first() {
        bail!("destroy the token: {} copies on the raw disk, the first at byte {first}", left.token_at.len());
    }
    Ok(())
}

fn show(report: &Report, row: &str) {
    println!("\n{row}");
    println!("{:<24}{:>9}", "on the device", "seconds");
    for phase in &report.phases {
        println!("  {:<22}{:>9.2}", phase.name, phase.seconds);
    }
    println!("{:<24}{:>9}", "on the build machine", "seconds");
    for stage in &report.stages {
        println!("  {:<22}{:>9.2}", stage.name, stage.seconds);
    }
    println!("firstboot {} bytes, image {} bytes\n", report.binary_bytes, report.image_bytes);
}
