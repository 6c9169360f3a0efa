// SPDX-License-Identifier: Apache-2.0
//! What has to hold of a device before it can be a node: kubeadm's preflight checks under kubeadm's ids, and ours.
//!
//! [`CHECKS`] is the list. `firstboot preflight` looks at all of them; the phase of that name looks at those whose cause
//! no phase mends, so that a device that cannot become a node says so before anything is installed. What a phase makes
//! itself (swap, modules, names) it checks itself. Nothing here changes the machine.

pub mod check;
mod cluster;
mod device;
mod kubeadm;
mod system;

#[cfg(test)]
mod tests;

use crate::boot_partition::locate;
use crate::bundle::installed::Installed;
use crate::fault::{Code, Fault, Owner};
use crate::host::{Host, Linux};
use crate::image::ImageInfo;
use crate::seed::{self, Seed};
use crate::text::one_line;
use anyhow::Result;
use check::{Check, CheckContext, Finding, Refusal};
use serde::Serialize;

use check::Finding::{Error, Fine, Warning};

/// In the order of `kubeadm join`, then ours.
pub const CHECKS: &[Check] = &[
    Check { id: "IsPrivilegedUser", early: true, look: |g| Ok(kubeadm::privileged(g.host.sys())) },
    Check { id: "FileAvailable--etc-kubernetes-kubelet.conf", early: true, look: kubeadm::kubelet_conf },
    Check { id: "FileAvailable--etc-kubernetes-bootstrap-kubelet.conf", early: true, look: kubeadm::bootstrap_conf },
    Check { id: "CRI", early: false, look: kubeadm::cri },
    Check { id: "ContainerRuntimeVersion", early: false, look: kubeadm::runtime_version },
    Check { id: "Swap", early: false, look: kubeadm::swap },
    Check { id: "FileExisting-losetup", early: true, look: |g| kubeadm::program(g, "losetup") },
    Check { id: "FileExisting-mount", early: true, look: |g| kubeadm::program(g, "mount") },
    Check { id: "FileExisting-cp", early: true, look: |g| kubeadm::program(g, "cp") },
    Check { id: "SystemVerification", early: true, look: system::verification },
    Check { id: "Hostname", early: false, look: kubeadm::hostname },
    Check { id: "KubeletVersion", early: false, look: kubeadm::kubelet_version },
    Check { id: "Service-kubelet", early: false, look: kubeadm::kubelet_service },
    Check { id: "Port-10250", early: true, look: kubeadm::port },
    Check { id: "FileAvailable--etc-kubernetes-pki-ca.crt", early: true, look: kubeadm::ca },
    Check { id: "HTTPProxy", early: true, look: cluster::proxy },
    Check { id: "FileContent--proc-sys-net-ipv4-ip_forward", early: false, look: kubeadm::forward_v4 },
    Check { id: "FileContent--proc-sys-net-ipv6-conf-default-forwarding", early: false, look: kubeadm::forward_v6 },
    Check { id: "Disk", early: true, look: device::disk },
    Check { id: "Memory", early: true, look: device::memory },
    Check { id: "CgroupMemory", early: true, look: system::cgroup_memory },
    Check { id: "MachineId", early: true, look: device::machine_id },
    Check { id: "NodeName", early: false, look: device::node_name },
    Check { id: "SandboxImage", early: false, look: device::sandbox_image },
    Check { id: "Endpoint", early: false, look: cluster::endpoint },
    Check { id: "Clock", early: false, look: cluster::clock },
];

/// One row of the answer: the JSON that docs/operations.md describes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Name of the check.
    pub id: &'static str,
    /// `ok`, `warning` or `error`.
    pub level: &'static str,
    /// What was found, one line.
    pub message: String,
    /// Who must act; `null` when all is well.
    pub owner: Option<Owner>,
    /// Which kind of fault it is; `null` when all is well.
    pub code: Option<Code>,
}

#[derive(Serialize)]
struct Answer<'a> {
    version: u32,
    checks: &'a [Outcome],
}

impl Outcome {
    fn new(id: &'static str, finding: Finding) -> Self {
        let (level, code, message) = match finding {
            Fine(message) => ("ok", None, message),
            Warning(code, message) => ("warning", Some(code), message),
            Error(code, message) => ("error", Some(code), message),
        };
        Outcome { id, level, message: one_line(&message), owner: code.map(Code::owner), code }
    }

    /// Whether this keeps the device from joining.
    pub fn is_error(&self) -> bool {
        self.level == "error"
    }

    /// As kubeadm prints it, with owner and code.
    pub fn line(&self) -> String {
        let level = self.level.to_uppercase();
        let tag = self.code.map_or_else(String::new, |code| format!(" ({}, {code})", code.owner()));
        format!("[{level} {}]: {}{tag}", self.id, self.message)
    }
}

/// Looks at all checks, or at those that the phase looks at. Without root rights nothing else can be seen, so that
/// comes first and, when it fails, alone.
pub fn look(ground: &CheckContext<'_>, early_only: bool) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for check in CHECKS.iter().filter(|c| c.early || !early_only) {
        let finding = (check.look)(ground).unwrap_or_else(|e| Error(Code::Host, format!("{e:#}")));
        outcomes.push(Outcome::new(check.id, finding));
        if check.id == CHECKS[0].id && outcomes.iter().any(Outcome::is_error) {
            break;
        }
    }
    outcomes
}

/// The errors among `outcomes` as one fault, with the code of the first.
///
/// # Errors
/// That fault, when there is an error.
pub fn judge(outcomes: &[Outcome]) -> Result<(), Fault> {
    let errors: Vec<&Outcome> = outcomes.iter().filter(|o| o.is_error()).collect();
    let Some(code) = errors.iter().find_map(|o| o.code) else { return Ok(()) };
    let texts: Vec<String> = errors.iter().map(|o| format!("{}: {}", o.id, o.message)).collect();
    Err(Fault::new(code, texts.join("; ")))
}

/// What `firstboot preflight` prints: a line a check, or one JSON document.
pub fn shown(outcomes: &[Outcome], json: bool) -> Result<String> {
    if json {
        return Ok(serde_json::to_string_pretty(&Answer { version: 1, checks: outcomes })? + "\n");
    }
    Ok(outcomes.iter().map(|o| o.line() + "\n").collect())
}

/// Looks at this device from outside a run.
///
/// # Errors
/// An image fault without a description of the image or its bundle; a host fault when the disks cannot be seen.
pub fn of_device(open: impl FnOnce() -> Result<Host, Fault>) -> Result<Vec<Outcome>, Fault> {
    // An ordinary user cannot even open the journal.
    let root = kubeadm::privileged(&Linux::new());
    if matches!(root, Error(..)) {
        return Ok(vec![Outcome::new(CHECKS[0].id, root)]);
    }
    let host = open()?;
    let image = ImageInfo::read(&host)?;
    let bundle = Installed::read(&host)?;
    let found = find_seed(&image);
    let seed = found.as_ref().map(|s| s.as_ref().map_err(|(code, why)| (*code, why.clone())));
    Ok(look(&CheckContext::new(&host, &image, &bundle, seed), false))
}

/// The seed that a run would take, or why it would not.
fn find_seed(image: &ImageInfo) -> Option<Result<Seed, Refusal>> {
    let places = match locate(&image.boot_label) {
        Ok(places) => places,
        Err(error) => return Some(Err((Code::BootDisk, format!("{error:#}")))),
    };
    // A card that cannot be read is one without a seed here; the run says more.
    let (_, bytes) = places.iter().find_map(|p| p.partition.seed().ok().flatten())?;
    Some(seed::parse(&bytes).map_err(|e| (e.code, e.to_string())))
}
