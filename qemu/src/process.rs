// SPDX-License-Identifier: Apache-2.0
//! A child process as a guard: it ends with its guard, and with this process however that ends.
//!
//! The kernel's parent-death signal (`setpriv --pdeathsig`) belongs to the *thread* that started the child, so all
//! children are started by one thread that lives as long as this process; otherwise they would end with a test's
//! thread.

use anyhow::{Context, Result, bail};
use imagebuild::cmd::last_lines;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

/// A running child process whose output goes to a file. Dropping it kills the child.
pub struct Process {
    name: String,
    log: PathBuf,
    child: Mutex<Child>,
}

type Request = (Command, Sender<std::io::Result<Child>>);

fn starter() -> Result<Sender<Request>> {
    static STARTER: OnceLock<Mutex<Sender<Request>>> = OnceLock::new();
    let sender = STARTER.get_or_init(|| {
        let (sender, requests) = channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, answer) in requests {
                // The caller is gone only when it panicked; then the child is reaped at exit.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    match sender.lock() {
        Ok(sender) => Ok(sender.clone()),
        Err(_) => bail!("reach the thread that starts children"),
    }
}

/// A command that ends with this process, for [`Process::spawn`]. It reads nothing.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).stdin(Stdio::null());
    command
}

/// Processor time of all children that were waited for so far, and of those that they waited for (getrusage(2)).
///
/// # Errors
/// When the kernel does not say.
pub fn cpu_of_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("read the processor time of children")?;
    let time = usage.user_time() + usage.system_time();
    Ok(Duration::from_micros(time.num_microseconds().try_into().context("convert a processor time")?))
}

impl Process {
    /// Starts `program` with both outputs appended to `log`. `name` is what errors call it.
    pub fn start(name: &str, program: &Path, args: &[String], log: &Path) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("create log {}", log.display()))?;
        let mut command = command(program);
        command.args(args).stdout(out.try_clone().context("share a log file")?).stderr(out);
        Self::spawn(name, command, log)
    }

    /// Starts what [`command`] gave. `name` is what errors call it; its standard output goes to `log`.
    pub fn spawn(name: &str, command: Command, log: &Path) -> Result<Self> {
        let (answer, started) = channel();
        starter()?.send((command, answer)).map_err(|_| anyhow::anyhow!("reach the thread that starts children"))?;
        let child = started.recv().context("start a child")?.with_context(|| format!("start {name}"))?;
        Ok(Process { name: name.to_owned(), log: log.to_owned(), child: Mutex::new(child) })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.with_child(|c| c.id())
    }

    /// What errors call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The exit status once it has ended.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        self.with_child(|c| c.try_wait()).with_context(|| format!("check whether {} ended", self.name))
    }

    /// An error with the end of the log when it has ended.
    pub fn check(&self) -> Result<()> {
        match self.ended()? {
            Some(status) => bail!("keep {} running ({status}); its log ends:\n{}", self.name, self.tail(20)),
            None => Ok(()),
        }
    }

    /// The last `lines` lines of its log.
    pub fn tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// Asks it to end (SIGTERM) and waits; kills it when `limit` passes.
    pub fn stop(&self, limit: Duration) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        self.signal(Signal::SIGTERM)?;
        let ended = crate::wait::until("an end", limit, || self.ended());
        match ended {
            Ok(_) => Ok(()),
            Err(_) => self.kill(),
        }
    }

    /// Ends it at once (SIGKILL), as a power cut would.
    pub fn kill(&self) -> Result<()> {
        self.with_child(|c| {
            c.kill()?;
            c.wait().map(drop)
        })
        .with_context(|| format!("kill {}", self.name))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).context("convert a process id")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    fn with_child<T>(&self, f: impl FnOnce(&mut Child) -> T) -> T {
        match self.child.lock() {
            Ok(mut child) => f(&mut child),
            Err(poisoned) => f(&mut poisoned.into_inner()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing can be done about a child that cannot be killed; the parent-death signal remains.
        let _ = self.kill();
    }
}

/// The last `lines` lines of a log file, lossily decoded; empty when it cannot be read.
pub fn tail(log: &Path, lines: usize) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    last_lines(&String::from_utf8_lossy(&text), lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, dir: &Path) -> Process {
        let args = ["-c".to_owned(), script.to_owned()];
        Process::start("a shell", Path::new("/bin/sh"), &args, &dir.join("log")).unwrap()
    }

    #[test]
    fn a_dropped_guard_takes_its_child_along() {
        let dir = tempfile::tempdir().unwrap();
        let process = shell("exec sleep 600", dir.path());
        let pid = Pid::from_raw(i32::try_from(process.pid()).unwrap());
        assert!(kill(pid, None).is_ok());
        drop(process);
        assert!(kill(pid, None).is_err());
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let process = std::thread::spawn(move || shell("exec sleep 600", &path)).join().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        process.check().unwrap();
    }

    #[test]
    fn early_end_is_reported_with_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let process = shell("echo cannot find the moon; exit 3", dir.path());
        crate::wait::until("its end", Duration::from_secs(10), || process.ended()).unwrap();
        assert_eq!(
            process.check().unwrap_err().to_string(),
            "keep a shell running (exit status: 3); its log ends:\ncannot find the moon"
        );
    }
}
