// SPDX-License-Identifier: Apache-2.0
//! The real machine.
#![allow(clippy::disallowed_methods)] // this is the door

use super::journald::{self, Field};
use super::system::System;
use crate::flush::{self, FlushSite};
use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::time::{ClockId, Timespec, clock_settime};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// A file system in memory (TMPFS_MAGIC, linux/magic.h): nothing of it outlives power-off.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;
/// One that is on top of others (OVERLAYFS_SUPER_MAGIC, linux/magic.h): what is free is that of the upper one.
const OVERLAY: rustix::fs::FsWord = 0x794c_7630;

/// This machine.
pub struct Linux {
    start: Instant,
}

impl Linux {
    /// The machine that this process runs on.
    pub fn new() -> Self {
        Linux { start: Instant::now() }
    }
}

impl Default for Linux {
    fn default() -> Self {
        Self::new()
    }
}

/// Fills the file system with zeros in this file, and flushes them; returns the number of bytes.
pub(crate) fn fill(file: &File, mut write: impl FnMut(&[u8]) -> std::io::Result<usize>) -> std::io::Result<u64> {
    let (zeros, mut done) = (vec![0; 1 << 20], 0);
    loop {
        match write(&zeros) {
            Ok(n) => done += n as u64,
            Err(e) if e.kind() == ErrorKind::StorageFull => break,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    flush::data(FlushSite::FreeSpaceZeroed, file)?;
    Ok(done)
}

/// Runs one command to its end.
fn run(argv: &[&str], input: Option<&mut dyn Read>) -> Result<String> {
    let shown = argv.join(" ");
    let (program, args) = argv.split_first().context("run an empty command")?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program}"))?;
    // Errors are read on the side, so that neither pipe can fill up and stop the child.
    let mut stderr = child.stderr.take().context("read the command's errors")?;
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let fed = match (input, child.stdin.take()) {
        (Some(from), Some(mut to)) => std::io::copy(from, &mut to).map(drop),
        _ => Ok(()),
    };
    let out = child.wait_with_output().with_context(|| format!("wait for {program}"))?;
    let errors = errors.join().unwrap_or_default();
    if !out.status.success() {
        let last = errors.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it said nothing");
        bail!("run {shown}: {}: {}", out.status, last.trim());
    }
    fed.with_context(|| format!("feed {program}"))?;
    String::from_utf8(out.stdout).with_context(|| format!("read the output of {program}"))
}

impl System for Linux {
    fn run(&self, argv: &[&str], input: Option<&mut dyn Read>) -> Result<String> {
        run(argv, input)
    }

    fn connect(&self, path: &str) -> Result<UnixStream> {
        UnixStream::connect(path).with_context(|| format!("connect to {path}"))
    }

    fn answers(&self, at: SocketAddr, path: &str) -> bool {
        let limit = Duration::from_secs(2);
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect_timeout(&at, limit)?;
            stream.set_read_timeout(Some(limit))?;
            stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
            let mut head = [0; 12];
            stream.read_exact(&mut head)?;
            Ok(&head[9..] == b"200")
        };
        ask().unwrap_or(false)
    }

    fn is_root(&self) -> bool {
        rustix::process::geteuid().is_root()
    }

    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn uptime(&self) -> Duration {
        self.start.elapsed()
    }

    fn set_clock(&self, to: SystemTime) -> Result<()> {
        let since = to.duration_since(SystemTime::UNIX_EPOCH).context("set the clock before 1970")?;
        let time = Timespec { tv_sec: since.as_secs() as i64, tv_nsec: i64::from(since.subsec_nanos()) };
        clock_settime(ClockId::Realtime, time).context("set the clock")
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn set_kernel(&self, path: &str, value: &str) -> Result<()> {
        std::fs::write(path, value).with_context(|| format!("set {path} to {value}"))
    }

    fn set_hostname(&self, name: &str) -> Result<()> {
        rustix::system::sethostname(name.as_bytes()).with_context(|| format!("set the host name to {name}"))
    }

    fn unmount(&self, path: &str, remote: bool) -> Result<()> {
        let gone = |more| match unmount(path, UnmountFlags::NOFOLLOW | more) {
            // It went with another, or is hidden below one.
            Err(Errno::INVAL | Errno::NOENT) => Ok(()),
            other => other,
        };
        // What a process still has open goes as soon as that ends; no path leads to it any more.
        let first = if remote { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        gone(first).or_else(|_| gone(UnmountFlags::DETACH)).with_context(|| format!("unmount {path}"))
    }

    fn zero_free_space(&self, directories: &[&str]) -> Result<u64> {
        let (mut devices, mut all) = (Vec::new(), 0);
        for directory in directories {
            let shown = || format!("zero the free space of {directory}");
            let open = |flags| rustix::fs::open(*directory, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o600));
            let of = open(OFlags::RDONLY | OFlags::DIRECTORY).with_context(shown)?;
            let device = rustix::fs::fstat(&of).with_context(shown)?.st_dev;
            let kind = rustix::fs::fstatfs(&of).with_context(shown)?.f_type;
            if [TMPFS, OVERLAY].contains(&kind) || devices.contains(&device) {
                continue;
            }
            devices.push(device);
            // A file without a name is gone whenever the power goes.
            let file = File::from(open(OFlags::WRONLY | OFlags::TMPFILE).with_context(shown)?);
            all += fill(&file, |zeros| (&file).write(zeros)).with_context(shown)?;
        }
        Ok(all)
    }

    fn random(&self) -> f64 {
        let mut bytes = [0u8; 4];
        // Jitter only: a kernel without random numbers this early gives none, and the full wait is taken.
        match std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)) {
            Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
            Err(_) => 1.0,
        }
    }

    fn say_with(&self, line: &str, fields: &[Field<'_>]) {
        if !journald::log(&std::io::stdout(), line, fields) {
            println!("{line}");
        }
        let consoles = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        for console in consoles.split_whitespace() {
            // tty0 is whichever terminal is shown. A console that cannot be written to must not stop the work.
            if let Ok(mut tty) = std::fs::OpenOptions::new().write(true).open(format!("/dev/{console}")) {
                let _ = tty.write_all(format!("{line}\r\n").as_bytes());
            }
        }
    }

    fn notify(&self, state: &str) {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
        let sent = UnixDatagram::unbound().and_then(|s| match path.to_string_lossy().strip_prefix('@') {
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                s.send_to_addr(state.as_bytes(), &address)
            }
            None => s.send_to(state.as_bytes(), &path),
        });
        // The work does not depend on the service manager listening.
        let _ = sent;
    }
}
