// SPDX-License-Identifier: Apache-2.0
//! cpio archives in the format that the kernel unpacks ("newc", Documentation/driver-api/early-userspace
//! /buffer-format.rst), without times, owners or inode numbers of the build machine.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive being written.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    count: u32,
    directories: BTreeSet<String>,
}

impl Archive {
    /// Adds a directory; a second time does nothing.
    pub fn directory(&mut self, name: &str, mode: u32) {
        if self.directories.insert(name.to_owned()) {
            self.entry(name, DIRECTORY | mode, &[], (0, 0));
        }
    }

    /// Adds a file.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, FILE | mode, content, (0, 0));
    }

    /// Adds a character device.
    pub fn device(&mut self, name: &str, mode: u32, major: u32, minor: u32) {
        self.entry(name, CHARACTER_DEVICE | mode, &[], (major, minor));
    }

    /// Adds all directories and files below `dir`, sorted, under `prefix` (empty, or with a slash at its end).
    pub fn tree(&mut self, dir: &Path, prefix: &str) -> Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        for name in names {
            let path = dir.join(&name);
            let inside = format!("{prefix}{name}");
            if path.is_dir() {
                self.directory(&inside, 0o755);
                self.tree(&path, &format!("{inside}/"))?;
            } else {
                self.file(&inside, 0o644, &fs::read(&path).with_context(|| format!("read {}", path.display()))?);
            }
        }
        Ok(())
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8], (major, minor): (u32, u32)) {
        self.count += 1;
        let links = if mode & DIRECTORY != 0 && mode & FILE == 0 { 2 } else { 1 };
        let size = content.len() as u32;
        let fields = [self.count, mode, 0, 0, links, 0, size, 0, 0, major, minor, name.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        let length = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_end_with_the_trailer() {
        let mut archive = Archive::default();
        archive.directory("bin", 0o755);
        archive.directory("bin", 0o755);
        archive.file("bin/x", 0o755, b"hello");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 3);
        assert!(text.contains("hello\0\0\x00070701") && text.contains("TRAILER!!!"));
        assert!(text.starts_with("07070100000001000041ED"));
    }
}
