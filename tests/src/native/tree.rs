// SPDX-License-Identifier: Apache-2.0
//! A root file system in memory: what is at each path. The kernel's own directories, and those that are gone with the power,
//! are left out.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::rc::Rc;

const NOT_ON_DISK: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// With its mode.
    Directory(u32),
    /// With its mode and content.
    File(u32, Rc<[u8]>),
    /// With its target.
    Link(String),
}

/// Path, without the slash before it, and what is there.
pub type Tree = BTreeMap<String, Entry>;

/// Reads what is below `root`; content that `before` has as well is shared with it.
///
/// # Errors
/// When something cannot be read.
pub fn read(root: &Path, before: &Tree) -> Result<Tree> {
    let mut found = Tree::new();
    let mut directories = vec![String::new()];
    while let Some(directory) = directories.pop() {
        let path = root.join(&directory);
        for entry in fs::read_dir(&path).with_context(|| format!("list {}", path.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if directory.is_empty() && NOT_ON_DISK.contains(&name.as_str()) {
                continue;
            }
            let below = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            let kind = entry.file_type()?;
            let mode = || Ok::<_, std::io::Error>(entry.metadata()?.permissions().mode() & 0o7777);
            let what = if kind.is_symlink() {
                Entry::Link(fs::read_link(entry.path())?.to_string_lossy().into_owned())
            } else if kind.is_dir() {
                directories.push(below.clone());
                Entry::Directory(mode()?)
            } else {
                let bytes = fs::read(entry.path()).with_context(|| format!("read {below}"))?;
                match before.get(&below) {
                    Some(Entry::File(_, old)) if **old == bytes[..] => Entry::File(mode()?, old.clone()),
                    _ => Entry::File(mode()?, bytes.into()),
                }
            };
            found.insert(below, what);
        }
    }
    Ok(found)
}

/// Makes `root`, which must not be there, hold this tree.
///
/// # Errors
/// When something cannot be written.
pub fn write(tree: &Tree, root: &Path) -> Result<()> {
    fs::create_dir(root).with_context(|| format!("create {}", root.display()))?;
    for (path, entry) in tree {
        let path = root.join(path);
        let mode = match entry {
            Entry::Directory(mode) => fs::create_dir(&path).map(|()| Some(*mode)),
            Entry::File(mode, bytes) => fs::write(&path, bytes).map(|()| Some(*mode)),
            Entry::Link(target) => symlink(target, &path).map(|()| None),
        };
        if let Some(mode) = mode.with_context(|| format!("create {}", path.display()))? {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// Paths at which the two are not the same.
pub fn changed<'t>(before: &'t Tree, after: &'t Tree) -> Vec<&'t String> {
    let gone = before.keys().filter(|path| !after.contains_key(*path));
    let other = after.iter().filter(|(path, entry)| before.get(*path) != Some(entry)).map(|(path, _)| path);
    gone.chain(other).collect()
}
