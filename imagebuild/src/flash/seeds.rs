// SPDX-License-Identifier: Apache-2.0
//! Which seed each device gets.

use super::card::Card;
use super::target::Target;
use crate::seed;
use anyhow::{Context, Result, ensure};
use std::fs;
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

/// A seed for each of `number` devices: `file` for all, or the first that are left in `directory`.
///
/// # Errors
/// When a seed is refused by the device's parser, or there are too few.
pub fn plan(file: Option<&Path>, directory: Option<&Path>, number: usize) -> Result<Vec<Option<Seed>>> {
    if let Some(file) = file {
        let seed = read(file, false)?;
        ensure!(
            number < 2 || !seed.creates,
            "take {} for {number} devices: each would create a cluster of its own; flash one of them",
            file.display()
        );
        return Ok(vec![Some(seed); number]);
    }
    let Some(directory) = directory else { return Ok(vec![None; number]) };
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
    paths[..number].iter().map(|path| Ok(Some(read(path, true)?))).collect()
}

fn read(path: &Path, once: bool) -> Result<Seed> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let request = seed::parse_request(&bytes).with_context(|| format!("check {}", path.display()))?;
    Ok(Seed { path: path.to_owned(), bytes, once, creates: seed::creates(&request) })
}

impl Seed {
    /// Name of its file.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Writes the seed to the boot partition of a device that has its image; returns its file name.
    ///
    /// # Errors
    /// When the image has no boot partition, or the device fails.
    pub fn put(&self, target: &Target, card: &Card) -> Result<String> {
        seed::put(&self.bytes, None, &target.path)?;
        card.flush()?;
        if self.once {
            let used = self.path.with_extension(USED);
            fs::rename(&self.path, &used).with_context(|| format!("rename {}", self.path.display()))?;
        }
        Ok(self.name())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_taken_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["shop-10.toml", "shop-2.toml", "shop-1.flashed", "sheet.html"] {
            fs::write(dir.path().join(name), "version = 1\nreset = true\n").unwrap();
        }
        let names = |number| {
            let plan = plan(None, Some(dir.path()), number).map_err(|e| e.to_string())?;
            Ok(plan.into_iter().map(|s| s.unwrap().path.file_name().unwrap().to_owned()).collect::<Vec<_>>())
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
        assert_eq!(plan(Some(&path), None, 1).unwrap().len(), 1);
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
}
