// SPDX-License-Identifier: Apache-2.0
//! The sandbox of the join worker, from inside and from outside: what is refused, with which error, and what works.
//!
//! `examples/confined.rs` enters it and tries. What Landlock alone refuses is a test of its own, skipped where the
//! kernel has no Landlock.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../../tests/skip.rs"]
mod skip;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

const EPERM: &str = "1";
const EACCES: &str = "13";
/// An account without rights, for DAC has no hold on root. On Debian: `nobody`.
const NOBODY: u32 = 65534;

/// A program that is being copied cannot be executed, and another thread's child holds it open while it starts.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Confined {
    child: Child,
    answers: BTreeMap<String, String>,
}

impl Drop for Confined {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the confined program runs as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Account {
    Unprivileged,
    /// Root, of a user namespace at least.
    Root,
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// unshare(1), to run a program as root of a new user namespace.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]);
    command
}

/// The example, which cargo builds along with all tests of the crate, but not with this one alone.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("examples/confined");
    assert!(program.exists(), "{} is missing: cargo build -p firstboot --example confined", program.display());
    program
}

fn confined(directory: &Path, account: Account) -> Confined {
    let program = directory.join("confined");
    fs::copy(example(), &program).unwrap();
    fs::set_permissions(directory, Permissions::from_mode(0o777)).unwrap();
    let target = directory.join("outside");
    fs::write(&target, "untouched").unwrap();
    fs::set_permissions(&target, Permissions::from_mode(0o666)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("localhost:{}", listener.local_addr().unwrap().port());
    // It listens, so only the sandbox refuses.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = match account {
        Account::Root if !is_root() => unshare(),
        _ => Command::new("env"),
    };
    command
        .arg(program)
        .arg(server)
        .arg(&target)
        .arg(other.local_addr().unwrap().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if account == Account::Unprivileged && is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let answers = lines
        .take_while(|line| line != "waiting")
        .filter_map(|line| line.split_once(char::is_whitespace).map(|(k, v)| (k.to_owned(), v.trim().to_owned())))
        .collect();
    let confined = Confined { child, answers };
    if confined.answers.get("connect").is_some_and(|a| a == "done") {
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
    confined
}

#[test]
fn it_is_refused_all_but_the_network() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let confined = confined(directory.path(), Account::Unprivileged);
    let answer = |what: &str| confined.answers.get(what).map(String::as_str).unwrap_or("no answer");
    let by_seccomp = [
        "raw-socket",
        "packet-socket",
        "ping-socket",
        "local-socket",
        "shell",
        "exec",
        "create",
        "write-existing",
        "append",
        "remove",
        "link",
        "kill-parent",
    ];
    for what in by_seccomp {
        assert_eq!(answer(what), EPERM, "{what}: {:?}", confined.answers);
    }
    assert_eq!(answer("read-shadow"), EACCES);
    assert_eq!(answer("connect"), "done");
    assert_eq!((answer("Seccomp:"), answer("NoNewPrivs:")), ("2", "1"));
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(answer(set), "0000000000000000", "{set}");
    }
}

#[test]
fn other_accounts_cannot_read_its_memory() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let confined = confined(directory.path(), Account::Unprivileged);
    assert_eq!(confined.answers["connect"], "done", "it has to be alive still");
    // Of a process that is not dumpable, root owns these files: not the account that it runs under.
    let mem = format!("/proc/{}/mem", confined.child.id());
    let mut other = Command::new("dd");
    other.args([&format!("if={mem}"), "of=/dev/null", "count=0"]).env("LC_ALL", "C").stderr(Stdio::piped());
    if is_root() {
        other.uid(NOBODY).gid(NOBODY);
    }
    let output = other.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("Permission denied"), "{error}");
}

/// The file is readable for everyone, so only Landlock refuses it.
#[test]
fn landlock_hides_files_that_anyone_may_read() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let confined = confined(directory.path(), Account::Unprivileged);
    if confined.answers["missing"].contains("landlock: true") {
        assert_eq!(confined.answers["read-outside"], "done");
        return skip::skip("this kernel has no Landlock");
    }
    assert_eq!(confined.answers["read-outside"], EACCES);
}

/// A port that listens, and that the sandbox was not given.
#[test]
fn s16_tcp_leads_to_the_given_ports_alone() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let confined = confined(directory.path(), Account::Unprivileged);
    assert_eq!(confined.answers["connect"], "done");
    if confined.answers["missing"].contains("ports: true") {
        assert_eq!(confined.answers["other-port"], "done");
        return skip::skip("this kernel's Landlock knows no ports: it has none, or is older than Linux 6.7");
    }
    // seccomp knows no call to listen by, and refuses before Landlock is asked.
    assert_eq!((confined.answers["other-port"].as_str(), confined.answers["listen"].as_str()), (EACCES, EPERM));
}

/// Options that load a module of the kernel or bring a program into it are refused, those of an HTTP client are not.
#[test]
fn s16_options_of_sockets_are_a_list() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let confined = confined(directory.path(), Account::Unprivileged);
    for (option, answer) in confined.answers.iter().filter(|(name, _)| name.starts_with("option-")) {
        let known = ["option-nodelay", "option-keepalive"].contains(&option.as_str());
        assert_eq!(answer, if known { "done" } else { EPERM }, "{option}");
    }
    assert_eq!(confined.answers.keys().filter(|name| name.starts_with("option-")).count(), 5);
}

#[test]
fn root_has_no_capability_left_in_it() {
    if !is_root() && !unshare().arg("true").output().is_ok_and(|done| done.status.success()) {
        return skip::skip_unless_ci("user namespaces are not allowed");
    }
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let confined = confined(directory.path(), Account::Root);
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(confined.answers[set], "0000000000000000", "{set}");
    }
}
