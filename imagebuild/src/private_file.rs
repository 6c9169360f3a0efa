// SPDX-License-Identifier: Apache-2.0
//! Files that only their owner can read: seeds, keys and kubeconfigs. Each is there as a whole or not at all.

use anyhow::{Context, Result, bail};
use std::fs::{File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes a file of mode 0600; `replace`: in place of one that is there.
///
/// # Errors
/// There is such a file and it is to stay, or the directory cannot be written. Nothing is left then.
pub fn write(path: &Path, bytes: &[u8], replace: bool) -> Result<()> {
    let write = || format!("write {}", path.display());
    let directory = directory_of(path);
    let mode = Permissions::from_mode(0o600);
    // Said by the system itself: of a scratch file's error only the kind is left without its path.
    directory.metadata().with_context(|| format!("create {}", path.display()))?;
    let scratch = tempfile::Builder::new().prefix(".imagebuild-").permissions(mode).tempfile_in(directory);
    let mut scratch =
        scratch.map_err(|error| without_path(&error)).with_context(|| format!("create {}", path.display()))?;
    scratch.write_all(bytes).and_then(|()| scratch.as_file().sync_all()).with_context(write)?;
    let named = if replace { scratch.persist(path) } else { scratch.persist_noclobber(path) };
    match named {
        Ok(_) => File::open(directory).and_then(|directory| directory.sync_all()).with_context(write),
        Err(refused) if refused.error.kind() == ErrorKind::AlreadyExists => {
            bail!("create {}: it exists already", path.display())
        }
        Err(refused) => Err(refused.error).with_context(write),
    }
}

/// The error alone: that of a scratch file has its path, which is not the one that was asked for.
pub fn without_path(error: &std::io::Error) -> std::io::Error {
    error.kind().into()
}

/// The directory that a file is in.
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_is_private_and_replaced_only_where_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed.toml");
        write(&path, b"x", false).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let error = write(&path, b"y", false).unwrap_err().to_string();
        assert_eq!(error, format!("create {}: it exists already", path.display()));
        assert_eq!(fs::read(&path).unwrap(), b"x");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        write(&path, b"y", true).unwrap();
        assert_eq!((fs::read(&path).unwrap(), fs::read_dir(dir.path()).unwrap().count()), (b"y".to_vec(), 1));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let missing = dir.path().join("no/seed.toml");
        let error = write(&missing, b"x", false).unwrap_err();
        assert!(format!("{error:#}").starts_with(&format!("create {}: ", missing.display())), "{error:#}");
        assert_eq!(directory_of(Path::new("seed.toml")), Path::new("."));
    }
}
