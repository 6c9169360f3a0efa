// SPDX-License-Identifier: Apache-2.0
//! All files of a switched-off disk that can change, for comparing what a run or a reset left behind; and copies of
//! files. That the root itself does not change is a matter of its partition's digest.

use super::data::CheckedData;
use super::view::{Found, Kind, View};
use super::{DiskImage, Settled};
use anyhow::{Context, Result};
use firstboot::text::hex;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Directories that a device writes to.
const CHANGING: [&str; 2] = ["/etc", "/var"];

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

/// Every path, absolute.
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

impl DiskImage {
    /// Reads all of /etc and /var as the running system would see them; what is only in a journal counts as written. A
    /// disk that was never booted has those of its root, which the first boot begins with.
    pub fn tree(&self) -> Result<Tree> {
        let view = View::of(self)?;
        let mut tree = Tree::new();
        walk(&view, &CHANGING, &[], &mut |path, found| {
            let content = match &found.kind {
                Kind::File => hex(&Sha256::digest(view.read(found)?)),
                Kind::Link(target) => target.clone(),
                _ => String::new(),
            };
            tree.insert(path.to_owned(), Entry { mode: found.mode, owner: found.owner, content });
            Ok(())
        })?;
        Ok(tree)
    }

    /// Copies files, links and directories below `directories` to the same places below `to`, with their modes and
    /// without their owners. What is only in a file system's journal counts as written. What is missing is left out, and
    /// so is all that is at or below a path of `except`.
    pub fn extract(&self, directories: &[&str], except: &[&str], to: &Path) -> Result<()> {
        copy_directories(&View::of(self)?, directories, except, to)
    }

    /// [`DiskImage::extract`] for a disk that was settled.
    pub fn extract_settled(&self, settled: &Settled, directories: &[&str], to: &Path) -> Result<()> {
        self.extract_checked(&settled.data, directories, to)
    }

    /// [`DiskImage::extract`] for what a boot would mount.
    pub(super) fn extract_checked(&self, data: &CheckedData, directories: &[&str], to: &Path) -> Result<()> {
        copy_directories(&View::checked(self, data.0.path())?, directories, &[], to)
    }
}

/// Calls `each` for every path in `directories` and below, those of a directory after it.
fn walk(
    view: &View,
    directories: &[&str],
    except: &[&str],
    each: &mut dyn FnMut(&str, &Found) -> Result<()>,
) -> Result<()> {
    let mut left: Vec<String> = directories.iter().rev().map(|directory| (*directory).to_owned()).collect();
    while let Some(path) = left.pop() {
        if except.contains(&path.as_str()) {
            continue;
        }
        let Some(found) = view.find(&path)? else { continue };
        each(&path, &found).with_context(|| format!("read {path} of the guest"))?;
        if found.kind == Kind::Directory {
            let names = view.names(&path).with_context(|| format!("list {path} of the guest"))?;
            left.extend(names.iter().rev().map(|name| format!("{}/{name}", path.trim_end_matches('/'))));
        }
    }
    Ok(())
}

/// Devices, sockets and pipes are left out.
fn copy_directories(view: &View, directories: &[&str], except: &[&str], to: &Path) -> Result<()> {
    let mut modes = Vec::new();
    walk(view, directories, except, &mut |path, found| {
        let target = to.join(path.trim_start_matches('/'));
        let mode = fs::Permissions::from_mode(u32::from(found.mode) & 0o7777);
        match &found.kind {
            Kind::Directory => {
                fs::create_dir_all(&target).with_context(|| format!("make {}", target.display()))?;
                modes.push((target, u32::from(found.mode) & 0o7777 | 0o700));
            }
            Kind::Link(to) => symlink(to, &target).with_context(|| format!("link {}", target.display()))?,
            Kind::File => {
                fs::write(&target, view.read(found)?).with_context(|| format!("write {}", target.display()))?;
                fs::set_permissions(&target, mode).with_context(|| format!("set the mode of {}", target.display()))?;
            }
            Kind::Character | Kind::Other => {}
        }
        Ok(())
    })?;
    // Last, because a directory's own mode may deny writing.
    for (target, mode) in modes {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(&target, mode).with_context(|| format!("set the mode of {}", target.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use imagebuild::archive::Archive;

    #[test]
    fn written_changed_and_removed_paths_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let mut root = Archive::default();
        root.file("etc/kept", 0o644, b"same".to_vec()).unwrap();
        root.file("etc/gone", 0o644, Vec::new()).unwrap();
        root.file("usr/other", 0o644, Vec::new()).unwrap();
        root.file("usr/no/thing", 0o644, Vec::new()).unwrap();
        let Some(disk) = testing::disk(dir.path(), &root) else { return };
        disk.write_file("/etc/changed", b"one", 0o644).unwrap();
        let before = disk.tree().unwrap();
        assert!(before.contains_key("/var/lib") && !before.contains_key("/usr/other"));
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
        disk.extract(&["/etc", "/nowhere", "/usr"], &["/usr/no"], &to).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(to.join("etc")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["changed", "kept", "link"]);
        assert_eq!(std::fs::read(to.join("etc/link")).unwrap(), b"same");
        assert_eq!(to.join("etc/kept").metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(to.join("usr/other").exists() && !to.join("nowhere").exists() && !to.join("usr/no").exists());
    }
}
