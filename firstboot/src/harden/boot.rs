// SPDX-License-Identifier: Apache-2.0
//! How the kernel was started: its command line, which the image's boot loader passes, and its security modules; and what
//! starts a system that hangs over.
//!
//! Nothing is applied here: the words are in `targets/*.toml`, which a test of imagebuild compares with this table, and the
//! image has the file.
//! <https://docs.kernel.org/admin-guide/kernel-parameters.html>

use crate::check::Finding;
use crate::harden::overrides::AuditContext;
use anyhow::Result;

/// A word, the architecture that supports it (`""`: all), and the reason.
pub type Word = (&'static str, &'static str, &'static str);

/// Words of the command line.
#[rustfmt::skip]
pub const COMMAND_LINE: &[Word] = &[
    ("lockdown=integrity", "", "root cannot change the running kernel: only signed modules, no writing to its memory"),
    ("slab_nomerge", "", "objects of one kind in the kernel do not overflow into another kind"),
    ("init_on_alloc=1", "", "memory is zeroed before it is handed out"),
    ("init_on_free=1", "", "memory is zeroed when it is given back, so that nothing of a node's secrets outlives it there"),
    ("page_alloc.shuffle=1", "", "free memory is handed out in random order"),
    ("randomize_kstack_offset=on", "", "each system call finds the kernel's stack elsewhere"),
    ("mitigations=auto", "", "the processor's own faults are worked around, as far as that leaves all its threads in use: nosmt would halve many of them"),
    ("debugfs=off", "", "no debugging interface of drivers"),
    ("vsyscall=none", "amd64", "no code at a fixed address in every program"),
];

/// A file that every image contains: path, text, reason (systemd-system.conf(5)). Where there is no watchdog, systemd goes
/// without.
pub const WATCHDOG: (&str, &str, &str) = (
    "/usr/lib/systemd/system.conf.d/50-firstboot.conf",
    "[Manager]\nRuntimeWatchdogSec=60\n",
    "the hardware restarts a system that hangs for a minute",
);
/// Whether the first watchdog of the machine runs (Linux, Documentation/ABI/testing/sysfs-class-watchdog).
const WATCHDOG_STATE: &str = "/sys/class/watchdog/watchdog0/state";

/// The words in the running kernel's command line, the watchdog, and the lockdown mode that the kernel reports.
pub(crate) fn audit(context: &AuditContext<'_>) -> Result<Vec<Finding>> {
    let host = context.host;
    let line = host.read_text("/proc/cmdline")?.unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let known = COMMAND_LINE.iter().filter(|(_, only, _)| only.is_empty() || *only == arch);
    let mut findings: Vec<Finding> = known
        .map(|(word, _, why)| {
            let key = word.split('=').next().unwrap_or(word);
            // The kernel uses the last word of a name.
            let found = words.iter().rev().find(|w| w.split('=').next() == Some(key)).map(|w| (*w).to_owned());
            Finding::compare(format!("boot/{key}"), word, None, found, why)
        })
        .collect();
    // Not every machine has one.
    if let Some(found) = host.read_text(WATCHDOG_STATE)? {
        findings.push(Finding::compare("boot/watchdog".to_owned(), "active", None, Some(found), WATCHDOG.2));
    }
    let modules = host.read_text("/sys/kernel/security/lsm")?.unwrap_or_default();
    // A kernel built without lockdown ignores the word.
    if modules.split(',').any(|m| m == "lockdown") {
        let text = host.read_text("/sys/kernel/security/lockdown")?;
        let found = text.map(|t| t.split(['[', ']']).nth(1).unwrap_or("unclear").to_owned());
        let why = "what the kernel made of lockdown= on its command line";
        findings.push(Finding::compare("boot/kernel-lockdown".to_owned(), "integrity", None, found, why));
    }
    Ok(findings)
}

/// The program with which containerd loads its profile.
const PARSER: &str = "/usr/sbin/apparmor_parser";
/// The profile that containerd gives to containers.
const PROFILE: &str = "cri-containerd.apparmor.d";

/// AppArmor: enabled, and able to load containerd's profile.
pub(crate) fn audit_apparmor(context: &AuditContext<'_>) -> Result<Vec<Finding>> {
    let host = context.host;
    let found = host.read_text("/sys/module/apparmor/parameters/enabled")?;
    let why = "containers are confined by a profile beside their namespaces";
    let mut findings = vec![Finding::compare("apparmor/enabled".to_owned(), "Y", None, found, why)];
    let found = if host.size_and_mode(PARSER)?.is_some() { "present" } else { "missing" };
    let why = "without it containerd starts containers unconfined, without a message";
    findings.push(Finding::compare("apparmor/parser".to_owned(), "present", None, Some(found.to_owned()), why));
    // The profile exists from the first container on.
    let profiles = host.read_text("/sys/kernel/security/apparmor/profiles")?.unwrap_or_default();
    let mode = profiles.lines().find_map(|l| l.strip_prefix(PROFILE)?.trim().strip_prefix('(')?.strip_suffix(')'));
    if let Some(mode) = mode {
        let why = "what the profile forbids is refused, not only logged";
        let id = format!("apparmor/{PROFILE}");
        findings.push(Finding::compare(id, "enforce", None, Some(mode.to_owned()), why));
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;
    use crate::harden::overrides::SeedOverrides;
    use crate::host::Host;
    use crate::host::fake::Fake;

    fn found(
        files: &[(&str, &str)],
        audit: fn(&AuditContext<'_>) -> Result<Vec<Finding>>,
    ) -> Vec<(String, Verdict, String)> {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        for (path, text) in files {
            host.write(path, text.as_bytes(), 0o644).unwrap();
        }
        let context = AuditContext { host: &host, kept: SeedOverrides::default() };
        audit(&context).unwrap().into_iter().map(|f| (f.id, f.state, f.found)).collect()
    }

    fn line() -> String {
        let words = COMMAND_LINE.iter().map(|(word, ..)| *word).collect::<Vec<_>>();
        format!("root=x ro {}", words.join(" "))
    }

    #[test]
    fn last_word_of_a_name_counts() {
        let good = found(&[("/proc/cmdline", &line())], audit);
        assert!(good.len() + 1 >= COMMAND_LINE.len() && good.iter().all(|(_, state, _)| *state == Verdict::Ok));
        let off = format!("{} mitigations=off", line().replace(" slab_nomerge", ""));
        let bad = found(&[("/proc/cmdline", &off)], audit);
        let bad: Vec<_> = bad.into_iter().filter(|(_, state, _)| *state != Verdict::Ok).collect();
        assert_eq!(
            bad,
            [
                ("boot/slab_nomerge".to_owned(), Verdict::Drift, "missing".to_owned()),
                ("boot/mitigations".to_owned(), Verdict::Drift, "mitigations=off".to_owned()),
            ]
        );
    }

    #[test]
    fn lockdown_mode_is_read_from_the_kernel() {
        let with = |lsm: &str, lockdown: &str| {
            let files = [
                ("/proc/cmdline", line()),
                ("/sys/kernel/security/lsm", lsm.to_owned()),
                ("/sys/kernel/security/lockdown", lockdown.to_owned()),
            ];
            let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (*p, t.as_str())).collect();
            found(&files, audit).into_iter().find(|(id, ..)| id == "boot/kernel-lockdown").map(|(_, s, f)| (s, f))
        };
        let all = "capability,landlock,lockdown,yama,apparmor";
        assert_eq!(with(all, "none [integrity] confidentiality\n"), Some((Verdict::Ok, "integrity".to_owned())));
        assert_eq!(with(all, "[none] integrity confidentiality\n"), Some((Verdict::Drift, "none".to_owned())));
        assert_eq!(with("capability,yama", "x"), None);
    }

    #[test]
    fn a_watchdog_that_is_there_has_to_run() {
        let with = |state: Option<&str>| {
            let line = line();
            let files =
                [("/proc/cmdline", line.as_str())].into_iter().chain(state.map(|state| (WATCHDOG_STATE, state)));
            let found = found(&files.collect::<Vec<_>>(), audit);
            found.into_iter().find(|(id, ..)| id == "boot/watchdog").map(|(_, state, found)| (state, found))
        };
        assert_eq!(with(None), None);
        assert_eq!(with(Some("active\n")), Some((Verdict::Ok, "active".to_owned())));
        assert_eq!(with(Some("inactive\n")), Some((Verdict::Drift, "inactive".to_owned())));
    }

    #[test]
    fn apparmor_must_be_on_and_its_profile_enforced() {
        let enabled = ("/sys/module/apparmor/parameters/enabled", "Y\n");
        let parser = (PARSER, "");
        let states = |files: &[(&str, &str)]| -> Vec<Verdict> {
            found(files, audit_apparmor).into_iter().map(|(_, state, _)| state).collect()
        };
        assert_eq!(states(&[enabled, parser]), [Verdict::Ok, Verdict::Ok]);
        assert_eq!(states(&[]), [Verdict::Drift, Verdict::Drift]);
        let profiles = |mode: &str| format!("lsb_release ({mode})\ncri-containerd.apparmor.d ({mode})\n");
        let path = "/sys/kernel/security/apparmor/profiles";
        assert_eq!(states(&[enabled, parser, (path, &profiles("enforce"))]), [Verdict::Ok; 3]);
        assert_eq!(states(&[enabled, parser, (path, &profiles("complain"))])[2], Verdict::Drift);
    }
}
