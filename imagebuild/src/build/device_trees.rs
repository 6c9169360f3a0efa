// SPDX-License-Identifier: Apache-2.0
//! The device trees of a kernel, for boards whose firmware takes them from the disk.

use crate::debian::{Debian, Package, files_of};
use crate::rootfs::Rootfs;
use crate::target::Target;
use crate::{cache, digest};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Device trees of a target, in the cache.
#[derive(Debug)]
pub struct DeviceTrees {
    directory: PathBuf,
    /// Digest of what they are.
    pub key: String,
}

impl DeviceTrees {
    /// Those of a target, fetched now when the cache does not have them.
    ///
    /// # Errors
    /// When the kernel's package cannot be fetched, or has none of that name.
    pub fn ensure(target: &Target, rootfs: &Rootfs) -> Result<DeviceTrees> {
        let is_kernel = |name: &str| name.starts_with("linux-image-") && name.contains(&rootfs.release);
        let package = rootfs.packages.iter().find(|package| is_kernel(&package.name));
        let package: &Package = package.with_context(|| format!("find the package of kernel {}", rootfs.release))?;
        let wanted = &target.device_trees;
        let key = digest::key(&[include_str!("device_trees.rs"), &package.file_name(), &wanted.join("\n")]);
        let directory = cache::dir()?.join("firmware").join(&key);
        cache::once(&directory, |scratch| {
            let deb = Debian::open(target.arch)?.fetch(std::slice::from_ref(package))?.remove(0);
            extract(&deb, &format!("/usr/lib/linux-image-{}", rootfs.release), wanted, scratch)
        })?;
        Ok(DeviceTrees { directory, key })
    }

    /// All of them: path below the kernel's device trees, and content; sorted.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        collect(&self.directory, "", &mut files)?;
        files.sort();
        Ok(files)
    }
}

fn collect(directory: &Path, prefix: &str, files: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let entry = entry.with_context(|| format!("list {}", directory.display()))?;
        let (path, name) = (entry.path(), format!("{prefix}{}", entry.file_name().to_string_lossy()));
        if path.is_dir() {
            collect(&path, &format!("{name}/"), files)?;
        } else {
            files.push((name, fs::read(&path).with_context(|| format!("read {}", path.display()))?));
        }
    }
    Ok(())
}

/// Takes files and whole directories (with a slash at the end) below `base` out of a package, into `to`.
///
/// # Errors
/// When the package cannot be read, or lacks one of them.
pub(super) fn extract(deb: &Path, base: &str, wanted: &[String], to: &Path) -> Result<()> {
    let what = || format!("unpack {}", deb.display());
    let (mut source, stream) = files_of(deb)?;
    let mut found = vec![false; wanted.len()];
    let mut archive = tar::Archive::new(stream);
    for entry in archive.entries().with_context(what)? {
        let mut entry = entry.with_context(what)?;
        let path = entry.path().with_context(what)?.to_string_lossy().trim_start_matches('.').to_owned();
        let Some(name) = path.strip_prefix(base).and_then(|rest| rest.strip_prefix('/')) else { continue };
        let is_wanted =
            |pattern: &String| name == pattern || pattern.ends_with('/') && name.starts_with(pattern.as_str());
        let Some(at) = wanted.iter().position(is_wanted).filter(|_| entry.header().entry_type().is_file()) else {
            continue;
        };
        found[at] = true;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).with_context(what)?;
        let file = to.join(name);
        let directory = file.parent().context("find the directory of a file")?;
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        fs::write(&file, bytes).with_context(|| format!("write {}", file.display()))?;
    }
    // Up to its end, so that dpkg-deb does not write to nothing.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).with_context(what)?;
    ensure!(source.wait().context("wait for dpkg-deb")?.success(), "{}: dpkg-deb failed", what());
    if let Some(at) = found.iter().position(|found| !found) {
        bail!("{}: it has no {base}/{}", what(), wanted[at]);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A package with two device trees, made by dpkg-deb.
    fn package(dir: &Path) -> PathBuf {
        let tree = dir.join("tree");
        let put = |path: &str, text: &str| {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("DEBIAN/control", "Package: k\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n");
        put("usr/lib/trees/a/one.dtb", "one");
        put("usr/lib/trees/a/two.dtb", "two");
        put("usr/lib/trees/b/three.dtb", "three");
        let deb = dir.join("k.deb");
        let mut command = Command::new("dpkg-deb");
        crate::cmd::run(command.args(["--build", "--root-owner-group"]).arg(&tree).arg(&deb)).unwrap();
        deb
    }

    #[test]
    fn files_and_whole_directories_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let deb = package(dir.path());
        let taken = |wanted: &[&str]| {
            let to = tempfile::tempdir().unwrap();
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
            extract(&deb, "/usr/lib/trees", &wanted, to.path()).map_err(|e| e.to_string())?;
            let directory = to.path().to_owned();
            let names = DeviceTrees { directory, key: String::new() }.files().unwrap();
            Ok::<_, String>(names.into_iter().map(|(name, _)| name).collect::<Vec<_>>())
        };
        assert_eq!(taken(&["a/", "b/three.dtb"]).unwrap(), ["a/one.dtb", "a/two.dtb", "b/three.dtb"]);
        assert_eq!(taken(&["a/two.dtb"]).unwrap(), ["a/two.dtb"]);
        let error = taken(&["a/", "c/"]).unwrap_err();
        assert_eq!(error, format!("unpack {}: it has no /usr/lib/trees/c/", deb.display()));
    }
}
