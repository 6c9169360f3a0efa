// SPDX-License-Identifier: Apache-2.0
//! Devices that were switched on once, for all tests that begin where such a device waits: for a seed, or for its
//! cluster.
//!
//! Kept in the cache by image and machine: disk, firmware variables, console, and the memory with the state of all
//! devices, as QEMU's migration writes it (<https://www.qemu.org/docs/master/devel/migration/main.html>). Everything
//! that comes out of one saved device begins with the same random numbers.

use crate::accel::{self, Accelerator};
use crate::args::{self, Files, Link};
use crate::device::{Device, Options, Start, machine};
use crate::disk::DiskImage;
use crate::firmware;
use crate::seed::Seed;
use anyhow::{Context, Result, ensure};
use imagebuild::{cache, cmd, digest};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Deadline for the boot.
const BOOT: Duration = Duration::from_secs(420);
/// What no test has used for so long is removed: each takes more than a gigabyte.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// The moment at which a device is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It waits for a seed.
    Waiting,
    /// It has a seed and has done all that needs no cluster: everything is installed, and it tries in vain to reach an
    /// API server. It joins with the next seed.
    Prepared,
}

impl Moment {
    /// The seed that leads there; without one the device waits. Nothing listens at its API server, the user network's
    /// own address.
    fn seed(self) -> Option<Seed> {
        (self == Moment::Prepared).then(|| Seed {
            apiserver: "10.0.2.2:1".to_owned(),
            token: "unused.a0b1c2d3e4f5g6h7".to_owned(),
            pin: format!("sha256:{}", "0".repeat(64)),
            more: String::new(),
        })
    }

    /// What the status says then.
    fn status(self) -> &'static str {
        match self {
            Moment::Waiting => "state: waiting for a seed",
            Moment::Prepared => "connect to API server 10.0.2.2:1: connection refused",
        }
    }
}

/// A device that was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved(PathBuf);

impl Saved {
    /// The one of `image` and `options` at this moment, made now when the cache does not have it.
    ///
    /// # Errors
    /// When the options name something that cannot be saved or would not be the same for the next user, or when the boot
    /// fails.
    pub fn at(moment: Moment, image: &DiskImage, options: &Options) -> Result<Self> {
        ensure!(
            options.link == Link::User && options.guest_ports.is_empty(),
            "save a device: only one on a user network without forwarded ports"
        );
        ensure!(
            options.stick.is_none()
                && options.second_disk.is_none()
                && !options.usb_ports
                && !options.record
                && options.start == Start::BootLoader,
            "save a device: only one with a disk of its own, started from it"
        );
        let all = cache::dir()?.join("saved");
        let accelerator = accel::find(options.arch, image)?;
        let dir = all.join(digest::key(&[&identity(moment, image, options, accelerator)?]));
        cache::once(&dir, |scratch| {
            sweep(&all)?;
            make(moment, image, options, &Saved(scratch.to_owned()))
        })?;
        let saved = Saved(dir);
        // When it was used last.
        std::fs::File::open(saved.memory())
            .and_then(|file| file.set_modified(SystemTime::now()))
            .context("mark a saved device as used")?;
        Ok(saved)
    }

    /// Its disk.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn disk(&self) -> Result<DiskImage> {
        DiskImage::open(&self.0.join("disk.img"))
    }

    /// What its firmware keeps.
    pub fn variables(&self) -> PathBuf {
        self.0.join("vars.fd")
    }

    /// What its console showed.
    pub fn console(&self) -> PathBuf {
        self.0.join("console.log")
    }

    /// Its memory and the state of its devices.
    pub fn memory(&self) -> PathBuf {
        self.0.join("memory")
    }
}

/// All that has to be the same for a saved device to be of use: its seed, the image, the emulator and its command line.
fn identity(moment: Moment, image: &DiskImage, options: &Options, accelerator: Accelerator) -> Result<String> {
    let program = imagebuild::setup::qemu(options.arch)?;
    let version = cmd::output(Command::new(&program).arg("--version")).context("ask the emulator for its version")?;
    // Where its files are makes no difference.
    let files = Files::plain(&firmware::find(options.arch)?.code, Path::new("/device"));
    let words = args::argv(&machine(options, accelerator)?, &files);
    let size = options.disk_size;
    let (image, version) = (image.path().display(), String::from_utf8_lossy(&version));
    let seed = moment.seed().map(|seed| seed.text()).unwrap_or_default();
    Ok(format!("{seed}{image}\n{size}\n{version}\n{}", words.join("\n")))
}

fn make(moment: Moment, image: &DiskImage, options: &Options, to: &Saved) -> Result<()> {
    println!("booting a device once, for all tests that begin with such a device: {moment:?}");
    let mut device = Device::new(image, options)?;
    if let Some(seed) = moment.seed() {
        device.disk().put_seed(&seed.text())?;
    }
    device.power_on()?;
    device.wait_status(moment.status(), BOOT)?;
    device.save(&to.memory())?;
    // The emulator has written all of it; it is not to write more.
    device.power_cut()?;
    device.disk().copy(&to.0.join("disk.img"), 0)?;
    std::fs::copy(device.variables(), to.variables()).context("copy the firmware's variables")?;
    std::fs::copy(device.console().path(), to.console()).context("copy the console")?;
    Ok(())
}

/// Removes saved devices that were not used for a day.
fn sweep(all: &Path) -> Result<()> {
    for entry in std::fs::read_dir(all).with_context(|| format!("list {}", all.display()))?.flatten() {
        let used = Saved(entry.path()).memory().metadata().and_then(|meta| meta.modified());
        let old = used.is_ok_and(|used| used.elapsed().is_ok_and(|age| age > KEPT));
        if old {
            // Another test may remove it at the same moment.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use imagebuild::arch::Arch;

    #[test]
    fn what_differs_between_users_cannot_be_saved() {
        let image = DiskImage::bare(Path::new("/nowhere.img"));
        let refused = |change: fn(&mut Options)| {
            let mut options = Options::new(Arch::host().unwrap());
            change(&mut options);
            Saved::at(Moment::Waiting, &image, &options).unwrap_err().to_string()
        };
        let network = "save a device: only one on a user network without forwarded ports";
        assert_eq!(refused(|options| options.guest_ports = vec![22]), network);
        let disk = "save a device: only one with a disk of its own, started from it";
        assert_eq!(refused(|options| options.stick = Some(String::new())), disk);
        assert_eq!(refused(|options| options.second_disk = Some(String::new())), disk);
        assert_eq!(refused(|options| options.usb_ports = true), disk);
        assert_eq!(refused(|options| options.record = true), disk);
        assert_eq!(refused(|options| options.start = Start::Firmware), disk);
    }

    #[test]
    fn only_what_was_not_used_for_a_day_is_removed() {
        let all = tempfile::tempdir().unwrap();
        for (name, hours) in [("old", 25), ("new", 23)] {
            let saved = Saved(all.path().join(name));
            std::fs::create_dir(&saved.0).unwrap();
            let file = std::fs::File::create(saved.memory()).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
        }
        std::fs::create_dir(all.path().join("partial")).unwrap();
        sweep(all.path()).unwrap();
        assert!(!all.path().join("old").exists());
        assert!(all.path().join("new").exists() && all.path().join("partial").exists());
    }
}
