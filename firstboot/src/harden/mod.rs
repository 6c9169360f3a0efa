// SPDX-License-Identifier: Apache-2.0
//! The hardened host: settings as data, each with the reason beside it, and what the seed wants otherwise.
//!
//! Each file here is one kind of setting: a table, an `audit` that reads it back from the running machine, and an `apply`
//! where the phase `harden` (or the guard, at every boot) has to set it. Nothing here talks to a network; kubelet is
//! asked on loopback.

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

/// Files that every image holds, so that they are in force from its very first boot on: path and text.
pub fn image_files() -> Vec<(&'static str, String)> {
    let login = login::FILES.iter().map(|(path, text, _)| (*path, (*text).to_owned()));
    [(sysctl::FILE, sysctl::file()), (modules::FILE, modules::file())].into_iter().chain(login).collect()
}

/// Whether everything that [`apply`] makes is there.
///
/// # Errors
/// When files cannot be read.
pub fn holds(host: &Host, kept: &SeedOverrides) -> Result<bool> {
    Ok(sysctl::check(host, kept)? && modules::check(host, kept)? && access::check(host, &kept.access)?)
}

/// Applies kernel settings, the list of modules, and access; what the seed wants otherwise included.
///
/// # Errors
/// A fault of the seed where it asks for what this host cannot give, of the host where it does not take a setting.
pub fn apply(host: &Host, kept: &SeedOverrides) -> Result<(), Fault> {
    sysctl::apply(host, kept)?;
    modules::apply(host, kept).owned_by(Owner::Host)?;
    access::apply(host, &kept.access)
}
