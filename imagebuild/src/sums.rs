// SPDX-License-Identifier: Apache-2.0
//! `SHA256SUMS` beside an image: whether the image is still the one that was made, also after it got seeds.
//!
//! A seed changes the digest of an image. What else there is of it has digests of its own in the image's manifest,
//! which has a line in `SHA256SUMS`, too.

use crate::digest;
use crate::disk::Placed;
use crate::exit::{Failure, VERIFICATION};
use crate::target::Role;
use anyhow::{Context, Result, bail, ensure};
use firstboot::boot_partition::{BootPartition, SEED_NAMES, SEEDS, SIGNATURE_SUFFIX, copies};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

/// The digests of a directory's files, as sha256sum writes them.
pub const SUMS: &str = "SHA256SUMS";

/// What of a file its line in [`SUMS`] vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// There is no line for it.
    None,
    /// All of it.
    All,
    /// All of an image but the seeds on its boot partition.
    AllButSeeds,
}

/// What of an image stays the same when its boot partition gets seeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unseeded {
    /// Hex SHA-256 of all that is not in the boot partition.
    outside: String,
    /// Hex SHA-256 of each file of the boot partition that is no seed, by name.
    boot: BTreeMap<String, String>,
}

impl Unseeded {
    /// Reads it of a raw image with these partitions.
    ///
    /// # Errors
    /// When it cannot be read, has no boot partition, or a directory there that is neither for seeds nor a system's.
    pub fn of(image: &Path, placed: &[Placed]) -> Result<Unseeded> {
        let what = || format!("read {}", image.display());
        let boot = placed.iter().find(|one| one.role == Role::Boot).context("find the boot partition")?;
        let mut before = File::open(image).with_context(what)?;
        let mut after = File::open(image).with_context(what)?;
        after.seek(SeekFrom::Start(boot.offset + boot.length)).with_context(what)?;
        let outside = digest::reader(before.by_ref().take(boot.offset).chain(after)).with_context(what)?;
        let partition = BootPartition::open(image, boot.offset, boot.length)?;
        let mut files = BTreeMap::new();
        for name in partition.list()?.into_iter().filter(|name| !is_for_seeds(name)) {
            // Of a file this is an error.
            if partition.list_in(&name).is_ok_and(|names| names.is_some()) {
                ensure!(is_of_a_system(&name), "the directory {name} on the boot partition has no digest");
                continue;
            }
            let bytes = partition.read(&name)?.with_context(|| format!("read {name} of {}", image.display()))?;
            files.insert(name, digest::bytes(bytes));
        }
        Ok(Unseeded { outside, boot: files })
    }
}

/// Whether a file or directory of the boot partition is for seeds. FAT does not tell cases apart.
fn is_for_seeds(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == SEEDS || SEED_NAMES.contains(&name.strip_suffix(SIGNATURE_SUFFIX).unwrap_or(&name))
}

/// Whether operating systems make a directory of this name on every card that they mount: for what was deleted, and to
/// search. No firmware starts anything from there.
fn is_of_a_system(directory: &str) -> bool {
    copies::is_copy(&format!("{directory}/file"))
}

/// What has to be known of a manifest.
#[derive(Deserialize)]
struct Described {
    unseeded: Unseeded,
    partitions: Vec<Placed>,
}

/// Compares a file with its line in [`SUMS`] beside it.
///
/// # Errors
/// With exit code [`VERIFICATION`] when the digests differ, and not by seeds alone; or when a file cannot be read.
pub fn check(path: &Path) -> Result<Sum> {
    let sums = path.with_file_name(SUMS);
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else { return Ok(Sum::None) };
    let text = match std::fs::read_to_string(&sums) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Sum::None),
        Err(e) => return Err(e).with_context(|| format!("read {}", sums.display())),
    };
    let Some(wanted) = line(&text, name) else { return Ok(Sum::None) };
    let found = digest::file(path)?;
    if found.eq_ignore_ascii_case(wanted) {
        return Ok(Sum::All);
    }
    let differs = |also: &str| -> Result<Sum> {
        let (path, sums) = (path.display(), sums.display());
        let text = format!("check {path}: its SHA-256 is {found}, and {sums} has {wanted}{also}: get it again");
        Err(Failure::new(VERIFICATION, text).into())
    };
    // Packed, it cannot have got a seed.
    let Some(target) = name.strip_suffix(".img") else { return differs("") };
    let manifest = path.with_file_name(format!("{target}.manifest.json"));
    let Some(of_manifest) = line(&text, &format!("{target}.manifest.json")) else { return differs("") };
    match but_for_seeds(path, &manifest, of_manifest) {
        Ok(()) => Ok(Sum::AllButSeeds),
        Err(why) => differs(&format!(", also without its seeds ({why:#})")),
    }
}

/// Compares an image without its seeds with its manifest, and that with its digest.
fn but_for_seeds(image: &Path, manifest: &Path, wanted: &str) -> Result<()> {
    let name = manifest.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let text = std::fs::read(manifest).with_context(|| format!("read {}", manifest.display()))?;
    ensure!(digest::bytes(&text).eq_ignore_ascii_case(wanted), "{name} is another one");
    let Described { unseeded, partitions } =
        serde_json::from_slice(&text).with_context(|| format!("find what is no seed in {name}"))?;
    let found = Unseeded::of(image, &partitions)?;
    ensure!(found.outside == unseeded.outside, "it differs outside of the boot partition");
    let names = found.boot.keys().chain(unseeded.boot.keys());
    let other = names.into_iter().find(|name| found.boot.get(*name) != unseeded.boot.get(*name));
    match other {
        Some(name) => bail!("{name} on the boot partition differs"),
        None => Ok(()),
    }
}

/// The digest of a file in sums.
fn line<'s>(sums: &'s str, name: &str) -> Option<&'s str> {
    digest::lines(sums).find(|(_, other)| *other == name).map(|(sum, _)| sum)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exit::{FAILED, code};
    use std::os::unix::fs::FileExt;

    const OFFSET: u64 = 1 << 20;
    const LENGTH: u64 = 4 << 20;

    #[test]
    fn a_file_and_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let (path, sums) = (dir.path().join("a.iso"), dir.path().join(SUMS));
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(check(&path).unwrap(), Sum::None);
        let good = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        std::fs::write(&sums, format!("{}  b.iso\n{good} *a.iso\n", "0".repeat(64))).unwrap();
        assert_eq!(check(&path).unwrap(), Sum::All);
        std::fs::write(&sums, format!("{good}  b.iso\n")).unwrap();
        assert_eq!(check(&path).unwrap(), Sum::None);
        std::fs::write(&sums, format!("{}  a.iso\n", "0".repeat(64))).unwrap();
        let error = check(&path).unwrap_err();
        let zeros = "0".repeat(64);
        let text = format!(
            "check {}: its SHA-256 is {good}, and {} has {zeros}: get it again",
            path.display(),
            sums.display()
        );
        assert_eq!((code(&error), error.to_string()), (VERIFICATION, text));
        // What cannot be read is no other digest.
        std::fs::remove_file(&sums).unwrap();
        std::fs::create_dir(&sums).unwrap();
        let error = check(&path).unwrap_err();
        let text = format!("read {}: Is a directory (os error 21)", sums.display());
        assert_eq!((code(&error), format!("{error:#}")), (FAILED, text));
    }

    /// The boot partition of the image at `path`.
    fn slice(path: &Path) -> fscommon::StreamSlice<File> {
        let file = File::options().read(true).write(true).open(path).unwrap();
        fscommon::StreamSlice::new(file, OFFSET, OFFSET + LENGTH).unwrap()
    }

    /// An image with a boot partition that has files, its manifest and its sums.
    fn image(dir: &Path) -> (std::path::PathBuf, BootPartition) {
        let path = dir.join("a.img");
        let file = File::create_new(&path).unwrap();
        file.set_len(OFFSET + LENGTH + OFFSET).unwrap();
        fatfs::format_volume(slice(&path), fatfs::FormatVolumeOptions::new()).unwrap();
        let boot = BootPartition::open(&path, OFFSET, LENGTH).unwrap();
        boot.write("bootcode.bin", b"code").unwrap();
        let placed = Placed {
            role: Role::Boot,
            label: "BOOT".into(),
            kind: String::new(),
            uuid: String::new(),
            offset: OFFSET,
            length: LENGTH,
            in_mbr: false,
        };
        let unseeded = Unseeded::of(&path, std::slice::from_ref(&placed)).unwrap();
        let manifest = serde_json::json!({ "unseeded": unseeded, "partitions": [placed] }).to_string();
        std::fs::write(dir.join("a.manifest.json"), &manifest).unwrap();
        let sums = format!("{}  a.img\n{}  a.manifest.json\n", digest::file(&path).unwrap(), digest::bytes(&manifest));
        std::fs::write(dir.join(SUMS), sums).unwrap();
        (path, boot)
    }

    #[test]
    fn an_image_with_seeds_is_still_the_one_that_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let (path, boot) = image(dir.path());
        assert_eq!(check(&path).unwrap(), Sum::All);
        boot.write("seed.toml", b"version = 1\n").unwrap();
        assert_eq!(check(&path).unwrap(), Sum::AllButSeeds);
        boot.write_seeds(&[("1.toml".to_owned(), &b"version = 1\n"[..])]).unwrap();
        assert_eq!(check(&path).unwrap(), Sum::AllButSeeds);
        let refused = |words: &str| {
            let error = check(&path).unwrap_err();
            assert_eq!(code(&error), VERIFICATION);
            let error = format!("{error:#}");
            assert!(error.ends_with(&format!(", also without its seeds ({words}): get it again")), "{error}");
        };
        // What a board's firmware would run.
        boot.write("recovery.bin", b"code").unwrap();
        refused("recovery.bin on the boot partition differs");
        boot.remove("recovery.bin").unwrap();
        boot.overwrite("bootcode.bin", b"code", b"c0de").unwrap();
        refused("bootcode.bin on the boot partition differs");
        boot.overwrite("bootcode.bin", b"c0de", b"code").unwrap();
        assert_eq!(check(&path).unwrap(), Sum::AllButSeeds);
        let file = File::options().write(true).open(&path).unwrap();
        for at in [OFFSET - 1, OFFSET + LENGTH] {
            file.write_all_at(b"x", at).unwrap();
            refused("it differs outside of the boot partition");
            file.write_all_at(b"\0", at).unwrap();
        }
        assert_eq!(check(&path).unwrap(), Sum::AllButSeeds);
        std::fs::write(dir.path().join("a.manifest.json"), "{}").unwrap();
        refused("a.manifest.json is another one");
    }

    #[test]
    fn directories_of_operating_systems_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let (path, boot) = image(dir.path());
        let make = |name: &str| {
            let system = fatfs::FileSystem::new(slice(&path), fatfs::FsOptions::new()).unwrap();
            let made = system.root_dir().create_dir(name).unwrap();
            made.create_file("file").unwrap();
        };
        boot.write("seed.toml", b"version = 1\n").unwrap();
        for name in copies::SYSTEM_DIRECTORIES.iter().copied().chain([".Trash-1000"]) {
            make(name);
            assert_eq!(check(&path).unwrap(), Sum::AllButSeeds, "{name}");
        }
        make("overlays");
        let error = check(&path).unwrap_err();
        assert_eq!(code(&error), VERIFICATION);
        let why = "the directory overlays on the boot partition has no digest";
        let error = error.to_string();
        assert!(error.ends_with(&format!(", also without its seeds ({why}): get it again")), "{error}");
    }

    #[test]
    fn a_file_with_the_name_of_such_a_directory_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (path, boot) = image(dir.path());
        boot.write(".Trashes", b"code").unwrap();
        let error = check(&path).unwrap_err().to_string();
        assert!(error.ends_with(" (.Trashes on the boot partition differs): get it again"), "{error}");
    }
}
