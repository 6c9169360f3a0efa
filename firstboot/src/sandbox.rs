// SPDX-License-Identifier: Apache-2.0
//! Confines this process irrevocably to what a connection to an API server needs.
//!
//! The process keeps: TCP and UDP over IPv4 and IPv6, reading a few files for name resolution, threads, memory.
//! It has no capability, runs no other program, writes to no file, and opens no raw or local socket. The sandbox does
//! not depend on the unit file: each layer works by itself.
//! <https://docs.kernel.org/userspace-api/seccomp_filter.html>, <https://docs.kernel.org/userspace-api/landlock.html>

mod filter;

use crate::paths::HOSTS;
use anyhow::{Context, Result};
use caps::CapSet;
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    path_beneath_rules,
};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Readable paths: name resolution of musl and of glibc. systemd-resolved's list of servers is behind a symbolic link.
const READABLE: &[&str] = &[
    "/etc/resolv.conf",
    HOSTS,
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/run/systemd/resolve",
];

/// Layers that the kernel or a limit did not permit; the process is confined all the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// The kernel has no Landlock, or Landlock is disabled.
    pub landlock: bool,
    /// Memory could not be locked: the limit is too low.
    pub locked_memory: bool,
}

impl Missing {
    /// Notices for people, one line each.
    pub fn notices(&self) -> impl Iterator<Item = &'static str> {
        let landlock = "this kernel has no Landlock: the join worker is confined by its unit and by seccomp alone";
        let memory = "the join worker's memory cannot be locked: it may reach swap, where there is any";
        [(self.landlock, landlock), (self.locked_memory, memory)].into_iter().filter(|n| n.0).map(|n| n.1)
    }
}

/// Enters the sandbox. Call it before any other thread is started: Landlock and capabilities are per thread.
///
/// # Errors
/// When a layer that every supported kernel has cannot be set up; the process must end then.
pub fn enter() -> Result<Missing> {
    // Not dumpable: no core file, and no other process of this user can read this one's /proc/PID/mem.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("make memory non-dumpable")?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).context("switch core files off")?;
    let locked = lock_memory();
    rustix::thread::set_no_new_privs(true).context("set no_new_privs")?;
    let landlock = restrict_files()?;
    drop_capabilities()?;
    filter::install()?;
    Ok(Missing { landlock: landlock == RulesetStatus::NotEnforced, locked_memory: !locked })
}

/// Keeps memory out of swap. Under a limit of locked memory it does nothing: later mappings beyond the limit would
/// fail.
fn lock_memory() -> bool {
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    getrlimit(Resource::Memlock).current.is_none() && mlockall(all).is_ok()
}

fn restrict_files() -> Result<RulesetStatus> {
    // The newest set of rights; an older kernel enforces those that it supports.
    let abi = ABI::V5;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rules(path_beneath_rules(READABLE, AccessFs::ReadFile | AccessFs::ReadDir)))
        .and_then(|rules| rules.restrict_self())
        .context("set Landlock rules")?;
    Ok(status.ruleset)
}

fn drop_capabilities() -> Result<()> {
    // Only a process with CAP_SETPCAP may reduce the bounding set. Without it the bounding set does not matter, because
    // nothing can be executed.
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP).context("read capabilities")? {
        caps::clear(None, CapSet::Bounding).context("empty the bounding set")?;
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).with_context(|| format!("drop {set:?} capabilities"))?;
    }
    Ok(())
}
