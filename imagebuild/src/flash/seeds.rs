// SPDX-License-Identifier: Apache-2.0
//! Which seed each device gets.

use super::card::Card;
use super::note;
use super::target::Target;
use crate::exit::{FAILED, Failure};
use crate::seed;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// What the name of a seed ends in that a device has got.
const USED: &str = "flashed";

/// A seed that was validated.
#[derive(Debug, Clone)]
pub struct Seed {
    path: PathBuf,
    bytes: Vec<u8>,
    /// Whether it is for one device only, and marked when that device has it.
    once: bool,
    /// Whether it creates a cluster.
    creates: bool,
}

/// A seed for each of `number` devices: `file` for all, or the first that are left in `directory`, with its lock.
///
/// # Errors
/// When a seed is refused by the device's parser, its token has ended, there are too few, or another run uses the
/// directory.
pub fn plan(file: Option<&Path>, directory: Option<&Path>, number: usize) -> Result<(Vec<Option<Seed>>, Option<File>)> {
    if let Some(file) = file {
        let seed = read(file, false)?;
        ensure!(
            number < 2 || !seed.creates,
            "take {} for {number} devices: each would create a cluster of its own; flash one of them",
            file.display()
        );
        return Ok((vec![Some(seed); number], None));
    }
    let Some(directory) = directory else { return Ok((vec![None; number], None)) };
    let lock = lock(directory)?;
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry.with_context(|| format!("list {}", directory.display()))?.path();
        paths.extend(path.extension().is_some_and(|e| e == "toml").then_some(path));
    }
    // As people count: shop-2 before shop-10.
    alphanumeric_sort::sort_path_slice(&mut paths);
    ensure!(
        paths.len() >= number,
        "take {number} seeds from {}: {} are left that no device has got",
        directory.display(),
        paths.len()
    );
    let seeds = paths[..number].iter().map(|path| Ok(Some(read(path, true)?))).collect::<Result<_>>()?;
    Ok((seeds, Some(lock)))
}

/// Takes a directory for this run: another one would plan the same seeds.
fn lock(directory: &Path) -> Result<File> {
    let held = File::open(directory).with_context(|| format!("list {}", directory.display()))?;
    match held.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            bail!("take seeds from {}: another flash uses this directory: wait until it has ended", directory.display())
        }
        // A file system without such locks, as some that are on a network.
        Err(TryLockError::Error(error)) => note(format_args!(
            "warning: {} cannot be locked: {error}: start no other flash with it meanwhile",
            directory.display()
        )),
    }
    Ok(held)
}

fn read(path: &Path, once: bool) -> Result<Seed> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let request = seed::usable(&bytes).with_context(|| format!("check {}", path.display()))?;
    Ok(Seed { path: path.to_owned(), bytes, once, creates: seed::creates(&request) })
}

impl Seed {
    /// Name of its file.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Gives the seed to a device that has its image, and renames its file where that is for one device; returns the
    /// name that it had.
    ///
    /// # Errors
    /// When the image has no boot partition, the device fails, or the file cannot be renamed. The text says what the
    /// device has.
    pub fn give(&self, target: &Target, card: &Card) -> Result<String, Failure> {
        let device = target.name();
        self.put(target, card)
            .map_err(|error| Failure::new(FAILED, format!("{error:#}: {device} has the image, but not its seed")))?;
        if self.once {
            let used = self.path.with_extension(USED);
            fs::rename(&self.path, &used).map_err(|error| {
                let text = format!(
                    "rename {}: {error}: {device} has its seed, but the file could not be renamed: rename it to {}, or \
                     another device gets it, too",
                    self.path.display(),
                    used.display()
                );
                Failure::new(FAILED, text)
            })?;
        }
        Ok(self.name())
    }

    /// Writes the seed to the boot partition.
    fn put(&self, target: &Target, card: &Card) -> Result<()> {
        seed::put(&self.bytes, None, &target.path)?;
        card.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::disk::{Ids, testing};
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    /// Closing it is not enough here: a program that another test starts just now has it open, too, until it runs.
    fn unlock(lock: Option<File>) {
        lock.unwrap().unlock().unwrap();
    }

    #[test]
    fn seeds_are_taken_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["shop-10.toml", "shop-2.toml", "shop-1.flashed", "sheet.html"] {
            fs::write(dir.path().join(name), "version = 1\nreset = true\n").unwrap();
        }
        let names = |number| {
            let (seeds, lock) = plan(None, Some(dir.path()), number).map_err(|e| e.to_string())?;
            unlock(lock);
            Ok(seeds.into_iter().map(|s| s.unwrap().path.file_name().unwrap().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(names(2), Ok(vec!["shop-2.toml".into(), "shop-10.toml".into()]));
        let dir = dir.path().display();
        let too_few: Result<_, String> = names(3);
        assert_eq!(too_few, Err(format!("take 3 seeds from {dir}: 2 are left that no device has got")));
    }

    #[test]
    fn a_seed_that_creates_a_cluster_is_for_one_device() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed.toml");
        fs::write(&path, "version = 1\n[cluster]\ncreate = true\n").unwrap();
        assert_eq!(plan(Some(&path), None, 1).unwrap().0.len(), 1);
        let error = plan(Some(&path), None, 2).unwrap_err().to_string();
        let why = "each would create a cluster of its own; flash one of them";
        assert_eq!(error, format!("take {} for 2 devices: {why}", path.display()));
    }

    #[test]
    fn a_seed_that_the_device_would_refuse_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed.toml");
        fs::write(&path, "version = 2\n").unwrap();
        let error = format!("{:#}", plan(Some(&path), None, 1).unwrap_err());
        let refused = "FB104: seed.toml:1: this firstboot reads seeds of version = 1 only";
        assert_eq!(error, format!("check {}: {refused}", path.display()));
    }

    #[test]
    fn a_seed_whose_token_has_ended_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop-1.toml");
        let text = format!(
            "version = 1\n[cluster]\napiserver = \"192.0.2.1\"\ntoken = \"abcdef.0123456789abcdef\"\n\
             ca-cert-hashes = \"sha256:{}\"\ntoken-expires = 2020-01-01T00:00:00Z\n",
            "0".repeat(64)
        );
        fs::write(&path, &text).unwrap();
        let why = "cluster.token-expires is past: the token has ended, and no device joins with it; make a new seed";
        for (file, directory) in [(Some(path.as_path()), None), (None, Some(dir.path()))] {
            let error = plan(file, directory, 1).unwrap_err();
            assert_eq!(format!("{error:#}"), format!("check {}: {why}", path.display()));
            assert_eq!(crate::exit::code(&error), FAILED);
        }
        fs::write(&path, text.replace("2020", "2120")).unwrap();
        assert_eq!(plan(Some(&path), None, 1).unwrap().0.len(), 1);
    }

    #[test]
    fn two_runs_do_not_take_seeds_of_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["shop-1.toml", "shop-2.toml"] {
            fs::write(dir.path().join(name), "version = 1\nreset = true\n").unwrap();
        }
        let first = plan(None, Some(dir.path()), 1).unwrap();
        let error = plan(None, Some(dir.path()), 1).unwrap_err().to_string();
        let why = "another flash uses this directory: wait until it has ended";
        assert_eq!(error, format!("take seeds from {}: {why}", dir.path().display()));
        unlock(first.1);
        assert_eq!(plan(None, Some(dir.path()), 2).unwrap().0.len(), 2);
    }

    #[test]
    fn what_a_device_has_is_said_when_its_seed_cannot_be_renamed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let image = at("card.img");
        testing::fats_only(&crate::target::Target::load("generic-amd64").unwrap(), &Ids::new("t"), &image).unwrap();
        fs::set_permissions(&image, Permissions::from_mode(0o600)).unwrap();
        let size = image.metadata().unwrap().len();
        let target = Target { path: image.clone(), size, sector: 512, model: "file".into(), removable: false };
        let card = Card::open(&image).unwrap();
        fs::write(at("shop-1.toml"), "version = 1\nreset = true\n").unwrap();
        let (seeds, _lock) = plan(None, Some(dir.path()), 1).unwrap();
        let give = || seeds[0].as_ref().unwrap().give(&target, &card);
        // A directory has the name that the file is to get.
        fs::create_dir(at("shop-1.flashed")).unwrap();
        let why = format!(
            "{} has its seed, but the file could not be renamed: rename it to {}, or another device gets it, too",
            image.display(),
            at("shop-1.flashed").display()
        );
        let text = format!("rename {}: Is a directory (os error 21): {why}", at("shop-1.toml").display());
        assert_eq!(give(), Err(Failure::new(FAILED, text)));
        let boot = seed::boot_partition(&image).unwrap();
        assert_eq!(boot.read("seed.toml").unwrap().as_deref(), Some(&b"version = 1\nreset = true\n"[..]));
        fs::remove_dir(at("shop-1.flashed")).unwrap();
        assert_eq!(give(), Ok("shop-1.toml".to_owned()));
        assert!(at("shop-1.flashed").is_file() && !at("shop-1.toml").exists());
        // Without a boot partition it has the image alone.
        fs::write(&image, vec![0; 1 << 20]).unwrap();
        let failure = give().unwrap_err();
        assert!(failure.text.starts_with("find a FAT partition labelled BOOT or SEED, "), "{failure}");
        assert!(failure.text.ends_with(&format!(": {} has the image, but not its seed", image.display())), "{failure}");
    }
}
