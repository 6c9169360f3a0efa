// SPDX-License-Identifier: Apache-2.0
//! Taking things back: trees, single directories, copies that were kept. For a reset, and for a runtime that is set aside.
//!
//! No symbolic link is followed at or below the path that is named, and no mount below it is entered: where it leads and
//! what is mounted there may be a person's data, so a tree with a mount in it is a fault and is not removed.

use super::overwrite::{self, Secret};
use super::{Host, parts, split};
use crate::flush::{self, FlushSite};
use crate::journal::{Effect, Record};
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::fchown;

const MOUNTED: &str = "something is still mounted there";

/// Whether a path is to be left alone.
pub type Keep<'a> = &'a dyn Fn(&str) -> bool;

/// How many directories are open at once, one below the other. What pods put deeper than that is moved up first: how deep
/// a tree is, and how many names it has, the pods have decided, and neither may take memory or file descriptors of ours.
/// No path that is kept is so deep ([`super::exclusions::DEEPEST`]).
const OPEN: usize = 128;
/// Name at the top of a tree, with a number, of what was too deep in it.
const MOVED_UP: &str = ".firstboot-remove-";

/// A directory that is being emptied.
struct Level {
    /// Read name by name. What a directory lists while it is being emptied is left open (readdir(3)), so it is read once
    /// more after a time in which something went.
    dir: fs::Dir,
    /// In the directory above.
    name: CString,
    path: String,
    /// Whether something went since it was read from its beginning.
    changed: bool,
}

impl Level {
    fn of(dir: OwnedFd, name: CString, path: String) -> Result<Self> {
        let dir = fs::Dir::new(dir).with_context(|| format!("list {path}"))?;
        Ok(Level { dir, name, path, changed: false })
    }

    fn fd(&self) -> Result<BorrowedFd<'_>> {
        self.dir.fd().with_context(|| format!("use {}", self.path))
    }

    /// The next name; `None` when all that is left was looked at without a change.
    fn next(&mut self) -> Result<Option<CString>> {
        loop {
            match self.dir.read() {
                Some(entry) => {
                    let entry = entry.with_context(|| format!("list {}", self.path))?;
                    if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                        return Ok(Some(entry.file_name().to_owned()));
                    }
                }
                None if std::mem::take(&mut self.changed) => self.dir.rewind(),
                None => return Ok(None),
            }
        }
    }
}

impl Host {
    /// Whether there is anything at a path; a symbolic link counts, wherever it leads.
    pub fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.entry(path)?.is_some())
    }

    /// Removes a file or link; one that only root may read is overwritten first. Nothing happens when it is not
    /// there, or a directory.
    pub fn remove_entry(&self, path: &str) -> Result<()> {
        let Some((directory, stat)) = self.entry(path)? else { return Ok(()) };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(());
        }
        let (_, name) = split(path)?;
        self.drop_file(directory.as_fd(), name, path, &stat)?;
        flush::directory(FlushSite::EntryRemoved, &directory).with_context(|| format!("flush the directory of {path}"))
    }

    /// Removes a directory if nothing is in it. One that holds something, or is mounted on, stays.
    pub fn remove_directory(&self, path: &str) -> Result<()> {
        let Some((directory, stat)) = self.entry(path)? else { return Ok(()) };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory || !self.list(path)?.is_empty() {
            return Ok(());
        }
        let (_, name) = split(path)?;
        self.effect(path, || format!("remove {path}"))?;
        match fs::unlinkat(&directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::BUSY) => Ok(()),
            Err(e) => Err(e).with_context(|| format!("remove {path}")),
        }
    }

    /// Removes a directory with everything in it, but for what is kept.
    ///
    /// # Errors
    /// When it is a symbolic link, something is mounted below it, or something cannot be removed.
    pub fn remove_tree(&self, path: &str, keep: Keep<'_>) -> Result<()> {
        if keep(path) {
            return Ok(());
        }
        self.empty_directory(path, keep)?;
        self.remove_directory(path)
    }

    /// The same, but the directory itself stays.
    pub fn empty_directory(&self, path: &str, keep: Keep<'_>) -> Result<()> {
        ensure!(parts(path)?.len() > 1, "remove {path}: it is a part of the system");
        let Some((directory, stat)) = self.entry(path)? else { return Ok(()) };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {}
            FileType::Symlink => {
                bail!("remove {path}: it is a symbolic link, and its target may be a person's data")
            }
            _ => return Ok(()),
        }
        let (_, name) = split(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = fs::openat(directory, name, flags, Mode::empty()).with_context(|| format!("open {path}"))?;
        self.empty(Level::of(dir, CString::default(), path.to_owned())?, keep)
    }

    /// Not by calling itself, and with a bounded number of open directories ([`OPEN`]).
    fn empty(&self, top: Level, keep: Keep<'_>) -> Result<()> {
        let mut levels = vec![top];
        let mut moved = 0u64;
        loop {
            let full = levels.len() >= OPEN;
            let Some(level) = levels.last_mut() else { return Ok(()) };
            let Some(name) = level.next()? else {
                let (Some(done), Some(above)) = (levels.pop(), levels.last_mut()) else { return Ok(()) };
                above.changed |= self.drop_directory(above.fd()?, &done)?;
                continue;
            };
            let shown = format!("{}/{}", level.path, name.to_string_lossy());
            if keep(&shown) {
                continue;
            }
            let stat = match fs::statat(level.fd()?, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(e).with_context(|| format!("look at {shown}")),
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                self.drop_file(level.fd()?, name.as_c_str(), &shown, &stat)?;
                level.changed = true;
                continue;
            }
            if full {
                self.move_up(&mut levels, &name, &shown, &mut moved)?;
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let below = match fs::openat2(level.fd()?, &name, flags, Mode::empty(), ResolveFlags::NO_XDEV) {
                Ok(below) => below,
                Err(Errno::XDEV) => bail!("remove {shown}: {MOUNTED}"),
                Err(e) => return Err(e).with_context(|| format!("open {shown}")),
            };
            levels.push(Level::of(below, name, shown)?);
        }
    }

    /// Moves the directory `name` of the deepest level to the top of the tree, where it is removed like everything else.
    fn move_up(&self, levels: &mut [Level], name: &CString, shown: &str, moved: &mut u64) -> Result<()> {
        let [top, .., deepest] = levels else { bail!("move {shown} up: it is not below {OPEN} directories") };
        self.effect(shown, || format!("move {shown} up"))?;
        loop {
            let new = format!("{MOVED_UP}{moved}");
            match fs::renameat_with(deepest.fd()?, name, top.fd()?, new, RenameFlags::NOREPLACE) {
                // A name of an earlier attempt that was cut off.
                Err(Errno::EXIST) => *moved += 1,
                Err(Errno::BUSY | Errno::XDEV) => bail!("remove {shown}: {MOUNTED}"),
                other => {
                    other.with_context(|| format!("move {shown} up"))?;
                    (top.changed, deepest.changed) = (true, true);
                    return Ok(());
                }
            }
        }
    }

    /// Removes an emptied directory; whether it went. One that contains what is kept stays.
    fn drop_directory(&self, above: BorrowedFd<'_>, directory: &Level) -> Result<bool> {
        let path = &directory.path;
        self.effect(path, || format!("remove {path}"))?;
        match fs::unlinkat(above, &directory.name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Errno::NOTEMPTY) => Ok(false),
            Err(e) => Err(e).with_context(|| format!("remove {path}")),
        }
    }

    /// Unlinks one file. What only root may read, a key for instance, is overwritten in place first.
    fn drop_file<P: rustix::path::Arg + Copy>(
        &self,
        dir: BorrowedFd<'_>,
        name: P,
        path: &str,
        stat: &Stat,
    ) -> Result<()> {
        if overwrite::is_secret(stat) {
            self.effect(path, || format!("overwrite {path}"))?;
            match Secret::open(dir, name, stat) {
                Ok(secret) => secret.overwrite(path)?,
                // Another program's file would be overwritten.
                Err(Errno::XDEV) => bail!("remove {path}: {MOUNTED}"),
                // A file that cannot be written, immutable for instance, cannot be removed either: that is reported below.
                Err(_) => {}
            }
        }
        self.effect(path, || format!("remove {path}"))?;
        match fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::BUSY) => bail!("remove {path}: {MOUNTED}"),
            Err(e) => Err(e).with_context(|| format!("remove {path}")),
        }
    }

    /// Renames a directory to `to`, beside it. That is on record first, so that a reset takes it away. Nothing happens where
    /// there is none.
    ///
    /// # Errors
    /// When it is a symbolic link, or something is mounted on it.
    pub fn move_aside(&self, path: &str, to: &str) -> Result<()> {
        let Some((directory, stat)) = self.entry(path)? else { return Ok(()) };
        ensure!(
            FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
            "move {path} aside: it is no directory, and its target may be a person's data"
        );
        let ((above, name), (beside, new)) = (split(path)?, split(to)?);
        ensure!(above == beside, "move {path} aside: {to} is in another directory");
        if !self.journal.borrow().knows(to) {
            self.record(Record::Effect(Effect::Tree { path: to.into() }))?;
        }
        self.effect(path, || format!("move {path} aside"))?;
        fs::renameat(&directory, name, &directory, new).with_context(|| format!("move {path} aside"))?;
        flush::directory(FlushSite::DirectoryMoved, &directory).with_context(|| format!("flush {above}"))
    }

    /// Puts back what stood at `path` before firstboot's first change, from the copy that was kept. The owner is that of
    /// what stands there now: firstboot never changes it.
    pub fn restore(&self, path: &str, backup: &str) -> Result<()> {
        if let Some(target) = self.read_link(backup)? {
            return match self.read_link(path)?.as_deref() == Some(target.as_str()) {
                true => Ok(()),
                false => self.symlink(path, &target),
            };
        }
        let Some(bytes) = self.read_kept(backup).bytes else { bail!("put {path} back: its copy {backup} is gone") };
        let mode = self.size_and_mode(backup)?.map_or(0o600, |(_, mode)| mode);
        let now = self.entry(path)?.map(|(_, stat)| stat);
        let same_mode = now.as_ref().is_some_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile)
            && self.size_and_mode(path)?.is_some_and(|(_, m)| m == mode);
        if same_mode && self.read(path)?.as_deref() == Some(&bytes) {
            return Ok(());
        }
        self.mkdir(split(path)?.0, 0o755)?;
        let mut writer = self.create(path, mode)?;
        writer.file.write_all(&bytes).with_context(|| format!("write {path}"))?;
        if let Some(stat) = now {
            fchown(&writer.file, Some(stat.st_uid), Some(stat.st_gid))
                .with_context(|| format!("give {path} back to its owner"))?;
        }
        self.finish(writer)
    }

    /// Flushes the file systems to which this device writes: with a verified root, /etc and /var are on others.
    pub(crate) fn flush(&self, site: FlushSite) -> Result<()> {
        self.effect("flush", || "flush the file systems".to_owned())?;
        for path in ["/", "/etc", "/var"] {
            let directory = self.directory(path)?;
            flush::file_system(site, directory).with_context(|| format!("flush the file system of {path}"))?;
        }
        Ok(())
    }

    /// What stands at a path; none where there is nothing. A symbolic link is one.
    pub(super) fn kind(&self, path: &str) -> Result<Option<FileType>> {
        Ok(self.entry(path)?.map(|(_, stat)| FileType::from_raw_mode(stat.st_mode)))
    }

    /// The directory that holds `path`, and what stands there.
    fn entry(&self, path: &str) -> Result<Option<(OwnedFd, Stat)>> {
        let (dir, name) = split(path)?;
        let directory = match self.open_below(dir, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("open directory {dir}")),
        };
        match fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some((directory, stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("look at {path}")),
        }
    }
}

#[cfg(test)]
#[path = "remove_tests.rs"]
mod tests;
