// SPDX-License-Identifier: Apache-2.0
//! Keys of the cache: SHA-256, as hexadecimal text, of bytes and of folders.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Hexadecimal SHA-256 of `bytes`.
pub fn digest(bytes: impl AsRef<[u8]>) -> String {
    hex(Sha256::digest(bytes))
}

/// Hexadecimal SHA-256 over the names and contents of files, and of all files below folders, in a fixed order.
/// Names count relative to `root`, so that two clones of one content agree.
pub fn tree(root: &Path, parts: &[&str]) -> Result<String> {
    let mut files = Vec::new();
    for part in parts {
        collect(&root.join(part), &mut files)?;
    }
    files.sort();
    let mut all = Sha256::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
        let content = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        // Lengths in front keep "ab" + "c" apart from "a" + "bc".
        all.update((name.len() as u64).to_le_bytes());
        all.update(name);
        all.update((content.len() as u64).to_le_bytes());
        all.update(content);
    }
    Ok(hex(all.finalize()))
}

fn collect(path: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    let kind = std::fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
    if !kind.is_dir() {
        into.push(path.to_path_buf());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).with_context(|| format!("list {}", path.display()))? {
        collect(&entry?.path(), into)?;
    }
    Ok(())
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn known_value() {
        assert_eq!(digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_tree_changes_with_names_and_contents_only() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |dir: &Path, name: &str, text: &str| {
            std::fs::create_dir_all(dir.join("src")).unwrap();
            std::fs::write(dir.join("src").join(name), text).unwrap();
        };
        write(a.path(), "x", "1");
        write(b.path(), "x", "1");
        let before = tree(a.path(), &["src"]).unwrap();
        assert_eq!(before, tree(b.path(), &["src"]).unwrap());
        write(b.path(), "x", "2");
        assert_ne!(before, tree(b.path(), &["src"]).unwrap());
        write(b.path(), "x", "1");
        write(b.path(), "y", "");
        assert_ne!(before, tree(b.path(), &["src"]).unwrap());
    }
}
