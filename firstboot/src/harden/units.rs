// SPDX-License-Identifier: Apache-2.0
//! What systemd takes away from the services that run on this node (systemd.exec(5)).
//!
//! The unit files are the table: each setting with the reason in the comment above it. Here they are held against what
//! systemd has loaded, so that neither an edit, nor a drop-in of somebody else's, nor a forgotten `daemon-reload` goes
//! unseen.

use crate::finding::Finding;
use crate::harden::overrides::AuditContext;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};

/// Where they lie.
pub const FOLDER: &str = "/usr/lib/systemd/system";

/// Name, text, and the additions that belong to it.
pub type Unit = (&'static str, &'static str, &'static [&'static str]);

/// The confined units of an image.
pub const UNITS: &[Unit] = &[
    ("firstboot-guard.service", include_str!("../../units/firstboot-guard.service"), &[]),
    ("firstboot.service", include_str!("../../units/firstboot.service"), &[]),
    ("firstboot-network@.service", include_str!("../../units/firstboot-network@.service"), &[]),
    ("firstboot-clock.service", include_str!("../../units/firstboot-clock.service"), &[]),
    ("firstboot-reset.service", include_str!("../../units/firstboot-reset.service"), &[]),
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

/// Groups of system calls, each with one that stands for it on every architecture.
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
    /// Its name.
    pub key: &'a str,
    /// Its value.
    pub value: &'a str,
    /// Why.
    pub why: &'a str,
}

/// The confining settings of a unit file. One without a comment shares the reason of the one before.
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

/// What systemd has loaded.
pub(crate) fn audit(ground: &AuditContext<'_>) -> Result<Vec<Finding>> {
    let mut all = Vec::new();
    for (name, text, additions) in UNITS {
        let keys = format!("--property=FragmentPath,DropInPaths,NeedDaemonReload,{}", CONFINING.join(","));
        // Of a template, any instance: systemd loads it to show it.
        let said = ground.host.run(&["systemctl", "show", &keys, &name.replace("@.", "@audit.")])?;
        let loaded: BTreeMap<&str, &str> = said.lines().filter_map(|l| l.split_once('=')).collect();
        all.extend(judged(name, text, additions, &loaded));
    }
    Ok(all)
}

fn judged(name: &str, text: &str, additions: &[&str], loaded: &BTreeMap<&str, &str>) -> Vec<Finding> {
    let said = |key: &str| loaded.get(key).copied().unwrap_or_default();
    let compare = |key: &str, wanted: &str, found: String, why: &str| {
        Finding::compare(format!("units/{name}/{key}"), wanted, None, Some(found), why)
    };
    let files = |mut all: Vec<String>| {
        all.retain(|path| !path.is_empty());
        all.join(" ")
    };
    let ours = std::iter::once(format!("{FOLDER}/{name}"));
    let ours = files(ours.chain(additions.iter().map(|a| format!("{FOLDER}/{name}.d/{a}"))).collect());
    let found = files(vec![said("FragmentPath").to_owned(), said("DropInPaths").to_owned()]);
    let mut all = vec![
        compare("files", &ours, found, "no other file says how this unit runs"),
        compare("reload", "no", said("NeedDaemonReload").to_owned(), "systemd has loaded these files as they are"),
    ];
    for Setting { key, value, why } in settings(text) {
        let (wanted, found) = match key {
            // What is taken away beside it does no harm.
            "SystemCallFilter" => without(&refused(value), &refused(said(key))),
            "CapabilityBoundingSet" if value.starts_with('~') => {
                let left = canonical(key, said(key));
                let gone = |cap: &String| !left.split(' ').any(|l| l == cap);
                let all: BTreeSet<String> = canonical(key, value).split(' ').map(str::to_owned).collect();
                without(&all, &all.iter().filter(|cap| gone(cap)).cloned().collect())
            }
            _ => (canonical(key, value), canonical(key, said(key))),
        };
        all.push(compare(key, &wanted, found, why));
    }
    all
}

/// The same value however it is written: words in order, capabilities in capitals, `any` address spelt out.
fn canonical(key: &str, value: &str) -> String {
    let value = match key {
        "IPAddressDeny" => value.replace("any", "0.0.0.0/0 ::/0"),
        // systemd shows the number.
        "SystemCallErrorNumber" if value == "1" => "EPERM".to_owned(),
        "CapabilityBoundingSet" => value.trim_start_matches('~').to_uppercase(),
        _ => value.to_owned(),
    };
    let words: BTreeSet<&str> = value.split_whitespace().collect();
    words.into_iter().collect::<Vec<_>>().join(" ")
}

/// Which of [`CALLS`] a filter refuses, be it a list of groups as in a unit file or of calls as systemd shows it.
fn refused(filter: &str) -> BTreeSet<String> {
    let (deny, list) = match filter.strip_prefix('~') {
        Some(list) => (true, list),
        None => (false, filter),
    };
    let words: BTreeSet<&str> = list.split_whitespace().collect();
    // The one group here that is a part of another.
    let within = |group: &str| !deny && group == "@resources" && words.contains("@system-service");
    let named = |group: &str, call: &str| words.contains(group) || words.contains(call) || within(group);
    let calls = CALLS.iter().filter(|(group, call)| !words.is_empty() && named(group, call) == deny);
    calls.map(|(_, call)| (*call).to_owned()).collect()
}

/// What is to be taken away, and what of it is.
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
