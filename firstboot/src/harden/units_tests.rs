// SPDX-License-Identifier: Apache-2.0
//! Unit files compared with systemd's output about them.

use super::*;
use crate::check::Verdict;

const TEXT: &str = "[Service]\nExecStart=/usr/bin/x\n# Not this one.\nRestart=always\n# no rights\nNoNewPrivileges=yes\n\
                    # what it needs\nCapabilityBoundingSet=CAP_SYS_TIME CAP_NET_ADMIN\n# calls\nSystemCallFilter=@system-service \
                    @clock\nSystemCallFilter=~@resources\nSystemCallErrorNumber=EPERM\n# no peers\nIPAddressDeny=any\n# little\nMemoryMax=96M\n";

fn loaded() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("FragmentPath", "/usr/lib/systemd/system/x.service"),
        ("DropInPaths", ""),
        ("NeedDaemonReload", "no"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", "cap_net_admin cap_sys_time"),
        ("SystemCallFilter", "accept clock_settime read write"),
        ("SystemCallErrorNumber", "1"),
        ("IPAddressDeny", "::/0 0.0.0.0/0"),
        ("MemoryMax", "100663296"),
    ])
}

fn deviations(loaded: &BTreeMap<&str, &str>) -> Vec<(String, String, String)> {
    let all = compare_unit("x.service", TEXT, &[], loaded);
    assert_eq!(all.len(), 9, "{all:#?}");
    all.into_iter().filter(|f| f.state != Verdict::Ok).map(|f| (f.id, f.wanted, f.found)).collect()
}

#[test]
fn reasons_are_read_from_comments() {
    let found: Vec<(&str, &str)> = settings(TEXT).into_iter().map(|s| (s.key, s.why)).collect();
    assert_eq!(
        found,
        [
            ("NoNewPrivileges", "no rights"),
            ("CapabilityBoundingSet", "what it needs"),
            ("SystemCallFilter", "calls"),
            ("SystemCallFilter", "calls"),
            ("SystemCallErrorNumber", "calls"),
            ("IPAddressDeny", "no peers"),
            ("MemoryMax", "little"),
        ]
    );
}

#[test]
fn equal_settings_in_systemds_notation_are_no_drift() {
    assert_eq!(deviations(&loaded()), []);
}

#[test]
fn every_difference_is_drift() {
    let mut other = loaded();
    other.insert("DropInPaths", "/etc/systemd/system/x.service.d/override.conf");
    other.insert("NeedDaemonReload", "yes");
    other.insert("NoNewPrivileges", "no");
    other.insert("CapabilityBoundingSet", "cap_net_admin cap_sys_admin cap_sys_time");
    other.insert("SystemCallFilter", "accept clock_settime mount read setpriority write");
    other.insert("IPAddressDeny", "");
    other.insert("MemoryMax", "infinity");
    let found: Vec<String> =
        deviations(&other).into_iter().map(|(id, ..)| id.rsplit('/').next().unwrap().to_owned()).collect();
    assert_eq!(
        found,
        [
            "files",
            "reload",
            "NoNewPrivileges",
            "CapabilityBoundingSet",
            "SystemCallFilter",
            "SystemCallFilter",
            "IPAddressDeny",
            "MemoryMax"
        ]
    );
    other.insert("SystemCallFilter", "");
    let all = deviations(&other);
    let filter = all.iter().find(|(id, ..)| id.ends_with("SystemCallFilter")).unwrap();
    assert_eq!(filter.1, "without init_module mount ptrace reboot swapon");
    assert_eq!(filter.2, "with all");
}

#[test]
fn deny_lists_are_compared_by_content() {
    let text =
        "# machine\nCapabilityBoundingSet=~CAP_SYS_BOOT CAP_SYS_PACCT\n# calls\nSystemCallFilter=~@reboot @swap\n";
    let find = |caps: &str, calls: &str| {
        let loaded = BTreeMap::from([("CapabilityBoundingSet", caps), ("SystemCallFilter", calls)]);
        let all = compare_unit("x.service", text, &[], &loaded);
        all.into_iter().skip(2).map(|f| (f.state, f.found)).collect::<Vec<_>>()
    };
    assert_eq!(
        find("cap_chown cap_sys_admin", "~kexec_load reboot swapoff swapon"),
        [
            (Verdict::Ok, "without CAP_SYS_BOOT CAP_SYS_PACCT".to_owned()),
            (Verdict::Ok, "without reboot swapon".to_owned())
        ]
    );
    assert_eq!(
        find("cap_chown cap_sys_boot", "~swapon"),
        [(Verdict::Drift, "without CAP_SYS_PACCT".to_owned()), (Verdict::Drift, "without swapon".to_owned())]
    );
}

#[test]
fn every_unit_is_confined_with_reasons() {
    for (name, text, _) in UNITS {
        let settings = settings(text);
        assert!(settings.len() >= 3, "{name}");
        for Setting { key, why, .. } in settings {
            assert!(!why.is_empty() && why.starts_with(|c: char| c.is_lowercase()), "{name}: {key} has no reason");
        }
    }
}

/// Lights are below /sys, which `ProtectKernelTunables` makes read-only: only the units that set lights omit it.
#[test]
fn only_units_that_set_lights_may_write_to_sys() {
    for (name, text, _) in UNITS.iter().filter(|(name, ..)| name.starts_with("firstboot")) {
        let sets_lights = ["firstboot.service", "firstboot-reset.service", "firstboot-stick.service"].contains(name);
        let closed = settings(text).iter().any(|s| s.key == "ProtectKernelTunables" && s.value == "yes");
        assert_ne!(closed, sets_lights, "{name}");
    }
}
