// SPDX-License-Identifier: Apache-2.0
//! `firstboot status`: what the last run wrote down, and what changes while nobody writes it. It changes nothing, and
//! works for any account; what only root may look at is then as old as the status.

use crate::fault::{Fault, OwnedBy, Owner};
use crate::firewall::host_ports::host_ports;
use crate::host::{Host, System};
use crate::node::credential;
use crate::status::{STATUS_FILE, STATUS_FOR_ALL, Status};
use crate::text::unix_seconds;
use crate::versions;
use anyhow::Context;
use std::path::Path;

/// The status of the device whose root folder is `root`. `open` gives the machine, where this account may have it.
///
/// # Errors
/// A host fault when firstboot has written none, or it cannot be read.
pub fn look(root: &Path, sys: &dyn System, open: impl FnOnce() -> Option<Host>) -> Result<Status, Fault> {
    let read = |path: &str| std::fs::read(root.join(path.trim_start_matches('/')));
    let bytes = read(STATUS_FILE)
        .or_else(|e| read(STATUS_FOR_ALL).map_err(|_| e))
        .map_err(|e| Fault::new(Owner::Host, format!("read {}: {e}; has firstboot run?", STATUS_FILE)))?;
    let mut status: Status =
        serde_json::from_slice(&bytes).map_err(|e| Fault::new(Owner::Host, format!("read {}: {e}", STATUS_FILE)))?;
    // Pods come and go, kubelet renews its certificate and kubeadm its programs.
    status.exceptions.extend(host_ports(sys));
    versions::ask_programs(&mut status.versions, sys);
    if let Some(host) = open() {
        status.certificate_until = credential::end(&host).owned_by(Owner::Host)?.map(unix_seconds);
    }
    Ok(status)
}

/// What `firstboot status` prints: lines, or one JSON document.
///
/// # Errors
/// A host fault when it cannot be encoded.
pub fn shown(status: &Status, json: bool) -> Result<String, Fault> {
    match json {
        true => Ok(serde_json::to_string(status).context("encode the status").owned_by(Owner::Host)? + "\n"),
        false => Ok(status.text()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;
    use crate::kube::kubeconfig::CURRENT_PEM;
    use rcgen::{CertificateParams, KeyPair};
    use serde_json::Value;

    #[test]
    fn what_was_written_down_and_what_has_changed_since() {
        let dir = tempfile::tempdir().unwrap();
        let none = look(dir.path(), &Fake::new().0, || None).unwrap_err().to_string();
        assert!(none.ends_with("has firstboot run?"), "{none}");
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        // As an older firstboot wrote it.
        let old = r#"{"state":"joined","node":"edge-1","phase":null,"whose_move":null,"error":null,
            "next_try_seconds":null,"written":1795392000,"image":"generic-amd64","phases":[["join",1.5]]}"#;
        host.write(STATUS_FOR_ALL, old.as_bytes(), 0o644).unwrap();
        let status = look(dir.path(), &Fake::new().0, || None).unwrap();
        assert_eq!((status.state.as_str(), status.certificate_until), ("joined", None));
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_after = rcgen::date_time_ymd(2026, 1, 1);
        let pem = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        host.write(CURRENT_PEM, pem.as_bytes(), 0o600).unwrap();
        let (fake, _) = Fake::new();
        let fake = fake.answering(|argv| (argv[0] == "kubelet").then(|| Ok("Kubernetes v1.36.4\n".into())));
        let status = look(dir.path(), &fake, || Some(host)).unwrap();
        let text = shown(&status, false).unwrap();
        assert!(text.contains("\ncertificate until: 2026-01-01T00:00:00Z, expired\n"), "{text}");
        assert!(text.contains("\nkubelet: 1.36.4\n"), "{text}");
        let json: Value = serde_json::from_str(&shown(&status, true).unwrap()).unwrap();
        assert_eq!((&json["certificate_until"], &json["versions"]["kubelet"]), (&1767225600.into(), &"1.36.4".into()));
    }
}
