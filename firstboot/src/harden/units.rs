// SPDX-License-Identifier: Apache-2.0
//! What systemd denies to the services on this node (systemd.exec(5)).
//!
//! The unit files are the table: each setting has its reason in the comment above it. The audit compares them with what
//! systemd has loaded, so that it finds an edit, a foreign drop-in and a forgotten `daemon-reload`.

use crate::check::Finding;
use crate::harden::overrides::AuditContext;
use crate::paths::UNIT_DIR;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};

/// Name, text, and names of its own drop-ins.
pub type Unit = (&'static str, &'static str, &'static [&'static str]);

/// The confined units of an image.
pub const UNITS: &[Unit] = &[
    ("firstboot-guard.service", include_str!("../../units/firstboot-guard.service"), &[]),
    ("firstboot.service", include_str!("../../units/firstboot.service"), &[]),
    ("firstboot-network@.service", include_str!("../../units/firstboot-network@.service"), &[]),
    ("firstboot-confirm.service", include_str!("../../units/firstboot-confirm.service"), &[]),
    ("firstboot-clock.service", include_str!("../../units/firstboot-clock.service"), &[]),
    ("firstboot-reset.service", include_str!("../../units/firstboot-reset.service"), &[]),
    ("firstboot-stick.service", include_str!("../../units/firstboot-stick.service"), &[]),
    ("firstboot-create.service", include_str!("../../units/firstboot-create.service"), &[]),
    ("firstboot-join-control-plane.service", include_str!("../../units/firstboot-join-control-plane.service"), &[]),
    ("firstboot-virtual-ip.service", include_str!("../../units/firstboot-virtual-ip.service"), &[]),
    ("firstboot-control-plane.service", include_str!("../../units/firstboot-control-plane.service"), &[]),
    ("firstboot-cache.service", include_str!("../../units/firstboot-cache.service"), &[]),
    ("containerd.service", include_str!("../../units/containerd.service"), &[]),
    ("kubelet.service", include_str!("../../units/kubelet.service"), &["10-kubeadm.conf"]),
];

/// Settings that confine a service.
const CONFINING: &[&str] = &[
    "CapabilityBoundingSet",
    "DynamicUser",
    "IPAddressDeny",
    "KeyringMode",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "MemoryMax",
    "NoNewPrivileges",
    "PrivateDevices",
    "PrivateIPC",
    "PrivateMounts",
    "PrivateTmp",
    "PrivateUsers",
    "ProcSubset",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "RestrictAddressFamilies",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "StateDirectory",
    "StateDirectoryMode",
    "SystemCallArchitectures",
    "SystemCallErrorNumber",
    "SystemCallFilter",
    "UMask",
];

/// Groups of system calls, each with one call that represents it on every architecture.
const CALLS: &[(&str, &str)] = &[
    ("@clock", "clock_settime"),
    ("@debug", "ptrace"),
    ("@module", "init_module"),
    ("@mount", "mount"),
    ("@reboot", "reboot"),
    ("@resources", "setpriority"),
    ("@swap", "swapon"),
];

/// One confining setting of a unit file, with the comment above it.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting<'a> {
    /// Key of the setting.
    pub key: &'a str,
    /// Value of the setting.
    pub value: &'a str,
    /// Reason of the setting.
    pub why: &'a str,
}

/// The confining settings of a unit file. A setting without a comment shares the reason of the previous one.
pub fn settings(text: &str) -> Vec<Setting<'_>> {
    let (mut all, mut why) = (Vec::new(), "");
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            why = comment;
        } else if let Some((key, value)) = line.split_once('=')
            && CONFINING.contains(&key)
        {
            all.push(Setting { key, value, why });
        }
    }
    all
}

/// Compares the unit files with what systemd has loaded.
pub(crate) fn audit(context: &AuditContext<'_>) -> Result<Vec<Finding>> {
    let mut all = Vec::new();
    for (name, text, additions) in UNITS {
        let keys = format!("--property=FragmentPath,DropInPaths,NeedDaemonReload,{}", CONFINING.join(","));
        // For a template, any instance name: systemd loads the instance in order to show it.
        let output = context.host.run(&["systemctl", "show", &keys, &name.replace("@.", "@audit.")])?;
        let loaded: BTreeMap<&str, &str> = output.lines().filter_map(|l| l.split_once('=')).collect();
        all.extend(compare_unit(name, text, additions, &loaded));
    }
    Ok(all)
}

fn compare_unit(name: &str, text: &str, additions: &[&str], loaded: &BTreeMap<&str, &str>) -> Vec<Finding> {
    let loaded_value = |key: &str| loaded.get(key).copied().unwrap_or_default();
    let compare = |key: &str, wanted: &str, found: String, why: &str| {
        Finding::compare(format!("units/{name}/{key}"), wanted, None, Some(found), why)
    };
    let files = |mut all: Vec<String>| {
        all.retain(|path| !path.is_empty());
        all.join(" ")
    };
    let expected = std::iter::once(format!("{UNIT_DIR}/{name}"));
    let expected = files(expected.chain(additions.iter().map(|a| format!("{UNIT_DIR}/{name}.d/{a}"))).collect());
    let found = files(vec![loaded_value("FragmentPath").to_owned(), loaded_value("DropInPaths").to_owned()]);
    let mut all = vec![
        compare("files", &expected, found, "no other file changes how this unit runs"),
        compare(
            "reload",
            "no",
            loaded_value("NeedDaemonReload").to_owned(),
            "systemd has loaded these files as they are",
        ),
    ];
    for Setting { key, value, why } in settings(text) {
        let (wanted, found) = match key {
            // Denying more than required does no harm.
            "SystemCallFilter" => without(&refused(value), &refused(loaded_value(key))),
            "CapabilityBoundingSet" if value.starts_with('~') => {
                let left = canonical(key, loaded_value(key));
                let gone = |cap: &String| !left.split(' ').any(|l| l == cap);
                let all: BTreeSet<String> = canonical(key, value).split(' ').map(str::to_owned).collect();
                without(&all, &all.iter().filter(|cap| gone(cap)).cloned().collect())
            }
            _ => (canonical(key, value), canonical(key, loaded_value(key))),
        };
        all.push(compare(key, &wanted, found, why));
    }
    all
}

/// A normal form of the value: words sorted, capabilities in upper case, the address `any` expanded.
fn canonical(key: &str, value: &str) -> String {
    let value = match key {
        "IPAddressDeny" => value.replace("any", "0.0.0.0/0 ::/0"),
        // systemd shows the number.
        "SystemCallErrorNumber" if value == "1" => "EPERM".to_owned(),
        "MemoryMax" => mebibytes(value),
        "CapabilityBoundingSet" => value.trim_start_matches('~').to_uppercase(),
        _ => value.to_owned(),
    };
    let words: BTreeSet<&str> = value.split_whitespace().collect();
    words.into_iter().collect::<Vec<_>>().join(" ")
}

/// `96M`, as a unit file has it, where systemd shows bytes.
fn mebibytes(value: &str) -> String {
    let bytes = value.parse::<u64>().ok().filter(|bytes| bytes % (1 << 20) == 0);
    bytes.map_or_else(|| value.to_owned(), |bytes| format!("{}M", bytes >> 20))
}

/// Those of [`CALLS`] that a filter refuses. The filter is a list of groups (unit file) or of calls (systemd's output).
fn refused(filter: &str) -> BTreeSet<String> {
    let (deny, list) = match filter.strip_prefix('~') {
        Some(list) => (true, list),
        None => (false, filter),
    };
    let words: BTreeSet<&str> = list.split_whitespace().collect();
    // The only group here that is part of another.
    let within = |group: &str| !deny && group == "@resources" && words.contains("@system-service");
    let named = |group: &str, call: &str| words.contains(group) || words.contains(call) || within(group);
    let calls = CALLS.iter().filter(|(group, call)| !words.is_empty() && named(group, call) == deny);
    calls.map(|(_, call)| (*call).to_owned()).collect()
}

/// What must be denied, and which part of it is denied.
fn without(wanted: &BTreeSet<String>, found: &BTreeSet<String>) -> (String, String) {
    let list = |all: Vec<&str>| match all.is_empty() {
        true => "with all".to_owned(),
        false => format!("without {}", all.join(" ")),
    };
    let found = wanted.intersection(found).map(String::as_str).collect();
    (list(wanted.iter().map(String::as_str).collect()), list(found))
}

#[cfg(test)]
#[path = "units_tests.rs"]
mod tests;
