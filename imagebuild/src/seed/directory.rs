// SPDX-License-Identifier: Apache-2.0
//! A seed onto a boot partition or stick that the system has mounted: no rights on the device itself are needed.
//!
//! The file is written under another name and renamed, so that under the name of a seed there is the old one or the new
//! one, whole. That other name is one that a device destroys, too, should it be left behind.

use anyhow::{Context, Result, anyhow, bail, ensure};
use firstboot::boot_partition::{SEED_NAMES, SEEDS, SIGNATURE_SUFFIX, STICK_LABEL};
use firstboot::seed::ssh_signature;
use firstboot::status::STATUS_NAME;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Label of a boot partition.
const BOOT: &str = "BOOT";
/// What an image has on its boot partition.
const MARKS: [&str; 2] = [STATUS_NAME, "seed.toml.example"];
/// Where Linux names file systems by their label.
const BY_LABEL: &str = "/dev/disk/by-label";

/// What is mounted at a directory.
#[derive(Debug, PartialEq, Eq)]
enum Medium {
    Boot,
    Stick,
}

/// Writes a seed, on a stick with its signature, in place of what was there, and reads it back; says where it is.
///
/// # Errors
/// The directory is no boot partition and no stick, or cannot be written.
pub fn put(seed: &[u8], signature: Option<&[u8]>, directory: &Path) -> Result<String> {
    let medium = recognise(directory)?;
    if let Some(signature) = signature {
        let by = ssh_signature::signer(signature).context("read the signature of the seed: it is none")?;
        ssh_signature::verify(&[by], seed, signature)
            .map_err(|why| anyhow!("verify the signature of the seed: {why}; sign it again"))?;
    }
    let signature = signature.filter(|_| medium == Medium::Stick);
    // Without its signature the old seed is harmless, so that goes first.
    for name in SEED_NAMES {
        remove(&directory.join(format!("{name}{SIGNATURE_SUFFIX}")))?;
    }
    replace(directory, SEED_NAMES[0], seed)?;
    for name in &SEED_NAMES[1..] {
        let path = directory.join(name);
        if let Some(old) = open_to_overwrite(&path)? {
            remove(&path)?;
            overwrite(old).with_context(|| format!("overwrite {}", path.display()))?;
        }
    }
    if let Some(signature) = signature {
        replace(directory, &format!("{}{SIGNATURE_SUFFIX}", SEED_NAMES[0]), signature)?;
    }
    sync(directory)?;
    let shown = directory.display();
    Ok(match (medium, signature) {
        (Medium::Boot, _) => format!("seed.toml is on the boot partition at {shown}; eject it before you remove it"),
        (Medium::Stick, Some(_)) => {
            format!("seed.toml and its signature are on the stick at {shown}; eject it before you remove it")
        }
        (Medium::Stick, None) => format!(
            "seed.toml is on the stick at {shown}; a device that has joined obeys it only with a signature (imagebuild \
             seed sign); eject it before you remove it"
        ),
    })
}

/// Writes seeds, by file name, into the directory of seeds, in place of all that were there.
///
/// # Errors
/// As [`put`].
pub fn put_many(seeds: &[(String, &[u8])], directory: &Path) -> Result<()> {
    recognise(directory)?;
    let to = directory.join(SEEDS);
    fs::create_dir_all(&to).with_context(|| format!("create {}", to.display()))?;
    let mut old: Vec<PathBuf> = SEED_NAMES.iter().map(|name| directory.join(name)).collect();
    for entry in fs::read_dir(&to).with_context(|| format!("list {}", to.display()))? {
        old.push(entry.with_context(|| format!("list {}", to.display()))?.path());
    }
    for path in old {
        if let Some(file) = open_to_overwrite(&path)? {
            remove(&path)?;
            overwrite(file).with_context(|| format!("overwrite {}", path.display()))?;
        }
    }
    for name in SEED_NAMES {
        remove(&directory.join(format!("{name}{SIGNATURE_SUFFIX}")))?;
    }
    seeds.iter().try_for_each(|(name, bytes)| replace(&to, name, bytes))?;
    sync(directory)
}

/// Whether a stick is mounted at a directory, and not a boot partition.
///
/// # Errors
/// It is neither.
pub fn is_stick(directory: &Path) -> Result<bool> {
    recognise(directory).map(|medium| medium == Medium::Stick)
}

/// A boot partition is known by its files or its label, a stick by its label.
fn recognise(directory: &Path) -> Result<Medium> {
    if MARKS.iter().any(|name| directory.join(name).is_file()) {
        return Ok(Medium::Boot);
    }
    match label(directory)?.as_deref() {
        Some(BOOT) => Ok(Medium::Boot),
        Some(STICK_LABEL) => Ok(Medium::Stick),
        _ => bail!(
            "write seed.toml to {}: it is no boot partition: it has no {} or {}, and no file system labelled BOOT or SEED \
             is mounted there",
            directory.display(),
            MARKS[0],
            MARKS[1]
        ),
    }
}

/// Label of the file system that is mounted at a directory; none where nothing is, or where the label is another.
fn label(directory: &Path) -> Result<Option<String>> {
    let directory = fs::canonicalize(directory).with_context(|| format!("open {}", directory.display()))?;
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
    let own = device(&directory).with_context(|| format!("open {}", directory.display()))?;
    let mounted = directory.parent().is_some_and(|parent| device(parent).is_ok_and(|above| above != own));
    if !mounted {
        return Ok(None);
    }
    for label in [BOOT, STICK_LABEL] {
        let same = fs::metadata(Path::new(BY_LABEL).join(label)).is_ok_and(|disk| disk.rdev() == own);
        // Desktops mount by the label: /media/USER/BOOT, /Volumes/BOOT.
        if same || directory.file_name().is_some_and(|name| name == label) {
            return Ok(Some(label.to_owned()));
        }
    }
    Ok(None)
}

/// Puts `bytes` under `name`, whole, and overwrites what was there before.
fn replace(directory: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let (path, scratch) = (directory.join(name), directory.join(format!("{}.tmp", SEED_NAMES[0])));
    let old = open_to_overwrite(&path)?;
    let written = write(&scratch, bytes).and_then(|()| fs::rename(&scratch, &path));
    if let Err(error) = written {
        // Half a seed may hold the token.
        let _ = fs::remove_file(&scratch);
        return Err(error).with_context(|| format!("write {}", path.display()));
    }
    sync(directory)?;
    if let Some(old) = old {
        overwrite(old).with_context(|| format!("overwrite the former {}", path.display()))?;
    }
    let mut found = Vec::new();
    let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut found));
    read.with_context(|| format!("read back {}", path.display()))?;
    ensure!(found == bytes, "read back {}: it differs", path.display());
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The file that is about to lose its name; its blocks stay reachable by this handle.
fn open_to_overwrite(path: &PathBuf) -> Result<Option<File>> {
    match OpenOptions::new().write(true).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("open {}", path.display())),
    }
}

/// Zeros in place of what a file without a name holds: the token of the former seed.
fn overwrite(mut file: File) -> std::io::Result<()> {
    let length = usize::try_from(file.metadata()?.len()).unwrap_or_default();
    file.write_all(&vec![0; length])?;
    file.sync_all()
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn sync(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.with_context(|| format!("flush {}", directory.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_lands_on_a_mounted_boot_partition_and_replaces_another() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let error = put(b"version = 1\n", None, at).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "write seed.toml to {}: it is no boot partition: it has no firstboot-status.txt or seed.toml.example, and \
                 no file system labelled BOOT or SEED is mounted there",
                at.display()
            )
        );
        assert_eq!(fs::read_dir(at).unwrap().count(), 0);
        for mark in MARKS {
            let dir = tempfile::tempdir().unwrap();
            let at = dir.path();
            fs::write(at.join(mark), "").unwrap();
            fs::write(at.join("seed.toml"), "version = 1\n# the secret of a longer one\n").unwrap();
            fs::write(at.join("seed.toml.txt"), "version = 1\n# another\n").unwrap();
            let (first, second) = (at.join("linked"), at.join("linked.txt"));
            fs::hard_link(at.join("seed.toml"), &first).unwrap();
            fs::hard_link(at.join("seed.toml.txt"), &second).unwrap();
            let said = put(b"version = 1\n", None, at).unwrap();
            let want = format!("seed.toml is on the boot partition at {}; eject it before you remove it", at.display());
            assert_eq!(said, want);
            assert_eq!(fs::read(at.join("seed.toml")).unwrap(), b"version = 1\n");
            assert!(!at.join("seed.toml.txt").exists() && !at.join("seed.toml.tmp").exists());
            // What the former files held is gone, not just their names.
            for old in [first, second] {
                let bytes = fs::read(old).unwrap();
                assert!(!bytes.is_empty() && bytes.iter().all(|byte| *byte == 0));
            }
        }
    }

    #[test]
    fn a_directory_that_only_has_the_name_of_a_label_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("BOOT");
        fs::create_dir(&at).unwrap();
        assert!(put(b"version = 1\n", None, &at).unwrap_err().to_string().contains("it is no boot partition"));
    }

    #[test]
    fn what_cannot_be_written_leaves_the_old_seed() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        fs::write(at.join(MARKS[0]), "").unwrap();
        fs::write(at.join("seed.toml"), "old").unwrap();
        // The scratch name is taken by a directory.
        fs::create_dir(at.join("seed.toml.tmp")).unwrap();
        let error = put(b"new", None, at).unwrap_err().to_string();
        assert_eq!(error, format!("write {}", at.join("seed.toml").display()));
        assert_eq!(fs::read(at.join("seed.toml")).unwrap(), b"old");
    }
}
