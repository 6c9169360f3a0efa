// SPDX-License-Identifier: Apache-2.0
//! Reading the machine: files, links, directories and their attributes below the root directory. Nothing is written.

use super::stamp::Stamp;
use super::{Host, split};
use anyhow::{Context, Result};
use rustix::fs::{self, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;

impl Host {
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
        Ok(self.attributes(path)?.map(|stat| (stat.st_size as u64, stat.st_mode & 0o7777)))
    }

    /// User and group that own a file; `None` when it is not there. Links are followed below the root.
    pub fn owner(&self, path: &str) -> Result<Option<(u32, u32)>> {
        Ok(self.attributes(path)?.map(|stat| (stat.st_uid, stat.st_gid)))
    }

    /// When a file was changed last, whole seconds since 1970; `None` when it is not there.
    pub fn modified(&self, path: &str) -> Result<Option<i64>> {
        Ok(self.attributes(path)?.map(|stat| stat.st_mtime))
    }

    /// Bytes that an ordinary user could still write on the file system of `path`.
    pub fn free_bytes(&self, path: &str) -> Result<u64> {
        let fd = self.open_below(path, OFlags::RDONLY | OFlags::DIRECTORY).with_context(|| format!("open {path}"))?;
        let stat = fs::fstatvfs(fd).with_context(|| format!("measure the file system of {path}"))?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// When and where a file was written last: tells a file that was written from one that the medium changed. None when
    /// it is not there.
    pub fn stamp(&self, path: &str) -> Result<Option<Stamp>> {
        Ok(self.attributes(path)?.map(|stat| Stamp {
            inode: stat.st_ino,
            seconds: stat.st_mtime,
            nanoseconds: stat.st_mtime_nsec,
            size: stat.st_size as u64,
        }))
    }

    /// Whether a file differs from `content`, though the file system says that it was not written since it had `stamp`: then
    /// the medium changed it.
    ///
    /// # Errors
    /// When the file is there but cannot be read.
    pub fn is_corrupted(&self, path: &str, stamp: Option<Stamp>, content: &[u8]) -> Result<bool> {
        let unwritten = stamp.is_some() && self.stamp(path)? == stamp;
        Ok(unwritten && self.read(path)?.as_deref() != Some(content))
    }

    /// What the file system says of a file; none when it is not there. Links are followed below the root.
    fn attributes(&self, path: &str) -> Result<Option<fs::Stat>> {
        match self.open_below(path, OFlags::PATH) {
            Ok(fd) => Ok(Some(fs::fstat(fd).with_context(|| format!("look at {path}"))?)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("look at {path}")),
        }
    }
}
