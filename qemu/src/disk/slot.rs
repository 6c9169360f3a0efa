// SPDX-License-Identifier: Apache-2.0
//! A second version in slot b, put there from outside as an upgrade will from inside: root, kernel image and boot entry.
//!
//! It is the version of slot a with one more block behind its file system, which nothing reads: so its root hash is
//! another one, and either slot finds its own root.

use super::entry::{hex, read};
use super::{DiskImage, ROOT, SECOND_SLOT};
use anyhow::{Context, Result, bail};
use firstboot::boot_slot::ENTRIES;
use firstboot::boot_slot::entry::{Entry, EntryName, Slot, Tries};
use imagebuild::{uki, verity};
use initrd::command_line::CommandLine;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

/// What is wrong with the version in slot b.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Its kernel is no program; the kernel image is the one that the entry names.
    Kernel,
    /// The top block of its root's hash tree has a flipped bit.
    Root,
}

impl DiskImage {
    /// Fills slot b with a newer version that has this fault, on trial, with `words` on its kernel's command line. The disk
    /// must have been booted, or prepared.
    ///
    /// # Errors
    /// When the disk has no slot b, or cannot be read or written.
    pub fn fill_slot_b(&self, fault: Fault, words: &str) -> Result<()> {
        let fat = self.system_partition(true)?;
        let entry = read(&fat, &format!("{ENTRIES}/firstboot-a.conf"))?;
        let running = Entry::parse(Slot::A, &String::from_utf8_lossy(&entry))?;
        let mut image = read(&fat, "EFI/firstboot/a.efi")?;
        let line = uki::command_line(&image)?.to_owned();
        let root = self.fill_root_b(&line, fault)?;
        let own = line.split_whitespace().find(|word| word.starts_with("firstboot.root=")).context("find the root")?;
        let line = line.replace(own, &format!("firstboot.root={root}:B"));
        uki::set_command_line(&mut image, &format!("{line} {words}"))?;
        if fault == Fault::Kernel {
            let linux = uki::section(&image, ".linux")?;
            let at = linux.as_ptr() as usize - image.as_ptr() as usize;
            image[at..at + 4096].fill(0);
        }
        let entry = Entry {
            slot: Slot::B,
            build_time: running.build_time + 1,
            build_id: running.build_id,
            sha256: hex(&image),
        };
        let name = EntryName { slot: Slot::B, tries: Some(Tries { left: firstboot::boot_slot::TRIES, done: 0 }) };
        for (path, bytes) in
            [("EFI/firstboot/b.efi".to_owned(), &image[..]), (format!("{ENTRIES}/{name}"), entry.text().as_bytes())]
        {
            let mut file = fat.root_dir().create_file(&path).with_context(|| format!("create {path}"))?;
            let written = file.truncate().and_then(|()| file.write_all(bytes)).and_then(|()| file.flush());
            written.with_context(|| format!("write {path}"))?;
        }
        fat.unmount().context("close the EFI system partition")
    }

    /// Names of the boot entries, sorted.
    ///
    /// # Errors
    /// When the EFI system partition cannot be read.
    pub fn boot_entries(&self) -> Result<Vec<String>> {
        let fat = self.system_partition(false)?;
        let directory = fat.root_dir().open_dir(ENTRIES).with_context(|| format!("open {ENTRIES}"))?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            let name = entry.with_context(|| format!("list {ENTRIES}"))?.file_name();
            names.extend(Some(name).filter(|name| !name.starts_with('.')));
        }
        names.sort();
        Ok(names)
    }

    /// Writes the root of slot b; `HASH:BLOCKS` of it.
    fn fill_root_b(&self, line: &str, fault: Fault) -> Result<String> {
        let blocks = CommandLine::parse(line)?.root.blocks;
        let from = self.partition(ROOT)?;
        let Some(to) = self.named(SECOND_SLOT)? else { bail!("find {SECOND_SLOT} on {}", self.path().display()) };
        let disk = File::options().read(true).write(true).open(self.path());
        let disk = disk.with_context(|| format!("open {}", self.path().display()))?;
        let mut content = vec![0; blocks as usize * verity::BLOCK];
        disk.read_exact_at(&mut content, from.offset).context("read the root of slot a")?;
        content.resize(content.len() + verity::BLOCK, b'b');
        let mut alone = tempfile::NamedTempFile::new().context("create a file for a root")?;
        alone.write_all(&content).context("write a root")?;
        let tree = verity::tree(alone.path(), uuid::Uuid::nil())?;
        content.extend_from_slice(&tree.bytes);
        if fault == Fault::Root {
            let top = (tree.blocks as usize + 1) * verity::BLOCK;
            content[top + 7] ^= 1;
        }
        anyhow::ensure!(content.len() as u64 <= to.length, "fill {SECOND_SLOT}: it is too small");
        disk.write_all_at(&content, to.offset).context("write the root of slot b")?;
        Ok(format!("{}:{}", tree.root_hash, tree.blocks))
    }
}
