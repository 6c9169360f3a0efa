// SPDX-License-Identifier: Apache-2.0
//! Chooses the accelerator by running a trivial guest with a deadline.
//!
//! `/dev/kvm` may exist and open, and still hang a stock kernel (nested virtualisation without hardware support), so
//! the trivial guest is the image's own kernel without a root file system: it ends by itself with the well-known
//! panic, within seconds. The result is kept until the build machine boots again.

use crate::disk::DiskImage;
use crate::process::Process;
use crate::run_dir::RunDir;
use crate::{args, wait};
use anyhow::{Context, Result};
use imagebuild::arch::Arch;
use std::path::Path;
use std::time::Duration;

/// Long enough for a kernel on real hardware support, short enough to wait for.
const PROBE: Duration = Duration::from_secs(15);
/// The message of a kernel that has finished its initialisation and found no root file system.
const DONE: &str = "Unable to mount root fs";

/// What runs a guest's processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The kernel's virtual machines.
    Kvm,
    /// QEMU's own translator; always works.
    Tcg,
}

impl Accelerator {
    /// As QEMU calls it.
    pub fn name(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        }
    }
}

/// The fastest accelerator that runs the kernel of `image` for `arch`.
pub fn find(arch: Arch, image: &DiskImage) -> Result<Accelerator> {
    if arch != Arch::host()? {
        return Ok(Accelerator::Tcg);
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the boot id")?;
    let dir = imagebuild::cache::dir()?.join("accelerator");
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    // Kept for each user: another user may not be allowed to open the device.
    let kept = dir.join(format!("{arch}-{}", boot.trim()));
    if let Ok(text) = std::fs::read_to_string(&kept) {
        return Ok(if text.trim() == "kvm" { Accelerator::Kvm } else { Accelerator::Tcg });
    }
    // An image of others says nothing about the accelerator, so nothing is kept.
    let Ok(entry) = image.boot_entry() else { return Ok(Accelerator::Tcg) };
    let found = match probe(arch, &entry.kernel) {
        Ok(()) => Accelerator::Kvm,
        Err(why) => {
            println!("qemu: emulating, since no guest runs under kvm: {}", first_line(&why));
            Accelerator::Tcg
        }
    };
    std::fs::write(&kept, found.name()).with_context(|| format!("write {}", kept.display()))?;
    Ok(found)
}

/// Runs a kernel under KVM until it ends by itself.
fn probe(arch: Arch, content: &[u8]) -> Result<()> {
    let dir = RunDir::new("probe")?;
    let kernel = dir.path().join("kernel");
    std::fs::write(&kernel, content).context("write the kernel of the probe")?;
    let console = dir.path().join("console");
    let args = probe_args(arch, &kernel, &console);
    let process = Process::start("the probe", &imagebuild::setup::qemu(arch)?, &args, &dir.path().join("log"))?;
    wait::until("a kernel under kvm to end", PROBE, || process.ended())?;
    let text = std::fs::read(&console).unwrap_or_default();
    if String::from_utf8_lossy(&text).contains(DONE) {
        return Ok(());
    }
    anyhow::bail!("run a kernel under kvm: {}", process.tail(1))
}

fn probe_args(arch: Arch, kernel: &Path, console: &Path) -> Vec<String> {
    let mut list = args::base(arch, Accelerator::Kvm);
    let tty = match arch {
        Arch::Arm64 => "ttyAMA0",
        Arch::Amd64 => "ttyS0",
    };
    let kernel = kernel.display().to_string();
    let append = format!("console={tty} panic=-1");
    let chardev = format!("file,id=console,path={}", console.display());
    let more = ["-m", "512", "-smp", "2", "-no-reboot", "-kernel", &kernel, "-append", &append];
    list.extend(more.map(str::to_owned));
    list.extend(["-chardev".to_owned(), chardev, "-serial".to_owned(), "chardev:console".to_owned()]);
    list
}

fn first_line(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().next().unwrap_or_default().to_owned()
}
