// SPDX-License-Identifier: Apache-2.0
//! kubeadm's own checks for a worker (`kubeadm join`, 1.36), with its ids. Files that firstboot has not installed yet
//! are no fault of the device, and files that firstboot wrote itself are no leftovers of another join.

use super::check::CheckContext;
use super::check::Finding::{self, Error, Fine, Warning};
use crate::containerd::cri::{Cri, SOCKET};
use crate::fault::Code;
use crate::host::System;
use crate::host::mounts::swaps;
use crate::names::is_dns_subdomain;
use crate::paths::{CA_FILE, HOSTS, KUBEADM_CONFIG, KUBELET_CONF, KUBELET_UNIT, KUBELET_WANTED};
use anyhow::Result;

/// Directories of programs, as in the units' PATH.
const PATH: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// kubelet's port in the notation of /proc/net/tcp.
const PORT_HEX: &str = ":280A";

pub(super) fn privileged(sys: &dyn System) -> Finding {
    match sys.is_root() {
        true => Fine("running as root".into()),
        false => Error(Code::NotRoot, "run as root: this user is not".into()),
    }
}

pub(super) fn kubelet_conf(context: &CheckContext<'_>) -> Result<Finding> {
    available(context, KUBELET_CONF)
}

pub(super) fn bootstrap_conf(context: &CheckContext<'_>) -> Result<Finding> {
    available(context, "/etc/kubernetes/bootstrap-kubelet.conf")
}

pub(super) fn ca(context: &CheckContext<'_>) -> Result<Finding> {
    available(context, CA_FILE)
}

/// A file of another join must neither be mistaken for firstboot's nor overwritten.
fn available(context: &CheckContext<'_>, path: &str) -> Result<Finding> {
    Ok(match context.host.size_and_mode(path)? {
        None => Fine(format!("{path} is not there yet")),
        Some(_) if context.host.journal().knows(path) => Fine(format!("{path} is firstboot's")),
        Some(_) if context.host.journal().knows(KUBEADM_CONFIG) => {
            Fine(format!("{path} is of the cluster that this device creates"))
        }
        Some(_) => {
            Error(Code::LeftoverFiles, format!("remove {path}: another join left it; kubeadm reset removes all of it"))
        }
    })
}

pub(super) fn cri(context: &CheckContext<'_>) -> Result<Finding> {
    if !context.done("images") {
        return Ok(Fine("containerd need not answer yet; the phase images waits for it".into()));
    }
    let answer = Cri::connect(context.host.sys()).and_then(|cri| cri.ready());
    Ok(match answer {
        Ok(()) => Fine(format!("{SOCKET} answers and is ready")),
        Err(error) => {
            Error(Code::ContainerdDown, format!("ask the container runtime: {error:#}; see journalctl -u containerd"))
        }
    })
}

pub(super) fn runtime_version(context: &CheckContext<'_>) -> Result<Finding> {
    if !context.done("images") {
        return Ok(Fine("containerd need not answer yet; the phase images waits for it".into()));
    }
    let asked = Cri::connect(context.host.sys()).and_then(|cri| Ok((cri.version()?, cri.cgroup_driver()?)));
    Ok(match asked {
        Ok((who, Some(driver))) => {
            Fine(format!("{} {}, cgroup driver {driver}", who.runtime_name, who.runtime_version))
        }
        Ok((who, None)) => {
            let version = who.runtime_version;
            Warning(
                Code::Image,
                format!(
                    "{} {version} does not report its cgroup driver (RuntimeConfig): a later kubelet will not work with it",
                    who.runtime_name
                ),
            )
        }
        Err(error) => {
            Error(Code::ContainerdDown, format!("ask the container runtime: {error:#}; see journalctl -u containerd"))
        }
    })
}

pub(super) fn swap(context: &CheckContext<'_>) -> Result<Finding> {
    let swaps = swaps(context.host)?;
    Ok(match swaps.as_slice() {
        [] => Fine("swap is off".into()),
        on if context.done("kernel") => {
            Warning(Code::SettingUndone, format!("switch swap off: {} came back", on.join(", ")))
        }
        on => Fine(format!("{} is on; the phase kernel switches it off", on.join(", "))),
    })
}

pub(super) fn program(context: &CheckContext<'_>, name: &str) -> Result<Finding> {
    for dir in PATH {
        let path = format!("{dir}/{name}");
        if context.host.size_and_mode(&path)?.is_some_and(|(_, mode)| mode & 0o111 != 0) {
            return Ok(Fine(path));
        }
    }
    Ok(Error(
        Code::ProgramMissing,
        format!("find {name}: kubelet calls it and it is in no directory of {}", PATH.join(":")),
    ))
}

pub(super) fn hostname(context: &CheckContext<'_>) -> Result<Finding> {
    if !context.done("identity") {
        return Ok(Fine("the phase identity sets it".into()));
    }
    let name = context.host.read_text("/proc/sys/kernel/hostname")?.unwrap_or_default();
    let hosts = context.host.read_text(HOSTS)?.unwrap_or_default();
    let known = hosts.lines().any(|l| l.split_whitespace().skip(1).any(|n| n == name));
    Ok(match (is_dns_subdomain(&name), known) {
        (false, _) => {
            Warning(Code::SettingUndone, format!("name this host as DNS allows: \"{name}\" is not (RFC 1123)"))
        }
        (_, false) => Warning(
            Code::SettingUndone,
            format!("put {name} into /etc/hosts: kubelet looks its own name up when it starts"),
        ),
        (true, true) => Fine(name),
    })
}

pub(super) fn kubelet_version(context: &CheckContext<'_>) -> Result<Finding> {
    let brought = &context.bundle.manifest.kubernetes;
    if !context.done("bundle") {
        return Ok(Fine(format!("the bundle brings {brought}")));
    }
    let output = context.host.run(&["/usr/bin/kubelet", "--version"])?;
    let Some(found) = output.trim().strip_prefix("Kubernetes v") else {
        return Ok(Error(
            Code::KubeletVersion,
            format!("ask kubelet for its version: it prints \"{}\"", output.trim()),
        ));
    };
    // kubeadm's rule: kubelet is at most three minor versions older than kubeadm, which is part of the same bundle.
    Ok(match (minor(found), minor(brought)) {
        (Some(found_minor), Some(ours)) if found_minor + 3 >= ours => Fine(found.to_owned()),
        _ => Error(
            Code::SettingUndone,
            format!("use kubelet {found}: kubeadm {brought} works with one at most three minors older"),
        ),
    })
}

/// `36` of `1.36.3`.
fn minor(version: &str) -> Option<u32> {
    version.split('.').nth(1)?.parse().ok()
}

pub(super) fn kubelet_service(context: &CheckContext<'_>) -> Result<Finding> {
    if context.host.size_and_mode(KUBELET_UNIT)?.is_none() {
        return Ok(Error(Code::ProgramMissing, format!("find unit kubelet.service: {KUBELET_UNIT} is not there")));
    }
    Ok(match (context.done("kubelet"), context.host.read_link(KUBELET_WANTED)?) {
        (_, Some(_)) => Fine("kubelet.service is enabled".into()),
        (false, None) => Fine("kubelet.service is there; the phase kubelet enables it".into()),
        (true, None) => Warning(Code::SettingUndone, "enable kubelet.service: systemctl enable kubelet".into()),
    })
}

pub(super) fn port(context: &CheckContext<'_>) -> Result<Finding> {
    let mut taken = false;
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = context.host.read(table)?.unwrap_or_default();
        // proc_net(5): local address in the second column, state in the fourth, 0A is LISTEN.
        taken |= String::from_utf8_lossy(&text).lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.len() > 3 && fields[1].ends_with(PORT_HEX) && fields[3] == "0A"
        });
    }
    // The link is recorded before the first start of kubelet, which may be running already when a run resumes.
    let own = context.host.journal().knows(KUBELET_WANTED);
    Ok(match (taken, own) {
        (false, _) => Fine("port 10250 is free".into()),
        (true, true) => Fine("kubelet listens on port 10250".into()),
        (true, false) => {
            Error(Code::PortInUse, "free port 10250 for kubelet: something listens on it, see ss -ltnp".into())
        }
    })
}

pub(super) fn forward_v4(context: &CheckContext<'_>) -> Result<Finding> {
    forward(context, "/proc/sys/net/ipv4/ip_forward")
}

pub(super) fn forward_v6(context: &CheckContext<'_>) -> Result<Finding> {
    forward(context, "/proc/sys/net/ipv6/conf/default/forwarding")
}

fn forward(context: &CheckContext<'_>, path: &str) -> Result<Finding> {
    let value = context.host.read_text(path)?;
    Ok(match (value.as_deref(), context.done("kernel")) {
        (Some("1"), _) => Fine(format!("{path} is 1")),
        (None, _) if path.contains("ipv6") => Fine("this kernel has no IPv6".into()),
        (_, false) => Fine("the phase kernel sets it".into()),
        (_, true) => Error(Code::SettingUndone, format!("set {path} to 1: something has changed it since")),
    })
}
