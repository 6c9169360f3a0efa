// SPDX-License-Identifier: Apache-2.0
//! Source `debian`: a file of a Debian package, from the release that images are made of.

use super::Request;
use crate::arch::Arch;
use crate::debian::{Debian, Package};
use crate::{digest, verify};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name and version of the package.
pub fn inputs(request: &Request, package: &str, version: Option<&str>) -> Result<Vec<String>> {
    let version = match version {
        Some(version) => version.to_owned(),
        None => offered(request, package)?.version,
    };
    Ok(vec![format!("{package} {version}")])
}

/// The package at the version that the suite carries.
fn offered(request: &Request, package: &str) -> Result<Package> {
    let found = Debian::open(request.arch)?.resolve(&[package], false)?;
    match found.into_iter().next() {
        Some(package) => Ok(package),
        None => bail!("find Debian package {package} for component {}", request.name()),
    }
}

/// The package's file, downloaded when the cache does not have it.
pub fn deb(request: &Request, package: &str, version: Option<&str>) -> Result<PathBuf> {
    let mut wanted = offered(request, package)?;
    if let Some(version) = version {
        wanted.version = version.to_owned();
    }
    let files = Debian::open(request.arch)?
        .fetch(std::slice::from_ref(&wanted))
        .with_context(|| format!("fetch Debian package {package} {} for {}", wanted.version, request.name()))?;
    files.into_iter().next().with_context(|| format!("fetch Debian package {package}"))
}

/// Extracts `path` of the package to `to`. The archive's signature vouches for the package; a digest in the lock
/// must match as well.
pub fn fetch(
    request: &Request,
    package: &str,
    version: Option<&str>,
    path: &str,
    sha256: &BTreeMap<Arch, String>,
    to: &Path,
) -> Result<()> {
    let deb = deb(request, package, version)?;
    if !sha256.is_empty() {
        let expected = request.of_arch(sha256, "sha256")?;
        verify::expect(request.name(), &format!("Debian package {package}"), expected, &digest::file(&deb)?)?;
    }
    let scratch = tempfile::tempdir().context("create a scratch directory")?;
    Debian::open(request.arch)?.unpack(&deb, scratch.path())?;
    // std::fs::copy follows links: a program that is a link inside its package is copied as a file.
    std::fs::copy(scratch.path().join(path.trim_start_matches('/')), to)
        .with_context(|| format!("take {path} out of Debian package {package} for component {}", request.name()))?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::testing::{fetch_thing, have, lock};
    use crate::{arch::Arch, debian::Debian, digest};

    #[test]
    fn takes_a_file_out_of_a_real_package_and_stops_when_it_is_another() {
        if !have("apt-get") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let debian = Debian::open(Arch::Amd64).unwrap();
        let package = debian.resolve(&["libnfnetlink0"], false).unwrap().remove(0);
        let found = digest::file(&debian.fetch(std::slice::from_ref(&package)).unwrap()[0]).unwrap();
        let entry = |path: &str, sha256: &str| {
            format!(
                "source.debian = {{ package = \"libnfnetlink0\", version = \"{}\", path = \"{path}\", \
                 sha256 = {{ amd64 = \"{sha256}\" }} }}",
                package.version
            )
        };
        let path = "usr/share/doc/libnfnetlink0/copyright";
        let text = fetch_thing(&lock(dir.path(), &entry(path, &found))).unwrap();
        assert!(String::from_utf8(text).unwrap().contains("libnfnetlink"));
        assert_eq!(
            fetch_thing(&lock(dir.path(), &entry(path, "00"))).unwrap_err(),
            format!("verify component thing: Debian package libnfnetlink0: expected 00, found {found}")
        );
        let error = fetch_thing(&lock(dir.path(), &entry("usr/nothing", &found))).unwrap_err();
        let expected = "take usr/nothing out of Debian package libnfnetlink0 for component thing: ";
        assert!(error.starts_with(expected), "{error}");
    }
}
