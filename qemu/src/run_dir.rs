// SPDX-License-Identifier: Apache-2.0
//! Scratch directories of running harnesses: removed by their guard; those of a process that is gone, by the next one.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A scratch directory below the cache, named by the process that owns it.
pub struct RunDir(PathBuf);

impl RunDir {
    /// Makes a directory for `purpose` and removes those of processes that no longer exist.
    pub fn new(purpose: &str) -> Result<Self> {
        Self::below(&imagebuild::cache::dir()?.join("run"), purpose)
    }

    fn below(parent: &Path, purpose: &str) -> Result<Self> {
        std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        sweep(parent)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("{}-{purpose}-{number}", std::process::id()));
        std::fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(RunDir(dir))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // The next run removes what is left behind.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn sweep(parent: &Path) -> Result<()> {
    for entry in std::fs::read_dir(parent).with_context(|| format!("list {}", parent.display()))? {
        let entry = entry.with_context(|| format!("list {}", parent.display()))?;
        let name = entry.file_name();
        let owner = name.to_string_lossy().split('-').next().and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another harness may remove it at the same moment.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_ended_processes_are_removed_and_others_kept() {
        let parent = tempfile::tempdir().unwrap();
        let dead = parent.path().join("4194305-x-0");
        std::fs::create_dir(&dead).unwrap();
        let first = RunDir::below(parent.path(), "x").unwrap();
        let second = RunDir::below(parent.path(), "x").unwrap();
        assert!(!dead.exists() && first.path().exists() && second.path().exists());
        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists());
    }
}
