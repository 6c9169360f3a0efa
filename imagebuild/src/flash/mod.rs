// SPDX-License-Identifier: Apache-2.0
//! `imagebuild flash`: writes an image to cards and disks, reads it back, and puts seeds on them.
//!
//! Nothing is written before all of it was checked: image, digest, seeds, and every device. Exit codes: [`crate::exit`].

mod card;
mod chunk;
mod disks;
mod image;
mod lane;
mod list;
mod pour;
mod seeds;
mod target;

use crate::cmd;
use crate::exit::{FAILED, Failure, INTERRUPTED, USAGE, VERIFICATION, code};
use crate::sign::{SUMS_SIGNATURE, signed_digest, trusted, verify_sums};
use crate::sums::{self, SUMS, Sum};
use anyhow::{Context, Result, ensure};
use card::Card;
use disks::Kernel;
use image::Image;
use indicatif::{HumanBytes, HumanDuration, MultiProgress};
use lane::{Lane, Show};
use pour::Job;
use seeds::Seed;
use serde_json::json;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use target::Target;

/// `imagebuild flash`: writes images to cards and disks.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  imagebuild flash                                        list the removable disks
  imagebuild flash out/images/generic-arm64.img.zst /dev/sdb
  imagebuild flash IMAGE /dev/sdb /dev/sdc --seeds seeds  the next two seeds of a directory
  imagebuild flash IMAGE card.img --fixed --yes           a file in the place of a card

Exit codes: 0 written and verified, 1 failed or refused, 2 wrong arguments,
3 the signature or the digest is wrong, or what is read back differs from the image, 130 interrupted.

A card whose writing ended early has no partition table: it is unusable until it is flashed again.")]
pub struct Args {
    /// Disk image: raw, .zst or .gz; it is checked against SHA256SUMS beside it, where that has a line for it, and
    /// against SHA256SUMS.sig, where that is there
    image: Option<PathBuf>,
    /// Cards or disks to write, /dev/…; without any, the removable ones are listed
    devices: Vec<PathBuf>,
    /// Seed that every device gets on its boot partition
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
    /// Directory of seeds: each device gets the next *.toml in the order of names (shop-2 before shop-10), which is then
    /// renamed to *.flashed
    #[arg(long, value_name = "DIR", conflicts_with = "seed")]
    seeds: Option<PathBuf>,
    /// Public keys, one of which has to have signed SHA256SUMS beside the image [default: this machine's own key]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Write the image although its signature is not verified
    #[arg(long, conflicts_with = "key")]
    unsigned: bool,
    /// Accept disks that are built in, loop devices, and files in the place of a card
    #[arg(long)]
    fixed: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Leave the devices connected when they are done
    #[arg(long)]
    no_eject: bool,
    /// Events as JSON, one on each line of standard output
    #[arg(long)]
    json: bool,
}

/// Runs `imagebuild flash`.
///
/// # Errors
/// With the exit code of [`crate::exit`] that fits.
pub fn main(args: &Args) -> Result<()> {
    let result = run(args);
    if let (true, Err(error)) = (args.json, &result) {
        tell(json!({ "event": "ended", "error": format!("{error:#}"), "exit_code": code(error) }));
    }
    result
}

/// Where a file system of a disk, or of one of its partitions, is mounted; nothing where none is, or none is known.
pub(crate) fn mounted_at(disk: &Path) -> Option<String> {
    Kernel::here().mounted_at(disk)
}

/// Prints a line on standard output. A reader that has gone ends no card that is being written.
fn tell(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The same on standard error.
pub(crate) fn note(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "imagebuild: {line}");
}

fn run(args: &Args) -> Result<()> {
    let kernel = Kernel::here();
    let Some((image, devices)) = args.image.as_ref().zip((!args.devices.is_empty()).then_some(&args.devices)) else {
        if args.seed.is_some() || args.seeds.is_some() {
            return Err(Failure::new(USAGE, "flash: --seed and --seeds need a device to write").into());
        }
        return list::print(&kernel, args.json);
    };
    let mut image = Image::open(image)?;
    let targets = target::check(&kernel, devices, args.fixed, &image)?;
    // No other run takes seeds of the same directory until this one has ended.
    let (seeds, _lock) = seeds::plan(args.seed.as_deref(), args.seeds.as_deref(), targets.len())?;
    let signed = signed(args, &image)?;
    let sum = match signed {
        Some(sum) => sum,
        None => sums::check(image.path())?,
    };
    let show = match () {
        () if args.json => Show::Json,
        () if std::io::stderr().is_terminal() => Show::Bars(MultiProgress::new()),
        () => Show::Lines,
    };
    let of = match sum {
        Sum::None => None,
        Sum::All => Some("its SHA-256 is"),
        Sum::AllButSeeds => Some("it has seeds; without them its SHA-256 is"),
    };
    if let Some(of) = of.filter(|_| !args.json) {
        let signed = if signed.is_some() { ", whose signature is good" } else { "" };
        note(format_args!("{}: {of} the one in {SUMS}{signed}", image.path().display()));
    }
    confirm(&targets, &seeds, args.yes)?;
    write(args, &mut image, &targets, &seeds, &show)
}

/// Verifies the signature beside an image, where there is one; what it vouches for.
fn signed(args: &Args, image: &Image) -> Result<Option<Sum>> {
    let path = image.path();
    if args.unsigned || args.key.is_none() && !path.with_file_name(SUMS_SIGNATURE).exists() {
        return Ok(None);
    }
    let keys = trusted(args.key.as_deref())?;
    if keys.is_empty() {
        let text = format!(
            "flash {}: it is signed, and this machine does not know by which key it should be: give --key FILE with the \
             public key, or --unsigned",
            path.display()
        );
        return Err(Failure::new(USAGE, text).into());
    }
    verify_sums(path, &keys)?;
    signed_digest(path).map(Some)
}

/// Asks on the terminal.
fn confirm(targets: &[Target], seeds: &[Option<Seed>], yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(USAGE, "flash: there is no terminal to ask on: give --yes").into());
    }
    let mut error = std::io::stderr();
    for (target, seed) in targets.iter().zip(seeds) {
        let seed = seed.as_ref().map(|seed| format!(", gets {}", seed.name())).unwrap_or_default();
        writeln!(error, "  {target}{seed}")?;
    }
    write!(error, "Everything on {} will be lost. Type yes to go on: ", count(targets.len(), "this device"))?;
    error.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("read the answer")?;
    ensure!(answer.trim() == "yes", "flash: not confirmed; nothing was written");
    Ok(())
}

fn count(number: usize, one: &str) -> String {
    if number == 1 { one.to_owned() } else { format!("these {number} devices") }
}

/// Sets `true` at the first signal that ends programs. The second one ends the program at once: cards that are being
/// written have no partition table then, either.
fn signals() -> Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(INTERRUPTED), Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .context("watch for an interruption")?;
    }
    Ok(stop)
}

fn write(args: &Args, image: &mut Image, targets: &[Target], seeds: &[Option<Seed>], show: &Show) -> Result<()> {
    let least = image.least;
    let total = image.size.or((least > 0).then_some(least));
    let mut jobs = Vec::new();
    for target in targets {
        let card = Card::open(&target.path)?;
        jobs.push(Job { card, lane: Lane::new(show, &target.name(), total) });
    }
    let stop = signals()?;
    let began = Instant::now();
    let name = image.path().display().to_string();
    let results = pour::pour(image.content(), least, &mut jobs, &stop);
    let took = began.elapsed();
    jobs.iter().for_each(|job| job.lane.end());
    let mut codes = Vec::new();
    for ((target, seed), (job, result)) in targets.iter().zip(seeds).zip(jobs.iter().zip(results)) {
        let result = result.map_err(|error| {
            let text = format!("{error:#}: {} is unusable until it is flashed again", target.name());
            Failure::new(code(&error), text)
        });
        let seeded = match (result, seed) {
            (Ok(()), Some(seed)) => seed.give(target, &job.card).map(Some),
            (Ok(()), None) => Ok(None),
            (Err(failure), _) => Err(failure),
        };
        codes.extend(seeded.as_ref().err().map(|failure| failure.code));
        say(args.json, &target.name(), &seeded, job.lane.done(), took);
    }
    drop(jobs);
    if codes.is_empty() && !args.no_eject {
        targets.iter().filter(|target| target.removable).for_each(eject);
    }
    let worst = [INTERRUPTED, FAILED, VERIFICATION].into_iter().find(|code| codes.contains(code));
    match worst {
        Some(code) => {
            let text = format!("flash {name}: {} of {} devices failed", codes.len(), targets.len());
            Err(Failure::new(code, text).into())
        }
        None => Ok(()),
    }
}

/// What became of a device, on a line.
fn say(json: bool, device: &str, result: &Result<Option<String>, Failure>, bytes: u64, took: Duration) {
    match (json, result) {
        (true, Ok(seed)) => tell(
            json!({ "event": "done", "device": device, "bytes": bytes, "seconds": took.as_secs_f64(), "seed": seed }),
        ),
        (true, Err(Failure { code, text })) => {
            tell(json!({ "event": "failed", "device": device, "error": text, "exit_code": code }));
        }
        (false, Ok(seed)) => {
            let seed = seed.as_ref().map(|name| format!(", with {name} as seed.toml")).unwrap_or_default();
            let (bytes, took) = (HumanBytes(bytes), HumanDuration(took));
            tell(format_args!("{device}: {bytes} written and read back in {took}{seed}; it is safe to remove"));
        }
        (false, Err(failure)) => note(failure),
    }
}

/// Has the system let go of a card. It is complete without that.
fn eject(target: &Target) {
    if cmd::found("eject") {
        let _ = Command::new("eject").arg(&target.path).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
