// SPDX-License-Identifier: Apache-2.0
//! The one door to the machine: every file is written and every command run through [`Host`].
//!
//! Paths are absolute as on the device and resolved below a root directory by the kernel (`openat2` with
//! `RESOLVE_IN_ROOT`), so that no symbolic link leads out of it. Before a path is changed for the first time, the
//! effect is on record in the journal. Files are replaced whole: written beside, flushed, renamed, directory flushed.
#![allow(clippy::disallowed_methods)] // this is the door

mod copy;
pub mod exclusions;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod journald;
pub mod kept;
mod linux;
mod lock;
pub mod managed_files;
pub mod mounts;
mod overwrite;
mod read;
mod records;
mod remove;
mod stamp;
mod system;

pub use journald::Field;
pub use linux::Linux;
#[cfg(test)]
pub(crate) use linux::fill;
pub use stamp::Stamp;
pub use system::{RETRY, System};

use crate::flush::{self, FlushSite};
use crate::journal::{Effect, Journal, Record};
use crate::text::hex;
use anyhow::{Context, Result, bail, ensure};
use lock::{Lock, LockGuard};
use overwrite::Secret;
use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::cell::{Ref, RefCell};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::fchown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The directory that holds everything firstboot keeps for itself.
pub const STATE_DIR: &str = "/var/lib/firstboot";

/// The machine, seen through its root directory.
pub struct Host {
    root: OwnedFd,
    root_path: PathBuf,
    sys: Box<dyn System>,
    journal: RefCell<Journal>,
    lock: Arc<Lock>,
    reading: bool,
    seen: RefCell<BTreeSet<String>>,
}

impl Host {
    /// Opens the machine whose root directory is `root` (`/` on the device) and reads its journal. Nothing is written and
    /// no lock is taken before the first effect, so a damaged journal or a read-only disk hinders no reader.
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn open(root: &Path, sys: Box<dyn System>) -> Result<Self> {
        let fd = fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("open {}", root.display()))?;
        let journal = RefCell::new(Journal::read(root));
        let (root_path, lock) = (root.to_owned(), Arc::default());
        Ok(Host { root: fd, root_path, sys, journal, lock, reading: false, seen: RefCell::default() })
    }

    /// [`Host::open`] for a command that only looks: whatever would change this device fails.
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn reading(root: &Path, sys: Box<dyn System>) -> Result<Self> {
        Ok(Host { reading: true, ..Host::open(root, sys)? })
    }

    /// Whether this process only looks.
    pub fn is_reading(&self) -> bool {
        self.reading
    }

    /// Keeps other firstboot processes from writing until the guard is dropped; makes the state directory first. A
    /// process may hold it several times.
    ///
    /// # Errors
    /// When the state directory cannot be made, or another process has held the lock for a minute.
    fn lock(&self) -> Result<LockGuard> {
        let state = self.root_path.join(STATE_DIR.trim_start_matches('/'));
        ensure!(!self.reading, "lock {}: this command only reads", state.display());
        Lock::acquire(&self.lock, &state)
    }

    /// What was done so far.
    pub fn journal(&self) -> Ref<'_, Journal> {
        self.journal.borrow()
    }

    /// About to change something: a test may stop here, or fail as the kernel would; `shown` is what failed then.
    fn effect(&self, what: &str, shown: impl FnOnce() -> String) -> Result<()> {
        if self.reading {
            return Err(anyhow::anyhow!("this command only reads")).with_context(shown);
        }
        self.sys.before_effect(what).with_context(shown)
    }

    fn command(&self, argv: &[&str]) -> Result<()> {
        let shown = || format!("start {}", argv.first().copied().unwrap_or_default());
        self.sys.before_effect(&argv.join(" ")).with_context(shown)
    }

    /// Writes a kernel setting.
    pub fn set_kernel(&self, path: &str, value: &str) -> Result<()> {
        self.effect(path, || format!("set {path} to {value}"))?;
        self.sys.set_kernel(path, value)
    }

    /// Sets the running kernel's host name.
    pub fn set_hostname(&self, name: &str) -> Result<()> {
        self.effect("host name", || format!("set the host name to {name}"))?;
        self.sys.set_hostname(name)
    }

    /// Unmounts what is mounted at a path.
    pub fn unmount(&self, path: &str, remote: bool) -> Result<()> {
        self.effect(path, || format!("unmount {path}"))?;
        self.sys.unmount(path, remote)
    }

    /// Sets the wall clock.
    pub fn set_clock(&self, to: SystemTime) -> Result<()> {
        self.effect("clock", || "set the clock".to_owned())?;
        self.sys.set_clock(to)
    }

    /// Changes a file on the boot partition, which has a writer of its own.
    pub fn change_boot<T>(&self, verb: &str, name: &str, change: impl FnOnce() -> Result<T>) -> Result<T> {
        self.effect(&format!("boot partition: {verb} {name}"), || format!("{verb} {name} on the boot partition"))?;
        change()
    }

    /// The machine beyond its files.
    pub fn sys(&self) -> &dyn System {
        &*self.sys
    }

    /// Whether this process has not asked this before: for what is to be said once.
    pub fn first_time(&self, what: &str) -> bool {
        self.seen.borrow_mut().insert(what.to_owned())
    }

    /// Wall-clock time.
    pub fn now(&self) -> SystemTime {
        self.sys.now()
    }

    /// Makes a file hold exactly `bytes` with `mode`. Does nothing when it already does. What only root could read of the
    /// file that is replaced is overwritten.
    pub fn write(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        self.put(path, bytes, mode, true)
    }

    /// The same; `erase` is whether the old file may hold a secret at all.
    fn put(&self, path: &str, bytes: &[u8], mode: u32, erase: bool) -> Result<()> {
        let held = self.read(path)?.as_deref() == Some(bytes) && self.read_link(path)?.is_none();
        if held && self.size_and_mode(path)?.is_some_and(|(_, m)| m == mode) {
            return Ok(());
        }
        let _lock = self.lock()?;
        self.prepare(path)?;
        let mut writer = self.create(path, mode)?;
        writer.erase = erase;
        writer.file.write_all(bytes).with_context(|| format!("write {path}"))?;
        self.finish(writer)
    }

    /// Writes a file that a person asked for. It is not the device's: nothing is recorded, and a reset leaves it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn export(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let (dir, name) = split(path)?;
        let dir = self.directory(dir)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&dir, name, flags, Mode::from_raw_mode(mode)).with_context(|| format!("create {path}"))?;
        let mut file = File::from(fd);
        let flush = |file: &File| flush::file(FlushSite::FileExported, file);
        file.write_all(bytes).and_then(|()| flush(&file)).with_context(|| format!("write {path}"))
    }

    /// Makes a symbolic link. Does nothing when it is already so.
    pub fn symlink(&self, path: &str, target: &str) -> Result<()> {
        if self.read_link(path)?.as_deref() == Some(target) {
            return Ok(());
        }
        let _lock = self.lock()?;
        self.prepare(path)?;
        self.effect(path, || format!("create link {path}"))?;
        let (dir, name) = split(path)?;
        let dir = self.directory(dir)?;
        let temporary = format!(".{name}.firstboot");
        let _ = fs::unlinkat(&dir, &temporary, AtFlags::empty());
        fs::symlinkat(target, &dir, &temporary).with_context(|| format!("create link {path}"))?;
        let old = Secret::at(dir.as_fd(), name);
        self.effect(path, || format!("rename to {path}"))?;
        fs::renameat(&dir, &temporary, &dir, name).with_context(|| format!("rename to {path}"))?;
        flush::directory(FlushSite::LinkRenamed, &dir).with_context(|| format!("flush the directory of {path}"))?;
        self.erase(old, path)
    }

    /// Enables a unit by the link `path` to it, recording it first. Does nothing when it is already so.
    ///
    /// # Errors
    /// When the link cannot be made.
    pub fn enable_unit(&self, path: &str, target: &str) -> Result<()> {
        if !self.journal().knows(path) && !self.exists(path)? {
            self.mkdir(split(path)?.0, 0o755)?;
            let unit = split(path)?.1.to_owned();
            self.record(Record::Effect(Effect::Enabled { unit, path: path.to_owned() }))?;
        }
        self.symlink(path, target)
    }

    /// Makes a directory and those above it; existing ones keep their mode.
    pub fn mkdir(&self, path: &str, mode: u32) -> Result<()> {
        let mut at = String::new();
        let parts: Vec<&str> = parts(path)?;
        for (index, part) in parts.iter().enumerate() {
            let above = if at.is_empty() { "/".to_owned() } else { at.clone() };
            at = format!("{at}/{part}");
            if self.open_below(&at, OFlags::PATH | OFlags::DIRECTORY).is_ok() {
                continue;
            }
            if !is_below(&at, "/run") && !self.journal.borrow().knows(&at) {
                self.record(Record::Effect(Effect::Directory { path: at.clone() }))?;
            }
            self.effect(&at, || format!("create directory {at}"))?;
            let parent =
                self.open_below(&above, OFlags::RDONLY | OFlags::DIRECTORY).with_context(|| format!("open {above}"))?;
            let bits = Mode::from_raw_mode(if index + 1 == parts.len() { mode } else { 0o755 });
            fs::mkdirat(&parent, *part, bits).with_context(|| format!("create directory {at}"))?;
            let made =
                self.open_below(&at, OFlags::RDONLY | OFlags::DIRECTORY).with_context(|| format!("open {at}"))?;
            fs::fchmod(made, bits).with_context(|| format!("set the mode of {at}"))?;
            flush::directory(FlushSite::DirectoryCreated, parent).with_context(|| format!("flush {above}"))?;
        }
        Ok(())
    }

    /// Removes a file or link that firstboot made, and overwrites what only root could read of it. Nothing happens when it is
    /// not there.
    pub fn remove(&self, path: &str) -> Result<()> {
        self.effect(path, || format!("remove {path}"))?;
        let (dir, name) = split(path)?;
        let Ok(dir) = self.open_below(dir, OFlags::RDONLY | OFlags::DIRECTORY) else { return Ok(()) };
        let old = Secret::at(dir.as_fd(), name);
        match fs::unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) => {
                let flushed = flush::directory(FlushSite::FileRemoved, &dir);
                flushed.with_context(|| format!("flush the directory of {path}"))?;
                self.erase(old, path)
            }
            Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e).with_context(|| format!("remove {path}")),
        }
    }

    /// Removes a file or link, and keeps a copy of one that firstboot did not make: a reset brings it back.
    ///
    /// # Errors
    /// When it cannot be copied or removed.
    pub fn withdraw(&self, path: &str) -> Result<()> {
        if !self.exists(path)? {
            return Ok(());
        }
        {
            let _lock = self.lock()?;
            self.prepare(path)?;
        }
        self.remove(path)
    }

    /// Renames a damaged file to `NAME.damaged` beside it, for the support archive; of a file elsewhere nothing is kept.
    fn quarantine(&self, path: &str) -> Result<()> {
        if !is_below(path, STATE_DIR) || !self.exists(path)? {
            return Ok(());
        }
        let (dir, name) = split(path)?;
        let to = format!("{name}.damaged");
        self.remove_tree(&format!("{dir}/{to}"), &|_: &str| false)?;
        self.remove_entry(&format!("{dir}/{to}"))?;
        self.effect(path, || format!("move {path} aside"))?;
        let dir = self.directory(dir)?;
        fs::renameat(&dir, name, &dir, &to).with_context(|| format!("move {path} aside"))?;
        flush::directory(FlushSite::FileQuarantined, &dir).with_context(|| format!("flush the directory of {path}"))
    }

    /// Runs a command.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        self.command(argv)?;
        self.sys.run(argv, None)
    }

    /// Runs a command that reads `input`.
    pub fn feed(&self, argv: &[&str], input: &mut dyn Read) -> Result<String> {
        self.command(argv)?;
        self.sys.run(argv, Some(input))
    }

    /// Starts a unit without waiting for units that it does not need, recording it first.
    pub fn start_unit(&self, unit: &str) -> Result<()> {
        self.will_start(unit)?;
        self.run(&["systemctl", "start", unit]).map(drop)
    }

    /// Begins to start a unit, recording it first: [`start_unit`](Host::start_unit) waits for what was begun.
    pub fn begin_unit(&self, unit: &str) -> Result<()> {
        self.will_start(unit)?;
        self.run(&["systemctl", "start", "--no-block", unit]).map(drop)
    }

    /// Records that a unit is about to be started, by this program or by one that it runs.
    pub(crate) fn will_start(&self, unit: &str) -> Result<()> {
        let effect = Record::Effect(Effect::Started { unit: unit.into() });
        let known = self.journal.borrow().records().contains(&effect);
        if known { Ok(()) } else { self.record(effect) }
    }

    /// Asks `ready` every `interval` until it gives a value; `None` when `limit` has passed.
    pub fn wait<T>(
        &self,
        limit: Duration,
        interval: Duration,
        mut ready: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let until = self.sys.uptime() + limit;
        loop {
            if let Some(value) = ready()? {
                return Ok(Some(value));
            }
            if self.sys.uptime() >= until {
                return Ok(None);
            }
            self.sys.sleep(interval);
        }
    }

    /// Opens a file for writing beside its final place; [`Host::finish`] puts it there.
    pub(crate) fn create(&self, path: &str, mode: u32) -> Result<Writer> {
        self.effect(path, || format!("create {path}"))?;
        let lock = self.lock()?;
        let owner = self.owner(path)?;
        let (dir, name) = split(path)?;
        let dir = self.directory(dir)?;
        let temporary = format!(".{name}.firstboot");
        // Of a write that was cut off: its blocks would be free with what is in them.
        if let Some(left) = Secret::at(dir.as_fd(), temporary.as_str()) {
            left.overwrite(path)?;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let bits = Mode::from_raw_mode(mode);
        let fd = fs::openat(&dir, &temporary, flags, bits).with_context(|| format!("create {path}"))?;
        // The process's umask and a file left over from a power cut must not decide the mode.
        fs::fchmod(&fd, bits).with_context(|| format!("set the mode of {path}"))?;
        let file = File::from(fd);
        // A file keeps its owner and group when its content changes: PAM's helper reads /etc/shadow by its group.
        if let Some((user, group)) = owner.filter(|owner| *owner != (0, 0)) {
            fchown(&file, Some(user), Some(group)).with_context(|| format!("set the owner of {path}"))?;
        }
        let (name, path) = (name.to_owned(), path.to_owned());
        Ok(Writer { file, dir, temporary, name, path, erase: true, _lock: lock })
    }

    /// Flushes what was written and renames it into place.
    pub(crate) fn finish(&self, writer: Writer) -> Result<()> {
        let path = &writer.path;
        flush::file(FlushSite::FileWritten, &writer.file).with_context(|| format!("flush {path}"))?;
        let old = Secret::at(writer.dir.as_fd(), writer.name.as_str()).filter(|_| writer.erase);
        self.effect(path, || format!("rename to {path}"))?;
        fs::renameat(&writer.dir, &writer.temporary, &writer.dir, &writer.name)
            .with_context(|| format!("rename to {path}"))?;
        let flushed = flush::directory(FlushSite::FileRenamed, &writer.dir);
        flushed.with_context(|| format!("flush the directory of {path}"))?;
        self.erase(old, path)
    }

    /// Overwrites a secret whose name is gone for good. Not before that: after a power cut the old file is whole, or the new
    /// one is in its place.
    fn erase(&self, old: Option<Secret>, path: &str) -> Result<()> {
        let Some(old) = old else { return Ok(()) };
        self.effect(path, || format!("overwrite what was {path}"))?;
        old.overwrite(path)
    }

    /// Makes sure that the directory exists and that what stood at `path` before our first change is on record.
    fn prepare(&self, path: &str) -> Result<()> {
        let (dir, _) = split(path)?;
        self.mkdir(dir, 0o755)?;
        if self.journal.borrow().knows(path) || is_below(path, STATE_DIR) || is_below(path, "/run") {
            return Ok(());
        }
        let effect = if let Some(target) = self.read_link(path)? {
            let backup = self.back_up(path, |to| self.symlink(to, &target))?;
            Effect::Replaced { path: path.into(), backup }
        } else if let Some(bytes) = self.read(path)? {
            let mode = self.size_and_mode(path)?.map_or(0o600, |(_, mode)| mode);
            let backup = self.back_up(path, |to| self.keep_at(to, &bytes, mode))?;
            Effect::Replaced { path: path.into(), backup }
        } else {
            Effect::Created { path: path.into() }
        };
        self.record(Record::Effect(effect))
    }

    /// Keeps a copy of `path` in the state directory, under a name of its own that is the same each time: what a power cut
    /// left of one is written over; returns its path.
    fn back_up(&self, path: &str, copy: impl FnOnce(&str) -> Result<()>) -> Result<String> {
        let to = backup_path(path);
        copy(&to)?;
        Ok(to)
    }

    fn directory(&self, path: &str) -> Result<OwnedFd> {
        self.open_below(path, OFlags::RDONLY | OFlags::DIRECTORY).with_context(|| format!("open directory {path}"))
    }

    fn open_below(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let relative = path.trim_start_matches('/');
        let relative = if relative.is_empty() { "." } else { relative };
        let open = || fs::openat2(&self.root, relative, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT);
        // A mount or rename anywhere on the machine makes the kernel unsure of a `..` in a link, as in /sys/class,
        // and it asks to be called again (openat2(2), EAGAIN). At boot there is a stretch of such moments.
        for pause in (0..100).map(|n: u64| Duration::from_micros(n * 50)) {
            match open() {
                Err(Errno::AGAIN) => std::thread::sleep(pause),
                other => return other,
            }
        }
        open()
    }
}

/// A file being written beside its final place.
pub(crate) struct Writer {
    pub(crate) file: File,
    dir: OwnedFd,
    temporary: String,
    name: String,
    path: String,
    /// Whether the file that it replaces is overwritten, where only root may read it.
    erase: bool,
    _lock: LockGuard,
}

/// Where the copy of a path is that was there before firstboot's first change of it.
pub(crate) fn backup_path(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    format!("{STATE_DIR}/backup/{}-{name}", &hex(&Sha256::digest(path))[..8])
}

/// Whether a path is `directory` or below it.
fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn parts(path: &str) -> Result<Vec<&str>> {
    ensure!(path.starts_with('/'), "use path {path}: it is not absolute");
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.contains(&"..") {
        bail!("use path {path}: it leads upwards");
    }
    Ok(parts)
}

fn split(path: &str) -> Result<(&str, &str)> {
    parts(path)?;
    let (dir, name) = path.rsplit_once('/').with_context(|| format!("split path {path}"))?;
    ensure!(!name.is_empty(), "use path {path}: it names no file");
    Ok((if dir.is_empty() { "/" } else { dir }, name))
}

#[cfg(test)]
mod tests;
