// SPDX-License-Identifier: Apache-2.0
//! One writer at a time: firstboot.service, its timer, a reset and a person's command may run at once.
//!
//! The lock is the state directory itself (flock(2)), so there is no lock file that could be left over. It is held for one
//! effect, not for the time that a process runs: while a service waits for its cluster, others can write.
#![allow(clippy::disallowed_methods)] // part of the door

use crate::fault::{Code, Fault};
use crate::flush::{self, FlushSite};
use anyhow::{Context, Result};
use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long another process may hold the lock: it streams one file at most.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 10 } else { 60 });
/// How long to wait between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// The lock of one process.
#[derive(Debug, Default)]
pub(super) struct Lock(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    directory: Option<OwnedFd>,
    holders: u32,
}

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub(super) struct LockGuard(Arc<Lock>);

impl Lock {
    /// Takes the lock of the directory `state`, which is made with mode 0700.
    pub(super) fn acquire(lock: &Arc<Lock>, state: &Path) -> Result<LockGuard> {
        let mut held = lock.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.holders == 0 {
            let directory = open(state)?;
            let until = Instant::now() + PATIENCE;
            loop {
                match fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => break,
                    Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < until => std::thread::sleep(PAUSE),
                    Err(Errno::WOULDBLOCK) => {
                        let seconds = PATIENCE.as_secs();
                        let text = format!("lock {}: another firstboot has held it for {seconds} s", state.display());
                        return Err(Fault::new(Code::StateLocked, text).into());
                    }
                    Err(error) => return Err(error).with_context(|| format!("lock {}", state.display())),
                }
            }
            held.directory = Some(directory);
        }
        held.holders += 1;
        Ok(LockGuard(lock.clone()))
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        let mut held = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.holders -= 1;
        if held.holders == 0 {
            // Closing it unlocks it.
            held.directory = None;
        }
    }
}

/// Opens the state directory; makes it, and protects it, where that is needed.
fn open(state: &Path) -> Result<OwnedFd> {
    if !state.is_dir() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o755);
        if let Some(above) = state.parent() {
            builder.create(above).with_context(|| format!("create {}", above.display()))?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(state) {
            // Another process has made it since.
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("create {}", state.display()));
            }
            _ => {}
        }
        // What is flushed in it is lost with its name.
        if let Some(above) = state.parent() {
            let flushed = std::fs::File::open(above).and_then(|dir| flush::directory(FlushSite::StateDirectory, dir));
            flushed.with_context(|| format!("flush {}", above.display()))?;
        }
    }
    let mode = std::fs::metadata(state).with_context(|| format!("look at {}", state.display()))?.mode();
    // Every start would write to the flash otherwise.
    if mode & 0o7777 != 0o700 {
        fs::chmod(state, Mode::from_raw_mode(0o700)).with_context(|| format!("protect {}", state.display()))?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::open(state, flags, Mode::empty()).with_context(|| format!("open {}", state.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_never_hold_it_at_once_and_one_may_hold_it_twice() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("var/lib/firstboot");
        let (one, other) = (Arc::<Lock>::default(), Arc::<Lock>::default());
        let first = Lock::acquire(&one, &state).unwrap();
        let second = Lock::acquire(&one, &state).unwrap();
        assert_eq!(std::fs::metadata(&state).unwrap().mode() & 0o7777, 0o700);
        drop(first);
        let error = Lock::acquire(&other, &state).unwrap_err().to_string();
        assert_eq!(error, format!("lock {}: another firstboot has held it for 10 s", state.display()));
        drop(second);
        Lock::acquire(&other, &state).unwrap();
    }
}
