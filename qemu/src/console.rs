// SPDX-License-Identifier: Apache-2.0
//! A guest's serial console, kept in a file: lines so far, and waiting for one.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Reads a console log; keeps no position, so that any line of the past can be asked for.
#[derive(Debug, Clone)]
pub struct Console(PathBuf);

impl Console {
    /// The console kept in `path`.
    pub fn new(path: PathBuf) -> Self {
        Console(path)
    }

    /// Where it is kept.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Everything so far, without the sequences that colour a terminal.
    pub fn text(&self) -> Result<String> {
        if !self.0.exists() {
            return Ok(String::new());
        }
        let bytes = std::fs::read(&self.0).with_context(|| format!("read console {}", self.0.display()))?;
        Ok(plain(&String::from_utf8_lossy(&bytes)))
    }

    /// The first line that holds `part`.
    pub fn find(&self, part: &str) -> Result<Option<String>> {
        Ok(self.text()?.lines().find(|line| line.contains(part)).map(str::to_owned))
    }

    /// How many lines hold `part`.
    pub fn count(&self, part: &str) -> Result<usize> {
        Ok(self.text()?.lines().filter(|line| line.contains(part)).count())
    }

    /// The last `lines` lines.
    pub fn tail(&self, lines: usize) -> String {
        let text = self.text().unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// An error when the kernel gave up or systemd dropped to its emergency shell: waiting on is of no use.
    pub fn check(&self) -> Result<()> {
        const FATAL: [&str; 4] =
            ["Kernel panic", "You are in emergency mode", "(initramfs)", "Synchronous Exception at"];
        for sign in FATAL {
            if let Some(line) = self.find(sign)? {
                bail!("keep the guest running; its console says: {}", line.trim());
            }
        }
        Ok(())
    }
}

/// Removes escape sequences (`ESC [ … letter`, `ESC ] … BEL`), carriage returns and other control characters.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => while chars.next().is_some_and(|c| !c.is_ascii_alphabetic()) {},
                Some(']') => {
                    // Ends with BEL, or with ESC \.
                    while let Some(c) = chars.next() {
                        if c == '\u{7}' {
                            break;
                        }
                        if c == '\u{1b}' {
                            chars.next();
                            break;
                        }
                    }
                }
                _ => {}
            },
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_whatever_their_colour() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        std::fs::write(&path, "\u{1b}[0;32mfirst\u{1b}[0m\r\n\u{1b}]0;title\u{7}firstboot: phase 1/13\r\n").unwrap();
        let console = Console::new(path);
        assert_eq!(console.find("firstboot:").unwrap().unwrap(), "firstboot: phase 1/13");
        assert_eq!(console.tail(2), "first\nfirstboot: phase 1/13");
        assert_eq!(console.count("first").unwrap(), 2);
        console.check().unwrap();
    }

    #[test]
    fn a_kernel_that_gave_up_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        std::fs::write(&path, "[    1.0] Kernel panic - not syncing: VFS\n").unwrap();
        assert_eq!(
            Console::new(path).check().unwrap_err().to_string(),
            "keep the guest running; its console says: [    1.0] Kernel panic - not syncing: VFS"
        );
    }
}
