// SPDX-License-Identifier: Apache-2.0
//! Sets of files that follow from the seed: written together, and taken away again when another seed no longer asks
//! for them. Each file that is found by its directory says in its first line that firstboot wrote it.

use crate::host::Host;
use anyhow::Result;
use zeroize::Zeroizing;

/// First line of a file that firstboot wrote.
pub(crate) const HEAD: &str = "# Written by firstboot.\n";

/// A file as it should be.
pub(crate) struct File {
    /// Absolute, as on the device.
    pub path: String,
    /// Whole content; it may hold a secret.
    pub text: Zeroizing<String>,
    /// Mode bits.
    pub mode: u32,
}

impl File {
    /// A file that everybody may read, with [`HEAD`] before its text.
    pub fn public(path: impl Into<String>, text: &str) -> Self {
        File { path: path.into(), text: Zeroizing::new(format!("{HEAD}{text}")), mode: 0o644 }
    }

    /// A file that holds a secret, with [`HEAD`] before its text.
    pub fn secret(path: impl Into<String>, text: &str) -> Self {
        File { mode: 0o600, ..File::public(path, text) }
    }

    fn holds(&self, host: &Host) -> Result<bool> {
        Ok(host.read(&self.path)?.as_deref() == Some(self.text.as_bytes())
            && host.size_and_mode(&self.path)?.is_some_and(|(_, mode)| mode == self.mode))
    }
}

/// Whether all of `wanted` are there, and no other file of ours in `directories`.
pub(crate) fn hold(host: &Host, wanted: &[File], directories: &[impl AsRef<str>]) -> Result<bool> {
    for file in wanted {
        if !file.holds(host)? {
            return Ok(false);
        }
    }
    Ok(left_over(host, wanted, directories)?.is_empty())
}

/// What changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Paths that were written.
    pub written: Vec<String>,
    /// Paths that were removed.
    pub removed: Vec<String>,
}

/// Writes `wanted` and removes the other files of ours in `directories`.
pub(crate) fn put(host: &Host, wanted: &[File], directories: &[impl AsRef<str>]) -> Result<Changes> {
    let mut changes = Changes { removed: left_over(host, wanted, directories)?, ..Changes::default() };
    for path in &changes.removed {
        host.remove(path)?;
    }
    for file in wanted {
        if !file.holds(host)? {
            host.write(&file.path, file.text.as_bytes(), file.mode)?;
            changes.written.push(file.path.clone());
        }
    }
    Ok(changes)
}

fn left_over(host: &Host, wanted: &[File], directories: &[impl AsRef<str>]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for directory in directories {
        let directory = directory.as_ref();
        for name in host.list(directory)? {
            let path = format!("{directory}/{name}");
            let is_file = host.list(&path)?.is_empty() && !wanted.iter().any(|w| w.path == path);
            // A directory or a file that cannot be read is not one of ours.
            let text = if is_file { host.read(&path).unwrap_or(None) } else { None };
            if text.is_some_and(|t| t.starts_with(HEAD.as_bytes())) {
                found.push(path);
            }
        }
    }
    Ok(found)
}

impl Host {
    /// Writes a configuration file that anybody may read, unless it is there already.
    pub(crate) fn ensure(&self, path: &str, text: &str) -> Result<()> {
        self.write(path, text.as_bytes(), 0o644)
    }

    /// The same for a file that is there only where there is something to say.
    pub(crate) fn keep_or_remove(&self, path: &str, text: Option<&str>) -> Result<()> {
        match text {
            Some(text) => self.ensure(path, text),
            None if self.read(path)?.is_some() => self.remove(path),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;
    use crate::test_files::put_for_tests;

    #[test]
    fn what_is_no_longer_wanted_goes_and_what_is_not_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        put_for_tests(dir.path(), "etc/a/theirs", "text\n");
        put_for_tests(dir.path(), "etc/a/directory/x", HEAD);
        let two = [File::public("/etc/a/one", "1\n"), File::secret("/etc/a/two", "2\n")];
        assert!(!hold(&host, &two, &["/etc/a"]).unwrap());
        let changes = put(&host, &two, &["/etc/a"]).unwrap();
        assert_eq!((changes.written.len(), changes.removed.len()), (2, 0));
        assert!(hold(&host, &two, &["/etc/a"]).unwrap());
        assert_eq!(put(&host, &two, &["/etc/a"]).unwrap(), Changes::default());
        assert_eq!(host.size_and_mode("/etc/a/two").unwrap().unwrap().1, 0o600);
        let one = &two[..1];
        assert!(!hold(&host, one, &["/etc/a"]).unwrap());
        assert_eq!(put(&host, one, &["/etc/a"]).unwrap().removed, ["/etc/a/two"]);
        assert_eq!(host.list("/etc/a").unwrap(), ["directory", "one", "theirs"]);
    }
}
