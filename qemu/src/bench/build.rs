// SPDX-License-Identifier: Apache-2.0
//! `make bench BUILD=1`: how long an image takes to build again, after a change of one line in firstboot, and from its Debian
//! packages, beside mmdebstrap and mkosi.
//!
//! All three have downloaded the packages before, and make a read-only EROFS of the same ones with lz4hc. mmdebstrap and mkosi
//! have the packages' own scripts run; imagebuild configures without them. What is in an image of ours besides (firstboot, the
//! bundle, verity, boot loader, the disk around it, its compressed form and its documents) the others do not make.

use crate::progress::Progress;
use crate::run_dir::RunDir;
use anyhow::{Context, Result, ensure};
use imagebuild::arch::Arch;
use imagebuild::debian::{self, SUITE};
use imagebuild::target::Target;
use imagebuild::{cache, cmd, repo};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const PROGRAMS: [&str; 5] = ["mmdebstrap", "mkosi", "systemd-nspawn", "debootstrap", "mkfs.erofs"];
/// What the cache has of Debian packages other than the packages, and of whole images.
const MADE_OF_PACKAGES: [&str; 4] = ["images", "initrd", "loader", "rootfs"];
/// The line that is changed: what `firstboot --help` begins with.
const LINE: &str = "Joins this device to its Kubernetes cluster by the seed on its boot partition.";
/// systemd-nspawn removes files below /run only from a file system in memory, which /run is not in every container.
const IN_MEMORY: &str = "mkdir -p /run/systemd/nspawn && mount -t tmpfs tmpfs /run/systemd/nspawn && exec \"$@\"";

/// Seconds, by round: the n-th of each belong together.
#[derive(Debug, Default)]
pub struct Times {
    /// `make image`, with nothing changed.
    pub again: Vec<f64>,
    /// `make image`, after one line of firstboot has changed.
    pub changed: Vec<f64>,
    /// `imagebuild build` from packages, with the bundle and firstboot at hand.
    pub packages: Vec<f64>,
    /// `mmdebstrap`, then `mkfs.erofs`.
    pub mmdebstrap: Vec<f64>,
    /// `mkosi`, then `mkfs.erofs`.
    pub mkosi: Vec<f64>,
}

/// Why this machine cannot measure it; none where it can.
pub fn missing(target: &Target) -> Option<String> {
    if Arch::host().ok() != Some(target.arch) {
        return Some(format!(
            "mmdebstrap and mkosi run programs of the image, and this machine is not {}",
            target.arch
        ));
    }
    if !rustix::process::geteuid().is_root() {
        return Some("mkosi needs root".to_owned());
    }
    PROGRAMS.iter().find(|name| !cmd::found(name)).map(|name| format!("{name} is not installed"))
}

/// Builds with each, `rounds` times.
///
/// # Errors
/// When a build fails.
pub fn measure(target: &Target, rounds: u32, progress: &Progress) -> Result<Times> {
    let dir = RunDir::new("builds")?;
    let bench = Bench { target, dir: dir.path() };
    progress.say("once before anything is measured: downloads, and what a clone compiles for itself");
    bench.clone()?;
    bench.make_image()?;
    bench.mmdebstrap()?;
    bench.mkosi()?;
    let mut times = Times::default();
    for round in 1..=rounds {
        let packages = bench.build_from_packages()?;
        let (mmdebstrap, mkosi) = (bench.mmdebstrap()?, bench.mkosi()?);
        bench.change(round)?;
        let (changed, again) = (bench.make_image()?, bench.make_image()?);
        progress.say(&format!(
            "round {round}: from packages {packages:.1} s, mmdebstrap {mmdebstrap:.1} s, mkosi {mkosi:.1} s; one line of \
             firstboot changed {changed:.1} s, again {again:.1} s"
        ));
        times.again.push(again);
        times.changed.push(changed);
        times.packages.push(packages);
        times.mmdebstrap.push(mmdebstrap);
        times.mkosi.push(mkosi);
    }
    Ok(times)
}

struct Bench<'a> {
    target: &'a Target,
    dir: &'a Path,
}

impl Bench<'_> {
    fn tree(&self) -> PathBuf {
        self.dir.join("clone")
    }

    /// A clone whose files can be changed.
    fn clone(&self) -> Result<()> {
        cmd::run(Command::new("git").args(["clone", "--quiet"]).arg(repo::root()?).arg(self.tree()))
    }

    fn change(&self, round: u32) -> Result<()> {
        let path = self.tree().join("firstboot/src/main.rs");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let line = text.lines().find(|line| line.starts_with(LINE)).with_context(|| format!("find {LINE:?}"))?;
        let changed = text.replacen(line, &format!("{LINE} {round}"), 1);
        fs::write(&path, changed).with_context(|| format!("write {}", path.display()))
    }

    fn make_image(&self) -> Result<f64> {
        let mut make = Command::new("make");
        make.args(["--no-print-directory", "--directory"]).arg(self.tree()).arg("image");
        seconds(make.arg(format!("TARGET={}", self.target.name)))
    }

    /// With a cache that has everything but what is made of Debian packages.
    fn build_from_packages(&self) -> Result<f64> {
        let (from, own) = (cache::dir()?, self.dir.join("cache"));
        let to = own.join("firstboot");
        let _ = fs::remove_dir_all(&own);
        fs::create_dir_all(&to).with_context(|| format!("create {}", to.display()))?;
        for entry in fs::read_dir(&from).with_context(|| format!("list {}", from.display()))? {
            let name = entry.with_context(|| format!("list {}", from.display()))?.file_name();
            if !MADE_OF_PACKAGES.iter().any(|made| name == *made) && name != "run" {
                let link = to.join(&name);
                symlink(from.join(&name), &link).with_context(|| format!("link {}", link.display()))?;
            }
        }
        let mut build = Command::new(super::imagebuild());
        build.args(["build", "--target", &self.target.name, "--out"]).arg(self.dir.join("out"));
        seconds(build.env("XDG_CACHE_HOME", &own))
    }

    /// The packages that are named; those that Debian marks essential come with all.
    fn packages(&self) -> Result<String> {
        let all: Vec<&str> =
            self.target.packages.iter().chain([&self.target.kernel_package]).map(String::as_str).collect();
        ensure!(all.len() > 1, "read target {}: it names no package", self.target.name);
        Ok(all.join(","))
    }

    /// Keeps what it downloads as its manual shows.
    fn mmdebstrap(&self) -> Result<f64> {
        let (root, kept) = (self.dir.join("mmdebstrap"), self.dir.join("mmdebstrap-packages"));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&kept).with_context(|| format!("create {}", kept.display()))?;
        let kept = kept.display();
        let mut program = Command::new("mmdebstrap");
        program.args(["--quiet", "--mode=root", "--variant=essential", "--format=directory"]);
        program.arg(format!("--architectures={}", self.target.arch)).arg(format!("--include={}", self.packages()?));
        program.args(["--skip=download/empty", "--skip=essential/unlink"]);
        program.arg("--setup-hook=mkdir -p \"$1\"/var/cache/apt/archives");
        program.arg(format!("--setup-hook=sync-in {kept} /var/cache/apt/archives"));
        program.arg(format!("--customize-hook=sync-out /var/cache/apt/archives {kept}"));
        program.arg(SUITE).arg(&root).arg(debian::mirror()?);
        Ok(seconds(&mut program)? + self.pack(&root)?)
    }

    fn mkosi(&self) -> Result<f64> {
        // It reads settings from where it runs.
        let place = self.dir.join("mkosi");
        let kept = place.join("packages");
        fs::create_dir_all(&kept).with_context(|| format!("create {}", kept.display()))?;
        let mut program = Command::new("unshare");
        program.args(["--mount", "--propagation=private", "sh", "-c", IN_MEMORY, "sh", "mkosi"]).current_dir(&place);
        program.args(["--distribution=debian", &format!("--release={SUITE}"), "--format=directory", "--bootable=no"]);
        program.args(["--force", "--nspawn-keep-unit", "--output=root", &format!("--mirror={}", debian::mirror()?)]);
        program.arg(format!("--cache={}", kept.display())).arg(format!("--package={}", self.packages()?)).arg("build");
        Ok(seconds(&mut program)? + self.pack(&place.join("root"))?)
    }

    fn pack(&self, root: &Path) -> Result<f64> {
        seconds(Command::new("mkfs.erofs").args(["--quiet", "-zlz4hc"]).arg(self.dir.join("root.erofs")).arg(root))
    }
}

fn seconds(command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    cmd::output(command)?;
    Ok(start.elapsed().as_secs_f64())
}
