// SPDX-License-Identifier: Apache-2.0
//! Copies of the seed that editors and systems leave beside it or behind it, known by their names: docs/seed.md has the list.
//!
//! What these tables name is firstboot's to destroy. Any other file is somebody's: it is only named. Pure.

use super::encodings::SEED_NAMES;

/// What editors and systems put before and after the name of the file that they work on.
pub const BESIDE: &[(&str, &str)] = &[
    ("", "~"),
    ("", ".bak"),
    ("", ".old"),
    ("", ".orig"),
    ("", ".save"),
    ("", ".tmp"),
    (".", ".swp"),
    (".", ".swo"),
    (".", ".swn"),
    (".", ".un~"),
    (".", "~"),
    (".", ".kate-swp"),
    ("#", "#"),
    (".#", ""),
    ("._", ""),
    (".~lock.", "#"),
    ("~$", ""),
];

/// Folders in which systems keep what was thrown away, what they have indexed and how files looked before.
pub const FOLDERS: &[&str] = &[
    "$RECYCLE.BIN",
    "RECYCLER",
    "System Volume Information",
    ".Trash",
    ".Trashes",
    ".Spotlight-V100",
    ".fseventsd",
    ".TemporaryItems",
    ".DocumentRevisions-V100",
];

/// Of the folders of one user each, which end in a number: `.Trash-1000`.
const FOLDER_OF_USER: &str = ".trash-";

/// Whether a file of this name in the root directory is what an editor or a system made of a seed there.
pub fn beside(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let made_of = |seed: &str| {
        BESIDE.iter().any(|(before, after)| name.strip_prefix(before).and_then(|n| n.strip_suffix(after)) == Some(seed))
    };
    SEED_NAMES.iter().any(|seed| made_of(seed))
}

/// Whether a file at this path that holds the token is a copy that a program made by itself.
pub fn is_copy(path: &str) -> bool {
    match path.split_once('/') {
        None => beside(path) || SEED_NAMES.iter().any(|seed| path.eq_ignore_ascii_case(seed)),
        Some((folder, _)) => {
            FOLDERS.iter().any(|f| f.eq_ignore_ascii_case(folder))
                || folder.to_ascii_lowercase().starts_with(FOLDER_OF_USER)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_told_from_files_of_somebodys() {
        for name in ["seed.toml~", ".seed.toml.swp", "._seed.toml", "SEED.TOML.BAK", "seed.toml.txt.bak", "#seed.toml#"]
        {
            assert!(beside(name) && is_copy(name), "{name}");
        }
        for path in
            ["$Recycle.Bin/S-1-5-21/$R1.toml", ".Trash-1000/files/seed.toml", ".Spotlight-V100/Store/x", "Seed.toml"]
        {
            assert!(is_copy(path) && !beside(path), "{path}");
        }
        for path in ["seed.toml.example", "notes.txt", "old/seed.toml", "my-seed.toml~", "~", "Trash/seed.toml"] {
            assert!(!is_copy(path) && !beside(path), "{path}");
        }
    }

    /// docs/seed.md lists them, in code marks.
    #[test]
    fn they_are_documented() {
        let doc = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/seed.md")).unwrap();
        for (before, after) in BESIDE {
            assert!(doc.contains(&format!("`{before}seed.toml{after}`")), "{before}seed.toml{after}");
        }
        for folder in FOLDERS {
            assert!(doc.contains(&format!("`{folder}`")), "{folder}");
        }
    }
}
