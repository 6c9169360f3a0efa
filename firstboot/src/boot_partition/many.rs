// SPDX-License-Identifier: Apache-2.0
//! Seeds for many devices on one partition: `seeds/NAME.toml`, where NAME is the serial number or a MAC address of the
//! device that it is for. docs/seed.md, "Many seeds on one card", has the rules.
//!
//! In a name only letters and digits count, in either case: FAT allows no colon, labels have blanks and hyphens. Every
//! file below the directory is firstboot's to destroy, whatever its name: no person keeps anything else there.

use super::encodings::SEED_NAMES;
use super::partition::{BootPartition, zero};
use super::token_digest::SecretDigest;
use super::volume::{Directory, FileOnFat, LOOK, MAX_DEPTH, Volume};
use crate::seed::{self, JoinToken, MAX_SIZE};
use anyhow::{Context, Result, bail, ensure};
use fatfs::ReadWriteSeek;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use zeroize::Zeroizing;

/// Directory of the seeds on the partition.
pub const SEEDS: &str = "seeds";
/// Most seeds that the build machine writes there.
pub const MOST_SEEDS: usize = 1000;
/// A device looks at the directory twice, and an entry with the longest name takes 192 bytes.
const _: () = assert!(MOST_SEEDS * 192 * 2 < LOOK as usize);
/// How many files are created or removed at once: for each the directory is read, and what an operation reads is bounded.
const AT_ONCE: usize = 100;

/// What a device can be known by: its hardware.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceIds {
    /// Serial number of the device tree or of DMI.
    pub serial: Option<String>,
    /// MAC addresses of its network interfaces, 12 hexadecimal digits each, in the order of their names.
    pub macs: Vec<String>,
}

impl DeviceIds {
    /// The one of these names of files that is for this device: by serial number, or else by the first MAC address that
    /// has one.
    ///
    /// # Errors
    /// When two names are for it.
    pub fn choose<'a>(&self, names: &'a [String]) -> Result<Option<&'a str>> {
        for id in self.serial.iter().chain(&self.macs) {
            let id = Some(plain(id));
            let mut own = names.iter().filter(|name| seed_id(name) == id);
            match (own.next(), own.next()) {
                (Some(one), Some(other)) => {
                    bail!("choose a seed in {SEEDS}: {one} and {other} are both for this device; remove one of them")
                }
                (Some(one), None) => return Ok(Some(one)),
                (None, _) => {}
            }
        }
        Ok(None)
    }

    /// Where a seed for this device goes.
    pub fn path(&self) -> String {
        let id = self.serial.as_ref().or(self.macs.first());
        id.map_or_else(|| SEED_NAMES[0].to_owned(), |id| format!("{SEEDS}/{id}.toml"))
    }
}

impl fmt::Display for DeviceIds {
    /// `serial number 10000000a3f2b1c0, MAC address dc:a6:32:01:02:03`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.serial {
            Some(serial) => write!(f, "serial number {serial}")?,
            None => f.write_str("no serial number")?,
        }
        let colons = |mac: &String| {
            let pairs: Vec<&str> = (0..mac.len()).step_by(2).filter_map(|at| mac.get(at..at + 2)).collect();
            pairs.join(":")
        };
        match self.macs.as_slice() {
            [] => f.write_str(", no MAC address"),
            [mac] => write!(f, ", MAC address {}", colons(mac)),
            macs => write!(f, ", MAC addresses {}", macs.iter().map(colons).collect::<Vec<_>>().join(" ")),
        }
    }
}

/// Letters and digits, in lower case.
fn plain(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// By what a file of this name in [`SEEDS`] says whose it is; none where it is no seed. A name that begins with another
/// character is one that a program made beside the seed.
pub fn seed_id(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let id = lower.strip_suffix(".toml").or_else(|| lower.strip_suffix(".toml.txt"))?;
    id.starts_with(|c: char| c.is_ascii_alphanumeric()).then(|| plain(id))
}

/// What a partition has for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeedFound {
    /// A seed, by its path and bytes.
    Own(String, Zeroizing<Vec<u8>>),
    /// As many seeds, and none for this device.
    Others(usize),
    /// Nothing.
    None,
}

impl SeedFound {
    /// The bytes of the seed for this device.
    pub fn own(self) -> Option<Zeroizing<Vec<u8>>> {
        match self {
            SeedFound::Own(_, bytes) => Some(bytes),
            SeedFound::Others(_) | SeedFound::None => None,
        }
    }
}

/// Digests of the secrets of all tokens that stand in a text, valid seed or not, in UTF-8 or UTF-16.
pub fn secret_digests(bytes: &[u8]) -> BTreeSet<String> {
    let Ok(text) = seed::decode(bytes) else { return BTreeSet::new() };
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '.');
    let tokens = text.split(word).filter_map(|word| JoinToken::parse(word).ok()).filter(|token| !token.is_erased());
    tokens.map(|token| SecretDigest::of_secret(token.secret())).collect()
}

impl<T: ReadWriteSeek> Volume<T> {
    /// The seed for this device: the one at the top, or else its own in [`SEEDS`].
    ///
    /// # Errors
    /// When it cannot be read or is larger than [`MAX_SIZE`], and when two are for this device.
    pub fn seed_for(&self, ids: &DeviceIds) -> Result<SeedFound> {
        if let Some((name, bytes)) = self.seed()? {
            return Ok(SeedFound::Own(name.to_owned(), bytes.into()));
        }
        let Some(directory) = self.directory(SEEDS)? else { return Ok(SeedFound::None) };
        let mut names = Vec::new();
        for entry in directory.iter() {
            let entry = entry.with_context(|| format!("list {SEEDS}"))?;
            names.extend(entry.is_file().then(|| entry.file_name()).filter(|name| seed_id(name).is_some()));
        }
        let Some(name) = ids.choose(&names)? else {
            return Ok(if names.is_empty() { SeedFound::None } else { SeedFound::Others(names.len()) });
        };
        let path = format!("{SEEDS}/{name}");
        let found = self.read_at_most(&path, MAX_SIZE)?;
        Ok(found.map_or(SeedFound::None, |bytes| SeedFound::Own(path, bytes.into())))
    }

    /// A directory in the root directory; none where there is none, or a file of this name.
    pub(super) fn directory(&self, name: &str) -> Result<Option<Directory<'_, T>>> {
        for entry in self.root().iter() {
            let entry = entry.context("list the boot partition")?;
            if entry.is_dir() && entry.file_name().eq_ignore_ascii_case(name) {
                return Ok(Some(entry.to_dir()));
            }
        }
        Ok(None)
    }

    /// Calls `act` with each file below a directory, by its path; the directories are returned, innermost first.
    fn each_below(&self, top: &str, act: &mut Act<'_, T>) -> Result<Vec<String>> {
        let mut directories = Vec::new();
        if let Some(directory) = self.directory(top)? {
            each(&directory, top, MAX_DEPTH, act, &mut directories)?;
        }
        Ok(directories)
    }
}

type Act<'a, T> = dyn FnMut(&str, &mut FileOnFat<'_, T>) -> Result<()> + 'a;

fn each<T: ReadWriteSeek>(
    directory: &Directory<'_, T>,
    path: &str,
    depth: usize,
    act: &mut Act<'_, T>,
    directories: &mut Vec<String>,
) -> Result<()> {
    ensure!(depth > 0, "search {SEEDS}: more than {MAX_DEPTH} nested directories");
    for entry in directory.iter() {
        let entry = entry.with_context(|| format!("list {path}"))?;
        let name = entry.file_name();
        let below = format!("{path}/{name}");
        match entry.is_dir() {
            true if matches!(name.as_str(), "." | "..") => {}
            true => each(&entry.to_dir(), &below, depth - 1, act, directories)?,
            false => act(&below, &mut entry.to_file())?,
        }
    }
    directories.push(path.to_owned());
    Ok(())
}

impl BootPartition {
    /// The seed for this device: see [`Volume::seed_for`].
    pub fn seed_for(&self, ids: &DeviceIds) -> Result<SeedFound> {
        self.glance()?.seed_for(ids)
    }

    /// Whether there is a directory of seeds, be it empty.
    ///
    /// # Errors
    /// When the partition cannot be read.
    pub fn has_seeds(&self) -> Result<bool> {
        Ok(self.glance()?.directory(SEEDS)?.is_some())
    }

    /// Calls `see` with path and content of each file below [`SEEDS`]; of a file that is no seed by its size, with its
    /// beginning.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn each_seed(&self, see: &mut dyn FnMut(&str, &[u8])) -> Result<()> {
        let volume = self.volume(false)?;
        volume.each_below(SEEDS, &mut |path, file| {
            let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SIZE));
            file.take(MAX_SIZE as u64).read_to_end(&mut bytes).with_context(|| format!("read {path}"))?;
            see(path, &bytes);
            Ok(())
        })?;
        Ok(())
    }

    /// Overwrites every file below [`SEEDS`] but one with zeros, and makes that durable.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn zero_seeds(&self, but: Option<&str>) -> Result<()> {
        let most = self.len();
        self.change_volume(|volume| {
            volume.each_below(SEEDS, &mut |path, file| {
                if but.is_some_and(|but| but.eq_ignore_ascii_case(path)) {
                    return Ok(());
                }
                zero(file, most).with_context(|| format!("overwrite {path} on the boot partition"))
            })?;
            Ok(())
        })
    }

    /// Removes every file below [`SEEDS`] but one, and the directories that are empty then. There may be none.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn remove_seeds(&self, but: Option<&str>) -> Result<()> {
        let (mut paths, mut kept) = (Vec::new(), false);
        let directories = self.volume(false)?.each_below(SEEDS, &mut |path, _| {
            let keep = but.is_some_and(|but| but.eq_ignore_ascii_case(path));
            kept |= keep;
            paths.extend((!keep).then(|| path.to_owned()));
            Ok(())
        })?;
        // The one that stays is at the top.
        paths.extend(directories.into_iter().filter(|path| !(kept && path.eq_ignore_ascii_case(SEEDS))));
        for paths in paths.chunks(AT_ONCE) {
            self.change(|root| {
                let remove =
                    |path: &String| root.remove(path).with_context(|| format!("remove {path} on the boot partition"));
                paths.iter().try_for_each(remove)
            })?;
        }
        Ok(())
    }

    /// Writes these files, by name, into [`SEEDS`], which need not exist.
    ///
    /// # Errors
    /// When the partition is full or cannot be written.
    pub fn write_seeds(&self, files: &[(String, &[u8])]) -> Result<()> {
        for files in files.chunks(AT_ONCE) {
            self.change(|root| {
                let directory =
                    root.create_dir(SEEDS).with_context(|| format!("create {SEEDS} on the boot partition"))?;
                for (name, bytes) in files {
                    let written = directory.create_file(name).and_then(|mut file| {
                        file.write_all(bytes)?;
                        file.truncate()?;
                        file.flush()
                    });
                    written.with_context(|| format!("write {SEEDS}/{name} on the boot partition"))?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// As [`BootPartition::change`], with the whole file system.
    fn change_volume(&self, change: impl FnOnce(&Volume<File>) -> Result<()>) -> Result<()> {
        let volume = self.volume(true)?;
        let done = change(&volume);
        self.settle(volume)?;
        done
    }
}

#[cfg(test)]
#[path = "many_tests.rs"]
mod tests;
