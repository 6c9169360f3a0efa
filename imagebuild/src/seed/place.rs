// SPDX-License-Identifier: Apache-2.0
//! The place that gets seeds: a disk that nothing else uses meanwhile, or an image that its owner alone can read.

use crate::{disk, flash};
use anyhow::{Context, Result, anyhow};
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The bits of a file's mode that are for group and others.
const OTHERS: u32 = 0o077;

/// Holds a disk until what is returned is dropped; nothing where the place is none. The kernel refuses a block device
/// that is mounted (open(2), O_EXCL), for the mounted file system would not see what is written below it, and lets
/// nothing mount it meanwhile. Opens without that flag, as those that write the seed, are not affected.
///
/// # Errors
/// When it is in use, or cannot be written.
pub(crate) fn hold(place: &Path) -> Result<Option<File>> {
    // What is not there is reported where it is opened.
    if !fs::metadata(place).is_ok_and(|metadata| metadata.file_type().is_block_device()) {
        return Ok(None);
    }
    let held = OpenOptions::new().read(true).write(true).custom_flags(OFlags::EXCL.bits() as i32).open(place);
    held.map(Some).map_err(|error| refused(place, error, flash::mounted_at(place)))
}

/// Why a disk cannot be held, which is mounted at `point`.
fn refused(place: &Path, error: std::io::Error, point: Option<String>) -> anyhow::Error {
    let what = format!("write a seed to {}", place.display());
    let instead = "or give the mount point of the boot partition in its place";
    match (error.kind(), point) {
        (ErrorKind::ResourceBusy, Some(point)) => {
            anyhow!("{what}: it is mounted at {point}: run umount \"{point}\", {instead}")
        }
        (ErrorKind::ResourceBusy, None) => {
            anyhow!("{what}: it is in use (lsblk {} says by what): unmount it, {instead}", place.display())
        }
        _ => disk::not_opened(&what, error),
    }
}

/// Takes an image from group and others before it gets a seed, and says so where anything was changed. A disk has its
/// mode from the system.
///
/// # Errors
/// When the mode cannot be changed, as on a file system that has none.
pub(super) fn make_private(place: &Path) -> Result<()> {
    if let Some(text) = restrict(place)? {
        flash::note(text);
    }
    Ok(())
}

/// What is to be said of it.
fn restrict(place: &Path) -> Result<Option<String>> {
    let what = || format!("take the permissions of others from {}", place.display());
    let metadata = fs::metadata(place).with_context(what)?;
    let mode = metadata.permissions().mode() & 0o7777;
    let private = mode & !OTHERS;
    if !metadata.is_file() || mode == private {
        return Ok(None);
    }
    fs::set_permissions(place, Permissions::from_mode(private))
        .map_err(|error| anyhow!("{}: {error}: copy it to a file of your own, for a seed may hold a token", what()))?;
    Ok(Some(format!("{}: its mode is now {private:04o}, was {mode:04o}: a seed may hold a token", place.display())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn why_a_disk_cannot_be_held_says_what_to_do() {
        let text = |code, point: Option<&str>| {
            let error = std::io::Error::from_raw_os_error(code);
            format!("{:#}", refused(Path::new("/dev/sdb"), error, point.map(str::to_owned)))
        };
        assert_eq!(
            text(16, Some("/media/a user/BOOT")),
            "write a seed to /dev/sdb: it is mounted at /media/a user/BOOT: run umount \"/media/a user/BOOT\", or give \
             the mount point of the boot partition in its place"
        );
        assert_eq!(
            text(16, None),
            "write a seed to /dev/sdb: it is in use (lsblk /dev/sdb says by what): unmount it, or give the mount point \
             of the boot partition in its place"
        );
        assert_eq!(
            text(13, None),
            "write a seed to /dev/sdb: Permission denied (os error 13): run this as root (sudo)"
        );
        assert_eq!(text(30, None), "write a seed to /dev/sdb: Read-only file system (os error 30)");
        // A file has nothing that could be mounted.
        for place in ["Cargo.toml", "src", "/dev/null", "none"] {
            assert!(hold(Path::new(place)).unwrap().is_none(), "{place}");
        }
    }

    #[test]
    fn an_image_with_a_seed_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        fs::write(&path, "").unwrap();
        for (before, after) in [(0o644, 0o600), (0o600, 0o600), (0o777, 0o700), (0o400, 0o400)] {
            fs::set_permissions(&path, Permissions::from_mode(before)).unwrap();
            let said = restrict(&path).unwrap();
            let want =
                format!("{}: its mode is now {after:04o}, was {before:04o}: a seed may hold a token", path.display());
            assert_eq!(said, (before != after).then_some(want));
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, after);
        }
        assert_eq!(restrict(dir.path()).unwrap(), None);
        let error = restrict(&dir.path().join("none")).unwrap_err();
        assert!(format!("{error:#}").ends_with("none: No such file or directory (os error 2)"), "{error:#}");
    }
}
