// SPDX-License-Identifier: Apache-2.0
//! From the initrd's own file system to the new root, as switch_root(8) does it.

use anyhow::{Context, Result, ensure};
use rustix::fs::statfs;
use rustix::mount::mount_move;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Types of the file systems that an initrd is unpacked into (kernel: include/uapi/linux/magic.h).
const RAMFS: i64 = 0x8584_58f6;
const TMPFS: i64 = 0x0102_1994;

/// Frees the memory of the initrd and makes `root` the root of this process; `/dev`, `/proc`, `/sys` and `/run` go along.
///
/// # Errors
/// When something cannot be moved. Leftovers of the initrd are no error.
pub fn switch(root: &Path) -> Result<()> {
    for point in ["dev", "proc", "sys", "run"] {
        let from = Path::new("/").join(point);
        mount_move(&from, root.join(point)).with_context(|| format!("move {}", from.display()))?;
    }
    let kind = statfs("/").context("read the type of /")?.f_type as i64;
    // Only what was in memory: never the files of a disk.
    ensure!([RAMFS, TMPFS].contains(&kind), "leave the initrd: / is not in memory");
    let device = fs::metadata("/").context("read /")?.dev();
    remove(Path::new("/"), device);
    rustix::process::chdir(root).with_context(|| format!("enter {}", root.display()))?;
    mount_move(".", "/").with_context(|| format!("move {} to /", root.display()))?;
    rustix::process::chroot(".").and_then(|()| rustix::process::chdir("/")).context("enter the new root")
}

/// Removes everything in a directory that is on the same file system.
fn remove(directory: &Path, device: u64) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.symlink_metadata() {
            Ok(meta) if meta.dev() != device => {}
            Ok(meta) if meta.is_dir() => {
                remove(&path, device);
                // One that another file system is mounted below stays.
                let _ = fs::remove_dir(&path);
            }
            _ => {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

/// Becomes the init of the root; returns only when that fails.
pub fn start(init: &str) -> anyhow::Error {
    let mut command = Command::new(init);
    // A kernel without a console has none to give.
    if let Ok(console) = File::options().read(true).write(true).open("/dev/console")
        && let (Ok(second), Ok(third)) = (console.try_clone(), console.try_clone())
    {
        command.stdin(console).stdout(second).stderr(third);
    }
    anyhow::Error::from(command.exec()).context(format!("start {init}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn removing_ends_at_other_file_systems() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/file"), "").unwrap();
        std::os::unix::fs::symlink("/proc", dir.path().join("a/link")).unwrap();
        let device = fs::metadata(dir.path()).unwrap().dev();
        remove(dir.path(), device + 1);
        assert!(dir.path().join("a/b/file").exists(), "another file system");
        remove(dir.path(), device);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(Path::new("/proc/self").exists());
    }
}
