// SPDX-License-Identifier: Apache-2.0
//! Overwriting a file in place before its blocks are free: what only root may read, a key or a password.

use crate::flush::{self, FlushSite};
use anyhow::{Context, Result};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::os::fd::BorrowedFd;

/// Longest file that is overwritten, bytes: keys and passwords are short.
const SHORT: u64 = 1 << 20;

/// Whether a file is one that is overwritten before its blocks are free: only root may read it, it has no other name, and it
/// is short.
pub(super) fn is_secret(stat: &Stat) -> bool {
    let size = stat.st_size as u64;
    let plain = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1;
    plain && stat.st_mode & 0o077 == 0 && size > 0 && size <= SHORT
}

/// A file that only root may read, open for overwriting: its name may go meanwhile.
pub(super) struct Secret {
    file: File,
    size: u64,
}

impl Secret {
    /// What stands at a name in a directory, where it is such a file and can be written.
    pub(super) fn at(dir: BorrowedFd<'_>, name: &str) -> Option<Secret> {
        let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok().filter(is_secret)?;
        Secret::open(dir, name, &stat).ok()
    }

    pub(super) fn open<P: rustix::path::Arg>(dir: BorrowedFd<'_>, name: P, stat: &Stat) -> Result<Secret, Errno> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = fs::openat2(dir, name, flags, Mode::empty(), ResolveFlags::NO_XDEV)?;
        Ok(Secret { file: File::from(fd), size: stat.st_size as u64 })
    }

    /// Writes zeros in place, and flushes them.
    pub(super) fn overwrite(mut self, path: &str) -> Result<()> {
        self.file.write_all(&vec![0; self.size as usize]).with_context(|| format!("overwrite {path}"))?;
        flush::data(FlushSite::SecretOverwritten, &self.file).with_context(|| format!("flush {path}"))
    }
}
