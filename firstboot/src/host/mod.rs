// SPDX-License-Identifier: Apache-2.0
//! The one door to the machine: every file is written and every command run through [`Host`].
//!
//! Paths are absolute as on the device and resolved below a root directory by the kernel (`openat2` with
//! `RESOLVE_IN_ROOT`), so that no symbolic link leads out of it. Before a path is changed for the first time, the
//! effect is on record in the journal. Files are replaced whole: written beside, flushed, renamed, directory flushed.
#![allow(clippy::disallowed_methods)] // this is the door

pub mod exclusions;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod journald;
pub mod kept;
mod linux;
mod lock;
pub mod managed_files;
pub mod mounts;
mod remove;
mod system;

pub use journald::Field;
pub use linux::Linux;
pub use system::{Job, RETRY, System};

use crate::journal::facts::Fact;
use crate::journal::{Effect, Journal, Record};
use crate::text::hex;
use anyhow::{Context, Result, bail, ensure};
use lock::{Lock, LockGuard};
use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::cell::{Ref, RefCell};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::fchown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How many lines of it are kept: a card that goes bad must not fill the disk.
const DAMAGE_LINES: usize = 16;
/// The directory that holds everything firstboot keeps for itself.
pub const STATE_DIR: &str = "/var/lib/firstboot";

/// Inode, time of the last change of content, and size in bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    inode: u64,
    seconds: i64,
    nanoseconds: u64,
    size: u64,
}

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
    /// no lock is taken before the first effect, so a damaged journal or a read-only disk keeps nobody from reading.
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

    /// Adds to the journal.
    pub fn record(&self, record: Record) -> Result<()> {
        self.effect("journal", || "write the journal".to_owned())?;
        let _lock = self.lock()?;
        self.repair_journal()?;
        self.journal.borrow_mut().append(record)
    }

    /// Makes both copies of the journal whole, says what was damaged, and keeps that as a fact.
    ///
    /// # Errors
    /// When a copy cannot be written.
    fn repair_journal(&self) -> Result<()> {
        let mut journal = self.journal.borrow_mut();
        journal.refresh()?;
        let damage = journal.take_damage();
        for line in &damage {
            self.sys.say(&format!("firstboot: repaired: {line}"));
        }
        match damaged_with(journal.fact(Fact::Damage).unwrap_or_default(), &damage) {
            Some(value) => journal.append(Record::Fact { name: Fact::Damage, value }),
            None => Ok(()),
        }
    }

    /// Notes damage that was found on this device, for status, Event and support archive.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn note_damage(&self, line: &str) -> Result<()> {
        self.sys.say(&format!("firstboot: repaired: {line}"));
        let value = damaged_with(self.journal().fact(Fact::Damage).unwrap_or_default(), &[line.to_owned()]);
        value.map_or(Ok(()), |value| self.record(Record::Fact { name: Fact::Damage, value }))
    }

    /// Takes these records for true without a write: see [`Journal::assume`].
    pub fn assume(&self, records: Vec<Record>) {
        self.journal.borrow_mut().assume(records);
    }

    /// Brings the journal's files up to date, where that is needed.
    ///
    /// # Errors
    /// When a copy cannot be written.
    pub fn settle_journal(&self) -> Result<()> {
        if self.journal().is_settled() {
            return Ok(());
        }
        self.effect("journal", || "write the journal".to_owned())?;
        let _lock = self.lock()?;
        self.repair_journal()
    }

    /// Records a fact, unless it is on record; one that is not counts as empty.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn note(&self, fact: Fact, value: &str) -> Result<()> {
        let known = self.journal().fact(fact.clone()).unwrap_or_default() == value;
        if known { Ok(()) } else { self.record(Record::Fact { name: fact, value: value.into() }) }
    }

    /// Puts a journal with these records in the place of the one that there is.
    pub fn renew_journal(&self, records: &[Record]) -> Result<()> {
        self.effect("journal", || "write the journal".to_owned())?;
        let _lock = self.lock()?;
        self.journal.borrow_mut().replace(records)
    }

    /// Reads the journal again: another process may have written to it.
    pub fn reread_journal(&self) {
        self.journal.borrow_mut().reread();
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

    /// Opens a file for reading; `None` when it is not there.
    pub fn reader(&self, path: &str) -> Result<Option<File>> {
        match self.open_below(path, OFlags::RDONLY) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("open {path}")),
        }
    }

    /// Content of a file; `None` when it is not there.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(mut file) = self.reader(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(|| format!("read {path}"))?;
        Ok(Some(bytes))
    }

    /// Content of a file as it is; `None` when it is not there or no text.
    pub fn read_utf8(&self, path: &str) -> Result<Option<String>> {
        Ok(self.read(path)?.and_then(|bytes| String::from_utf8(bytes).ok()))
    }

    /// Content of a small text file, trimmed; `None` when it is not there or empty.
    pub fn read_text(&self, path: &str) -> Result<Option<String>> {
        let text =
            self.read(path)?.map(|b| String::from_utf8_lossy(&b).trim_matches(['\0', '\n', ' ', '\t']).to_owned());
        Ok(text.filter(|t| !t.is_empty()))
    }

    /// The kernel's id of this boot.
    pub fn boot_id(&self) -> Result<Option<String>> {
        self.read_text("/proc/sys/kernel/random/boot_id")
    }

    /// Where a symbolic link points; `None` when there is none.
    pub fn read_link(&self, path: &str) -> Result<Option<String>> {
        let (dir, name) = split(path)?;
        let Ok(dir_fd) = self.open_below(dir, OFlags::PATH | OFlags::DIRECTORY) else { return Ok(None) };
        match fs::readlinkat(dir_fd, name, Vec::new()) {
            Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("read link {path}")),
        }
    }

    /// Names in a directory, sorted; empty when there is no such directory.
    pub fn list(&self, path: &str) -> Result<Vec<String>> {
        let fd = match self.open_below(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(|| format!("open {path}")),
        };
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&fd).with_context(|| format!("list {path}"))? {
            let name = entry.with_context(|| format!("list {path}"))?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// What `work` makes of every name in a directory of the kernel, sorted. Links are renamed by udev, and pods' come and
    /// go: where the directory changed meanwhile neither results nor errors count, and all is done again.
    pub fn each<T>(&self, path: &str, work: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
        let mut names = self.list(path)?;
        loop {
            let done = names.iter().map(|name| work(name)).collect();
            let now = self.list(path)?;
            if now == names {
                return done;
            }
            names = now;
        }
    }

    /// Size of a file in bytes and its mode bits; `None` when it is not there. Links are followed below the root.
    pub fn size_and_mode(&self, path: &str) -> Result<Option<(u64, u32)>> {
        match self.open_below(path, OFlags::PATH) {
            Ok(fd) => {
                let stat = fs::fstat(fd).with_context(|| format!("look at {path}"))?;
                Ok(Some((stat.st_size as u64, stat.st_mode & 0o7777)))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("look at {path}")),
        }
    }

    /// User and group that own a file; `None` when it is not there. Links are followed below the root.
    pub fn owner(&self, path: &str) -> Result<Option<(u32, u32)>> {
        match self.open_below(path, OFlags::PATH) {
            Ok(fd) => {
                let stat = fs::fstat(fd).with_context(|| format!("look at {path}"))?;
                Ok(Some((stat.st_uid, stat.st_gid)))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("look at {path}")),
        }
    }

    /// When a file was changed last, whole seconds since 1970; `None` when it is not there.
    pub fn modified(&self, path: &str) -> Result<Option<i64>> {
        match self.open_below(path, OFlags::PATH) {
            Ok(fd) => Ok(Some(fs::fstat(fd).with_context(|| format!("look at {path}"))?.st_mtime)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("look at {path}")),
        }
    }

    /// Bytes that an ordinary user could still write on the file system of `path`.
    pub fn free_bytes(&self, path: &str) -> Result<u64> {
        let fd = self.open_below(path, OFlags::RDONLY | OFlags::DIRECTORY).with_context(|| format!("open {path}"))?;
        let stat = fs::fstatvfs(fd).with_context(|| format!("measure the file system of {path}"))?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Makes a file hold exactly `bytes` with `mode`. Does nothing when it already does.
    pub fn write(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let held = self.read(path)?.as_deref() == Some(bytes) && self.read_link(path)?.is_none();
        if held && self.size_and_mode(path)?.is_some_and(|(_, m)| m == mode) {
            return Ok(());
        }
        let _lock = self.lock()?;
        self.prepare(path)?;
        let mut writer = self.create(path, mode)?;
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
        file.write_all(bytes).and_then(|()| file.sync_all()).with_context(|| format!("write {path}"))
    }

    /// When and where a file was written last: tells a file that was written from one that the medium changed. None when
    /// it is not there.
    pub fn stamp(&self, path: &str) -> Result<Option<Stamp>> {
        match self.open_below(path, OFlags::PATH) {
            Ok(fd) => {
                let stat = fs::fstat(fd).with_context(|| format!("look at {path}"))?;
                let (seconds, nanoseconds) = (stat.st_mtime, stat.st_mtime_nsec as u64);
                Ok(Some(Stamp { inode: stat.st_ino, seconds, nanoseconds, size: stat.st_size as u64 }))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("look at {path}")),
        }
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
        self.effect(path, || format!("rename to {path}"))?;
        fs::renameat(&dir, &temporary, &dir, name).with_context(|| format!("rename to {path}"))?;
        fs::fsync(&dir).with_context(|| format!("flush the directory of {path}"))
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
            fs::fsync(parent).with_context(|| format!("flush {above}"))?;
        }
        Ok(())
    }

    /// Removes a file or link that firstboot made. Nothing happens when it is not there.
    pub fn remove(&self, path: &str) -> Result<()> {
        self.effect(path, || format!("remove {path}"))?;
        let (dir, name) = split(path)?;
        let Ok(dir) = self.open_below(dir, OFlags::RDONLY | OFlags::DIRECTORY) else { return Ok(()) };
        match fs::unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) => fs::fsync(&dir).with_context(|| format!("flush the directory of {path}")),
            Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e).with_context(|| format!("remove {path}")),
        }
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
        fs::fsync(&dir).with_context(|| format!("flush the directory of {path}"))
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

    /// Runs commands that do not depend on each other, at the same time; answers in their order.
    pub fn run_all(&self, jobs: Vec<Job<'_>>) -> Result<Vec<Result<String>>> {
        for job in &jobs {
            self.command(&job.argv)?;
        }
        Ok(self.sys.run_all(jobs))
    }

    /// Starts a unit without waiting for units that it does not need, recording it first.
    pub fn start_unit(&self, unit: &str) -> Result<()> {
        let known = self.journal.borrow().records().contains(&Record::Effect(Effect::Started { unit: unit.into() }));
        if !known {
            self.record(Record::Effect(Effect::Started { unit: unit.into() }))?;
        }
        self.run(&["systemctl", "start", unit]).map(drop)
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
        Ok(Writer { file, dir, temporary, name: name.to_owned(), path: path.to_owned(), _lock: lock })
    }

    /// Flushes what was written and renames it into place.
    pub(crate) fn finish(&self, writer: Writer) -> Result<()> {
        let path = &writer.path;
        writer.file.sync_all().with_context(|| format!("flush {path}"))?;
        self.effect(path, || format!("rename to {path}"))?;
        fs::renameat(&writer.dir, &writer.temporary, &writer.dir, &writer.name)
            .with_context(|| format!("rename to {path}"))?;
        fs::fsync(&writer.dir).with_context(|| format!("flush the directory of {path}"))
    }

    /// Makes sure that the directory exists and that what stood at `path` before our first change is on record.
    fn prepare(&self, path: &str) -> Result<()> {
        let (dir, name) = split(path)?;
        self.mkdir(dir, 0o755)?;
        if self.journal.borrow().knows(path) || is_below(path, STATE_DIR) || is_below(path, "/run") {
            return Ok(());
        }
        let effect = if let Some(target) = self.read_link(path)? {
            let backup = self.back_up(path, name, |to| self.symlink(to, &target))?;
            Effect::Replaced { path: path.into(), backup }
        } else if let Some(bytes) = self.read(path)? {
            let mode = self.size_and_mode(path)?.map_or(0o600, |(_, mode)| mode);
            let backup = self.back_up(path, name, |to| self.keep_at(to, &bytes, mode))?;
            Effect::Replaced { path: path.into(), backup }
        } else {
            Effect::Created { path: path.into() }
        };
        self.record(Record::Effect(effect))
    }

    /// Keeps a copy of `path` in the state directory, under a name of its own that is the same each time: what a power cut
    /// left of one is written over; returns its path.
    fn back_up(&self, path: &str, name: &str, copy: impl FnOnce(&str) -> Result<()>) -> Result<String> {
        let to = format!("{STATE_DIR}/backup/{}-{name}", &hex(&Sha256::digest(path))[..8]);
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
    _lock: LockGuard,
}

/// Whether a path is `directory` or below it.
fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The fact of all damage with more lines; none when nothing is new. The last [`DAMAGE_LINES`] are kept.
fn damaged_with(before: &str, lines: &[String]) -> Option<String> {
    let new: Vec<&str> = lines.iter().map(String::as_str).filter(|line| !before.lines().any(|b| b == *line)).collect();
    if new.is_empty() {
        return None;
    }
    let all: Vec<&str> = before.lines().chain(new).collect();
    Some(all[all.len().saturating_sub(DAMAGE_LINES)..].join("\n"))
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
