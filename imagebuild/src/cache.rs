// SPDX-License-Identifier: Apache-2.0
//! Where builds are kept between runs: outside the clone, keyed by content, safe to delete.

use anyhow::{Context, Result};
use rustix::fs::Mode;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What [`once_kept`] made and no build has used for so long is removed.
const KEPT: Duration = Duration::from_secs(2 * 24 * 3600);

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
pub fn lock(dir: &Path) -> Result<File> {
    lock_file(&dir.with_extension("lock"))
}

/// The same for a lock with a path of its own.
///
/// # Errors
/// When the lock cannot be made.
pub fn lock_file(path: &Path) -> Result<File> {
    let lock = File::create(path).with_context(|| format!("create {}", path.display()))?;
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
    remove_partial(dir)?;
    // What is made here is packed into images with its modes, which must not be those that the user's files get.
    rustix::process::umask(Mode::from_bits_truncate(0o022));
    let scratch = dir.with_extension(format!("partial.{}", std::process::id()));
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

/// Removes what builds of `dir` have left that were ended: only the holder of its lock makes such directories.
fn remove_partial(dir: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.with_extension("partial.").file_name().map(OsStr::to_owned))
    else {
        return Ok(());
    };
    for entry in std::fs::read_dir(parent).with_context(|| format!("list {}", parent.display()))?.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(name.as_encoded_bytes()) {
            let path = entry.path();
            std::fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// As [`once`], for what takes hundreds of megabytes and is made again from what stays in the cache: entries beside it that
/// no build has used for two days are removed, and what builds that were ended have left.
pub fn once_kept(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    once(dir, fill)?;
    // Its time says when it was used last.
    let used = File::open(dir).and_then(|dir| dir.set_modified(SystemTime::now()));
    used.with_context(|| format!("note the use of {}", dir.display()))?;
    match dir.parent() {
        Some(parent) => sweep(parent, KEPT),
        None => Ok(()),
    }
}

/// Removes the directories in `parent` that were not used for `kept` and that no build holds the lock of.
fn sweep(parent: &Path, kept: Duration) -> Result<()> {
    for entry in std::fs::read_dir(parent).with_context(|| format!("list {}", parent.display()))?.flatten() {
        let (path, meta) = (entry.path(), entry.metadata());
        let old = |time: SystemTime| time.elapsed().is_ok_and(|age| age > kept);
        if !meta.is_ok_and(|meta| meta.is_dir() && meta.modified().is_ok_and(old)) {
            continue;
        }
        let lock = path.with_extension("lock");
        // The scratch directory of a build that was ended has a lock only by its name.
        let partial = path.file_stem().is_some_and(|stem| Path::new(stem).extension() == Some(OsStr::new("partial")));
        let held = !partial && File::create(&lock).is_ok_and(|file| file.try_lock().is_err());
        if !held {
            // Another build may remove it at the same moment.
            let _ = std::fs::remove_dir_all(&path);
            let _ = std::fs::remove_file(&lock);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn modes_of_what_is_made_are_not_those_of_the_users_files() {
        use std::os::unix::fs::PermissionsExt;
        let all = tempfile::tempdir().unwrap();
        let dir = all.path().join("root");
        rustix::process::umask(Mode::from_bits_truncate(0o077));
        once(&dir, |scratch| {
            std::fs::create_dir(scratch.join("etc"))?;
            Ok(std::fs::write(scratch.join("etc/passwd"), "x")?)
        })
        .unwrap();
        let mode = |path: &str| dir.join(path).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("etc"), mode("etc/passwd")), (0o755, 0o644));
    }

    #[test]
    fn what_was_used_lately_or_is_being_made_stays() {
        let all = tempfile::tempdir().unwrap();
        let at = |name: &str| all.path().join(name);
        let made = |name: &str, days: u64| {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join("file"), "x").unwrap();
            let time = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
            File::open(at(name)).unwrap().set_modified(time).unwrap();
        };
        for (name, days) in
            [("old", 3), ("held", 3), ("used", 3), ("new", 1), ("cut.partial.12", 3), ("on.partial.13", 1)]
        {
            made(name, days);
        }
        let _held = lock(&at("held")).unwrap();
        once_kept(&at("used"), |_| anyhow::bail!("make it again")).unwrap();
        once_kept(&at("fresh"), |scratch| Ok(std::fs::write(scratch.join("file"), "x")?)).unwrap();
        let mut left: Vec<String> = std::fs::read_dir(all.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with(".lock"))
            .collect();
        left.sort();
        assert_eq!(left, ["fresh", "held", "new", "on.partial.13", "used"]);
    }

    #[test]
    fn what_an_ended_build_has_left_goes_with_the_next_one() {
        let all = tempfile::tempdir().unwrap();
        let dir = all.path().join("abc");
        for left in ["abc.partial.1", "abc.partial.23", "abcd.partial.1"] {
            std::fs::create_dir(all.path().join(left)).unwrap();
            std::fs::write(all.path().join(left).join("half"), "").unwrap();
        }
        once(&dir, |scratch| Ok(std::fs::write(scratch.join("whole"), "")?)).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(all.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["abc", "abc.lock", "abcd.partial.1"]);
    }
}
