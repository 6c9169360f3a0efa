// SPDX-License-Identifier: Apache-2.0
//! `firstboot audit`: compares every setting of the hardened host with the running machine.
//!
//! [`AREAS`] is the list. Nothing here changes the machine, and nothing here relies on what firstboot wrote: the audit
//! reads the files again, and queries the kernel, the packet filter, the service manager and kubelet.

use crate::check::{self, Finding};
use crate::harden::overrides::{AuditContext, SeedOverrides};
use crate::host::Host;
use crate::{firewall, harden};
use anyhow::Result;

/// One kind of setting.
pub struct Area {
    /// Name of the area, the first part of the ids of its findings.
    pub name: &'static str,
    /// Reads all settings of the area back; an error means that they cannot be read, which counts as drift.
    pub audit: fn(&AuditContext<'_>) -> Result<Vec<Finding>>,
}

/// All areas, in the order of the phases that set them.
pub const AREAS: &[Area] = &[
    Area { name: "sysctl", audit: harden::sysctl::audit },
    Area { name: "modules", audit: harden::modules::audit },
    Area { name: "boot", audit: harden::boot::audit },
    Area { name: "apparmor", audit: harden::boot::audit_apparmor },
    Area { name: "mounts", audit: harden::mounts::audit },
    Area { name: "firewall", audit: firewall::audit::audit },
    Area { name: "access", audit: harden::access::audit },
    Area { name: "login", audit: harden::login::audit },
    Area { name: "kubelet", audit: harden::kubelet::audit::audit },
    Area { name: "containerd", audit: harden::containerd::audit },
    Area { name: "units", audit: harden::units::audit },
    Area { name: "files", audit: harden::files::audit },
];

/// Audits all areas.
///
/// # Errors
/// When the kept overrides of the seed cannot be read.
pub fn of_device(host: &Host) -> Result<Vec<Finding>> {
    let context = AuditContext { host, kept: SeedOverrides::read(host)? };
    Ok(AREAS.iter().flat_map(|area| check::rows(area.name, (area.audit)(&context))).collect())
}
