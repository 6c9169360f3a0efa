// SPDX-License-Identifier: Apache-2.0
//! Where builds are kept between runs: outside the clone, keyed by content, safe to delete.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// `${XDG_CACHE_HOME:-~/.cache}/firstboot`, made if missing.
pub fn dir() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()) {
        Some(v) => PathBuf::from(v),
        None => PathBuf::from(std::env::var_os("HOME").context("read HOME, needed to find the cache directory")?)
            .join(".cache"),
    };
    let dir = base.join("firstboot");
    std::fs::create_dir_all(&dir).with_context(|| format!("create cache directory {}", dir.display()))?;
    Ok(dir)
}

/// Waits until no other build holds the lock of a directory of the cache; it is held as long as the result lives.
///
/// # Errors
/// When the lock cannot be made.
pub fn lock(dir: &Path) -> Result<std::fs::File> {
    lock_file(&dir.with_extension("lock"))
}

/// The same for a lock with a path of its own.
///
/// # Errors
/// When the lock cannot be made.
pub fn lock_file(path: &Path) -> Result<std::fs::File> {
    let lock = std::fs::File::create(path).with_context(|| format!("create {}", path.display()))?;
    lock.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(lock)
}

/// Makes `dir` by calling `fill` with a scratch directory next to it, then renames: it is complete or absent.
/// Returns at once when `dir` already exists.
pub fn once(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if dir.exists() {
        return Ok(());
    }
    let parent = dir.parent().context("find the parent of a cache directory")?;
    std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    // Of two builds or tests that need the same content, one makes it and the other waits.
    let _lock = lock(dir)?;
    if dir.exists() {
        return Ok(());
    }
    let scratch = dir.with_extension(format!("partial.{}", std::process::id()));
    if scratch.exists() {
        std::fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
    }
    std::fs::create_dir(&scratch).with_context(|| format!("create {}", scratch.display()))?;
    match fill(&scratch) {
        Ok(()) => match std::fs::rename(&scratch, dir) {
            Ok(()) => Ok(()),
            // Another build of the same content was faster; its result is as good as ours.
            Err(_) if dir.exists() => Ok(std::fs::remove_dir_all(&scratch)?),
            Err(e) => Err(e).with_context(|| format!("rename {} to {}", scratch.display(), dir.display())),
        },
        Err(e) => {
            // Keep the first error; a leftover scratch directory is harmless.
            let _ = std::fs::remove_dir_all(&scratch);
            Err(e)
        }
    }
}
