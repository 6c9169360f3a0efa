// SPDX-License-Identifier: Apache-2.0
//! What kubeadm writes is flushed before others count on it.

use super::*;

/// What another program wrote is whole before it counts.
pub(super) fn written_by_kubeadm(root: &Path, without: Option<FlushSite>, site: FlushSite, fact: Fact) -> Outcome {
    const KEY: &str = "/etc/kubernetes/pki/ca.key";
    for directory in ["/etc", "/var"] {
        fs::create_dir_all(root.join(&directory[1..])).unwrap();
    }
    let host = host(root);
    medium::record(root, without, || {
        let counts = Record::Fact { name: fact, value: "true".into() };
        let is_counted = holds(vec![counts.clone()], None);
        always(move |state| match is_counted(state) {
            Ok(()) => expect(state.file(KEY) == Some(b"a whole key"), "a control plane counts without its key"),
            Err(_) => Ok(()),
        });
        put(root, KEY, b"a whole key", 0o600);
        host.flush(site).unwrap();
        host.record(counts).unwrap();
    })
}

/// A manifest that kubeadm has written is on the disk before etcd counts this device.
pub(super) fn etcd_joins(root: &Path, without: Option<FlushSite>) -> Outcome {
    const MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";
    for directory in ["/etc", "/var"] {
        fs::create_dir_all(root.join(&directory[1..])).unwrap();
    }
    let host = host(root);
    medium::record(root, without, || {
        put(root, MANIFEST, b"a whole pod", 0o600);
        host.flush(EtcdJoins).unwrap();
        check("etcd counts this device", &|state| {
            expect(state.file(MANIFEST) == Some(b"a whole pod"), "a member of etcd has no manifest")
        });
    })
}
