// SPDX-License-Identifier: Apache-2.0
//! The whole root file system of a switched-off disk, for comparing what a run or a reset left behind.

use super::root::CheckedRoot;
use super::{DiskImage, ROOT};
use anyhow::{Context, Result};
use ext4_view::{Ext4, Ext4Read, Path};
use firstboot::text::hex;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

/// What a path is; times are left out, because a clock differs between two runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Type and permissions, as in `st_mode`.
    pub mode: u16,
    /// Owner and group.
    pub owner: (u32, u32),
    /// SHA-256 of a file's bytes, target of a link, empty for everything else.
    pub content: String,
}

/// Every path below the root, absolute.
pub type Tree = BTreeMap<String, Entry>;

/// Paths that differ between two trees, sorted: `+` only in the second, `-` only in the first, `~` in both.
pub fn difference(before: &Tree, after: &Tree) -> Vec<String> {
    let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
    paths.sort();
    paths.dedup();
    let mark = |path: &String| match (before.get(path), after.get(path)) {
        (None, _) => Some(format!("+{path}")),
        (_, None) => Some(format!("-{path}")),
        (a, b) if a != b => Some(format!("~{path}")),
        _ => None,
    };
    paths.into_iter().filter_map(mark).collect()
}

/// The part of a disk that holds the root file system.
struct Partition {
    disk: File,
    offset: u64,
}

impl Ext4Read for Partition {
    fn read(&mut self, start_byte: u64, dst: &mut [u8]) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        Ok(self.disk.read_exact_at(dst, self.offset + start_byte)?)
    }
}

fn load(path: &std::path::Path, offset: u64) -> Result<Ext4> {
    let disk = File::open(path).with_context(|| format!("open {}", path.display()))?;
    Ext4::load(Box::new(Partition { disk, offset })).context("read the root file system")
}

impl DiskImage {
    fn root(&self) -> Result<Ext4> {
        load(self.path(), self.partition(ROOT)?.offset)
    }

    /// Whether a file was read or run after it was written, by its times: only where the guest keeps them
    /// (mount option relatime, which moves the time of access once beyond that of change).
    pub fn read_since_written(&self, path: &str) -> Result<bool> {
        let metadata =
            self.root()?.metadata(path).with_context(|| format!("read the metadata of {path} of the guest"))?;
        let (read, written) = (metadata.accessed(), metadata.modified());
        Ok((read.seconds(), read.nanoseconds()) > (written.seconds(), written.nanoseconds()))
    }

    /// Reads the whole root file system; what is only in its journal counts as written.
    pub fn tree(&self) -> Result<Tree> {
        let root = self.root()?;
        let mut tree = Tree::new();
        let mut directories = vec!["/".to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in root.read_dir(directory.as_str()).with_context(|| format!("list {directory}"))? {
                let entry = entry.with_context(|| format!("list {directory}"))?;
                let name = entry.file_name().display().to_string();
                if name == "." || name == ".." {
                    continue;
                }
                let path = format!("{}/{name}", directory.trim_end_matches('/'));
                tree.insert(path.clone(), look(&root, &path).with_context(|| format!("read {path}"))?);
                if entry.file_type()?.is_dir() {
                    directories.push(path);
                }
            }
        }
        Ok(tree)
    }

    /// Copies files, links and directories below `directories` to the same places below `to`, with their modes and
    /// without their owners. What is only in the file system's journal counts as written. A missing directory is left
    /// out.
    pub fn extract(&self, directories: &[&str], to: &std::path::Path) -> Result<()> {
        copy_directories(&self.root()?, directories, to)
    }
}

impl CheckedRoot {
    /// [`DiskImage::extract`] for what a boot would mount.
    pub fn extract(&self, directories: &[&str], to: &std::path::Path) -> Result<()> {
        copy_directories(&load(self.0.path(), 0)?, directories, to)
    }
}

fn copy_directories(root: &Ext4, directories: &[&str], to: &std::path::Path) -> Result<()> {
    let mut left: Vec<String> = directories.iter().map(|directory| (*directory).to_owned()).collect();
    while let Some(path) = left.pop() {
        if !root.exists(path.as_str()).with_context(|| format!("read the metadata of {path} of the guest"))? {
            continue;
        }
        let target = to.join(path.trim_start_matches('/'));
        fs::create_dir_all(&target).with_context(|| format!("make {}", target.display()))?;
        for entry in root.read_dir(path.as_str()).with_context(|| format!("list {path} of the guest"))? {
            let entry = entry.with_context(|| format!("list {path} of the guest"))?;
            let name = entry.file_name().display().to_string();
            let below = format!("{}/{name}", path.trim_end_matches('/'));
            if entry.file_type()?.is_dir() {
                if name != "." && name != ".." {
                    left.push(below);
                }
            } else {
                copy_out(root, &below, &target.join(&name)).with_context(|| format!("copy {below} of the guest"))?;
            }
        }
        // Last, because its own mode may deny writing.
        let mode = u32::from(root.metadata(path.as_str())?.mode()) & 0o7777;
        fs::set_permissions(&target, fs::Permissions::from_mode(mode | 0o700))?;
    }
    Ok(())
}

/// One file or link; anything else is left out.
fn copy_out(root: &Ext4, path: &str, target: &std::path::Path) -> Result<()> {
    let at = Path::try_from(path)?;
    let metadata = root.symlink_metadata(at)?;
    if metadata.file_type().is_symlink() {
        symlink(root.read_link(at)?.display().to_string(), target)?;
    } else if metadata.file_type().is_regular_file() {
        fs::write(target, root.read(at)?)?;
        fs::set_permissions(target, fs::Permissions::from_mode(u32::from(metadata.mode()) & 0o7777))?;
    }
    Ok(())
}

fn look(root: &Ext4, path: &str) -> Result<Entry> {
    let at = Path::try_from(path)?;
    let metadata = root.symlink_metadata(at)?;
    let kind = metadata.file_type();
    let content = if kind.is_regular_file() {
        hex(&Sha256::digest(root.read(at)?))
    } else if kind.is_symlink() {
        root.read_link(at)?.display().to_string()
    } else {
        String::new()
    };
    Ok(Entry { mode: metadata.mode(), owner: (metadata.uid(), metadata.gid()), content })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_changed_and_removed_paths_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let disk = super::super::root::disk_for_tests(dir.path());
        disk.write_file("/etc/kept", b"same", 0o644).unwrap();
        disk.write_file("/etc/gone", b"", 0o644).unwrap();
        disk.write_file("/etc/changed", b"one", 0o644).unwrap();
        let before = disk.tree().unwrap();
        disk.remove_file("/etc/gone").unwrap();
        disk.write_file("/etc/changed", b"two", 0o644).unwrap();
        disk.write_file("/etc/kept", b"same", 0o600).unwrap();
        disk.link_file("/etc/link", "kept").unwrap();
        let after = disk.tree().unwrap();
        assert_eq!(after["/etc/link"].content, "kept");
        assert_eq!(after["/etc/changed"].content, hex(&Sha256::digest(b"two")));
        assert_eq!(difference(&before, &after), ["~/etc/changed", "-/etc/gone", "~/etc/kept", "+/etc/link"]);
        assert_eq!(difference(&after, &after), [""; 0]);

        let to = dir.path().join("copy");
        disk.extract(&["/etc", "/nowhere"], &to).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(to.join("etc")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["changed", "kept", "link"]);
        assert_eq!(std::fs::read(to.join("etc/link")).unwrap(), b"same");
        assert_eq!(to.join("etc/kept").metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(!to.join("nowhere").exists());
    }
}
