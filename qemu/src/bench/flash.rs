// SPDX-License-Identifier: Apache-2.0
//! `imagebuild flash` beside `dd` with `cmp`, and beside `bmaptool copy`, onto a card that is as slow as real ones.
//!
//! The card is a loop device over a file that nbdkit's filter `rate` slows down (nbdkit-rate-filter(1)), so that no
//! program's way of writing passes it by. flash and `dd` with `cmp` read back what they wrote; bmaptool does not.

use crate::process::Process;
use crate::progress::Progress;
use crate::run_dir::RunDir;
use crate::wait;
use anyhow::{Context, Result};
use imagebuild::cmd;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Bytes that the card reads or writes in a second: an ordinary card of speed class 10, twice over.
pub const SPEED: u64 = 20_000_000;
/// How much larger than the image the card is, bytes.
const LARGER: u64 = 64 << 20;
const PROGRAMS: [&str; 6] = ["nbdkit", "nbdfuse", "bmaptool", "dd", "cmp", "losetup"];

/// Seconds that each program took, by round: the n-th of each belong together.
#[derive(Debug, Default)]
pub struct Times {
    /// `imagebuild flash`.
    pub flash: Vec<f64>,
    /// `dd`, then `cmp`.
    pub dd: Vec<f64>,
    /// `bmaptool copy`.
    pub bmaptool: Vec<f64>,
}

/// Why this machine cannot measure it; none where it can.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("loop devices need root".to_owned());
    }
    if !Path::new("/dev/fuse").exists() {
        return Some("this kernel has no FUSE (/dev/fuse)".to_owned());
    }
    PROGRAMS.iter().find(|name| !cmd::found(name)).map(|name| format!("{name} is not installed"))
}

/// Writes `image` with each of the programs, `rounds` times.
///
/// # Errors
/// When a program fails, or the card does not hold the image afterwards.
pub fn measure(image: &Path, rounds: u32, progress: &Progress) -> Result<Times> {
    let dir = RunDir::new("flash")?;
    let bytes = length(image)?;
    let write = |commands: &dyn Fn(&Path) -> Vec<Command>| write(image, bytes, dir.path(), commands);
    let map = dir.path().join("image.bmap");
    cmd::run(Command::new("bmaptool").args(["--quiet", "create", "--output"]).arg(&map).arg(image))?;
    let mut times = Times::default();
    for round in 1..=rounds {
        let flash = write(&|card| {
            let mut flash = Command::new(super::imagebuild());
            flash.arg("flash").arg(image).arg(card).args(["--fixed", "--yes", "--no-eject"]);
            vec![flash]
        })?;
        let dd = write(&|card| {
            let mut dd = Command::new("dd");
            dd.arg(format!("if={}", image.display())).arg(format!("of={}", card.display()));
            dd.args(["bs=4M", "oflag=direct", "conv=fsync", "status=none"]);
            let mut forget = Command::new("blockdev");
            forget.arg("--flushbufs").arg(card);
            vec![dd, forget, compare(bytes, image, card)]
        })?;
        let bmaptool = write(&|card| {
            let mut copy = Command::new("bmaptool");
            copy.args(["--quiet", "copy", "--bmap"]).arg(&map).arg(image).arg(card);
            vec![copy]
        })?;
        progress.say(&format!(
            "round {round}: flash {flash:.1} s, dd and cmp {dd:.1} s, bmaptool, which does not read back, {bmaptool:.1} s"
        ));
        times.flash.push(flash);
        times.dd.push(dd);
        times.bmaptool.push(bmaptool);
    }
    Ok(times)
}

/// Seconds that the commands take for a new card. The card must hold the image then.
fn write(image: &Path, bytes: u64, dir: &Path, commands: &dyn Fn(&Path) -> Vec<Command>) -> Result<f64> {
    let card = Card::new(dir, bytes + LARGER)?;
    let commands = commands(Path::new(card.device.as_deref().context("find the card")?));
    let start = Instant::now();
    for mut command in commands {
        cmd::run(&mut command)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let kept = card.remove()?;
    cmd::run(&mut compare(bytes, image, &kept)).context("compare the card with the image")?;
    Ok(seconds)
}

fn compare(bytes: u64, image: &Path, card: &Path) -> Command {
    let mut compare = Command::new("cmp");
    compare.arg(format!("--bytes={bytes}")).arg(image).arg(card);
    compare
}

fn length(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path).with_context(|| format!("measure {}", path.display()))?.len())
}

/// A slow, empty card.
struct Card {
    /// The loop device, until it is removed.
    device: Option<String>,
    mount: PathBuf,
    file: PathBuf,
    /// Serves the file behind the loop device.
    server: Process,
}

impl Card {
    fn new(dir: &Path, bytes: u64) -> Result<Self> {
        let (file, mount) = (dir.join("card.img"), dir.join("card"));
        File::create(&file).and_then(|f| f.set_len(bytes)).with_context(|| format!("create {}", file.display()))?;
        File::create(&mount).with_context(|| format!("create {}", mount.display()))?;
        let [to, from] = [&mount, &file].map(|path| path.display().to_string());
        // Bits; a long burst would be the memory of a card, not its speed.
        let rate = format!("rate={}", SPEED * 8);
        let nbdkit = ["--command", "nbdkit", "-s", "--exit-with-parent", "--filter=rate", "file"];
        let args = [&[&*to], &nbdkit[..], &[&from, &rate, "burstiness=0.2"]].concat();
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let server = Process::start("nbdfuse", Path::new("nbdfuse"), &args, &dir.join("nbdfuse.log"))?;
        wait::until("the slow file", Duration::from_secs(20), || {
            server.check()?;
            Ok((length(&mount)? == bytes).then_some(()))
        })?;
        let mut card = Card { device: None, mount, file, server };
        let mut losetup = Command::new("losetup");
        let shown = cmd::output(losetup.args(["--find", "--show", "--direct-io=on"]).arg(&card.mount))?;
        card.device = Some(String::from_utf8_lossy(&shown).trim().to_owned());
        Ok(card)
    }

    /// Removes the device; the file that it was.
    fn remove(mut self) -> Result<PathBuf> {
        let device = self.device.take().context("find the card")?;
        cmd::run(Command::new("losetup").args(["--detach", &device]))?;
        cmd::run(Command::new("umount").arg(&self.mount))?;
        self.server.stop(Duration::from_secs(20))?;
        Ok(self.file.clone())
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // After an error: nothing else would end them. What still fails then is not worth another one.
        if let Some(device) = &self.device {
            let _ = Command::new("losetup").args(["--detach", device]).output();
        }
        let _ = Command::new("umount").arg(&self.mount).output();
    }
}
