// SPDX-License-Identifier: Apache-2.0
//! Names and text of boot loader entries (UAPI Boot Loader Specification, type 1), with the counters of automatic boot
//! assessment: `firstboot-b+2-1.conf` is slot b, with 2 tries left and 1 done.

use anyhow::{Context, Result, ensure};
use std::fmt;

const PREFIX: &str = "firstboot-";
const SUFFIX: &str = ".conf";

/// How often a slot is tried before the other one is started again.
pub const TRIES: u32 = 3;

/// One of the two slots for a version of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// What an image is flashed with.
    A,
    /// What the first upgrade is written to.
    B,
}

impl Slot {
    /// `a` or `b`.
    pub fn letter(self) -> char {
        match self {
            Slot::A => 'a',
            Slot::B => 'b',
        }
    }

    /// The other one.
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }

    /// The slot with this letter.
    pub fn parse(text: &str) -> Option<Slot> {
        [Slot::A, Slot::B].into_iter().find(|slot| text == slot.letter().to_string())
    }

    /// The unified kernel image of this slot on the EFI system partition, as the firmware writes paths.
    pub fn kernel(self) -> String {
        format!("\\EFI\\firstboot\\{}.efi", self.letter())
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.letter())
    }
}

/// How often a slot on trial may still be tried, and how often it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries {
    /// Left; with none left the boot loader prefers every other entry.
    pub left: u32,
    /// Done.
    pub done: u32,
}

/// The name of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryName {
    /// Its slot.
    pub slot: Slot,
    /// Its counter; none once a boot of it was confirmed.
    pub tries: Option<Tries>,
}

impl EntryName {
    /// Reads a file name; `None` when it is no entry of ours. FAT keeps the case of long names and ignores it.
    pub fn parse(name: &str) -> Option<EntryName> {
        let name = name.to_ascii_lowercase();
        let stem = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let Some((slot, counter)) = stem.split_once('+') else {
            return Some(EntryName { slot: Slot::parse(stem)?, tries: None });
        };
        let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
        let tries = Tries { left: left.parse().ok()?, done: done.parse().ok()? };
        Some(EntryName { slot: Slot::parse(slot)?, tries: Some(tries) })
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.slot)?;
        match self.tries {
            Some(Tries { left, done: 0 }) => write!(f, "+{left}")?,
            Some(Tries { left, done }) => write!(f, "+{left}-{done}")?,
            None => {}
        }
        f.write_str(SUFFIX)
    }
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its slot.
    pub slot: Slot,
    /// Build time of the system in it, seconds since 1970: the newest is preferred.
    pub build_time: u64,
    /// Build id of the system in it.
    pub build_id: String,
    /// Hex SHA-256 of the slot's unified kernel image.
    pub sha256: String,
}

impl Entry {
    /// The file's text. `verify.efi` (crate `loader`) starts the kernel image only when its digest is this one.
    pub fn text(&self) -> String {
        format!(
            "title firstboot\nsort-key firstboot\nversion {}-{}\nefi /EFI/firstboot/verify.efi\noptions {} {}\n",
            self.build_time,
            self.build_id,
            self.slot.kernel(),
            self.sha256
        )
    }

    /// Reads an entry of this slot.
    ///
    /// # Errors
    /// When it lacks a key, or names another slot's kernel image.
    pub fn parse(slot: Slot, text: &str) -> Result<Entry> {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix([' ', '\t']));
            line.map(str::trim).with_context(|| format!("read the boot entry of slot {slot}: it lacks `{key}`"))
        };
        let (time, id) = value("version")?.split_once('-').context("read the boot entry: `version` has no build id")?;
        let (kernel, sha256) =
            value("options")?.split_once(' ').context("read the boot entry: `options` has no digest")?;
        ensure!(kernel == slot.kernel(), "read the boot entry of slot {slot}: it starts {kernel}");
        let hex = sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        ensure!(hex, "read the boot entry of slot {slot}: its digest is not 64 hexadecimal digits");
        Ok(Entry {
            slot,
            build_time: time.parse().context("read the boot entry: `version` does not begin with a time")?,
            build_id: id.to_owned(),
            sha256: sha256.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_systemd_boot_counts_them() {
        let named =
            |slot, tries: Option<(u32, u32)>| EntryName { slot, tries: tries.map(|(left, done)| Tries { left, done }) };
        for (name, entry) in [
            ("firstboot-a.conf", named(Slot::A, None)),
            ("firstboot-b+3.conf", named(Slot::B, Some((3, 0)))),
            ("firstboot-b+2-1.conf", named(Slot::B, Some((2, 1)))),
            ("firstboot-b+0-3.conf", named(Slot::B, Some((0, 3)))),
        ] {
            assert_eq!(EntryName::parse(name), Some(entry), "{name}");
            assert_eq!(entry.to_string(), name);
        }
        assert_eq!(EntryName::parse("FIRSTBOOT-A.CONF"), Some(named(Slot::A, None)));
        for name in ["firstboot-c.conf", "firstboot-a+x.conf", "firstboot-a.con", "other.conf", "firstboot-+1.conf"] {
            assert_eq!(EntryName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn an_entry_reads_back() {
        let entry = Entry { slot: Slot::B, build_time: 17, build_id: "ab12".into(), sha256: "0f".repeat(32) };
        let text = entry.text();
        assert_eq!(Entry::parse(Slot::B, &text).unwrap(), entry);
        let error = |slot, text: &str| Entry::parse(slot, text).unwrap_err().to_string();
        assert_eq!(error(Slot::A, &text), "read the boot entry of slot a: it starts \\EFI\\firstboot\\b.efi");
        assert_eq!(
            error(Slot::B, &text.replace("0f0f", "0F0F")),
            "read the boot entry of slot b: its digest is not 64 hexadecimal digits"
        );
        assert_eq!(error(Slot::B, "title x\n"), "read the boot entry of slot b: it lacks `version`");
    }
}
