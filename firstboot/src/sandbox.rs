// SPDX-License-Identifier: Apache-2.0
//! Confines this process irrevocably to what a connection to an API server needs.
//!
//! The process keeps: TCP to the ports that it is given and to that of DNS, UDP, both over IPv4 and IPv6; reading a few
//! files for name resolution, threads, memory. It has no capability, runs no other program, writes to no file, opens no
//! raw or local socket, and reaches no process by a signal. The sandbox does not depend on the unit file: each layer
//! works by itself.
//! <https://docs.kernel.org/userspace-api/seccomp_filter.html>, <https://docs.kernel.org/userspace-api/landlock.html>

mod filter;

use crate::paths::{HOSTS, RESOLV_CONF};
use anyhow::{Context, Result};
use caps::CapSet;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, NetPort, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// Readable paths: name resolution of musl and of glibc. systemd-resolved's list of servers is behind a symbolic link.
const READABLE: &[&str] = &[
    RESOLV_CONF,
    HOSTS,
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/run/systemd/resolve",
];

/// DNS over TCP: answers that are too long for UDP.
const DNS: u16 = 53;

/// Layers that the kernel or a limit did not permit; the process is confined all the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// The kernel has no Landlock, or Landlock is disabled.
    pub landlock: bool,
    /// The kernel's Landlock knows no ports (before Linux 6.7).
    pub ports: bool,
    /// Memory could not be locked: the limit is too low.
    pub locked_memory: bool,
}

impl Missing {
    /// Notices for people, one line each.
    pub fn notices(&self) -> impl Iterator<Item = &'static str> {
        let landlock = "this kernel has no Landlock: the join worker is confined by its unit and by seccomp alone";
        let ports = "this kernel's Landlock knows no ports: the join worker may connect to any port";
        let memory = "the join worker's memory cannot be locked: it may reach swap, where there is any";
        let all = [(self.landlock, landlock), (self.ports && !self.landlock, ports), (self.locked_memory, memory)];
        all.into_iter().filter(|n| n.0).map(|n| n.1)
    }
}

/// Memory that no other process sees, on no medium: what this process is given next may be secret.
#[derive(Debug)]
pub struct PrivateMemory {
    locked: bool,
}

impl PrivateMemory {
    /// Makes this process's memory private.
    ///
    /// # Errors
    /// The kernel does not permit it; the process must end then.
    pub fn new() -> Result<Self> {
        // Not dumpable: no core file, and no other process of this user can read this one's /proc/PID/mem.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).context("make memory non-dumpable")?;
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).context("switch core files off")?;
        Ok(PrivateMemory { locked: lock_memory() })
    }

    /// Enters the sandbox, from which TCP leads to these ports alone. Call it before any other thread is started:
    /// Landlock and capabilities are per thread.
    ///
    /// # Errors
    /// When a layer that every supported kernel has cannot be set up; the process must end then.
    pub fn enter(&self, tcp: &[u16]) -> Result<Missing> {
        rustix::thread::set_no_new_privs(true).context("set no_new_privs")?;
        let (landlock, ports) = restrict(tcp).context("set Landlock rules")?;
        drop_capabilities()?;
        filter::install()?;
        Ok(Missing { landlock: !landlock, ports: !ports, locked_memory: !self.locked })
    }
}

/// Keeps memory out of swap. Under a limit of locked memory it does nothing: later mappings beyond the limit would
/// fail.
fn lock_memory() -> bool {
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    getrlimit(Resource::Memlock).current.is_none() && mlockall(all).is_ok()
}

/// Sets the Landlock rules. Returns whether the kernel enforces any of them, and whether those about ports.
fn restrict(tcp: &[u16]) -> Result<(bool, bool), RulesetError> {
    // The newest set of rights; an older kernel enforces those that it supports.
    let abi = ABI::V6;
    let ports = tcp.iter().chain([&DNS]).map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::ConnectTcp)));
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .add_rules(path_beneath_rules(READABLE, AccessFs::ReadFile | AccessFs::ReadDir))?
        .add_rules(ports)?
        .restrict_self()?;
    let enforced = status.ruleset != RulesetStatus::NotEnforced;
    let knows = matches!(status.landlock, LandlockStatus::Available { effective_abi, .. } if effective_abi >= ABI::V4);
    Ok((enforced, enforced && knows))
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
