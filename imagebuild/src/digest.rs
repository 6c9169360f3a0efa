// SPDX-License-Identifier: Apache-2.0
//! SHA-256 as hexadecimal text, of bytes, files and directories: cache keys and the identifiers derived from them.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Hexadecimal SHA-256 of `bytes`.
pub fn bytes(bytes: impl AsRef<[u8]>) -> String {
    hex(Sha256::digest(bytes))
}

/// The lines of a file as sha256sum writes it: digest and name.
pub fn lines(sums: &str) -> impl Iterator<Item = (&str, &str)> {
    // The digest, a blank, a blank or an asterisk, the name.
    sums.lines().filter_map(|line| {
        let (sum, rest) = line.split_once(' ')?;
        Some((sum, rest.strip_prefix([' ', '*'])?))
    })
}

/// Hexadecimal SHA-256 over the names and contents of files, and of all files below directories, in a fixed order.
/// Names count relative to `root`, so that two clones with the same content agree.
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
    let kind = std::fs::metadata(path).with_context(|| format!("read the type of {}", path.display()))?;
    if !kind.is_dir() {
        into.push(path.to_path_buf());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).with_context(|| format!("list {}", path.display()))? {
        collect(&entry?.path(), into)?;
    }
    Ok(())
}

/// Lower-case hexadecimal.
pub fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// Key of a cache entry: 16 hex digits over the parts, each with its length.
pub fn key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize()[..8])
}

/// An identifier (RFC 9562, version 8) that is the same for the same `key` and `purpose`.
pub fn uuid(key: &str, purpose: &str) -> uuid::Uuid {
    let hash = Sha256::digest(format!("{purpose}\n{key}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Hex SHA-256 of a file.
pub fn file(path: &Path) -> Result<String> {
    let source = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    reader(source).with_context(|| format!("read {}", path.display()))
}

/// Hex SHA-256 of all that comes.
///
/// # Errors
/// When it cannot be read.
pub fn reader(mut source: impl Read) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = source.read(&mut buffer)?;
        if n == 0 {
            return Ok(hex(hash.finalize()));
        }
        hash.update(&buffer[..n]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn known_value() {
        assert_eq!(bytes("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
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

    #[test]
    fn keys_depend_on_where_parts_end() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_eq!(key(&["ab", "c"]).len(), 16);
        assert_eq!(uuid("k", "root"), uuid("k", "root"));
        assert_ne!(uuid("k", "root"), uuid("k", "esp"));
    }
}
