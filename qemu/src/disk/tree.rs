// SPDX-License-Identifier: Apache-2.0
//! The whole root file system of a switched-off disk, to be compared: what a run or a reset left behind, and what not.

use super::{DiskImage, ROOT};
use anyhow::{Context, Result};
use ext4_view::{Ext4, Ext4Read, Path};
use firstboot::unpack::hex;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;

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

impl DiskImage {
    fn root(&self) -> Result<Ext4> {
        let disk = File::open(self.path()).with_context(|| format!("open {}", self.path().display()))?;
        let part = Partition { disk, offset: self.partition(ROOT)?.offset };
        Ext4::load(Box::new(part)).context("read the root file system")
    }

    /// Whether a file was read or run after it was written, as its times tell: only where the guest keeps them
    /// (mount option relatime, which moves the time of access once beyond that of change).
    pub fn read_since_written(&self, path: &str) -> Result<bool> {
        let metadata = self.root()?.metadata(path).with_context(|| format!("look at {path} of the guest"))?;
        let (read, written) = (metadata.accessed(), metadata.modified());
        Ok((read.seconds(), read.nanoseconds()) > (written.seconds(), written.nanoseconds()))
    }

    /// Reads the whole root file system; what still lies in its journal counts as written.
    pub fn tree(&self) -> Result<Tree> {
        let root = self.root()?;
        let mut tree = Tree::new();
        let mut folders = vec!["/".to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in root.read_dir(folder.as_str()).with_context(|| format!("list {folder}"))? {
                let entry = entry.with_context(|| format!("list {folder}"))?;
                let name = entry.file_name().display().to_string();
                if name == "." || name == ".." {
                    continue;
                }
                let path = format!("{}/{name}", folder.trim_end_matches('/'));
                tree.insert(path.clone(), look(&root, &path).with_context(|| format!("read {path}"))?);
                if entry.file_type()?.is_dir() {
                    folders.push(path);
                }
            }
        }
        Ok(tree)
    }
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
    fn what_was_written_changed_and_removed_is_told() {
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
    }
}
