// SPDX-License-Identifier: Apache-2.0
//! What uses the space of a root: each file with its bytes, and parts of the system by where files are.

use crate::erofs_reader::Root;
use anyhow::Result;
use erofs_rs::types::Inode;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bytes {
    /// As a program reads them.
    pub whole: u64,
    /// As the root has them: compressed.
    pub stored: u64,
}

impl Bytes {
    fn add(&mut self, other: Bytes) {
        self.whole += other.whole;
        self.stored += other.stored;
    }
}

/// The files of a root.
#[derive(Debug, Default)]
pub struct Space {
    /// Each file by its absolute path. Of files with several names, the first one counts.
    pub files: BTreeMap<String, Bytes>,
}

/// Parts of the system: how their paths begin, without the leading slash, and what they are. The first one that fits
/// counts.
const PARTS: [(&str, &[&str]); 9] = [
    ("Container images", &["usr/lib/firstboot/bundle/layers/"]),
    ("Kubernetes and container runtime", &["usr/lib/firstboot/bundle/bin/", "usr/lib/firstboot/bundle/cni/"]),
    ("Kernel modules", &["usr/lib/modules/"]),
    ("Firmware of hardware", &["usr/lib/firmware/"]),
    ("firstboot", &["usr/bin/firstboot", "usr/lib/firstboot/"]),
    ("Libraries", &["usr/lib/x86_64-linux-gnu/", "usr/lib/aarch64-linux-gnu/", "usr/lib64/"]),
    ("Programs of Debian", &["usr/bin/", "usr/sbin/", "usr/libexec/", "usr/lib/systemd/", "usr/lib/apt/"]),
    ("Time zones, licences, texts", &["usr/share/"]),
    ("Settings and other files", &[""]),
];

/// A part of the system.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub name: &'static str,
    /// Its files.
    pub bytes: Bytes,
    /// How many.
    pub files: usize,
}

impl Space {
    /// All parts that have files, the largest first.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts = PARTS.map(|(name, _)| Part { name, bytes: Bytes::default(), files: 0 });
        for (path, bytes) in &self.files {
            let fits = |begins: &&str| path.trim_start_matches('/').starts_with(*begins);
            if let Some(at) = PARTS.iter().position(|(_, begins)| begins.iter().any(&fits)) {
                parts[at].bytes.add(*bytes);
                parts[at].files += 1;
            }
        }
        let mut parts: Vec<Part> = parts.into_iter().filter(|part| part.files > 0).collect();
        parts.sort_by(|a, b| b.bytes.stored.cmp(&a.bytes.stored).then(a.name.cmp(b.name)));
        parts
    }

    /// The files that take the most, the largest first.
    pub fn largest(&self, most: usize) -> Vec<(&str, Bytes)> {
        let mut files: Vec<(&str, Bytes)> = self.files.iter().map(|(path, bytes)| (path.as_str(), *bytes)).collect();
        files.sort_by(|a, b| b.1.stored.cmp(&a.1.stored).then(a.0.cmp(b.0)));
        files.truncate(most);
        files
    }

    /// All files below a directory, which ends in a slash.
    pub fn below(&self, directory: &str) -> Bytes {
        let mut sum = Bytes::default();
        let files = self.files.range(directory.to_owned()..).take_while(|(path, _)| path.starts_with(directory));
        files.for_each(|(_, bytes)| sum.add(*bytes));
        sum
    }

    /// All files.
    pub fn sum(&self) -> Bytes {
        self.below("/")
    }
}

/// Measures every file of a root. Nothing is unpacked.
///
/// # Errors
/// When a directory or an inode cannot be read.
pub fn of(root: &Root) -> Result<Space> {
    let (mut space, mut seen) = (Space::default(), BTreeSet::new());
    let mut directories = vec![String::new()];
    while let Some(directory) = directories.pop() {
        let mut names: Vec<(String, Inode)> = root.names(&directory)?;
        names.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, node) in names {
            let path = format!("{directory}/{name}");
            if node.is_dir() {
                directories.push(path);
            } else if node.is_file() && seen.insert(node.id()) {
                let bytes = Bytes { whole: node.data_size(), stored: root.stored(&node)? };
                space.files.insert(path, bytes);
            }
        }
    }
    Ok(space)
}
