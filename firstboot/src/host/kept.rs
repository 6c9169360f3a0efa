// SPDX-License-Identifier: Apache-2.0
//! Files that firstboot keeps for itself, in two copies: no damaged byte of either costs what they say.
//!
//! Beside a file (for one elsewhere: in the state directory) is `NAME.copy`: one line `1 CRC LENGTH BEFORE`, then
//! the same content. LENGTH is its bytes, BEFORE the CRC-32 of the file that this content replaces (`-`: none), CRC that of
//! all that follows it. The copy is written first. So of the two
//! - a copy that fits its own line is right, whatever the file says;
//! - a file that is BEFORE is one whose update a power cut has interrupted: no damage;
//! - a copy that does not fit its line is damaged, and the file stands in.

use super::{Host, STATE_DIR};
use anyhow::Result;

/// A file that firstboot keeps. This table is the list of all of them but the journal, which has a form of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptFile {
    /// Absolute path on the device.
    pub path: &'static str,
    /// Mode bits.
    pub mode: u32,
}

/// The last status. Written by [`crate::report`], read by `firstboot status` and the next boot; gone with a reset.
pub const STATUS: KeptFile = KeptFile { path: "/var/lib/firstboot/status.json", mode: 0o644 };
/// What the packet filter knows of the cluster. Written by [`crate::firewall`], read by the guard; gone with a reset.
pub const FIREWALL: KeptFile = KeptFile { path: "/var/lib/firstboot/firewall.json", mode: 0o600 };
/// Copies of the files that the node does not start without. Written at the seal, read by the guard; gone with a reset.
pub const NODE_FILES: KeptFile = KeptFile { path: "/var/lib/firstboot/node-files.json", mode: 0o600 };
/// The last verified time, seconds since 1970 UTC. Written and read by [`crate::clock`]; gone with a reset.
pub const VERIFIED_TIME: KeptFile = KeptFile { path: "/var/lib/firstboot/verified-time", mode: 0o600 };
/// How the device joined. Written at the seal, read by the support archive; gone with a reset.
pub const RECEIPT: KeptFile = KeptFile { path: "/var/lib/firstboot/receipt.json", mode: 0o600 };
/// What the seed has otherwise than the hardened host. Written by the phase `harden`, read by guard and audit; gone with a
/// reset.
pub const OVERRIDES: KeptFile = KeptFile { path: "/etc/firstboot/harden.json", mode: 0o644 };
/// All of them.
pub const KEPT_FILES: [KeptFile; 6] = [STATUS, FIREWALL, NODE_FILES, VERIFIED_TIME, RECEIPT, OVERRIDES];

/// What is left of a file and its copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The content; none when neither is there, or nothing of them can be used.
    pub bytes: Option<Vec<u8>>,
    /// What is damaged.
    pub damage: Option<Damage>,
}

/// Which of the two is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The file; its copy stands in.
    File,
    /// The copy; the file stands in, if it is there.
    Copy,
}

/// The copy's text for this content.
#[must_use]
pub fn copy_of(content: &[u8], before: Option<&[u8]>) -> Vec<u8> {
    let before = before.map_or("-".to_owned(), |bytes| format!("{:08x}", crc32fast::hash(bytes)));
    let rest = [format!("{} {before}\n", content.len()).as_bytes(), content].concat();
    [format!("1 {:08x} ", crc32fast::hash(&rest)).as_bytes(), &rest].concat()
}

/// What a copy says: its content and the checksum of what that replaced.
fn content_of(copy: &[u8]) -> Option<(&[u8], Option<u32>)> {
    let rest = copy.strip_prefix(b"1 ")?;
    let (crc, rest) = (rest.get(..8)?, rest.get(8..)?.strip_prefix(b" ")?);
    if crc != format!("{:08x}", crc32fast::hash(rest)).as_bytes() {
        return None;
    }
    let end = rest.iter().position(|b| *b == b'\n')?;
    let (_, before) = std::str::from_utf8(&rest[..end]).ok()?.split_once(' ')?;
    Some((&rest[end + 1..], u32::from_str_radix(before, 16).ok()))
}

/// What a file and its copy come to.
#[must_use]
pub fn judge(file: Option<Vec<u8>>, copy: Option<Vec<u8>>) -> Reading {
    let Some(copy) = copy else { return Reading { bytes: file, damage: None } };
    let Some((content, before)) = content_of(&copy) else {
        return Reading { bytes: file, damage: Some(Damage::Copy) };
    };
    let now = file.as_deref().map(crc32fast::hash);
    let damage = (file.as_deref() != Some(content) && now != before).then_some(Damage::File);
    Reading { bytes: Some(content.to_vec()), damage }
}

/// Where the copy of a file is.
#[must_use]
pub fn copy_path(path: &str) -> String {
    // An image brings the copies of its own files.
    match super::is_below(path, STATE_DIR) || super::is_below(path, "/usr") {
        true => format!("{path}.copy"),
        false => format!("{STATE_DIR}/{}.copy", path.rsplit('/').next().unwrap_or_default()),
    }
}

impl Host {
    /// Reads a kept file. Damage is no error, and neither is a file that cannot be read at all.
    pub fn read_kept(&self, path: &str) -> Reading {
        let file = self.read(path);
        let unreadable = file.is_err();
        let reading = judge(file.unwrap_or_default(), self.read(&copy_path(path)).unwrap_or_default());
        match unreadable {
            true => Reading { damage: Some(Damage::File), ..reading },
            false => reading,
        }
    }

    /// Makes a kept file and its copy hold exactly these bytes.
    ///
    /// # Errors
    /// When one of them cannot be written.
    pub fn keep(&self, file: KeptFile, bytes: &[u8]) -> Result<()> {
        self.keep_at(file.path, bytes, file.mode)
    }

    /// [`Host::keep`] for any path.
    ///
    /// # Errors
    /// As [`Host::keep`].
    pub(super) fn keep_at(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let copy = copy_path(path);
        let there = self.read(path).unwrap_or_default();
        let good = self.read(&copy)?.as_deref().and_then(content_of).is_some_and(|(content, _)| content == bytes);
        if !good {
            // The status is one that is written often.
            let public = mode & 0o077 != 0;
            self.put(&copy, &copy_of(bytes, there.as_deref()), mode & 0o600, !public)?;
        }
        self.write(path, bytes, mode)
    }

    /// Writes a file that is nothing but a copy, with the line by which damage to it is noticed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_copy(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        self.write(path, &copy_of(bytes, None), mode)
    }

    /// Content of such a file; none where there is none or it is damaged.
    pub fn read_copy(&self, path: &str) -> Option<Vec<u8>> {
        let bytes = self.read(path).ok()??;
        content_of(&bytes).map(|(content, _)| content.to_vec())
    }

    /// Repairs every kept file of which one copy is damaged, or whose last update was interrupted. What was damaged is kept
    /// beside as `NAME.damaged`, said, and noted.
    ///
    /// # Errors
    /// The first file that cannot be written; the others are repaired all the same.
    pub fn repair_kept(&self) -> Result<()> {
        let backups = format!("{STATE_DIR}/backup");
        let names = self.list(&backups).unwrap_or_default();
        let backups = names.iter().filter_map(|n| n.strip_suffix(".copy")).map(|n| (format!("{backups}/{n}"), None));
        let kept = KEPT_FILES.iter().map(|file| (file.path.to_owned(), Some(file.mode)));
        let mut failed = None;
        for (path, mode) in kept.chain(backups) {
            if let Err(error) = self.repair_one(&path, mode) {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn repair_one(&self, path: &str, mode: Option<u32>) -> Result<()> {
        let reading = self.read_kept(path);
        let Some(bytes) = &reading.bytes else {
            // Both are useless: a copy that fits nothing would be reported again at every boot.
            if reading.damage.is_some() {
                self.quarantine(path)?;
                self.remove(&copy_path(path))?;
                self.note_damage(&format!("read {path}: the file and its copy are damaged"))?;
            }
            return Ok(());
        };
        let mode = match mode {
            Some(mode) => mode,
            None => self.size_and_mode(path)?.map_or(0o600, |(_, mode)| mode),
        };
        match reading.damage {
            None if self.read(path)?.as_ref() == Some(bytes) => Ok(()),
            // A power cut came between the copy and the file.
            None => self.write(path, bytes, mode),
            Some(Damage::Copy) => {
                self.write(&copy_path(path), &copy_of(bytes, None), mode & 0o600)?;
                self.note_damage(&format!("read {}: it was damaged", copy_path(path)))
            }
            Some(Damage::File) => {
                self.quarantine(path)?;
                self.write(path, bytes, mode)?;
                self.note_damage(&format!("read {path}: it was damaged"))
            }
        }
    }
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
