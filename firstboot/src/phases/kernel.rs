// SPDX-License-Identifier: Apache-2.0
//! Kernel modules and settings that kubelet, the runtime and pod networks need; swap off.

use super::Cx;
use crate::audit::{Finding, Ground};
use crate::fault::{Fault, OwnedBy, Owner};
use crate::harden::sysctl::path;
use crate::host::Host;
use anyhow::Result;

const MODULES_FILE: &str = "/etc/modules-load.d/firstboot.conf";
const SETTINGS_FILE: &str = "/etc/sysctl.d/90-firstboot.conf";

/// Modules, each with the reason. A kernel may have them built in; `modprobe` knows.
const MODULES: &[(&str, &str)] = &[
    ("overlay", "containerd's snapshotter"),
    ("br_netfilter", "bridged pod traffic passes the packet filter"),
    ("nf_conntrack", "kube-proxy reads its table"),
];

/// Settings, each with the reason.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("net.ipv4.ip_forward", "1", "pods reach beyond this node"),
    ("net.ipv6.conf.all.forwarding", "1", "the same for IPv6"),
    ("net.bridge.bridge-nf-call-iptables", "1", "Services work between pods of one bridge"),
    ("net.bridge.bridge-nf-call-ip6tables", "1", "the same for IPv6"),
    ("vm.overcommit_memory", "1", "kubelet's protectKernelDefaults"),
    ("vm.panic_on_oom", "0", "kubelet's protectKernelDefaults"),
    ("kernel.panic", "10", "kubelet's protectKernelDefaults: a device nobody can reach restarts by itself"),
    ("kernel.panic_on_oops", "1", "kubelet's protectKernelDefaults"),
    ("kernel.keys.root_maxkeys", "1000000", "kubelet's protectKernelDefaults"),
    ("kernel.keys.root_maxbytes", "25000000", "kubelet's protectKernelDefaults"),
    ("fs.inotify.max_user_instances", "8192", "many containers watch files"),
    ("fs.inotify.max_user_watches", "524288", "many containers watch files"),
];

pub(super) fn check(cx: &Cx) -> Result<bool, Fault> {
    let held = || -> Result<bool> {
        Ok(cx.host.read(MODULES_FILE)?.as_deref() == Some(modules_file().as_bytes())
            && cx.host.read(SETTINGS_FILE)?.as_deref() == Some(settings_file().as_bytes())
            && swaps(&cx.host)?.is_empty())
    };
    held().owned_by(Owner::Host)
}

pub(super) fn apply(cx: &Cx) -> Result<(), Fault> {
    let work = || -> Result<()> {
        cx.host.write(MODULES_FILE, modules_file().as_bytes(), 0o644)?;
        cx.host.write(SETTINGS_FILE, settings_file().as_bytes(), 0o644)?;
        let mut modprobe = vec!["modprobe", "--all"];
        modprobe.extend(MODULES.iter().map(|(name, _)| *name));
        cx.host.run(&modprobe)?;
        // What the seed wants otherwise is the next phase's to set.
        for (key, value, _) in SETTINGS.iter().filter(|(key, ..)| !cx.seed.harden.sysctl.contains_key(*key)) {
            cx.host.set_kernel(&path(key), value)?;
        }
        if !swaps(&cx.host)?.is_empty() {
            // The target as well, or swap is back at the next boot.
            cx.host.symlink("/etc/systemd/system/swap.target", "/dev/null")?;
            cx.host.run(&["swapoff", "--all"])?;
        }
        Ok(())
    };
    work().owned_by(Owner::Host)
}

/// The settings, read back from the kernel.
pub(crate) fn audit(ground: &Ground<'_>) -> Result<Vec<Finding>> {
    let one = |(key, value, why): &(&str, &str, &str)| {
        let exception = ground.kept.harden.sysctl.get(*key).map(String::as_str);
        let found = ground.host.read_text(&path(key))?;
        Ok(Finding::compare(format!("sysctl/{key}"), value, exception, found, why))
    };
    SETTINGS.iter().map(one).collect()
}

fn modules_file() -> String {
    let lines: String = MODULES.iter().map(|(name, why)| format!("# {why}\n{name}\n")).collect();
    format!("# Written by firstboot.\n{lines}")
}

fn settings_file() -> String {
    let lines: String = SETTINGS.iter().map(|(key, value, why)| format!("# {why}\n{key} = {value}\n")).collect();
    format!("# Written by firstboot.\n{lines}")
}

/// What is swapped to.
pub(crate) fn swaps(host: &Host) -> Result<Vec<String>> {
    let text = host.read("/proc/swaps")?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().skip(1).filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubelet_insists_on_is_set() {
        for (key, value) in crate::seed::KUBELETS {
            assert!(SETTINGS.iter().any(|(k, v, _)| *k == key && *v == value), "{key}");
        }
    }
}
