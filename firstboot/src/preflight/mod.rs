// SPDX-License-Identifier: Apache-2.0
//! The requirements of a device before it can be a node: kubeadm's preflight checks with kubeadm's ids, and
//! firstboot's.
//!
//! [`CHECKS`] is the list. `firstboot preflight` runs all of them. The phase of that name runs those whose failures no
//! phase repairs, so that a device that cannot become a node reports it before anything is installed. Each phase checks
//! its own results itself (swap, modules, names). Nothing here changes the machine.

mod board;
pub mod check;
mod cluster;
mod device;
mod kubeadm;
mod system;

#[cfg(test)]
mod tests;

use crate::boot_partition::locate;
use crate::bundle::installed::Installed;
use crate::check::{judge, rows};
use crate::fault::{Code, Fault};
use crate::host::{Host, Linux};
use crate::identity::device_ids;
use crate::image::ImageInfo;
use crate::seed::{self, Seed};
use anyhow::Result;
use check::{Check, CheckContext, Outcome, Refusal};

use check::Finding::Error;

/// All checks: kubeadm's in the order of `kubeadm join`, then firstboot's.
pub const CHECKS: &[Check] = &[
    Check { id: "IsPrivilegedUser", early: true, run: |g| Ok(kubeadm::privileged(g.host.sys())) },
    Check { id: "FileAvailable--etc-kubernetes-kubelet.conf", early: true, run: kubeadm::kubelet_conf },
    Check { id: "FileAvailable--etc-kubernetes-bootstrap-kubelet.conf", early: true, run: kubeadm::bootstrap_conf },
    Check { id: "CRI", early: false, run: kubeadm::cri },
    Check { id: "ContainerRuntimeVersion", early: false, run: kubeadm::runtime_version },
    Check { id: "Swap", early: false, run: kubeadm::swap },
    Check { id: "FileExisting-losetup", early: true, run: |g| kubeadm::program(g, "losetup") },
    Check { id: "FileExisting-mount", early: true, run: |g| kubeadm::program(g, "mount") },
    Check { id: "FileExisting-cp", early: true, run: |g| kubeadm::program(g, "cp") },
    Check { id: "SystemVerification", early: true, run: system::verification },
    Check { id: "Hostname", early: false, run: kubeadm::hostname },
    Check { id: "KubeletVersion", early: false, run: kubeadm::kubelet_version },
    Check { id: "Service-kubelet", early: false, run: kubeadm::kubelet_service },
    Check { id: "Port-10250", early: true, run: kubeadm::port },
    Check { id: "FileAvailable--etc-kubernetes-pki-ca.crt", early: true, run: kubeadm::ca },
    Check { id: "HTTPProxy", early: true, run: cluster::proxy },
    Check { id: "FileContent--proc-sys-net-ipv4-ip_forward", early: false, run: kubeadm::forward_v4 },
    Check { id: "FileContent--proc-sys-net-ipv6-conf-default-forwarding", early: false, run: kubeadm::forward_v6 },
    Check { id: "Disk", early: true, run: device::disk },
    Check { id: "DiskSize", early: true, run: board::disk_size },
    Check { id: "Memory", early: true, run: device::memory },
    Check { id: "ControlPlane", early: true, run: device::control_plane },
    Check { id: "Power", early: true, run: board::power },
    Check { id: "BootLoader", early: true, run: board::boot_loader },
    Check { id: "CgroupMemory", early: true, run: system::cgroup_memory },
    Check { id: "MachineId", early: true, run: device::machine_id },
    Check { id: "NodeName", early: false, run: device::node_name },
    Check { id: "SandboxImage", early: false, run: device::sandbox_image },
    Check { id: "Endpoint", early: false, run: cluster::endpoint },
    Check { id: "Clock", early: false, run: cluster::clock },
];

/// Runs all checks, or only those of the phase. Without root rights the others cannot work, so the check for root runs
/// first and, if it fails, alone.
pub fn run_checks(context: &CheckContext<'_>, early_only: bool) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for check in CHECKS.iter().filter(|c| c.early || !early_only) {
        let result = (check.run)(context).map(|finding| vec![Outcome::new(check.id, finding)]);
        outcomes.extend(rows(check.id, result));
        if check.id == CHECKS[0].id && judge(&outcomes).is_err() {
            break;
        }
    }
    outcomes
}

/// Runs all checks on this device, outside of a run.
///
/// # Errors
/// An image fault when the description of the image or its bundle is missing; a host fault when the disks cannot be
/// read.
pub fn of_device(open: impl FnOnce() -> Result<Host, Fault>) -> Result<Vec<Outcome>, Fault> {
    // An ordinary user cannot open the journal.
    let root = kubeadm::privileged(&Linux::new());
    if matches!(root, Error(..)) {
        return Ok(vec![Outcome::new(CHECKS[0].id, root)]);
    }
    let host = open()?;
    let image = ImageInfo::read(&host)?;
    let bundle = Installed::read(&host)?;
    let found = find_seed(&host, &image);
    let seed = found.as_ref().map(|s| s.as_ref().map_err(|(code, why)| (*code, why.clone())));
    Ok(run_checks(&CheckContext::new(&host, &image, &bundle, seed), false))
}

/// The seed that a run would use, or the reason why a run would refuse it.
fn find_seed(host: &Host, image: &ImageInfo) -> Option<Result<Seed, Refusal>> {
    let places = match locate(&image.boot_label) {
        Ok(places) => places,
        Err(error) => return Some(Err((Code::BootDisk, format!("{error:#}")))),
    };
    // An unreadable boot partition counts as one without a seed; the run reports details.
    let ids = device_ids(host);
    let bytes = places.iter().find_map(|p| p.partition.seed_for(&ids).ok()?.own())?;
    Some(seed::parse(&bytes).map_err(|e| (e.code, e.to_string())))
}
