// SPDX-License-Identifier: Apache-2.0
//! Names of copies of the seed that editors and operating systems leave on the partition; docs/seed.md lists them.
//!
//! firstboot destroys the files in these tables. Any other file with the token belongs to a user, and firstboot only
//! reports its name. Pure.

use super::encodings::SEED_NAMES;

/// Prefix and suffix that editors and operating systems add to the name of a file that they work on.
pub const COPY_AFFIXES: &[(&str, &str)] = &[
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

/// Directories of operating systems for deleted files, search indexes and earlier versions.
pub const SYSTEM_DIRECTORIES: &[&str] = &[
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

/// Prefix of the trash directories of single users, which end in a user id: `.Trash-1000`.
const USER_TRASH_PREFIX: &str = ".trash-";

/// Whether a file of this name in the root directory is a copy that an editor or an operating system made of a seed.
pub fn is_editor_backup(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let made_of = |seed: &str| {
        COPY_AFFIXES
            .iter()
            .any(|(before, after)| name.strip_prefix(before).and_then(|n| n.strip_suffix(after)) == Some(seed))
    };
    SEED_NAMES.iter().any(|seed| made_of(seed))
}

/// Whether a file at this path that contains the token is a copy that a program made by itself.
pub fn is_copy(path: &str) -> bool {
    match path.split_once('/') {
        None => is_editor_backup(path) || SEED_NAMES.iter().any(|seed| path.eq_ignore_ascii_case(seed)),
        Some((directory, _)) => {
            SYSTEM_DIRECTORIES.iter().any(|f| f.eq_ignore_ascii_case(directory))
                || directory.to_ascii_lowercase().starts_with(USER_TRASH_PREFIX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_distinguished_from_files_of_users() {
        for name in ["seed.toml~", ".seed.toml.swp", "._seed.toml", "SEED.TOML.BAK", "seed.toml.txt.bak", "#seed.toml#"]
        {
            assert!(is_editor_backup(name) && is_copy(name), "{name}");
        }
        for path in
            ["$Recycle.Bin/S-1-5-21/$R1.toml", ".Trash-1000/files/seed.toml", ".Spotlight-V100/Store/x", "Seed.toml"]
        {
            assert!(is_copy(path) && !is_editor_backup(path), "{path}");
        }
        for path in ["seed.toml.example", "notes.txt", "old/seed.toml", "my-seed.toml~", "~", "Trash/seed.toml"] {
            assert!(!is_copy(path) && !is_editor_backup(path), "{path}");
        }
    }

    /// docs/seed.md lists the names, as inline code.
    #[test]
    fn names_of_copies_are_documented() {
        let doc = std::fs::read_to_string("../docs/seed.md").unwrap();
        for (before, after) in COPY_AFFIXES {
            assert!(doc.contains(&format!("`{before}seed.toml{after}`")), "{before}seed.toml{after}");
        }
        for directory in SYSTEM_DIRECTORIES {
            assert!(doc.contains(&format!("`{directory}`")), "{directory}");
        }
    }
}
