// SPDX-License-Identifier: Apache-2.0
//! Source `file`: a file that is already on the build machine.

use super::Request;
use crate::arch::Arch;
use crate::digest;
use crate::verify;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Copies the file for the requested architecture, then checks the copy, so that the checked bytes are used.
pub fn fetch(
    request: &Request,
    path: &BTreeMap<Arch, String>,
    sha256: &BTreeMap<Arch, String>,
    to: &Path,
) -> Result<()> {
    let named = request.of_arch(path, "path")?;
    let expected = request.of_arch(sha256, "sha256")?;
    let from = request.lock.root.join(named);
    std::fs::copy(&from, to).with_context(|| format!("copy component {} from {}", request.name(), from.display()))?;
    verify::expect(request.name(), &format!("file {named}"), expected, &digest::file(to)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::testing::{fetch_thing, lock};
    use crate::digest;

    #[test]
    fn takes_the_file_and_stops_when_it_is_another() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("given"), "abc").unwrap();
        let found = digest::bytes(b"abc");
        let entry = |sha256: &str| {
            format!("source.file = {{ path = {{ amd64 = \"given\" }}, sha256 = {{ amd64 = \"{sha256}\" }} }}")
        };
        assert_eq!(fetch_thing(&lock(dir.path(), &entry(&found))).unwrap(), b"abc");
        assert_eq!(
            fetch_thing(&lock(dir.path(), &entry("00"))).unwrap_err(),
            format!("verify component thing: file given: expected 00, found {found}")
        );
    }

    #[test]
    fn an_architecture_that_is_not_listed_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let lock = lock(dir.path(), "source.file = { path = { arm64 = \"x\" }, sha256 = {} }");
        assert_eq!(fetch_thing(&lock).unwrap_err(), "read component thing: no path for amd64");
    }
}
