// SPDX-License-Identifier: Apache-2.0
//! The seed's overrides of the hardened host, as the device keeps them.

use super::kubelet::fields;
use crate::host::Host;
use crate::host::kept::OVERRIDES;
use crate::seed::{Access, Harden, Seed};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// File with the overrides, which stay on the device when the seed is destroyed.
pub const OVERRIDES_FILE: &str = OVERRIDES.path;

/// The settings in which the seed differs from the hardened host. They contain no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedOverrides {
    /// Table `[harden]`.
    pub harden: Harden,
    /// Table `[access]`.
    pub access: Access,
    /// Fields of `[kubelet.config]` that differ from the hardened host's, by path ([`fields::FIELDS`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kubelet: BTreeMap<String, Value>,
    /// Whether this device has a virtual address together with other control planes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vrrp: bool,
}

impl SeedOverrides {
    /// The overrides of a seed.
    pub fn of(seed: &Seed) -> Self {
        let kubelet = fields::overrides(&seed.kubelet.config);
        let mut harden = seed.harden.clone();
        for port in seed.ports_of_control_plane() {
            if !harden.open.contains(&port) {
                harden.open.push(port);
            }
        }
        SeedOverrides { harden, access: seed.access.clone(), kubelet, vrrp: seed.virtual_ip().is_some() }
    }

    /// Reads the kept overrides; the default before the first seed and after a reset. The default opens no port, and has
    /// no egress list.
    ///
    /// # Errors
    /// When the file and its copy are damaged or gone, or the content cannot be parsed.
    pub fn read(host: &Host) -> Result<Self> {
        let reading = host.read_kept(OVERRIDES_FILE);
        match reading.bytes {
            None if reading.damage.is_some() => bail!("read {OVERRIDES_FILE}: the file and its copy are damaged"),
            None if is_lost(host) => bail!("find {OVERRIDES_FILE}: the file and its copy are gone"),
            None => Ok(SeedOverrides::default()),
            Some(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("read {OVERRIDES_FILE}")),
        }
    }

    /// Content of [`OVERRIDES_FILE`].
    ///
    /// # Errors
    /// Never in practice: every value can be encoded.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self).with_context(|| format!("encode {OVERRIDES_FILE}"))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// How this device is more open than the default, one line each, for people: `firstboot status` lists them.
    pub fn exceptions(&self) -> Vec<String> {
        let SeedOverrides { harden, access, kubelet, vrrp } = self;
        let from = |list: &[ipnet::IpNet]| match list.is_empty() {
            true => "anywhere".to_owned(),
            false => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        };
        let open = harden.open.iter().map(|port| format!("open to all: {port}"));
        let reach = harden.kubelet_from.iter().map(|net| format!("may reach kubelet (tcp/10250): {net}"));
        let vrrp = vrrp.then(|| "takes VRRP from its link: it shares an address with other control planes".to_owned());
        let forward = harden.forward.then(|| "routes between its links".to_owned());
        let sysctl = harden.sysctl.iter().map(|(key, value)| format!("kernel setting by the seed: {key} = {value}"));
        let modules = harden.modules.iter().map(|name| format!("kernel module allowed: {name}"));
        let ssh = (!access.keys.is_empty()).then(|| {
            let (keys, from) = (access.keys.len(), from(&access.from));
            format!("SSH: user {}, {keys} key(s), from {from}", access.user)
        });
        let kubelet = kubelet
            .iter()
            .map(|(field, value)| format!("kubelet setting by the seed: {field} = {}", fields::shown(value)));
        open.chain(reach).chain(vrrp).chain(forward).chain(sysctl).chain(modules).chain(ssh).chain(kubelet).collect()
    }
}

/// Whether there was such a file, by the journal. A reset takes it away.
fn is_lost(host: &Host) -> bool {
    let journal = host.journal();
    journal.resetting().is_none() && (journal.sealed() || journal.knows(OVERRIDES_FILE))
}

/// What the audits read.
pub struct AuditContext<'a> {
    /// The machine.
    pub host: &'a Host,
    /// The seed's overrides.
    pub kept: SeedOverrides,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;
    use crate::journal::Record;

    const SEED: &str = "version = 1\n[cluster]\napiserver = \"10.0.2.2\"\ntoken = \"abcdef.q7w2e9r4t1y6u8i3\"\nca-cert-hashes \
                        = \"sha256:a0b1c2d3e4f5a0b1c2d3e4f5a0b1c2d3e4f5a0b1c2d3e4f5a0b1c2d3e4f5a0b1\"\n[harden]\nopen = \
                        [\"udp/8472\", \"tcp/30000-30010\"]\nkubelet-from = \"10.0.0.0/24\"\nforward = true\nsysctl = { \
                        \"kernel.kptr_restrict\" = \"1\" }\nmodules = \"sctp\"\n[access]\nssh-keys = \"ssh-ed25519 \
                        AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA someone at \
                        work\"\n[kubelet.config]\nmaxPods = 60\npodPidsLimit = -1\n";

    #[test]
    fn overrides_are_read_back_and_listed() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        assert_eq!(SeedOverrides::read(&host).unwrap(), SeedOverrides::default());
        assert!(SeedOverrides::default().exceptions().is_empty());
        let kept = SeedOverrides::of(&crate::seed::parse(SEED.as_bytes()).unwrap());
        host.write(OVERRIDES_FILE, &kept.bytes().unwrap(), 0o644).unwrap();
        assert_eq!(SeedOverrides::read(&host).unwrap(), kept);
        assert_eq!(
            kept.exceptions(),
            [
                "open to all: udp/8472",
                "open to all: tcp/30000-30010",
                "may reach kubelet (tcp/10250): 10.0.0.0/24",
                "routes between its links",
                "kernel setting by the seed: kernel.kptr_restrict = 1",
                "kernel module allowed: sctp",
                "SSH: user admin, 1 key(s), from anywhere",
                "kubelet setting by the seed: podPidsLimit = -1",
            ]
        );
    }

    #[test]
    fn s10_lost_overrides_file_is_an_error_unless_a_reset_took_it() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        let bytes = SeedOverrides::default().bytes().unwrap();
        host.keep(OVERRIDES, &bytes).unwrap();
        std::fs::remove_file(dir.path().join(&OVERRIDES_FILE[1..])).unwrap();
        assert_eq!(SeedOverrides::read(&host).unwrap(), SeedOverrides::default());
        host.remove(&crate::host::kept::copy_path(OVERRIDES_FILE)).unwrap();
        let text = format!("find {OVERRIDES_FILE}: the file and its copy are gone");
        assert_eq!(SeedOverrides::read(&host).unwrap_err().to_string(), text);
        host.record(Record::Resetting { seed: None, keep: Vec::new(), destroy: false }).unwrap();
        assert_eq!(SeedOverrides::read(&host).unwrap(), SeedOverrides::default());
    }

    #[test]
    fn torn_overrides_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        host.write(OVERRIDES_FILE, b"{\"harden\":", 0o644).unwrap();
        assert_eq!(SeedOverrides::read(&host).unwrap_err().to_string(), format!("read {OVERRIDES_FILE}"));
    }
}
