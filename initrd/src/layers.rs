// SPDX-License-Identifier: Apache-2.0
//! `/var` and `/etc` of the root, put together from what the root brings and what the data partition holds.
//!
//! The data partition has `var/`, which is filled from the root once, and `etc/upper` and `etc/work`, the layer over the
//! root's `/etc`. `var/` comes last: where it is, the rest is complete.

use crate::data::{Actions, Attached, BeyondRepair, How, NotRun, Unchecked, error_number};
use crate::fill::fill;
use crate::mounts;
use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What new file systems are made with. 184 KiB are written for one of 6 GB, 384 KiB for 28 GB (mke2fs 1.47), where the
/// defaults write 69 and 136 MB.
///
/// The journal has 32 MiB instead of 128: commits of a node are small. Its blocks are not cleared (`lazy_journal_init`):
/// they have checksums by the new file system's identifier, so none of an older one is replayed. Inode tables are not
/// cleared either, see [`mounts::data`]. No space is kept for growing by `resize_inode`; it would grow by `meta_bg`.
/// `discard` would take minutes on some cards.
pub const MAKE: [&str; 14] =
    ["-F", "-q", "-L", "data", "-b", "4096", "-m", "1", "-e", "remount-ro", "-O", "^resize_inode", "-J", "size=32"];
/// The same, extended options.
pub const MAKE_EXTENDED: &str = "nodiscard,lazy_itable_init=1,lazy_journal_init=1";

/// How e2fsck is called, until it can work on the file system. At last with the place of the first copy of the
/// superblock in what [`MAKE`] makes: by itself, e2fsck does not look there for every fault of the first one.
const CHECKS: [&[&str]; 3] = [&["-p"], &["-y"], &["-y", "-b", "32768", "-B", "4096"]];

/// The machine with its new root at `root`.
#[derive(Debug, Clone)]
pub struct Layers {
    /// Directory of the root: `/`, except in tests.
    pub root: PathBuf,
    /// The data partition's device.
    pub device: Option<PathBuf>,
    /// Shows a line to the person at the console.
    pub say: fn(&str),
}

impl Layers {
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn device(&self) -> Result<&Path> {
        self.device.as_deref().context("find the data partition")
    }

    /// Layers on a writable file system, or on memory that stands in for it.
    fn writable(&self) -> Result<Attached> {
        let data = self.at("data");
        let mut notes = Vec::new();
        let filled = data.join("var").symlink_metadata().is_err();
        // Only where it has another: it would be a write at each boot.
        if !fs::metadata(&data).is_ok_and(|meta| meta.mode() & 0o7777 == 0o700) {
            fs::set_permissions(&data, Permissions::from_mode(0o700)).context("protect the data partition")?;
        }
        // A full partition has them since it was made.
        for directory in ["etc", "etc/upper", "etc/work"] {
            let path = data.join(directory);
            if let Some(kind) = path.symlink_metadata().ok().filter(|meta| !meta.is_dir()) {
                let aside = free_name(&path)?;
                rename(&path, &aside)?;
                notes.push(format!(
                    "{} was no directory ({:o}); it is {} now",
                    path.display(),
                    kind.mode(),
                    aside.display()
                ));
            }
            self.directory(&path)?;
        }
        if filled {
            (self.say)("filling /var");
            fill(&self.at("var"), &data.join("var"))?;
        }
        mounts::bind(&data.join("var"), &self.at("var"))?;
        let (upper, work) = (data.join("etc/upper"), data.join("etc/work"));
        if let Err(error) = mounts::overlay(&[&self.at("etc")], &upper, &work, &self.at("etc")) {
            notes.push(self.without_upper(&error)?);
        }
        Ok(Attached { filled, notes })
    }

    /// A directory as the root's `/etc`, when it is not there.
    fn directory(&self, path: &Path) -> Result<()> {
        if path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            return Ok(());
        }
        let meta = fs::metadata(self.at("etc")).context("read /etc of the root")?;
        fs::create_dir(path)
            .and_then(|()| chown(path, Some(meta.uid()), Some(meta.gid())))
            .and_then(|()| fs::set_permissions(path, Permissions::from_mode(meta.mode() & 0o7777)))
            .with_context(|| format!("create {}", path.display()))
    }

    /// The layer over `/etc` does not mount. On a full partition, changes go to memory, over what it holds; else it is set
    /// aside, and an empty one takes its place. Returns what to say of it.
    fn without_upper(&self, error: &anyhow::Error) -> Result<String> {
        let etc = self.at("data/etc");
        if error_number(error) == Some(Errno::NOSPC) {
            self.memory()?;
            self.over_memory("etc", &[&etc.join("upper"), &self.at("etc")])?;
            return Ok("the data partition is full: changes to /etc are in memory".to_owned());
        }
        // An empty one has to mount before the old one goes: with no overlay at all, it would be none the better.
        let (upper, work) = (etc.join("upper.new"), etc.join("work.new"));
        for directory in [&upper, &work] {
            let _ = fs::remove_dir_all(directory);
            self.directory(directory)?;
        }
        if let Err(error) = mounts::overlay(&[&self.at("etc")], &upper, &work, &self.at("etc")) {
            // As words only, without its number: an empty layer that does not mount says nothing of the partition.
            bail!("{error:#}");
        }
        mounts::away(&self.at("etc"));
        let aside = free_name(&etc.join("upper"))?;
        let _ = fs::remove_dir_all(etc.join("work"));
        rename(&etc.join("upper"), &aside)?;
        rename(&upper, &etc.join("upper"))?;
        if etc.join("work").symlink_metadata().is_err() {
            rename(&work, &etc.join("work"))?;
        }
        mounts::overlay(&[&self.at("etc")], &etc.join("upper"), &etc.join("work"), &self.at("etc"))?;
        let name = aside.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(format!("{error:#}; what /etc held is in /data/etc/{name}"))
    }

    /// Memory for upper layers, below `/run`.
    fn memory(&self) -> Result<()> {
        let point = self.at("run/firstboot/memory");
        fs::create_dir_all(&point).with_context(|| format!("create {}", point.display()))?;
        mounts::memory(&point)
    }

    /// Mounts an upper layer in memory over `lower`, whose first directory lends its owner and mode.
    fn over_memory(&self, name: &str, lower: &[&Path]) -> Result<()> {
        let home = self.at("run/firstboot/memory").join(name);
        let (upper, work) = (home.join("upper"), home.join("work"));
        for directory in [&upper, &work] {
            fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        }
        let first = lower.first().context("mount an overlay over nothing")?;
        let meta = fs::metadata(first).with_context(|| format!("read {}", first.display()))?;
        chown(&upper, Some(meta.uid()), Some(meta.gid()))
            .and_then(|()| fs::set_permissions(&upper, Permissions::from_mode(meta.mode() & 0o7777)))
            .with_context(|| format!("set the owner of {}", upper.display()))?;
        mounts::overlay(lower, &upper, &work, &self.at(name))
    }

    /// Layers in memory over a file system that cannot be written.
    fn read_only(&self) -> Result<Attached> {
        let (var, upper) = (self.at("data/var"), self.at("data/etc/upper"));
        ensure!(var.is_dir(), "use the data partition: it has no /var yet");
        self.memory()?;
        self.over_memory("var", &[&var])?;
        match upper.is_dir() {
            true => self.over_memory("etc", &[&upper, &self.at("etc")])?,
            false => self.over_memory("etc", &[&self.at("etc")])?,
        }
        Ok(Attached::default())
    }

    /// Runs a program of the verified root; its exit code. What it says goes to a file below `/run`. An error has the
    /// context [`NotRun`].
    fn run(&self, program: &str, arguments: &[&str]) -> Result<i32> {
        self.exit_code(program, arguments).with_context(|| NotRun(program.to_owned()))
    }

    fn exit_code(&self, program: &str, arguments: &[&str]) -> Result<i32> {
        let log = self.at("run/firstboot").join(program).with_extension("txt");
        let out = File::options().create(true).append(true).open(&log);
        let out = out.with_context(|| format!("open {}", log.display()))?;
        let error = out.try_clone().with_context(|| format!("open {}", log.display()))?;
        let mut command = Command::new(format!("/usr/sbin/{program}"));
        command.args(arguments).arg(self.device()?).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let status = command.stdin(Stdio::null()).stdout(out).stderr(error).status().context("start it")?;
        status.code().context("it was killed")
    }
}

/// `NAME.damaged-N`, the first that is free.
fn free_name(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut names = (1..10_000).map(|n| path.with_file_name(format!("{name}.damaged-{n}")));
    names
        .find(|path| path.symlink_metadata().is_err())
        .with_context(|| format!("find a free name for {}", path.display()))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("rename {} to {}", from.display(), to.display()))
}

impl Actions for Layers {
    fn write_back(&mut self) -> Result<()> {
        let device = self.device()?;
        let doing = || format!("write {}", device.display());
        let file = File::options().read(true).write(true).open(device).with_context(doing)?;
        let mut block = [0; 4096];
        file.read_exact_at(&mut block, 0)
            .and_then(|()| file.write_all_at(&block, 0))
            .and_then(|()| file.sync_all())
            .with_context(doing)
    }

    fn check(&mut self) -> Result<String> {
        (self.say)("checking the data partition");
        // e2fsck(8), bits: 1 repaired, 2 repaired and a reboot is due (for a mounted one), 4 left errors, 8 cannot work
        // on it.
        for arguments in CHECKS {
            match self.run("e2fsck", arguments)? {
                0 => return Ok("e2fsck found nothing to repair".to_owned()),
                1..=3 => return Ok(format!("e2fsck {} repaired it", arguments.join(" "))),
                // `-p` leaves what needs a decision.
                4..=7 if arguments != CHECKS[0] => {
                    bail!(BeyondRepair("e2fsck cannot repair the data partition".to_owned()))
                }
                4..=15 => {}
                code => bail!("run e2fsck: it ended with {code}"),
            }
        }
        // Too much damage, but also no memory, or a medium that fails.
        bail!(Unchecked("e2fsck cannot check the data partition".to_owned()))
    }

    fn make(&mut self) -> Result<()> {
        (self.say)("making the file system of the data partition");
        let mut arguments = MAKE.to_vec();
        arguments.extend(["-E", MAKE_EXTENDED]);
        let code = self.run("mkfs.ext4", &arguments)?;
        ensure!(code == 0, "make the file system of the data partition: mkfs.ext4 ended with {code}");
        Ok(())
    }

    fn attach(&mut self, how: How) -> Result<Attached> {
        let data = self.at("data");
        let attached = match how {
            How::ReadWrite => mounts::data(self.device()?, &data).and_then(|()| self.writable()),
            How::ReadOnly => mounts::data_read_only(self.device()?, &data).and_then(|()| self.read_only()),
            How::Memory => mounts::memory(&data).and_then(|()| self.writable()),
        };
        if attached.is_err() {
            for path in ["etc", "var", "run/firstboot/memory", "data"] {
                mounts::away(&self.at(path));
            }
        }
        attached
    }
}
