// SPDX-License-Identifier: Apache-2.0
//! What the machine can do beyond files: commands, clock, waiting, kernel settings.

use super::journald::Field;
use anyhow::Result;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

/// Announced to [`System::before_effect`] before a fault of this device is tried again.
pub const RETRY: &str = "try again after a fault of this device";

/// The machine itself. [`super::Linux`] is the real one; tests without a kernel of their own use a scripted one.
pub trait System {
    /// Runs a command to its end, feeding it `input`; returns its standard output.
    ///
    /// # Errors
    /// When it cannot be started or exits other than 0; the text holds the last line it wrote to standard error.
    fn run(&self, argv: &[&str], input: Option<&mut dyn Read>) -> Result<String>;
    /// Connects to a local socket.
    fn connect(&self, path: &str) -> Result<UnixStream>;
    /// Where a local socket of another program is, for libraries that connect themselves.
    fn socket(&self, path: &str) -> String {
        path.to_owned()
    }
    /// Whether a program of this machine answers `GET path` with 200.
    fn answers(&self, at: SocketAddr, path: &str) -> bool;
    /// Whether this process has root's rights.
    fn is_root(&self) -> bool;
    /// Wall-clock time.
    fn now(&self) -> SystemTime;
    /// Time since some fixed point, never set back.
    fn uptime(&self) -> Duration;
    /// Sets the wall clock.
    fn set_clock(&self, to: SystemTime) -> Result<()>;
    /// Waits.
    fn sleep(&self, time: Duration);
    /// Writes a kernel setting (a file below /proc/sys or /sys).
    fn set_kernel(&self, path: &str, value: &str) -> Result<()>;
    /// Sets the running kernel's host name.
    fn set_hostname(&self, name: &str) -> Result<()>;
    /// Unmounts what is mounted at a path. What is `remote` is detached at once: its server may be gone, and the kernel
    /// would wait for it.
    fn unmount(&self, path: &str, remote: bool) -> Result<()>;
    /// Overwrites what is free on the file systems of these directories, each of them once; how many bytes that were. What is
    /// in memory, or on top of another file system, has nothing of its own.
    fn zero_free_space(&self, directories: &[&str]) -> Result<u64>;
    /// A random number in 0.0..1.0, for jitter.
    fn random(&self) -> f64;
    /// Prints one line on every console that the kernel has, and to the log, there with these fields beside it.
    fn say_with(&self, line: &str, fields: &[Field<'_>]);
    /// [`System::say_with`] without fields.
    fn say(&self, line: &str) {
        self.say_with(line, &[]);
    }
    /// Tells the service manager how far the work is (`sd_notify`).
    fn notify(&self, state: &str);
    /// Called before each effect; a test stops the run here as a power cut would.
    fn before_effect(&self, what: &str) -> Result<()> {
        let _ = what;
        Ok(())
    }
}
