// SPDX-License-Identifier: Apache-2.0
//! Kernel settings: the file, what is set, exceptions, the audit.

use super::*;
use crate::host::fake::{Fake, Recorded};
use std::path::Path;
use std::rc::Rc;

fn machine(root: &Path) -> (Host, Rc<Recorded>) {
    let (fake, seen) = Fake::new();
    (machine_with(root, fake.kernel_below(root)), seen)
}

fn machine_with(root: &Path, fake: Fake) -> Host {
    let host = Host::open(root, Box::new(fake)).unwrap();
    for link in ["all", "default", "lo", "eth0.5"] {
        for name in ["accept_source_route", "accept_redirects", "secure_redirects", "send_redirects"] {
            put(&host, &format!("/proc/sys/net/ipv4/conf/{link}/{name}"), "0");
        }
    }
    for (key, value, _) in SETTINGS.iter().filter(|(key, ..)| !key.contains('*')) {
        put(&host, &path(key), value);
    }
    host
}

fn put(host: &Host, path: &str, text: &str) {
    host.write(path, format!("{text}\n").as_bytes(), 0o644).unwrap();
}

fn kept(overrides: &[(&str, &str)]) -> SeedOverrides {
    let mut kept = SeedOverrides::default();
    kept.harden.sysctl = overrides.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    kept
}

#[test]
fn file_has_every_setting_once_and_marks_optional_ones() {
    let text = file();
    assert!(text.starts_with(
        "# Written by firstboot.\n# addresses in the kernel help an attack on it\nkernel.kptr_restrict = 2\n"
    ));
    assert!(
        text.contains("\n-kernel.io_uring_disabled = 2\n") && text.contains("\nnet.ipv4.conf.*.send_redirects = 0\n")
    );
    let keys: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split(" = ").next()).collect();
    let different: std::collections::BTreeSet<&str> = keys.iter().map(|k| k.trim_start_matches('-')).collect();
    assert_eq!((keys.len(), different.len()), (SETTINGS.len() + WHERE_KNOWN.len(), keys.len()));
}

#[test]
fn only_differing_settings_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let (host, seen) = machine(dir.path());
    apply(&host, &kept(&[])).unwrap();
    assert_eq!(*seen.kernel.borrow(), Vec::<String>::new());
    assert!(check(&host, &kept(&[])).unwrap());
    put(&host, "/proc/sys/kernel/sysrq", "438");
    put(&host, "/proc/sys/kernel/io_uring_disabled", "0");
    put(&host, "/proc/sys/net/ipv4/conf/eth0.5/send_redirects", "1");
    apply(&host, &kept(&[])).unwrap();
    let set = [
        "/proc/sys/kernel/sysrq=0",
        "/proc/sys/net/ipv4/conf/eth0.5/send_redirects=0",
        "/proc/sys/kernel/io_uring_disabled=2",
    ];
    assert_eq!(*seen.kernel.borrow(), set);
}

#[test]
fn link_renamed_by_udev_meanwhile_is_set_under_its_new_name() {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("proc/sys/net/ipv4/conf");
    let (fake, seen) = Fake::new();
    let fake = fake.answering(move |argv| {
        let renamed = std::fs::rename(conf.join("eth0.5"), conf.join("enp0s1")).is_ok();
        renamed.then(|| anyhow::bail!("set {}: No such file or directory", argv[1]))
    });
    let host = machine_with(dir.path(), fake);
    put(&host, "/proc/sys/net/ipv4/conf/eth0.5/secure_redirects", "1");
    apply(&host, &kept(&[])).unwrap();
    assert_eq!(*seen.kernel.borrow(), ["/proc/sys/net/ipv4/conf/enp0s1/secure_redirects=0"]);
}

#[test]
fn seed_overrides_win_and_are_removed_with_the_next_seed() {
    let dir = tempfile::tempdir().unwrap();
    let (host, seen) = machine(dir.path());
    let overrides =
        kept(&[("kernel.sysrq", "1"), ("net.core.somaxconn", "4096"), ("net.ipv4.conf.eth0/5.send_redirects", "1")]);
    apply(&host, &overrides).unwrap();
    let set = [
        "/proc/sys/kernel/sysrq=1",
        "/proc/sys/net/core/somaxconn=4096",
        "/proc/sys/net/ipv4/conf/eth0.5/send_redirects=1",
    ];
    assert_eq!(*seen.kernel.borrow(), set);
    let text = String::from_utf8(host.read(SEED_FILE).unwrap().unwrap()).unwrap();
    assert_eq!(
        text,
        "# Written by firstboot.\nkernel.sysrq = 1\nnet.core.somaxconn = 4096\nnet.ipv4.conf.eth0/5.send_redirects = 1\n"
    );
    assert!(check(&host, &overrides).unwrap() && !check(&host, &kept(&[])).unwrap());
    apply(&host, &kept(&[])).unwrap();
    assert!(host.read(SEED_FILE).unwrap().is_none() && check(&host, &kept(&[])).unwrap());
    assert!(Path::new(SEED_FILE).file_name() > Path::new(FILE).file_name(), "the last file of sysctl.d(5) wins");
}

#[test]
fn audit_reports_one_finding_per_row() {
    let dir = tempfile::tempdir().unwrap();
    let (host, _) = machine(dir.path());
    let look = |row: &str, overrides: &[(&str, &str)]| {
        let all = SETTINGS.iter().map(|s| (s, false)).chain(WHERE_KNOWN.iter().map(|s| (s, true)));
        let (setting, known_only) = all.into_iter().find(|(s, _)| s.0 == row).unwrap();
        let found = super::compare_row(&host, setting, &kept(overrides).harden.sysctl, known_only).unwrap();
        (found.state, found.wanted, found.found)
    };
    let is = |state, wanted: &str, found: &str| (state, wanted.to_owned(), found.to_owned());
    let (sysrq, redirects) = ("kernel.sysrq", "net.ipv4.conf.*.send_redirects");
    assert_eq!(look(sysrq, &[]), is(Verdict::Ok, "0", "0"));
    assert_eq!(look(redirects, &[]), is(Verdict::Ok, "0", "0"));
    // A kernel without the setting is no drift; another value is drift.
    assert_eq!(look("kernel.io_uring_disabled", &[]).0, Verdict::Ok);
    put(&host, "/proc/sys/kernel/io_uring_disabled", "0");
    assert_eq!(look("kernel.io_uring_disabled", &[]), is(Verdict::Drift, "2", "0"));
    put(&host, "/proc/sys/kernel/sysrq", "1");
    assert_eq!(look(sysrq, &[]), is(Verdict::Drift, "0", "1"));
    assert_eq!(look(sysrq, &[(sysrq, "1")]), is(Verdict::Exception, "1", "1"));
    assert_eq!(look(sysrq, &[(sysrq, "8")]), is(Verdict::Drift, "8", "1"));
    put(&host, "/proc/sys/net/ipv4/conf/eth0.5/send_redirects", "1");
    let one = "net.ipv4.conf.eth0/5.send_redirects";
    assert_eq!(look(redirects, &[]), is(Verdict::Drift, "0", "net.ipv4.conf.eth0/5.send_redirects = 1"));
    assert_eq!(look(redirects, &[(one, "1")]), is(Verdict::Exception, "1", "net.ipv4.conf.eth0/5.send_redirects = 1"));
}

#[test]
fn names_only_in_the_seed_are_audited_too() {
    let dir = tempfile::tempdir().unwrap();
    let (host, _) = machine(dir.path());
    put(&host, "/proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456");
    let overrides =
        [("net.ipv4.tcp_rmem", "4096 131072 6291456"), ("net.core.somaxconn", "4096"), ("kernel.sysrq", "0")];
    let findings = audit(&AuditContext { host: &host, kept: kept(&overrides) }).unwrap();
    let get = |id: &str| findings.iter().filter(|f| f.id == id).map(|f| f.state).collect::<Vec<_>>();
    assert_eq!(get("sysctl/net.ipv4.tcp_rmem"), [Verdict::Exception]);
    assert_eq!(get("sysctl/net.core.somaxconn"), [Verdict::Drift]);
    assert_eq!(get("sysctl/kernel.sysrq"), [Verdict::Exception]);
}

#[test]
fn rejected_override_is_a_seed_fault_or_waits_for_the_next_boot() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, seen) = Fake::new();
    let fake = fake.answering(|argv| (argv[0] == "set").then(|| anyhow::bail!("set {}: Invalid argument", argv[1])));
    let host = Host::open(dir.path(), Box::new(fake)).unwrap();
    put(&host, "/proc/sys/kernel/kexec_load_disabled", "1");
    apply_seed_override(&host, "kernel.kexec_load_disabled", "0").unwrap();
    assert_eq!(*seen.lines.borrow(), ["kernel.kexec_load_disabled = 0, by the seed, holds from the next boot"]);
    let fault = apply_seed_override(&host, "kernel.nonsense", "1").unwrap_err();
    assert_eq!(fault.code, Code::SettingDoesNotFit);
    let words = "set kernel.nonsense to 1 by [harden] sysctl: set /proc/sys/kernel/nonsense: Invalid argument";
    assert_eq!(fault.to_string(), words);
}

#[test]
fn the_check_reads_the_running_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let (host, _) = machine(dir.path());
    let overrides = kept(&[("vm.swappiness", "10")]);
    apply(&host, &overrides).unwrap();
    assert!(check(&host, &overrides).unwrap());
    for (path, drifted) in [
        ("/proc/sys/kernel/sysrq", "438"),
        ("/proc/sys/net/ipv4/conf/eth0.5/send_redirects", "1"),
        ("/proc/sys/kernel/io_uring_disabled", "0"),
        ("/proc/sys/vm/swappiness", "60"),
    ] {
        put(&host, path, drifted);
        assert!(!check(&host, &overrides).unwrap(), "{path}");
        apply(&host, &overrides).unwrap();
        assert!(check(&host, &overrides).unwrap(), "{path}");
    }
    host.remove("/proc/sys/kernel/sysrq").unwrap();
    assert!(!check(&host, &overrides).unwrap(), "a setting that every kernel has");
    put(&host, "/proc/sys/kernel/sysrq", "0");
    host.remove("/proc/sys/kernel/io_uring_disabled").unwrap();
    assert!(check(&host, &overrides).unwrap(), "a kernel without this setting");
}

#[test]
fn what_the_kernel_makes_of_a_value_holds_until_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    // This kernel changes nothing that it is given.
    let host = machine_with(
        dir.path(),
        Fake::new().0.answering(|argv| {
            let rejects = argv[0] == "set" && argv[1].ends_with("mmap_rnd_bits");
            rejects.then(|| anyhow::bail!("Invalid argument"))
        }),
    );
    put(&host, "/proc/sys/vm/mmap_rnd_bits", "24");
    put(&host, "/proc/sys/kernel/kexec_load_disabled", "1");
    put(&host, "/proc/sys/vm/nr_hugepages", "700");
    let overrides = kept(&[("kernel.kexec_load_disabled", "0"), ("vm.nr_hugepages", "0x400")]);
    assert!(!check(&host, &overrides).unwrap());
    apply(&host, &overrides).unwrap();
    assert!(check(&host, &overrides).unwrap());
    put(&host, "/proc/sys/vm/nr_hugepages", "0");
    assert!(!check(&host, &overrides).unwrap());
    // Another boot.
    put(&host, "/proc/sys/vm/nr_hugepages", "700");
    host.remove(SHOWN_FILE).unwrap();
    assert!(!check(&host, &overrides).unwrap());
}

#[test]
fn settings_of_a_node_are_read_back_except_overrides() {
    let dir = tempfile::tempdir().unwrap();
    let (host, _) = machine(dir.path());
    let overrides = kept(&[("kernel.panic", "30")]).harden.sysctl;
    write_node_file(&host).unwrap();
    assert!(!check_node(&host, &overrides).unwrap());
    set_node(&host, &overrides).unwrap();
    assert!(check_node(&host, &overrides).unwrap() && !check_node(&host, &BTreeMap::new()).unwrap());
    put(&host, "/proc/sys/net/ipv4/ip_forward", "0");
    assert!(!check_node(&host, &overrides).unwrap());
    set_node(&host, &overrides).unwrap();
    assert!(check_node(&host, &overrides).unwrap());
}

#[test]
fn settings_that_kubelet_requires_are_set() {
    for (key, value) in crate::seed::KUBELETS {
        assert!(NODE_SETTINGS.iter().any(|(k, v, _)| *k == key && *v == value), "{key}");
    }
}
