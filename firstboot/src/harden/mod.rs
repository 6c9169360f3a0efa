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
mod process;
pub mod sysctl;
pub mod units;

use crate::fault::{Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::seed::{Access, Harden, Seed};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What of `[harden]` and `[access]` stays on the device when the seed is gone.
pub const KEPT: &str = "/etc/firstboot/harden.json";

/// Files that every image holds, so that they are in force from its very first boot on: path and text.
pub fn image_files() -> Vec<(&'static str, String)> {
    let login = login::FILES.iter().map(|(path, text, _)| (*path, (*text).to_owned()));
    [(sysctl::FILE, sysctl::file()), (modules::FILE, modules::file())].into_iter().chain(login).collect()
}

/// Whether everything that [`apply`] makes is there.
///
/// # Errors
/// When files cannot be read.
pub fn holds(host: &Host, kept: &Kept) -> Result<bool> {
    Ok(sysctl::check(host, kept)? && modules::check(host, kept)? && access::check(host, &kept.access)?)
}

/// Applies kernel settings, the list of modules, and access; what the seed wants otherwise included.
///
/// # Errors
/// A fault of the seed where it asks for what this host cannot give, of the host where it does not take a setting.
pub fn apply(host: &Host, kept: &Kept) -> Result<(), Fault> {
    sysctl::apply(host, kept)?;
    modules::apply(host, kept).owned_by(Owner::Host)?;
    access::apply(host, &kept.access)
}

/// Writes a configuration file that anybody may read, unless it is there already.
fn ensure(host: &Host, path: &str, text: &str) -> Result<()> {
    host.write(path, text.as_bytes(), 0o644)
}

/// The same for a file that is there only where there is something to say.
fn keep_or_remove(host: &Host, path: &str, text: Option<&str>) -> Result<()> {
    match text {
        Some(text) => ensure(host, path, text),
        None if host.read(path)?.is_some() => host.remove(path),
        None => Ok(()),
    }
}

/// What the seed wants otherwise than the hardened host; no secret is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Table `[harden]`.
    pub harden: Harden,
    /// Table `[access]`.
    pub access: Access,
    /// Fields of `[kubelet.config]` that differ from the hardened host's, by path ([`kubelet::FIELDS`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kubelet: BTreeMap<String, Value>,
}

impl Kept {
    /// What a seed says.
    pub fn of(seed: &Seed) -> Self {
        let kubelet = kubelet::overrides(&seed.kubelet.config);
        Kept { harden: seed.harden.clone(), access: seed.access.clone(), kubelet }
    }

    /// What is kept on the device; the default, which opens nothing, before the first seed.
    ///
    /// # Errors
    /// When the file cannot be read or is not what was written.
    pub fn read(host: &Host) -> Result<Self> {
        match host.read(KEPT)? {
            None => Ok(Kept::default()),
            Some(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("read {KEPT}")),
        }
    }

    /// The file that keeps it.
    ///
    /// # Errors
    /// Never in practice: every value has a text.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self).with_context(|| format!("encode {KEPT}"))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Where this device is more open than others, one line each, for people: `firstboot status` lists them.
    pub fn exceptions(&self) -> Vec<String> {
        let Kept { harden, access, kubelet } = self;
        let from = |list: &[ipnet::IpNet]| match list.is_empty() {
            true => "anywhere".to_owned(),
            false => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        };
        let open = harden.open.iter().map(|port| format!("open to anybody: {port}"));
        let reach = harden.kubelet_from.iter().map(|net| format!("may reach kubelet (tcp/10250): {net}"));
        let sysctl = harden.sysctl.iter().map(|(key, value)| format!("kernel setting by the seed: {key} = {value}"));
        let modules = harden.modules.iter().map(|name| format!("kernel module allowed: {name}"));
        let ssh = (!access.keys.is_empty()).then(|| {
            let (keys, from) = (access.keys.len(), from(&access.from));
            format!("SSH: user {}, {keys} key(s), from {from}", access.user)
        });
        let kubelet = kubelet
            .iter()
            .map(|(field, value)| format!("kubelet setting by the seed: {field} = {}", kubelet::shown(value)));
        open.chain(reach).chain(sysctl).chain(modules).chain(ssh).chain(kubelet).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    const SEED: &str = "version = 1\n[cluster]\napiserver = \"10.0.2.2\"\ntoken = \"abcdef.q7w2e9r4t1y6u8i3\"\nca-cert-hashes \
                        = \"sha256:a0b1c2d3e4f5a0b1c2d3e4f5a0b1c2d3e4f5a0b1c2d3e4f5a0b1c2d3e4f5a0b1\"\n[harden]\nopen = \
                        [\"udp/8472\", \"tcp/30000-30010\"]\nkubelet-from = \"10.0.0.0/24\"\nsysctl = { \
                        \"kernel.kptr_restrict\" = \"1\" }\nmodules = \"sctp\"\n[access]\nssh-keys = \"ssh-ed25519 \
                        AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA someone at \
                        work\"\n[kubelet.config]\nmaxPods = 60\npodPidsLimit = -1\n";

    #[test]
    fn what_is_kept_comes_back_and_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        assert_eq!(Kept::read(&host).unwrap(), Kept::default());
        assert!(Kept::default().exceptions().is_empty());
        let kept = Kept::of(&crate::seed::parse(SEED.as_bytes()).unwrap());
        host.write(KEPT, &kept.bytes().unwrap(), 0o644).unwrap();
        assert_eq!(Kept::read(&host).unwrap(), kept);
        assert_eq!(
            kept.exceptions(),
            [
                "open to anybody: udp/8472",
                "open to anybody: tcp/30000-30010",
                "may reach kubelet (tcp/10250): 10.0.0.0/24",
                "kernel setting by the seed: kernel.kptr_restrict = 1",
                "kernel module allowed: sctp",
                "SSH: user admin, 1 key(s), from anywhere",
                "kubelet setting by the seed: podPidsLimit = -1",
            ]
        );
    }

    #[test]
    fn a_torn_file_is_no_licence() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        host.write(KEPT, b"{\"harden\":", 0o644).unwrap();
        assert_eq!(Kept::read(&host).unwrap_err().to_string(), format!("read {KEPT}"));
    }
}
