// SPDX-License-Identifier: Apache-2.0
//! The seccomp filter: allows the system calls that a TLS client with threads needs; all others fail with EPERM.
//!
//! The filter checks arguments where the number of the call is not enough: the kind of socket, the mode of opening a
//! file, executable memory. It cannot follow pointers (to paths); Landlock covers those.

use anyhow::{Context, Result};
use seccompiler::{
    BpfProgram, SeccompAction,
    SeccompCmpArgLen::{Dword, Qword},
    SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

const MAKE: &str = "make the seccomp filter";

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Allowed with any argument.
const PLAIN: &[i64] = &[
    // Open files and sockets.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fcntl,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    // The network; the rule for `socket` limits the kinds of sockets.
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    // Memory and threads.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Time and randomness.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_uname,
];

/// Options of sockets that HTTP clients and resolvers set, level and name. Others load modules of the kernel (TCP_ULP)
/// or bring programs into it (SO_ATTACH_FILTER).
const OPTIONS: &[(i32, i32)] = &[
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    // musl's and glibc's resolver.
    (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT),
    (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
    (libc::IPPROTO_IP, libc::IP_RECVERR),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
];

/// Calls that exist only on this architecture.
#[cfg(target_arch = "x86_64")]
const OLD: &[i64] = &[libc::SYS_stat, libc::SYS_lstat, libc::SYS_poll, libc::SYS_epoll_wait, libc::SYS_arch_prctl];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[i64] = &[];

/// Installs the filter on every thread of this process.
pub(super) fn install() -> Result<()> {
    let allowed = program(allowed()?, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)?;
    // The flags of clone3 are behind a pointer. ENOSYS makes the C library use clone, whose flags the filter can check.
    let hidden = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let hidden = program(hidden, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?;
    for filter in [hidden, allowed] {
        seccompiler::apply_filter_all_threads(&filter).context("set the seccomp filter")?;
    }
    Ok(())
}

fn program(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).context(MAKE)?;
    let filter = SeccompFilter::new(rules, otherwise, matched, arch).context(MAKE)?;
    BpfProgram::try_from(filter).context(MAKE)
}

fn allowed() -> Result<Rules> {
    let mut rules: Rules = PLAIN.iter().chain(OLD).map(|call| (*call, Vec::new())).collect();
    let int = |n: i32| u64::from(n.unsigned_abs());
    // Files may be opened only for reading.
    let writing = int(libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND);
    rules.insert(libc::SYS_openat, vec![rule(&[masked(2, writing, 0)?])?]);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, vec![rule(&[masked(1, writing, 0)?])?]);
    // TCP and UDP over IP; the upper bits of the type are SOCK_CLOEXEC and SOCK_NONBLOCK.
    let mut sockets = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
            for protocol in [0, if kind == libc::SOCK_STREAM { libc::IPPROTO_TCP } else { libc::IPPROTO_UDP }] {
                sockets.push(rule(&[equal(0, int(family))?, masked(1, 0xf, int(kind))?, equal(2, int(protocol))?])?);
            }
        }
    }
    rules.insert(libc::SYS_socket, sockets);
    let option = |&(level, name): &(i32, i32)| rule(&[equal(1, int(level))?, equal(2, int(name))?]);
    rules.insert(libc::SYS_setsockopt, OPTIONS.iter().map(option).collect::<Result<_>>()?);
    // Memory may not be executable.
    let executable = int(libc::PROT_EXEC);
    rules.insert(libc::SYS_mmap, vec![rule(&[masked(2, executable, 0)?])?]);
    rules.insert(libc::SYS_mprotect, vec![rule(&[masked(2, executable, 0)?])?]);
    // New threads of this process, but no process and no namespace.
    let thread = int(libc::CLONE_THREAD);
    let namespaces = int(libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWPID);
    rules.insert(libc::SYS_clone, vec![rule(&[masked(0, thread | namespaces, thread)?])?]);
    // Thread name (PR_SET_NAME); non-blocking mode of a socket (FIONBIO); stack limit, read only (RLIMIT_STACK).
    rules.insert(libc::SYS_prctl, vec![rule(&[equal(0, int(libc::PR_SET_NAME))?])?]);
    rules.insert(libc::SYS_ioctl, vec![rule(&[equal(1, 0x5421)?])?]);
    rules.insert(libc::SYS_prlimit64, vec![rule(&[equal(0, 0)?, equal(1, 3)?, is_null(2)?])?]);
    Ok(rules)
}

fn rule(conditions: &[SeccompCondition]) -> Result<SeccompRule> {
    SeccompRule::new(conditions.to_vec()).context(MAKE)
}

fn equal(argument: u8, value: u64) -> Result<SeccompCondition> {
    SeccompCondition::new(argument, Dword, SeccompCmpOp::Eq, value).context(MAKE)
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition> {
    SeccompCondition::new(argument, Dword, SeccompCmpOp::MaskedEq(mask), value).context(MAKE)
}

/// The argument is a null pointer.
fn is_null(argument: u8) -> Result<SeccompCondition> {
    SeccompCondition::new(argument, Qword, SeccompCmpOp::Eq, 0).context(MAKE)
}
