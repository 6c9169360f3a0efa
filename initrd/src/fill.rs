// SPDX-License-Identifier: Apache-2.0
//! The first content of `/var`: a copy of what the root brings, complete or absent.

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use std::fs::{self, File, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;

/// Copies the directory `from` to `to`, which appears when all of it is on the medium. A copy that a power cut ended is
/// begun anew. Owners, modes and times stay; sockets and devices are left out.
///
/// # Errors
/// Names the file.
pub fn fill(from: &Path, to: &Path) -> Result<()> {
    let scratch = to.with_extension("new");
    if scratch.symlink_metadata().is_ok() {
        fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
    }
    copy(from, &scratch)?;
    let directory = to.parent().context("copy onto the root")?;
    let open = File::open(directory).with_context(|| format!("open {}", directory.display()))?;
    rustix::fs::syncfs(&open).with_context(|| format!("write {}", scratch.display()))?;
    fs::rename(&scratch, to).with_context(|| format!("rename {}", scratch.display()))?;
    open.sync_all().with_context(|| format!("write {}", directory.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let meta = from.symlink_metadata().with_context(|| format!("read {}", from.display()))?;
    let made = || format!("create {}", to.display());
    if meta.is_dir() {
        fs::create_dir(to).with_context(made)?;
        for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
            let name = entry.with_context(|| format!("read {}", from.display()))?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
    } else if meta.is_symlink() {
        symlink(fs::read_link(from).with_context(|| format!("read {}", from.display()))?, to).with_context(made)?;
    } else if meta.is_file() {
        fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    } else {
        return Ok(());
    }
    own(to, &meta).with_context(|| format!("set the owner of {}", to.display()))
}

/// Owner, mode and time of what was copied.
fn own(path: &Path, meta: &Metadata) -> std::io::Result<()> {
    lchown(path, Some(meta.uid()), Some(meta.gid()))?;
    if !meta.is_symlink() {
        // After the owner, which takes set-ID bits away.
        fs::set_permissions(path, Permissions::from_mode(meta.mode() & 0o7777))?;
    }
    let time = Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() as _ };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_as_the_original_and_a_torn_one_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("data/var"));
        fs::create_dir_all(from.join("lib/x")).unwrap();
        fs::create_dir_all(to.with_extension("new").join("torn")).unwrap();
        fs::write(from.join("lib/x/file"), "text").unwrap();
        symlink("/run", from.join("run")).unwrap();
        fs::set_permissions(from.join("lib/x/file"), Permissions::from_mode(0o4640)).unwrap();
        fs::set_permissions(from.join("lib"), Permissions::from_mode(0o1777)).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
        let past = Timespec { tv_sec: 1_000_000, tv_nsec: 5 };
        let times = Timestamps { last_access: past, last_modification: past };
        for name in ["lib/x/file", "lib/x", "run"] {
            utimensat(CWD, from.join(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
        fill(&from, &to).unwrap();
        let meta = |name: &str| to.join(name).symlink_metadata().unwrap();
        assert_eq!(fs::read_to_string(to.join("lib/x/file")).unwrap(), "text");
        assert_eq!((meta("lib/x/file").mode() & 0o7777, meta("lib").mode() & 0o7777), (0o4640, 0o1777));
        for name in ["lib/x/file", "lib/x", "run"] {
            assert_eq!((meta(name).mtime(), meta(name).mtime_nsec()), (1_000_000, 5), "{name}");
        }
        assert_eq!(fs::read_link(to.join("run")).unwrap(), Path::new("/run"));
        let mut names: Vec<_> = fs::read_dir(&to).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["lib", "run"]);
        assert!(!to.with_extension("new").exists());
    }
}
