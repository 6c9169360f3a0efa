// SPDX-License-Identifier: Apache-2.0
//! Seeds for many devices on one card: the directory `seeds` of a boot partition, and what it looks like on this machine.

use super::directory;
use super::place::make_private;
use crate::disk::{SeedPartition, seed_partition};
use anyhow::{Context, Result, bail, ensure};
use firstboot::boot_partition::{MOST_SEEDS, SEED_NAMES, SEEDS, SIGNATURE_SUFFIX, STICK_LABEL, seed_id};
use firstboot::seed::MAX_SIZE;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes these seeds, by file name, in place of all that were there, and reads them back; says where they are.
/// Before that, group and others lose their permissions on a file in the place of a disk.
///
/// # Errors
/// There is no boot partition and no stick, it is full, or it cannot be written. What was begun is removed then.
pub fn put(seeds: &[(String, &[u8])], to: &Path) -> Result<String> {
    ensure!(
        seeds.len() <= MOST_SEEDS,
        "write {} seeds to {}: one card takes {MOST_SEEDS}; make several tables",
        seeds.len(),
        to.display()
    );
    if to.is_dir() {
        directory::put_many(seeds, to)?;
        return Ok(format!("{} seeds are in {SEEDS} at {}; eject it before you remove it", seeds.len(), to.display()));
    }
    let SeedPartition { partition: boot, label, .. } = seed_partition(to)?;
    make_private(to)?;
    let on = || format!("write {SEEDS} on {}", to.display());
    let clear = || boot.zero_seeds(None).and_then(|()| boot.remove_seeds(None));
    // The single seed would go before.
    for old in SEED_NAMES {
        boot.destroy(old).and_then(|()| boot.remove(&format!("{old}{SIGNATURE_SUFFIX}"))).with_context(on)?;
    }
    clear().with_context(on)?;
    let written = boot.write_seeds(seeds);
    if let Err(error) = written {
        // A part of them may hold tokens.
        let _ = clear();
        return Err(error).with_context(on);
    }
    let mut found = BTreeMap::new();
    boot.each_seed(&mut |path, bytes| drop(found.insert(path.to_owned(), bytes.to_vec()))).with_context(on)?;
    let wanted = seeds.iter().map(|(name, bytes)| (format!("{SEEDS}/{name}"), bytes.to_vec())).collect();
    ensure!(found == wanted, "read back {SEEDS} on {}: it differs", to.display());
    let medium = if label == STICK_LABEL { "the stick" } else { "the boot partition of" };
    Ok(format!("{} seeds are in {SEEDS} on {medium} {}", seeds.len(), to.display()))
}

/// The seeds of a directory, in the order of their names: of its directory `seeds`, where it has one, as a mounted card.
///
/// # Errors
/// It cannot be read, has no seed, or two that are for one device.
pub(super) fn listed(directory: &Path) -> Result<Vec<PathBuf>> {
    let inner = directory.join(SEEDS);
    let directory = if inner.is_dir() { inner } else { directory.to_owned() };
    let what = || format!("list {}", directory.display());
    let mut seeds = BTreeMap::new();
    for entry in fs::read_dir(&directory).with_context(what)? {
        let path = entry.with_context(what)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(id) = seed_id(&name).filter(|_| path.is_file()) else { continue };
        if let Some(other) = seeds.insert(id, path.clone()) {
            bail!("check {}: {} is for the same device; remove one of them", path.display(), other.display());
        }
    }
    ensure!(!seeds.is_empty(), "find a seed in {}: there is none (NAME.toml)", directory.display());
    let mut paths: Vec<PathBuf> = seeds.into_values().collect();
    paths.sort();
    Ok(paths)
}

/// The seeds at a place, by what to call each: of a directory, of the boot partition of an image, card or stick, or the one
/// that is a file.
///
/// # Errors
/// It cannot be read, or has no seed.
pub(super) fn at(place: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    if place.is_dir() {
        let named =
            |path: PathBuf| Ok((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), read(&path)?));
        return listed(place)?.into_iter().map(named).collect();
    }
    let kind = fs::metadata(place).with_context(|| format!("read {}", place.display()))?;
    if kind.file_type().is_file() && kind.len() <= MAX_SIZE as u64 {
        return Ok(vec![(place.display().to_string(), read(place)?)]);
    }
    let boot = seed_partition(place)?.partition;
    let on = || format!("read the seed on {}", place.display());
    // The single seed goes before, as on a device.
    if let Some((name, bytes)) = boot.seed().with_context(on)? {
        return Ok(vec![(name.to_owned(), bytes)]);
    }
    let mut found = Vec::new();
    boot.each_seed(&mut |path, bytes| found.push((path.to_owned(), bytes.to_vec()))).with_context(on)?;
    ensure!(!found.is_empty(), "find a seed on {}: there is none", place.display());
    found.sort();
    Ok(found)
}

/// Calls `act` with each of several seeds; all errors are listed, a line each.
///
/// # Errors
/// The number of seeds that are not good.
pub(super) fn each(
    place: &Path,
    seeds: &[(String, Vec<u8>)],
    act: impl Fn(&str, &[u8]) -> Result<String>,
) -> Result<()> {
    let mut wrong = 0;
    for (name, bytes) in seeds {
        match act(name, bytes) {
            Ok(text) => print!("{text}"),
            Err(error) => {
                wrong += 1;
                println!("{name}: {error:#}");
            }
        }
    }
    ensure!(wrong == 0, "check {}: {wrong} of {} seeds are not good", place.display(), seeds.len());
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::disk::{Ids, testing};
    use crate::target::Target;
    use firstboot::boot_partition::{BootPartition, DeviceIds, SeedFound};

    fn seeds(texts: &[(&str, &'static str)]) -> Vec<(String, &'static [u8])> {
        texts.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes())).collect()
    }

    #[test]
    fn seeds_land_on_an_image_and_replace_all_that_were_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        let boot = testing::fats_only(&Target::load("generic-amd64").unwrap(), &Ids::new("t"), &path).unwrap();
        let length = boot.length;
        let boot = BootPartition::open(&path, boot.offset, length).unwrap();
        assert_eq!(
            super::at(&path).unwrap_err().to_string(),
            format!("find a seed on {}: there is none", path.display())
        );
        boot.write("seed.toml", b"the single one").unwrap();
        assert_eq!(super::at(&path).unwrap(), [("seed.toml".to_owned(), b"the single one".to_vec())]);
        put(&seeds(&[("old.toml", "a former one"), ("b.toml", "a former one")]), &path).unwrap();
        let said = put(&seeds(&[("a.toml", "one"), ("b.toml", "two")]), &path).unwrap();
        assert_eq!(said, format!("2 seeds are in seeds on the boot partition of {}", path.display()));
        let me = DeviceIds { serial: Some("b".into()), macs: Vec::new() };
        assert_eq!(boot.seed_for(&me).unwrap(), SeedFound::Own("seeds/b.toml".into(), b"two".to_vec().into()));
        assert_eq!(boot.list_in("seeds").unwrap().unwrap(), ["a.toml", "b.toml"]);
        let two = [("seeds/a.toml".to_owned(), b"one".to_vec()), ("seeds/b.toml".to_owned(), b"two".to_vec())];
        assert_eq!(super::at(&path).unwrap(), two);
        assert_eq!((boot.scan("the single one").unwrap(), boot.scan("a former one").unwrap()), (vec![], vec![]));
        let many: Vec<(String, &[u8])> = (0..=MOST_SEEDS).map(|n| (format!("{n}.toml"), &b"x"[..])).collect();
        let error = put(&many, &path).unwrap_err().to_string();
        assert_eq!(error, format!("write 1001 seeds to {}: one card takes 1000; make several tables", path.display()));
        // A card that is full keeps none of them.
        let big = "x".repeat(60 << 10);
        let many: Vec<(String, &[u8])> = (0..MOST_SEEDS).map(|n| (format!("{n}.toml"), big.as_bytes())).collect();
        assert!(many.len() as u64 * (60 << 10) > length);
        let error = format!("{:#}", put(&many, &path).unwrap_err());
        assert!(error.starts_with(&format!("write seeds on {}: write seeds/", path.display())), "{error}");
        assert!(!boot.has_seeds().unwrap() && boot.scan("xxxxxxxxxxxxxxxx").unwrap().is_empty());
    }

    #[test]
    fn seeds_land_on_a_mounted_card_and_replace_all_that_were_there() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let error = put(&seeds(&[("a.toml", "one")]), at).unwrap_err().to_string();
        assert!(error.contains("it is no boot partition"), "{error}");
        fs::write(at.join("seed.toml.example"), "").unwrap();
        fs::write(at.join("seed.toml"), "the single one").unwrap();
        fs::create_dir(at.join("seeds")).unwrap();
        fs::write(at.join("seeds/old.toml"), "a former one").unwrap();
        fs::hard_link(at.join("seeds/old.toml"), at.join("linked")).unwrap();
        let said = put(&seeds(&[("a.toml", "one"), ("b.toml", "two")]), at).unwrap();
        assert_eq!(said, format!("2 seeds are in seeds at {}; eject it before you remove it", at.display()));
        let names: Vec<_> = listed(at).unwrap();
        assert_eq!(names, [at.join("seeds/a.toml"), at.join("seeds/b.toml")]);
        assert_eq!(fs::read(at.join("seeds/b.toml")).unwrap(), b"two");
        assert!(!at.join("seed.toml").exists());
        assert_eq!(fs::read(at.join("linked")).unwrap(), vec![0; "a former one".len()]);
        fs::write(at.join("seeds/B.toml"), "again").unwrap();
        let error = listed(at).unwrap_err().to_string();
        assert!(error.ends_with("is for the same device; remove one of them"), "{error}");
        let empty = tempfile::tempdir().unwrap();
        let error = listed(empty.path()).unwrap_err().to_string();
        assert_eq!(error, format!("find a seed in {}: there is none (NAME.toml)", empty.path().display()));
    }
}
