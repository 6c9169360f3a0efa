// SPDX-License-Identifier: Apache-2.0
//! Kernel settings of the hardened host: the recommendations of the Kernel Self-Protection Project and of the CIS
//! benchmark for Debian (levels 1 and 2), as far as a Kubernetes node allows them.
//!
//! The image contains them as a file that systemd-sysctl reads before any link is up, and that udev reads for each link
//! that appears later. The phase `harden` sets them too and adds the seed's overrides. The settings that kubelet needs
//! are a separate table, which the phase `kernel` sets. Format: sysctl.d(5).
//! <https://kspp.github.io/Recommended_Settings>

use super::overrides::SeedOverrides;
use crate::check::{Finding, Verdict};
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::harden::overrides::AuditContext;
use crate::host::Host;
use crate::text::one_line;
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// Read at every boot. Sorts after Debian's own files and before the seed's file.
pub const FILE: &str = "/usr/lib/sysctl.d/99-firstboot-harden.conf";
/// Overrides of the seed.
const SEED_FILE: &str = "/etc/sysctl.d/99-firstboot-seed.conf";

/// Settings that a node needs.
const NODE_FILE: &str = "/etc/sysctl.d/90-firstboot.conf";

/// What the kernel shows where it does not show the value that the phase `harden` set last in this boot, by key. A
/// kernel may reject a value, round it or write it in another form; without this the phase would never hold.
pub(crate) const SHOWN_FILE: &str = "/run/firstboot/sysctl.json";

/// Name, value, reason. A `*` matches every network interface.
type Setting = (&'static str, &'static str, &'static str);

/// Settings that every kernel has.
#[rustfmt::skip]
const SETTINGS: &[Setting] = &[
    ("kernel.kptr_restrict", "2", "addresses in the kernel help an attack on it"),
    ("kernel.dmesg_restrict", "1", "the kernel log is for root"),
    ("kernel.randomize_va_space", "2", "programs lie at random addresses, the heap included"),
    ("kernel.sysrq", "0", "a keyboard, or a pod that writes to /proc/sysrq-trigger, commands nothing"),
    ("kernel.ctrl-alt-del", "0", "Ctrl-Alt-Del is left to the service manager, which ignores it"),
    ("kernel.core_pattern", "|/bin/false", "memory of a program that failed may hold secrets: it is not kept"),
    ("kernel.core_uses_pid", "1", "if core dumps are enabled, none overwrites another"),
    ("fs.suid_dumpable", "0", "programs that changed their user leave no memory behind"),
    ("fs.protected_hardlinks", "1", "users cannot create hard links to files of other users"),
    ("fs.protected_symlinks", "1", "symbolic links in /tmp do not redirect other users"),
    ("fs.protected_fifos", "2", "no writing into another user's pipe in a shared directory"),
    ("fs.protected_regular", "2", "no writing into another user's file in a shared directory"),
    ("vm.mmap_min_addr", "65536", "a null pointer in the kernel leads to no memory of a program"),
    ("net.ipv4.tcp_syncookies", "1", "a flood of half-open connections does not block new ones"),
    ("net.ipv4.tcp_rfc1337", "1", "a late packet does not end a connection that is being closed"),
    ("net.ipv4.icmp_echo_ignore_broadcasts", "1", "no amplifier of other hosts' traffic"),
    ("net.ipv4.icmp_ignore_bogus_error_responses", "1", "wrong answers of routers do not fill the log"),
    ("net.ipv4.conf.all.rp_filter", "1", "a packet comes in where its answer would go out; strict works with bridge and flannel, and Calico refuses loose"),
    ("net.ipv4.conf.default.rp_filter", "1", "the same for links that come later, pods' included"),
    ("net.ipv4.conf.all.log_martians", "1", "packets from impossible addresses are logged; the kernel limits the rate"),
    ("net.ipv4.conf.default.log_martians", "1", "the same for links that come later"),
    ("net.ipv4.conf.*.accept_source_route", "0", "senders do not choose the route of packets"),
    ("net.ipv4.conf.*.accept_redirects", "0", "a neighbour cannot redirect traffic through itself"),
    ("net.ipv4.conf.*.secure_redirects", "0", "not even one that is a gateway"),
    ("net.ipv4.conf.*.send_redirects", "0", "a node is no router for its neighbours"),
];

/// Settings that some kernels lack: built without them, of another version, or of another architecture. The value is
/// required where the kernel knows the name.
#[rustfmt::skip]
const WHERE_KNOWN: &[Setting] = &[
    ("kernel.perf_event_paranoid", "3", "performance counters spy on other programs; 3 is Debian's word for root only"),
    ("kernel.unprivileged_bpf_disabled", "1", "only root loads programs into the kernel"),
    ("net.core.bpf_jit_harden", "2", "programs in the kernel carry no constants of an attacker's choice"),
    ("kernel.kexec_load_disabled", "1", "no other kernel is started past the firmware"),
    ("kernel.yama.ptrace_scope", "2", "only a process with CAP_SYS_PTRACE traces another; 3 would deny that to debugging pods, too"),
    ("kernel.unprivileged_userns_clone", "0", "user namespaces are made by root alone: Kubernetes' own (hostUsers: false) still work, for the runtime makes them"),
    ("kernel.io_uring_disabled", "2", "a frequent way to root; containerd's seccomp profile refuses it to pods anyway"),
    ("vm.unprivileged_userfaultfd", "0", "handling of page faults makes races in the kernel easy to win"),
    ("vm.mmap_rnd_bits", "32", "as random as addresses can be on amd64, and nearly so on arm64"),
    ("vm.mmap_rnd_compat_bits", "16", "the same for 32-bit programs"),
    ("dev.tty.ldisc_autoload", "0", "terminals load no line disciplines, a source of faults for years"),
    ("dev.tty.legacy_tiocsti", "0", "no program types into another's terminal"),
    ("net.ipv6.conf.all.accept_ra", "0", "networkd and NetworkManager read router advertisements themselves; the kernel's own reading is for hosts that forward nothing"),
    ("net.ipv6.conf.default.accept_ra", "0", "the same for links that come later: a pod cannot announce itself as a router"),
    ("net.ipv6.conf.*.accept_source_route", "0", "senders do not choose the route of packets"),
    ("net.ipv6.conf.*.accept_redirects", "0", "a neighbour cannot redirect traffic through itself"),
];

/// Settings that kubelet, the runtime and pod networks need; the phase `kernel` sets them.
const NODE_SETTINGS: &[Setting] = &[
    ("net.ipv4.ip_forward", "1", "pods reach beyond this node"),
    ("net.ipv6.conf.all.forwarding", "1", "the same for IPv6"),
    ("net.bridge.bridge-nf-call-iptables", "1", "Services work between pods of one bridge"),
    ("net.bridge.bridge-nf-call-ip6tables", "1", "the same for IPv6"),
    ("vm.overcommit_memory", "1", "kubelet's protectKernelDefaults"),
    ("vm.panic_on_oom", "0", "kubelet's protectKernelDefaults"),
    ("kernel.panic", "10", "kubelet's protectKernelDefaults: a device out of reach restarts by itself"),
    ("kernel.panic_on_oops", "1", "kubelet's protectKernelDefaults"),
    ("kernel.keys.root_maxkeys", "1000000", "kubelet's protectKernelDefaults"),
    ("kernel.keys.root_maxbytes", "25000000", "kubelet's protectKernelDefaults"),
    ("fs.inotify.max_user_instances", "8192", "many containers watch files"),
    ("fs.inotify.max_user_watches", "524288", "many containers watch files"),
];

/// Settings that a running kernel only ever makes stricter.
const ONLY_STRICTER: [&str; 2] = ["kernel.kexec_load_disabled", "kernel.unprivileged_bpf_disabled"];

/// The file in the image.
pub fn file() -> String {
    let line = |mark: &str, (key, value, why): &Setting| format!("# {why}\n{mark}{key} = {value}\n");
    let must: String = SETTINGS.iter().map(|s| line("", s)).collect();
    // With a leading minus systemd-sysctl continues when the kernel rejects the setting.
    let may: String = WHERE_KNOWN.iter().map(|s| line("-", s)).collect();
    format!("# Written by firstboot.\n{must}{may}")
}

/// The file with the seed's overrides.
fn seed_file(settings: &BTreeMap<String, String>) -> Option<String> {
    let lines: String = settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    (!lines.is_empty()).then(|| format!("# Written by firstboot.\n{lines}"))
}

/// The file with the settings that a node needs.
fn node_file() -> String {
    let lines: String = NODE_SETTINGS.iter().map(|(key, value, why)| format!("# {why}\n{key} = {value}\n")).collect();
    format!("# Written by firstboot.\n{lines}")
}

/// Path of a setting. Dots and slashes in the name are swapped (sysctl(8)), for the sake of links with dots.
fn path(key: &str) -> String {
    let swapped = key.chars().map(|c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    });
    format!("/proc/sys/{}", swapped.collect::<String>())
}

/// Results of `work` for a setting, or for every setting that a name with a `*` matches.
fn each<T>(host: &Host, row: &str, work: impl Fn(String) -> Result<T>) -> Result<Vec<T>> {
    match row.split_once(".*.") {
        None => Ok(vec![work(row.to_owned())?]),
        Some((before, after)) => {
            host.each(&path(before), |link| work(format!("{before}.{}.{after}", link.replace('.', "/"))))
        }
    }
}

/// The kernel's value, with runs of blanks as one blank.
fn value(host: &Host, key: &str) -> Result<Option<String>> {
    let text = host.read_text(&path(key))?;
    Ok(text.map(|t| t.split_whitespace().collect::<Vec<_>>().join(" ")))
}

/// Whether the file with the settings that a node needs is current, and the running kernel has them. Settings with an
/// override are left out: the phase `harden` sets them.
pub(crate) fn check_node(host: &Host, overrides: &BTreeMap<String, String>) -> Result<bool> {
    if host.read(NODE_FILE)?.as_deref() != Some(node_file().as_bytes()) {
        return Ok(false);
    }
    for setting in NODE_SETTINGS.iter().filter(|(key, ..)| !overrides.contains_key(*key)) {
        if compare_row(host, setting, overrides, false)?.state == Verdict::Drift {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes the file with the settings that a node needs.
pub(crate) fn write_node_file(host: &Host) -> Result<()> {
    host.write(NODE_FILE, node_file().as_bytes(), 0o644)
}

/// Sets what a node needs, except the seed's overrides, which the phase `harden` sets.
pub(crate) fn set_node(host: &Host, overrides: &BTreeMap<String, String>) -> Result<()> {
    for (key, value, _) in NODE_SETTINGS.iter().filter(|(key, ..)| !overrides.contains_key(*key)) {
        host.set_kernel(&path(key), value)?;
    }
    Ok(())
}

pub(super) fn check(host: &Host, kept: &SeedOverrides) -> Result<bool> {
    let seed = host.read(SEED_FILE)?;
    let files = host.read(FILE)?.as_deref() == Some(file().as_bytes())
        && seed.as_deref() == seed_file(&kept.harden.sysctl).as_ref().map(String::as_bytes);
    if !files {
        return Ok(false);
    }
    // One that is torn says nothing: the settings are set again.
    let shown = host.read(SHOWN_FILE)?.unwrap_or_default();
    let shown: BTreeMap<String, String> = serde_json::from_slice(&shown).unwrap_or_default();
    let drift = drift(host, &kept.harden.sysctl)?;
    Ok(drift.iter().all(|(key, found)| found.is_some() && shown.get(key) == found.as_ref()))
}

/// Settings of the hardened host and of the seed that the running kernel does not show as required, and what it shows.
fn drift(host: &Host, overrides: &BTreeMap<String, String>) -> Result<Vec<(String, Option<String>)>> {
    let mut drift = Vec::new();
    let all = SETTINGS.iter().map(|s| (s, false)).chain(WHERE_KNOWN.iter().map(|s| (s, true)));
    for (setting, known_only) in all {
        let rows = read_row(host, setting, overrides, known_only)?;
        drift.extend(rows.into_iter().filter(|row| row.state == Verdict::Drift).map(|row| (row.key, row.found)));
    }
    for (key, wanted) in overrides {
        let found = value(host, key)?;
        if found.as_ref() != Some(wanted) {
            drift.push((key.clone(), found));
        }
    }
    Ok(drift)
}

/// Keeps what the kernel made of the values that were just set.
fn keep_shown(host: &Host, overrides: &BTreeMap<String, String>) -> Result<()> {
    let drift = drift(host, overrides)?;
    let shown: BTreeMap<_, _> = drift.into_iter().filter_map(|(key, found)| Some((key, found?))).collect();
    let json = serde_json::to_string(&shown).with_context(|| format!("encode {SHOWN_FILE}"))?;
    host.keep_or_remove(SHOWN_FILE, (!shown.is_empty()).then_some(&json))
}

pub(super) fn apply(host: &Host, kept: &SeedOverrides) -> Result<(), Fault> {
    let overrides = &kept.harden.sysctl;
    let apply_own = || -> Result<()> {
        host.ensure(FILE, &file())?;
        for (known_only, (key, wanted, _)) in
            SETTINGS.iter().map(|s| (false, s)).chain(WHERE_KNOWN.iter().map(|s| (true, s)))
        {
            each(host, key, |key| {
                let found = value(host, &key)?;
                let right = found.as_deref() == Some(*wanted) || (known_only && found.is_none());
                if right || overrides.contains_key(&key) {
                    return Ok(());
                }
                match host.set_kernel(&path(&key), wanted) {
                    // A kernel may know the name but not the value; the audit reports that.
                    Err(_) if known_only => Ok(()),
                    other => other,
                }
            })?;
        }
        host.keep_or_remove(SEED_FILE, seed_file(overrides).as_deref())
    };
    apply_own().owned_by(Owner::Host)?;
    for (key, wanted) in overrides {
        apply_seed_override(host, key, wanted)?;
    }
    keep_shown(host, overrides).owned_by(Owner::Host)
}

/// Sets one override of the seed.
fn apply_seed_override(host: &Host, key: &str, wanted: &str) -> Result<(), Fault> {
    let found = value(host, key).owned_by(Owner::Host)?;
    if found.as_deref() == Some(wanted) {
        return Ok(());
    }
    match host.set_kernel(&path(key), wanted) {
        Ok(()) => Ok(()),
        // The file applies it at the next boot.
        Err(_) if found.is_some() && ONLY_STRICTER.contains(&key) => {
            host.sys().say(&format!("{key} = {wanted}, by the seed, holds from the next boot"));
            Ok(())
        }
        Err(e) => Err(Fault::new(Code::SettingDoesNotFit, format!("set {key} to {wanted} by [harden] sysctl: {e:#}"))),
    }
}

/// All settings of the hardened host and of the seed, read back from the kernel.
pub(crate) fn audit(context: &AuditContext<'_>) -> Result<Vec<Finding>> {
    let overrides = &context.kept.harden.sysctl;
    let mut findings = Vec::new();
    for setting in NODE_SETTINGS {
        findings.push(compare_row(context.host, setting, overrides, false)?);
    }
    for setting in SETTINGS {
        findings.push(compare_row(context.host, setting, overrides, false)?);
    }
    for setting in WHERE_KNOWN {
        findings.push(compare_row(context.host, setting, overrides, true)?);
    }
    let covered = |key: &str| findings.iter().any(|f| f.id == format!("sysctl/{key}") || f.id == starred(key));
    let more: Vec<_> = overrides.iter().filter(|(key, _)| !covered(key)).collect();
    for (key, wanted) in more {
        let why = "the seed names it, the hardened host does not";
        let found = value(context.host, key)?;
        findings.push(Finding::compare(format!("sysctl/{key}"), wanted, Some(wanted), found, why));
    }
    Ok(findings)
}

/// The id of the row that covers a setting of one link: `net.ipv4.conf.eth0.x` → `sysctl/net.ipv4.conf.*.x`.
fn starred(key: &str) -> String {
    let mut parts: Vec<&str> = key.split('.').collect();
    if let [_, _, _, link, _] = parts.as_mut_slice() {
        *link = "*";
    }
    format!("sysctl/{}", parts.join("."))
}

/// One setting, read back from the running kernel.
struct ReadBack {
    key: String,
    /// The kernel's value; `None` when the kernel does not have the setting.
    found: Option<String>,
    state: Verdict,
}

/// The setting of one row, read back; of a row with a `*` one for each link.
fn read_row(
    host: &Host,
    (row, wanted, _): &Setting,
    overrides: &BTreeMap<String, String>,
    known_only: bool,
) -> Result<Vec<ReadBack>> {
    each(host, row, |key| {
        let found = value(host, &key)?;
        let state = match overrides.get(&key) {
            Some(other) if found.as_ref() == Some(other) => Verdict::Exception,
            None if found.as_deref() == Some(*wanted) || (known_only && found.is_none()) => Verdict::Ok,
            _ => Verdict::Drift,
        };
        Ok(ReadBack { key, found, state })
    })
}

/// The finding of one row. A row with a `*` covers all links together; the finding names only links that differ.
fn compare_row(
    host: &Host,
    setting: &Setting,
    overrides: &BTreeMap<String, String>,
    known_only: bool,
) -> Result<Finding> {
    let (row, wanted, why) = *setting;
    let (mut wrong, mut excepted) = (Vec::new(), Vec::new());
    for ReadBack { key, found, state } in read_row(host, setting, overrides, known_only)? {
        let shown = found.clone().unwrap_or_else(|| "missing".to_owned());
        let shown = if row.contains('*') { format!("{key} = {shown}") } else { shown };
        match state {
            Verdict::Exception => excepted.push((found.unwrap_or_default(), shown)),
            Verdict::Drift => wrong.push(shown),
            Verdict::Ok | Verdict::Unchecked => {}
        }
    }
    let finding = |state, wanted: &str, found: &str| {
        let (id, wanted) = (format!("sysctl/{row}"), wanted.to_owned());
        Finding { id, state, wanted, found: one_line(found), why: why.to_owned() }
    };
    let joined = |list: &[String]| list.join(", ");
    Ok(match (wrong.is_empty(), excepted.first()) {
        (false, _) => finding(Verdict::Drift, overrides.get(row).map_or(wanted, String::as_str), &joined(&wrong)),
        (true, Some((other, _))) => {
            finding(Verdict::Exception, other, &joined(&excepted.iter().map(|(_, s)| s.clone()).collect::<Vec<_>>()))
        }
        (true, None) => finding(Verdict::Ok, wanted, wanted),
    })
}

#[cfg(test)]
#[path = "sysctl_tests.rs"]
mod tests;
