// SPDX-License-Identifier: Apache-2.0
//! The hardened host: settings as data, each with its reason, and the overrides of the seed.
//!
//! Each file here is one kind of setting: a table, an `audit` that reads the setting back from the running machine, and
//! an `apply` where the phase `harden` (or the guard, at every boot) sets it. Nothing here uses the network; kubelet is
//! queried on loopback.

pub mod access;
pub mod boot;
pub mod containerd;
pub mod files;
pub mod kubelet;
pub mod login;
pub mod modules;
pub mod mounts;
pub mod overrides;
mod process;
pub mod sysctl;
pub mod units;

use crate::fault::{Fault, OwnedBy, Owner};
use crate::host::Host;
use anyhow::Result;
use overrides::SeedOverrides;

/// Files that every image contains, so that they apply from the first boot on: path and text.
pub fn image_files() -> Vec<(&'static str, String)> {
    let login = login::FILES.iter().map(|(path, text, _)| (*path, (*text).to_owned()));
    let watchdog = (boot::WATCHDOG.0, boot::WATCHDOG.1.to_owned());
    [(sysctl::FILE, sysctl::file()), (modules::FILE, modules::file()), watchdog].into_iter().chain(login).collect()
}

/// Whether the device has everything that [`apply`] sets.
///
/// # Errors
/// When files cannot be read.
pub fn is_current(host: &Host, kept: &SeedOverrides) -> Result<bool> {
    Ok(sysctl::check(host, kept)? && modules::check(host, kept)? && access::check(host, &kept.access)?)
}

/// Applies kernel settings, the list of denied modules, and access, each with the seed's overrides.
///
/// # Errors
/// A seed fault when this host cannot do what the seed asks for; a host fault when the host rejects a setting.
pub fn apply(host: &Host, kept: &SeedOverrides) -> Result<(), Fault> {
    sysctl::apply(host, kept)?;
    modules::apply(host, kept).owned_by(Owner::Host)?;
    access::apply(host, &kept.access)
}
