// SPDX-License-Identifier: Apache-2.0
//! The bundle in an image of others (`imagebuild bake`): one file, verified as it is read, and mounted where our own images
//! have the bundle in their verified root.
//!
//! The file is what a partition of a root is ([`crate::verity`]): an EROFS, a superblock, a hash tree. It is shown as a loop
//! device, with dm-verity over it; a kernel without dm-verity gets a loop device alone, after all of the file was checked. Its
//! root hash is in a file beside it, which nothing verifies: so this is for damage of
//! the medium, not against a person who can write to the root file system.

use crate::command_line::{Root, Slot, parse_hash};
use crate::verity::BLOCK;
use crate::{dm, kernel, mounts, verity};
use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file: `imagebuild bake` puts it there.
pub const IMAGE: &str = "/usr/lib/firstboot/bundle.img";
/// Its root hash and number of blocks: `HASH BLOCKS`, one line; with a third word, [`WHOLE`], where the kernel has no
/// dm-verity.
pub const HASH: &str = "/usr/lib/firstboot/bundle.verity";
/// The word that says that all of the file is checked before it is mounted.
pub const WHOLE: &str = "whole";
/// Where it is mounted.
pub const POINT: &str = "/usr/lib/firstboot/bundle";
/// Name of its device.
const NAME: &str = "firstboot-bundle";
/// How many times another program may be faster to take a free loop device.
const TRIES: u32 = 20;

/// Mounts the bundle, unless it is mounted.
///
/// # Errors
/// When the file is not whole, or the kernel refuses: it names the step.
pub fn mount() -> Result<()> {
    let point = Path::new(POINT);
    if is_mounted(point)? {
        return Ok(());
    }
    let text = fs::read_to_string(HASH).with_context(|| format!("read {HASH}"))?;
    let (root, whole) = parse(&text).with_context(|| format!("read {HASH}"))?;
    let image = File::open(IMAGE).with_context(|| format!("open {IMAGE}"))?;
    // The top block alone, for a person: dm-verity would only refuse to read.
    let good = if whole { verity::is_whole(&image, &root) } else { verity::holds(&image, 0, &root) };
    let good = good.with_context(|| format!("read {IMAGE}"))?;
    ensure!(good, "check {IMAGE}: it is damaged, its root hash is not {}; write the image again", root.hex());
    let (device, path, number) = attach(&image)?;
    if whole {
        return mounts::root(&path, point);
    }
    let mapped = dm::open(NAME, &root, &number)?;
    // The mapping holds it from here on.
    drop(device);
    mounts::root(&Path::new("/dev").join(mapped), point)
}

/// `HASH BLOCKS`, and whether [`WHOLE`] follows.
fn parse(text: &str) -> Result<(Root, bool)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (hash, blocks, whole) = match words[..] {
        [hash, blocks] => (hash, blocks, false),
        [hash, blocks, WHOLE] => (hash, blocks, true),
        _ => bail!("it is not HASH BLOCKS"),
    };
    let hash = parse_hash(hash).context("its hash is no SHA-256")?;
    Ok((Root { hash, blocks: blocks.parse().context("it is not HASH BLOCKS")?, slot: Slot::A }, whole))
}

/// Whether something is mounted there: then it is on another device than the directory that it is in.
fn is_mounted(point: &Path) -> Result<bool> {
    let device = |path: &Path| {
        fs::symlink_metadata(path).map(|meta| meta.dev()).with_context(|| format!("look at {}", path.display()))
    };
    Ok(device(point)? != device(point.parent().context("find the directory of the bundle")?)?)
}

/// Shows a file as a loop device; returns it, open, its path, and its number as `MAJOR:MINOR`.
fn attach(image: &File) -> Result<(File, PathBuf, String)> {
    let control = File::options().read(true).write(true).open("/dev/loop-control").context("open /dev/loop-control")?;
    for _ in 0..TRIES {
        let number = kernel::free_loop(&control).context("find a free loop device")?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        match kernel::set_loop(&device, image, BLOCK as u32) {
            Ok(()) => {
                let number = device.metadata().with_context(|| format!("look at {}", path.display()))?.rdev();
                let number = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
                return Ok((device, path, number));
            }
            Err(Errno::BUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("show {IMAGE} as {}", path.display())),
        }
    }
    bail!("show {IMAGE} as a loop device: others take each one first")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_and_the_number_of_blocks_are_one_line() {
        let (root, whole) = parse(&format!("{} 1000\n", "ab".repeat(32))).unwrap();
        assert_eq!((root.hash, root.blocks, whole), ([0xab; 32], 1000, false));
        assert!(parse(&format!("{} 1000 whole\n", "ab".repeat(32))).unwrap().1);
        let other = format!("{} 1000 half", "ab".repeat(32));
        for bad in ["", &other, "ab 1000", &"ab".repeat(32), &format!("{} x", "ab".repeat(32))] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_ordinary_directory_is_no_mount() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_mounted(dir.path()).unwrap());
        assert!(is_mounted(Path::new("/proc")).unwrap());
    }
}
