// SPDX-License-Identifier: Apache-2.0
//! A directory of the image as this device's own: copied whole, or not at all, whenever the power goes.

use super::{Host, split};
use crate::flush::{self, FlushSite};
use crate::journal::{Effect, Record};
use anyhow::{Context, Result, bail};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Host {
    /// Puts a copy of the directory `from` at `path`: directories, files and symbolic links with their modes, root's all of
    /// them. That is on record first, so that a reset takes it away. Whether it was copied: not where there is no `from`, or
    /// something at `path`, which an empty directory is not.
    ///
    /// # Errors
    /// When something cannot be read or written, or `from` holds anything else. What was begun is removed the next time.
    pub fn copy_tree(&self, from: &str, path: &str) -> Result<bool> {
        let source = match self.open_below(from, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(source) => source,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
            Err(e) => return Err(e).with_context(|| format!("open {from}")),
        };
        let free = match self.kind(path)? {
            None => true,
            Some(FileType::Directory) => self.list(path)?.is_empty(),
            Some(_) => false,
        };
        if !free {
            return Ok(false);
        }
        let _lock = self.lock()?;
        if !self.journal.borrow().knows(path) {
            self.record(Record::Effect(Effect::Tree { path: path.into() }))?;
        }
        let (above, name) = split(path)?;
        let temporary = format!(".{name}.firstboot");
        let left = format!("{above}/{temporary}");
        self.remove_tree(&left, &|_: &str| false)?;
        self.remove_entry(&left)?;
        let above_fd = self.directory(above)?;
        self.effect(path, || format!("create directory {path}"))?;
        let make = || -> rustix::io::Result<OwnedFd> {
            fs::mkdirat(&above_fd, &temporary, Mode::RWXU)?;
            fs::openat(&above_fd, &temporary, DIRECTORY, Mode::empty())
        };
        let target = make().with_context(|| format!("create directory {path}"))?;
        self.copy_into(source.as_fd(), target.as_fd(), from)?;
        // One flush for all: a card takes as long for each file.
        let flushed = flush::file_system(FlushSite::TreeCopied, &above_fd);
        flushed.with_context(|| format!("flush the file system of {path}"))?;
        self.effect(path, || format!("rename to {path}"))?;
        fs::renameat(&above_fd, &temporary, &above_fd, name).with_context(|| format!("rename to {path}"))?;
        flush::directory(FlushSite::TreeRenamed, &above_fd).with_context(|| format!("flush {above}"))?;
        Ok(true)
    }

    /// By calling itself: how deep an image's directory is the image says, not a pod.
    fn copy_into(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, shown: &str) -> Result<()> {
        let mut names: Vec<CString> = Vec::new();
        for entry in fs::Dir::read_from(from).with_context(|| format!("list {shown}"))? {
            let name = entry.with_context(|| format!("list {shown}"))?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        names.sort();
        for name in names {
            let shown = format!("{shown}/{}", name.to_string_lossy());
            let stat =
                fs::statat(from, &name, AtFlags::SYMLINK_NOFOLLOW).with_context(|| format!("look at {shown}"))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let below = || -> rustix::io::Result<(OwnedFd, OwnedFd)> {
                        fs::mkdirat(to, &name, Mode::RWXU)?;
                        let open = |at| fs::openat(at, &name, DIRECTORY, Mode::empty());
                        Ok((open(from)?, open(to)?))
                    };
                    let (below, target) = below().with_context(|| format!("copy {shown}"))?;
                    self.copy_into(below.as_fd(), target.as_fd(), &shown)?;
                }
                FileType::RegularFile => {
                    self.effect(&shown, || format!("copy {shown}"))?;
                    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                    copy_file(from, to, &name, mode).with_context(|| format!("copy {shown}"))?;
                }
                FileType::Symlink => {
                    let link = || fs::symlinkat(fs::readlinkat(from, &name, Vec::new())?.as_c_str(), to, &name);
                    link().with_context(|| format!("copy {shown}"))?;
                }
                _ => bail!("copy {shown}: it is neither a file, a directory nor a link"),
            }
        }
        // Last, for it may forbid what was done.
        let mode = fs::fstat(from).with_context(|| format!("look at {shown}"))?.st_mode & 0o7777;
        fs::fchmod(to, Mode::from_raw_mode(mode)).with_context(|| format!("set the mode of the copy of {shown}"))
    }
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, mode: Mode) -> std::io::Result<()> {
    let open = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut source = File::from(fs::openat(from, name, OFlags::RDONLY | open, Mode::empty())?);
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let mut target = File::from(fs::openat(to, name, create | open, Mode::RUSR)?);
    std::io::copy(&mut source, &mut target)?;
    Ok(fs::fchmod(&target, mode)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;
    use crate::test_files::put_for_tests;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    const FROM: &str = "/usr/lib/state";
    const TO: &str = "/var/lib/runtime";

    fn image(root: &Path) {
        std::fs::create_dir_all(root.join("var/lib")).unwrap();
        for (path, text, mode) in [("db", "data base", 0o600), ("blobs/one", "blob", 0o444), ("blobs/none", "", 0o640)]
        {
            let path = format!("{}/{path}", &FROM[1..]);
            put_for_tests(root, &path, text);
            std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::create_dir(root.join("usr/lib/state/work")).unwrap();
        symlink("/usr/lib/layers/1", root.join("usr/lib/state/fs")).unwrap();
        for (path, mode) in [("usr/lib/state/work", 0o711), ("usr/lib/state/blobs", 0o750), ("usr/lib/state", 0o700)] {
            std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    fn whole(root: &Path) -> bool {
        let list = |at: &str| {
            let mut all: Vec<_> = walk(&root.join(&at[1..]))
                .into_iter()
                .map(|path| {
                    let meta = path.symlink_metadata().unwrap();
                    let content = match meta.is_file() {
                        true => std::fs::read(&path).unwrap(),
                        false => {
                            std::fs::read_link(&path).map_or(Vec::new(), |to| to.to_string_lossy().into_owned().into())
                        }
                    };
                    (path.strip_prefix(root.join(&at[1..])).unwrap().to_owned(), meta.permissions().mode(), content)
                })
                .collect();
            all.sort();
            all
        };
        list(FROM) == list(TO)
    }

    fn walk(path: &Path) -> Vec<std::path::PathBuf> {
        let mut all = vec![path.to_owned()];
        if path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            std::fs::read_dir(path).unwrap().for_each(|entry| all.extend(walk(&entry.unwrap().path())));
        }
        all
    }

    #[test]
    fn a_copy_is_whole_whenever_the_power_goes_and_is_made_once() {
        let mut cuts = 0;
        loop {
            let dir = tempfile::tempdir().unwrap();
            image(dir.path());
            let (fake, seen) = Fake::new();
            let host = Host::open(dir.path(), Box::new(fake)).unwrap();
            seen.fuse.set(Some(cuts));
            let done = host.copy_tree(FROM, TO);
            if done.is_err() {
                assert!(!host.exists(TO).unwrap() || whole(dir.path()), "cut {cuts}");
            }
            drop(host);
            let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
            assert!(host.copy_tree(FROM, TO).unwrap() || whole(dir.path()), "cut {cuts}");
            assert!(whole(dir.path()), "cut {cuts}");
            assert_eq!(host.list("/var/lib").unwrap(), ["firstboot", "runtime"], "cut {cuts}");
            assert!(host.journal().knows(TO));
            // What was changed since is left alone.
            host.write(&format!("{TO}/db"), b"later", 0o600).unwrap();
            assert!(!host.copy_tree(FROM, TO).unwrap());
            assert_eq!(host.read(&format!("{TO}/db")).unwrap().unwrap(), b"later");
            if done.is_ok() {
                break;
            }
            cuts += 1;
        }
        assert!(cuts > 4, "only {cuts} cuts");
    }

    #[test]
    fn an_empty_directory_is_filled_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        std::fs::create_dir_all(dir.path().join(&TO[1..])).unwrap();
        assert!(!host.copy_tree(FROM, TO).unwrap(), "an image without it");
        assert!(!host.journal().knows(TO));
        image(dir.path());
        assert!(host.copy_tree(FROM, TO).unwrap() && whole(dir.path()));
        std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
        symlink("/elsewhere", dir.path().join("var/lib/other")).unwrap();
        assert!(!host.copy_tree(FROM, "/var/lib/other").unwrap());
        assert!(host.list("/elsewhere").unwrap().is_empty());
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("usr/lib/state/pipe"), Mode::RWXU).unwrap();
        let error = format!("{:#}", host.copy_tree(FROM, "/var/lib/third").unwrap_err());
        let text = "copy /usr/lib/state/pipe: it is neither a file, a directory nor a link";
        assert_eq!(error, text);
    }
}
