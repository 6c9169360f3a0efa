// SPDX-License-Identifier: Apache-2.0
//! A guest's serial console, kept in a file: lines so far, and waiting for one.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::{Path, PathBuf};

/// How a panic of the kernel begins.
const PANIC: &str = "Kernel panic";
/// How the first line of our initrd begins, with what it found or what it lacks.
const INITRD: &str = "initrd: ";

/// Reads a console log; keeps no position, so that every earlier line can be found.
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
        self.text_from(0)
    }

    /// Bytes so far.
    pub fn length(&self) -> u64 {
        self.0.metadata().map_or(0, |meta| meta.len())
    }

    /// The kernel's panic in the boot that began at byte `from`, when it came before the initrd's first line.
    pub fn early_panic(&self, from: u64) -> Result<Option<String>> {
        let text = self.text_from(from)?;
        Ok(text.lines().find(|line| line.contains(PANIC)).filter(|_| !text.contains(INITRD)).map(str::to_owned))
    }

    /// Removes what came after byte `from`; the guest has to be paused. QEMU appends, so it continues from there.
    pub fn forget(&self, from: u64) -> Result<()> {
        let file = File::options().write(true).open(&self.0);
        file.and_then(|file| file.set_len(from)).with_context(|| format!("shorten console {}", self.0.display()))
    }

    fn text_from(&self, from: u64) -> Result<String> {
        if !self.0.exists() {
            return Ok(String::new());
        }
        let bytes = std::fs::read(&self.0).with_context(|| format!("read console {}", self.0.display()))?;
        let bytes = usize::try_from(from).ok().and_then(|from| bytes.get(from..)).unwrap_or_default();
        Ok(plain(&String::from_utf8_lossy(bytes)))
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
        imagebuild::cmd::last_lines(&self.text().unwrap_or_default(), lines)
    }

    /// An error after a kernel panic or when systemd dropped to its emergency shell: waiting is useless then.
    pub fn check(&self) -> Result<()> {
        const FATAL: [&str; 4] = [PANIC, "You are in emergency mode", "(initramfs)", "Synchronous Exception at"];
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

    #[test]
    fn only_a_panic_before_the_initrd_is_an_early_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        let before = "[    1.0] Run /init as init process\ninitrd: root is /dev/vda3\n";
        let panic = "[    1.8] Kernel panic - not syncing: Fatal exception in interrupt\n";
        let from = before.len() as u64;
        std::fs::write(&path, before).unwrap();
        let console = Console::new(path.clone());
        assert_eq!(console.length(), from);
        assert_eq!(console.early_panic(from).unwrap(), None);
        std::fs::write(&path, format!("{before}{panic}")).unwrap();
        assert_eq!(console.early_panic(from).unwrap().unwrap(), panic.trim_end());
        assert_eq!(console.early_panic(0).unwrap(), None, "the initrd had the word");
        console.forget(from).unwrap();
        assert_eq!(console.text().unwrap(), before);
        console.check().unwrap();
    }
}
