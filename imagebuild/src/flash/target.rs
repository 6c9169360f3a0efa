// SPDX-License-Identifier: Apache-2.0
//! The devices that a person named: each is checked before any is written.

use super::disks::Kernel;
use super::image::{Identity, Image};
use crate::exit::{FAILED, Failure};
use anyhow::{Context, Result, bail, ensure};
use indicatif::DecimalBytes;
use std::fmt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// A device that may be written.
#[derive(Debug, Clone)]
pub struct Target {
    /// The path of its device node, without links.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Bytes of a sector.
    pub sector: u32,
    /// What the disk says that it is.
    pub model: String,
    /// Whether it can be taken out.
    pub removable: bool,
}

impl Target {
    /// How messages name it.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}  {}", self.path.display(), DecimalBytes(self.size), self.model)
    }
}

/// Checks all devices.
///
/// # Errors
/// Names every device that may not be written, and why.
pub fn check(kernel: &Kernel, devices: &[PathBuf], fixed: bool, image: &Image) -> Result<Vec<Target>> {
    let (mut targets, mut wrong) = (Vec::<Target>::new(), Vec::new());
    for device in devices {
        match one(kernel, device, fixed, image).and_then(|target| fits(target, image)) {
            Ok(target) if targets.iter().any(|other| other.path == target.path) => {
                wrong.push(format!("write {}: it is given twice", device.display()));
            }
            Ok(target) => targets.push(target),
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    if !wrong.is_empty() {
        return Err(Failure::new(FAILED, format!("{}; nothing was written", wrong.join("; "))).into());
    }
    Ok(targets)
}

fn one(kernel: &Kernel, device: &Path, fixed: bool, image: &Image) -> Result<Target> {
    let what = || format!("write {}", device.display());
    let path = std::fs::canonicalize(device).with_context(what)?;
    let metadata = path.metadata().with_context(what)?;
    // Before --fixed is asked for: with that it would be cleared while it is read.
    ensure!(Identity::of(&metadata) != image.identity, "{}: it is the image itself: give another device", what());
    if metadata.is_file() {
        ensure!(fixed, "{}: it is a file: give --fixed to write it as a card", what());
        if let Some(user) = kernel.loop_device(&path) {
            bail!("{}: /dev/{user} is made of it: run losetup --detach /dev/{user}", what());
        }
        return Ok(Target { path, size: metadata.len(), sector: 512, model: "file".into(), removable: false });
    }
    ensure!(metadata.file_type().is_block_device(), "{}: it is neither a disk nor a file", what());
    let disk = kernel.find(&path)?;
    if let Some(why) = disk.refusal() {
        bail!("{}: {why}", what());
    }
    ensure!(disk.size > 0, "{}: there is no card in it", what());
    ensure!(disk.removable || fixed, "{}: it is built in, not removable: give --fixed to write it", what());
    let model = disk.description();
    Ok(Target { path, size: disk.size, sector: disk.sector, model, removable: disk.removable })
}

/// Whether the image can be on this device at all.
fn fits(target: Target, image: &Image) -> Result<Target> {
    let (name, needs) = (target.path.display(), image.needs());
    ensure!(
        target.size >= needs,
        "write {name}: it has {} bytes, and the image needs {needs}: take a larger one",
        target.size
    );
    let sector = image.sector.unwrap_or(target.sector);
    ensure!(
        target.sector == sector,
        "write {name}: its sectors have {} bytes, and the image's partition table is for {sector}",
        target.sector
    );
    Ok(target)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn image(dir: &Path) -> Image {
        let path = dir.join("disk.img");
        let mut bytes = vec![1u8; 1 << 20];
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        std::fs::write(&path, bytes).unwrap();
        Image::open(&path).unwrap()
    }

    #[test]
    fn every_device_that_does_not_fit_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let image = image(dir.path());
        let file = |name: &str, size: u64| {
            let path = dir.path().join(name);
            std::fs::File::create(&path).unwrap().set_len(size).unwrap();
            path
        };
        let (good, small) = (file("good", 1 << 20), file("small", (1 << 20) - 512));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&good, &link).unwrap();
        let check = |devices: &[&Path], fixed| {
            let devices: Vec<PathBuf> = devices.iter().map(|d| d.to_path_buf()).collect();
            let result = check(&Kernel::here(), &devices, fixed, &image);
            result.map(|t| t.len()).map_err(|e| e.to_string().replace(&*dir.path().to_string_lossy(), "DIR"))
        };
        assert_eq!(check(&[&good], true), Ok(1));
        let error = check(&[&good, &small, &link, Path::new("/dev/null"), &dir.path().join("none")], true).unwrap_err();
        assert_eq!(
            error.split("; ").collect::<Vec<_>>(),
            [
                "write DIR/small: it has 1048064 bytes, and the image needs 1048576: take a larger one",
                "write DIR/link: it is given twice",
                "write /dev/null: it is neither a disk nor a file",
                "write DIR/none: No such file or directory (os error 2)",
                "nothing was written"
            ]
        );
        let error = check(&[&good], false).unwrap_err();
        assert_eq!(error, "write DIR/good: it is a file: give --fixed to write it as a card; nothing was written");
    }

    #[test]
    fn the_image_itself_is_not_written_by_whatever_name() {
        let dir = tempfile::tempdir().unwrap();
        let image = image(dir.path());
        let at = |name: &str| dir.path().join(name);
        std::os::unix::fs::symlink("disk.img", at("link")).unwrap();
        std::fs::hard_link(at("disk.img"), at("hard")).unwrap();
        std::fs::copy(at("disk.img"), at("copy")).unwrap();
        assert_eq!(check(&Kernel::here(), &[at("copy")], true, &image).unwrap().len(), 1);
        for (name, fixed) in [("disk.img", true), ("disk.img", false), ("link", true), ("hard", true)] {
            let error = check(&Kernel::here(), &[at(name)], fixed, &image).unwrap_err();
            let why = "it is the image itself: give another device; nothing was written";
            assert_eq!(error.to_string(), format!("write {}: {why}", at(name).display()));
            assert_eq!(crate::exit::code(&error), FAILED);
        }
    }
}
