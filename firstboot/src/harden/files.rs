// SPDX-License-Identifier: Apache-2.0
//! Modes and owners of files that decide what runs on this node and as which user: CIS Kubernetes 4.1, and more.
//!
//! The writer of a file sets its mode (the phases, `kube/files.rs`; units: imagebuild, by [`mode_of`]); the audit here
//! only reads it. A stricter mode is accepted.

use crate::check::{Finding, Verdict};
use crate::harden::overrides::AuditContext;
use crate::paths::{
    CA_FILE, CLUSTER_PKI, CONTAINERD_CONFIG, CONTAINERD_SOCKET, CURRENT_PEM, DROP_IN, INSTANCE_CONFIG, KUBEADM_FLAGS,
    KUBELET_ARGS, KUBELET_CONF, KUBELET_CONFIG, KUBELET_DIR, KUBELET_PATCH, KUBELET_UNIT, MANIFESTS, PKI, PROXY_ENV,
    SEED_DROP_IN,
};
use anyhow::Result;

/// A path, the most that its mode may allow, the reason.
type File = (&'static str, u32, &'static str);

#[rustfmt::skip]
const FILES: &[File] = &[
    (KUBELET_UNIT, 0o600, "CIS 4.1.1, 4.1.2: what kubelet is started with"),
    ("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", 0o600, "CIS 4.1.1, 4.1.2: the same, kubeadm's part"),
    (KUBELET_ARGS, 0o600, "CIS 4.1.1, 4.1.2: the same, flags of the node's operator"),
    (KUBELET_CONF, 0o600, "CIS 4.1.5, 4.1.6: which cluster this is, and where the node's key is"),
    (CLUSTER_PKI, 0o700, "write access there decides whom kubelet trusts"),
    (CA_FILE, 0o600, "CIS 4.1.7, 4.1.8: whom kubelet trusts"),
    (MANIFESTS, 0o700, "a manifest there runs as a pod without the cluster's consent"),
    (KUBELET_DIR, 0o700, "volumes of pods, their secrets included"),
    (KUBELET_CONFIG, 0o600, "CIS 4.1.9, 4.1.10: kubelet's configuration"),
    (INSTANCE_CONFIG, 0o600, "CIS 4.1.9, 4.1.10: the same, this node's part"),
    (KUBEADM_FLAGS, 0o600, "CIS 4.1.9, 4.1.10: the same, flags"),
    (DROP_IN, 0o600, "CIS 4.1.9, 4.1.10: the same, the hardened host's part"),
    (SEED_DROP_IN, 0o600, "CIS 4.1.9, 4.1.10: the same, the seed's part"),
    (KUBELET_PATCH, 0o600, "CIS 4.1.9, 4.1.10: the same, for kubeadm upgrade"),
    (PKI, 0o700, "kubelet's keys"),
    (CURRENT_PEM, 0o600, "the node's own key: its holder can act as this node"),
    ("/var/lib/kubelet/pki/kubelet.key", 0o600, "the key of kubelet's port"),
    (CONTAINERD_CONFIG, 0o600, "what the runtime starts containers with"),
    (CONTAINERD_SOCKET, 0o660, "access to it equals root"),
    (PROXY_ENV, 0o600, "it may hold the proxy's password"),
    ("/var/lib/firstboot", 0o700, "firstboot's own record"),
];

/// The mode that an image gives to one of these files.
pub fn mode_of(path: &str) -> Option<u32> {
    FILES.iter().find(|(name, ..)| *name == path).map(|(_, mode, _)| *mode)
}

/// Findings of all files that exist.
pub(crate) fn audit(context: &AuditContext<'_>) -> Result<Vec<Finding>> {
    compare_owned_by(context, (0, 0))
}

fn compare_owned_by(context: &AuditContext<'_>, owner: (u32, u32)) -> Result<Vec<Finding>> {
    let mut all = Vec::new();
    for (path, most, why) in FILES {
        let (Some((_, mode)), Some(found)) = (context.host.size_and_mode(path)?, context.host.owner(path)?) else {
            continue;
        };
        let state = if mode & !most == 0 && found == owner { Verdict::Ok } else { Verdict::Drift };
        all.push(Finding {
            id: format!("files{path}"),
            state,
            wanted: shown(*most, owner),
            found: shown(mode, found),
            why: (*why).to_owned(),
        });
    }
    Ok(all)
}

fn shown(mode: u32, (user, group): (u32, u32)) -> String {
    format!("{mode:o} {user}:{group}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harden::overrides::SeedOverrides;
    use crate::host::Host;
    use crate::host::fake::Fake;
    use rustix::process::{getgid, getuid};

    #[test]
    fn wider_modes_and_other_owners_are_drift() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        host.mkdir("/etc/kubernetes/pki", 0o755).unwrap();
        for (path, mode) in [
            ("/etc/kubernetes/pki/ca.crt", 0o400),
            ("/etc/kubernetes/kubelet.conf", 0o640),
            ("/usr/lib/systemd/system/kubelet.service", 0o600),
        ] {
            host.write(path, b"x", mode).unwrap();
        }
        let me = (getuid().as_raw(), getgid().as_raw());
        let context = AuditContext { host: &host, kept: SeedOverrides::default() };
        let deviations = |owner| -> Vec<(String, String)> {
            let all = compare_owned_by(&context, owner).unwrap();
            assert_eq!(all.len(), 5, "{all:#?}");
            all.into_iter().filter(|f| f.state != Verdict::Ok).map(|f| (f.id, f.found)).collect()
        };
        let (user, group) = me;
        assert_eq!(
            deviations(me),
            [
                ("files/etc/kubernetes/kubelet.conf".to_owned(), format!("640 {user}:{group}")),
                ("files/etc/kubernetes/pki".to_owned(), format!("755 {user}:{group}")),
            ]
        );
        assert_eq!(deviations((user + 1, group)).len(), 5);
    }

    #[test]
    fn kubelet_units_are_readable_by_root_only() {
        assert_eq!(mode_of("/usr/lib/systemd/system/kubelet.service"), Some(0o600));
        assert_eq!(mode_of("/usr/lib/systemd/system/containerd.service"), None);
    }
}
