// SPDX-License-Identifier: Apache-2.0
//! A second version in slot b, put there from outside as an upgrade will from inside: root, kernel image and boot entry.
//!
//! It is the version of slot a with one more block behind its file system, which nothing reads: so its root hash is
//! another one, and either slot finds its own root.

use super::entry::{CMDLINE, Fat, SYSTEM_A, hex, read};
use super::{DiskImage, FIRST_SLOT, SECOND_SLOT};
use anyhow::{Context, Result, bail};
use firstboot::boot_slot::ENTRIES;
use firstboot::boot_slot::autoboot::{self, Numbers, State};
use firstboot::boot_slot::entry::{Entry, EntryName, Slot, TRIES, Tries};
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
        if self.named(SYSTEM_A)?.is_some() {
            return self.fill_system_b(fault, words);
        }
        let fat = self.system_partition(true)?;
        let entry = read(&fat, &format!("{ENTRIES}/firstboot-a.conf"))?;
        let running = Entry::parse(Slot::A, &String::from_utf8_lossy(&entry))?;
        let mut image = read(&fat, "EFI/firstboot/a.efi")?;
        let line = uki::command_line(&image)?.to_owned();
        let line = self.line_of_slot_b(&line, fault, words)?;
        uki::set_command_line(&mut image, &line)?;
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
        let name = EntryName { slot: Slot::B, tries: Some(Tries { left: TRIES, done: 0 }) };
        for (path, bytes) in
            [("EFI/firstboot/b.efi".to_owned(), &image[..]), (format!("{ENTRIES}/{name}"), entry.text().as_bytes())]
        {
            put(&fat, &path, bytes)?;
        }
        fat.unmount().context("close the EFI system partition")
    }

    /// The same for a board whose firmware reads each slot from a partition of its own, and `autoboot.txt`.
    fn fill_system_b(&self, fault: Fault, words: &str) -> Result<()> {
        let line = self.command_line()?;
        let numbers = Numbers::of_command_line(&line).context("find the numbers of the slots' partitions")?;
        let line = self.line_of_slot_b(&line, fault, words)?;
        let (from, to) = (self.system_partition(false)?, self.fat(self.partition(numbers.b)?, true)?);
        for path in files_of(&from)? {
            let bytes = match path.as_str() {
                CMDLINE => format!("{line}\n").into_bytes(),
                "vmlinuz" if fault == Fault::Kernel => vec![0; 1 << 20],
                _ => read(&from, &path)?,
            };
            if let Some((directory, _)) = path.rsplit_once('/') {
                to.root_dir().create_dir(directory).with_context(|| format!("create {directory}"))?;
            }
            put(&to, &path, &bytes)?;
        }
        to.unmount().context("close the partition of slot b")?;
        let state = State::Trial { of: Slot::B, left: TRIES, ran: false };
        self.boot()?.write(autoboot::NAME, state.text(numbers).as_bytes())
    }

    /// What `autoboot.txt` says; `None` when it is damaged.
    ///
    /// # Errors
    /// When the disk cannot be read, or is of no such board.
    pub fn autoboot(&self) -> Result<Option<State>> {
        let numbers = Numbers::of_command_line(&self.command_line()?).context("find the numbers of the slots")?;
        let bytes = self.boot()?.read(autoboot::NAME)?.unwrap_or_default();
        Ok(State::parse(&bytes, numbers))
    }

    /// Writes the root of slot b, and returns the kernel's command line for it.
    fn line_of_slot_b(&self, line: &str, fault: Fault, words: &str) -> Result<String> {
        let root = self.fill_root_b(line, fault)?;
        let own = line.split_whitespace().find(|word| word.starts_with("firstboot.root=")).context("find the root")?;
        Ok(format!("{} {words}", line.replace(own, &format!("firstboot.root={root}:B"))))
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
        let from = self.named(FIRST_SLOT)?.with_context(|| format!("find {FIRST_SLOT}"))?;
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

/// Writes a file, whole.
fn put(fat: &Fat, path: &str, bytes: &[u8]) -> Result<()> {
    let mut file = fat.root_dir().create_file(path).with_context(|| format!("create {path}"))?;
    let written = file.truncate().and_then(|()| file.write_all(bytes)).and_then(|()| file.flush());
    written.with_context(|| format!("write {path}"))
}

/// Paths of all files, in the root directory and the directories there.
fn files_of(fat: &Fat) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for entry in fat.root_dir().iter() {
        let entry = entry.context("list a FAT partition")?;
        if !entry.is_dir() {
            paths.push(entry.file_name());
            continue;
        }
        for below in entry.to_dir().iter() {
            let below = below.with_context(|| format!("list {}", entry.file_name()))?;
            paths.extend(below.is_file().then(|| format!("{}/{}", entry.file_name(), below.file_name())));
        }
    }
    Ok(paths)
}
