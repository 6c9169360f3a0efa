// SPDX-License-Identifier: Apache-2.0
//! Mounts, by the options that the device has them with.

use anyhow::{Context, Result};
use rustix::fs::StatVfsMountFlags;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use std::ffi::CString;
use std::fs;
use std::path::Path;

/// No devices and no set-ID programs; reading a file does not write its time.
const DATA: MountFlags = MountFlags::NODEV.union(MountFlags::NOSUID).union(MountFlags::NOATIME);

/// The kernel's own file systems, and a temporary one for `/run` as systemd would mount it.
///
/// # Errors
/// Names the mount point.
pub fn api() -> Result<()> {
    let (nosuid, nodev, noexec) = (MountFlags::NOSUID, MountFlags::NODEV, MountFlags::NOEXEC);
    for (kind, point, flags, options) in [
        ("devtmpfs", "/dev", nosuid, "mode=755"),
        ("proc", "/proc", nosuid | noexec | nodev, ""),
        ("sysfs", "/sys", nosuid | noexec | nodev, ""),
        ("tmpfs", "/run", nosuid | nodev, "mode=755,size=20%,nr_inodes=800k"),
    ] {
        fs::create_dir_all(point).with_context(|| format!("create {point}"))?;
        any(kind, Path::new(point), kind, flags, options)?;
    }
    Ok(())
}

/// Mounts a verified file system: the root, or the bundle of an image of others.
///
/// # Errors
/// Names the device.
pub fn root(device: &Path, point: &Path) -> Result<()> {
    fs::create_dir_all(point).with_context(|| format!("create {}", point.display()))?;
    any(device, point, "erofs", MountFlags::RDONLY, "")
}

/// Mounts the data file system. Its inode tables are not cleared in the background: their checksums say which part
/// is in use, and clearing them would write 16 MB for each GB of the disk.
///
/// # Errors
/// Names the device.
pub fn data(device: &Path, point: &Path) -> Result<()> {
    any(device, point, "ext4", DATA, "noinit_itable")
}

/// Mounts the data file system of a medium that cannot be written, without its journal when that has to be, and at last
/// by the first copy of its superblock (`sb` counts KiB). With a copy the journal stays unread: no copy says that it is
/// to be replayed, and the kernel would clear it.
///
/// # Errors
/// Names the device.
pub fn data_read_only(device: &Path, point: &Path) -> Result<()> {
    let flags = DATA | MountFlags::RDONLY;
    let by = |options: &str| any(device, point, "ext4", flags, options);
    // What is wrong with the file system itself is the better reason.
    by("").or_else(|_| by("noload")).or_else(|error| by("sb=131072,noload").map_err(|_| error))
}

/// Mounts memory that only root looks into.
///
/// # Errors
/// Names the mount point.
pub fn memory(point: &Path) -> Result<()> {
    any("tmpfs", point, "tmpfs", MountFlags::NODEV | MountFlags::NOSUID, "mode=700")
}

/// Mounts `upper` over `lower` (several: the uppermost first). What could bind the upper layer to this one root is off:
/// the next root comes from another slot.
///
/// # Errors
/// Names the mount point.
pub fn overlay(lower: &[&Path], upper: &Path, work: &Path, point: &Path) -> Result<()> {
    let lower: Vec<_> = lower.iter().map(|path| path.display().to_string()).collect();
    let (lower, upper, work_path, work) = (lower.join(":"), upper.display(), work, work.display());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work},index=off,metacopy=off,redirect_dir=off");
    any("overlay", point, "overlay", DATA, &options)?;
    // The kernel mounts it read-only when it cannot use the work directory, and reports no error.
    let flags = rustix::fs::statvfs(point).with_context(|| format!("read the state of {}", point.display()))?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        away(point);
        let why = fs::create_dir(work_path.join("try")).err();
        let _ = fs::remove_dir(work_path.join("try"));
        let why = why.unwrap_or_else(|| std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem));
        return Err(why).with_context(|| format!("mount overlay on {}", point.display()));
    }
    Ok(())
}

/// Shows a directory at a second place, with the options of the first.
///
/// # Errors
/// Names both.
pub fn bind(from: &Path, to: &Path) -> Result<()> {
    mount_bind(from, to).with_context(|| format!("mount {} on {}", from.display(), to.display()))
}

/// Takes away what is mounted at a place, if anything is.
pub fn away(point: &Path) {
    // Nothing is there, or it stays: the next mount covers it.
    let _ = unmount(point, UnmountFlags::DETACH);
}

fn any(device: impl AsRef<Path>, point: &Path, kind: &str, flags: MountFlags, options: &str) -> Result<()> {
    let device = device.as_ref();
    let options = CString::new(options).context("pass mount options")?;
    mount(device, point, kind, flags, options.as_c_str())
        .with_context(|| format!("mount {} on {}", device.display(), point.display()))
}
