// SPDX-License-Identifier: Apache-2.0
//! A private network in the build machine's kernel: a user and a network namespace, held by one process.
//!
//! Needs no root where the kernel allows user namespaces, and leaves nothing behind: interfaces, addresses and rules
//! go with the last process in it (network_namespaces(7)).

use crate::process::Process;
use crate::run_dir::RunDir;
use crate::wait;
use anyhow::{Context, Result};
use imagebuild::cmd::tool;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A network namespace. Dropping it ends the process that holds it.
pub struct Namespace {
    holder: Process,
    /// Whether it has a user namespace, too.
    user: bool,
}

impl std::fmt::Debug for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Namespace({})", self.holder.pid())
    }
}

impl Namespace {
    /// An empty network, with its loopback interface up. The output of its holder goes to `dir`.
    ///
    /// # Errors
    /// When this kernel or this user may not make one.
    pub fn new(dir: &Path) -> Result<Self> {
        // `unshare` becomes `sleep`: one process, whose identifier is the holder's.
        let words = ["--user", "--map-root-user", "--net", "--", "sleep", "infinity"];
        let words: Vec<String> = words.map(str::to_owned).to_vec();
        let log = dir.join("namespace.log");
        let holder = Process::start("the holder of a network namespace", Path::new("unshare"), &words, &log)?;
        Self::held(holder, true)
    }

    /// The same without a user namespace, for root alone: programs in it may change their groups (user_namespaces(7)).
    ///
    /// # Errors
    /// When this user may not make one.
    pub fn of_root(dir: &Path) -> Result<Self> {
        let words = ["--net", "--", "sleep", "infinity"].map(str::to_owned);
        let log = dir.join("namespace.log");
        Self::held(Process::start("the holder of a network namespace", Path::new("unshare"), &words, &log)?, false)
    }

    /// Another empty network under the same user: an interface of one can be the far end of one of the other's.
    ///
    /// # Errors
    /// When this kernel does not allow it.
    pub fn sibling(&self, dir: &Path) -> Result<Self> {
        let words = ["--net", "--", "sleep", "infinity"].map(str::to_owned);
        let log = dir.join("namespace-sibling.log");
        let holder = self.start("the holder of a second network", Path::new("unshare"), &words, &log)?;
        Self::held(holder, self.user)
    }

    /// The process that holds it: `ip link … netns PID`.
    pub fn pid(&self) -> u32 {
        self.holder.pid()
    }

    /// Waits until the holder has become `sleep`.
    fn held(holder: Process, user: bool) -> Result<Self> {
        let name = format!("/proc/{}/comm", holder.pid());
        wait::until("a network namespace", Duration::from_secs(10), || {
            holder.check()?;
            // Once it sleeps, the namespaces and the user's mapping are there.
            Ok((std::fs::read_to_string(&name).is_ok_and(|comm| comm.trim() == "sleep")).then_some(()))
        })?;
        let namespace = Namespace { holder, user };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Why networks of our own cannot be made here, if they cannot: tried with a tap interface.
    pub fn probe() -> Result<()> {
        let dir = RunDir::new("namespace-probe")?;
        Self::new(dir.path())?.ip("tuntap add dev probe mode tap")
    }

    /// Runs `ip` with these words in it.
    pub fn ip(&self, words: &str) -> Result<()> {
        let words: Vec<&str> = words.split(' ').collect();
        self.run("ip", &words).map(drop)
    }

    /// Sets a kernel parameter of the network, such as `net/ipv4/ip_forward`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{name}");
        self.run("sh", &["-c", "echo \"$1\" >\"$2\"", "sh", value, &path]).map(drop)
    }

    /// Runs a program in it and waits; returns what it prints.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<Vec<u8>> {
        let mut command = self.command(Path::new(&tool(program)));
        imagebuild::cmd::output(command.args(args))
    }

    /// A command that will run in it.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(self.enter()).arg(program);
        command
    }

    /// Starts a program in it. `name` is what errors call it.
    pub fn start(&self, name: &str, program: &Path, args: &[String], log: &Path) -> Result<Process> {
        let program = program.to_str().with_context(|| format!("read the path of {name}"))?;
        // Enters and becomes the program: there is no process between it and its guard.
        let all: Vec<String> = self.enter().into_iter().chain([tool(program)]).chain(args.iter().cloned()).collect();
        Process::start(name, Path::new("nsenter"), &all, log)
    }

    fn enter(&self) -> Vec<String> {
        let target = format!("--target={}", self.holder.pid());
        let user = if self.user { &["--user", "--preserve-credentials"][..] } else { &[] };
        user.iter().chain(&["--net", &target, "--"]).map(|word| (*word).to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_its_own_that_goes_with_its_guard() {
        if let Err(why) = Namespace::probe() {
            crate::skip::skip_unless_ci(&format!("{why:#}"));
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let namespace = Namespace::new(dir.path()).unwrap();
        namespace.ip("tuntap add dev lan mode tap").unwrap();
        namespace.ip("addr add 192.168.76.1/24 dev lan").unwrap();
        let text = String::from_utf8(namespace.run("ip", &["addr", "show", "dev", "lan"]).unwrap()).unwrap();
        assert!(text.contains("inet 192.168.76.1/24"), "{text}");
        assert!(!Path::new("/sys/class/net/lan").exists(), "the build machine got an interface");
        namespace.sysctl("net/ipv4/ip_forward", "1").unwrap();
        let sleeper =
            namespace.start("a sleeper", Path::new("sleep"), &["600".to_owned()], &dir.path().join("log")).unwrap();
        let pids = [namespace.holder.pid(), sleeper.pid()];
        drop(sleeper);
        drop(namespace);
        for pid in pids {
            assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} stays");
        }
    }
}
