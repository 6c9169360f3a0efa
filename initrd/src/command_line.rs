// SPDX-License-Identifier: Apache-2.0
//! What the kernel's command line asks of the initrd.

use crate::verity::Root;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// The words of the command line that are ours. Nothing of a board is compiled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// `firstboot.root=HASH:BLOCKS:SLOT`: the verified root.
    pub root: Root,
    /// Which slot this is: `a` or `b`.
    pub slot: char,
    /// `firstboot.slot-mib=N`: MiB of each root slot, once the disk is laid out.
    pub slot_mib: u64,
    /// `firstboot.rootwait=N`: how long the root's disk may take to appear.
    pub wait: Duration,
}

impl CommandLine {
    /// Reads the kernel's command line (`/proc/cmdline`). Of a word that stands twice, the last one counts, as for the
    /// kernel.
    ///
    /// # Errors
    /// When a word is missing or not of its form.
    pub fn parse(line: &str) -> Result<CommandLine> {
        let value = |key: &str| {
            let word = line.split_whitespace().filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')).next_back();
            word.with_context(|| format!("find {key}= on the kernel command line"))
        };
        let number = |key: &str| -> Result<u64> {
            let text = value(key)?;
            text.parse().with_context(|| format!("read {key}={text} on the kernel command line"))
        };
        let root = value("firstboot.root")?;
        let wrong = || format!("read firstboot.root={root} on the kernel command line: expected HASH:BLOCKS:SLOT");
        let mut parts = root.split(':');
        let mut part = || parts.next().with_context(wrong);
        let (hash, blocks, slot) = (part()?, part()?, part()?);
        ensure!(parts.next().is_none() && matches!(slot, "A" | "B"), wrong());
        Ok(CommandLine {
            root: Root::parse(hash, blocks).with_context(wrong)?,
            slot: if slot == "A" { 'a' } else { 'b' },
            slot_mib: number("firstboot.slot-mib")?,
            wait: Duration::from_secs(number("firstboot.rootwait")?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_read_and_the_last_one_counts() {
        let hash = "0a".repeat(32);
        let line = format!(
            "quiet firstboot.root={hash}:77000:B firstboot.slot-mib=768 firstboot.rootwait=60 console=ttyS0 \
             firstboot.rootwait=5\n"
        );
        let read = CommandLine::parse(&line).unwrap();
        assert_eq!((read.slot, read.slot_mib, read.wait.as_secs()), ('b', 768, 5));
        assert_eq!((read.root.hash, read.root.blocks), ([0x0a; 32], 77000));
        let error = |line: &str| CommandLine::parse(line).unwrap_err().to_string();
        assert_eq!(error("quiet"), "find firstboot.root= on the kernel command line");
        for bad in [
            "x:1:A".to_owned(),
            format!("{hash}:1"),
            format!("{hash}:0:A"),
            format!("{hash}:9:a"),
            format!("{hash}:9:A:b"),
        ] {
            assert_eq!(
                error(&format!("firstboot.root={bad} firstboot.slot-mib=1 firstboot.rootwait=1")),
                format!("read firstboot.root={bad} on the kernel command line: expected HASH:BLOCKS:SLOT")
            );
        }
        let wait = line.replace("rootwait=5", "rootwait=soon");
        assert_eq!(error(&wait), "read firstboot.rootwait=soon on the kernel command line");
    }
}
