// SPDX-License-Identifier: Apache-2.0
//! `firstboot status`: the last status file, and what changes between two runs. It changes nothing, and
//! works for any account; what only root may look at is then as old as the status.

use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::firewall::host_ports::host_ports;
use crate::host::Host;
use crate::journal::facts::Fact;
use crate::node::credential;
use crate::offline;
use crate::status::{STATUS_FILE, STATUS_FOR_ALL, State, Status};
use crate::text::unix_seconds;
use crate::versions;
use anyhow::Context;

/// The status of this device. What an ordinary account may not read is then as old as the status.
///
/// # Errors
/// A host fault when firstboot has written none.
pub fn look(host: &Host) -> Result<Status, Fault> {
    let for_all = || host.read(STATUS_FOR_ALL).ok().flatten();
    let parsed = |bytes: Vec<u8>| serde_json::from_slice::<Status>(&bytes).ok();
    let kept = host.read_kept(STATUS_FILE).bytes.and_then(parsed).or_else(|| for_all().and_then(parsed));
    let mut status = match kept {
        Some(status) => status,
        // It is lost with its copy: the journal still says how far the device is.
        None if host.journal().used() => from_journal(host),
        None => {
            return Err(Fault::new(Code::NoStatus, format!("find {STATUS_FILE}: there is none; has firstboot run?")));
        }
    };
    // Pods come and go, kubelet renews its certificate and kubeadm its programs.
    status.exceptions.extend(host_ports(host.sys()));
    versions::ask_programs(&mut status.versions, host.sys());
    if let Some(until) = credential::end(host).ok().flatten() {
        status.certificate_until = Some(unix_seconds(until));
    }
    status.offline = offline::state(host);
    Ok(status)
}

/// What can be said without a status that was written.
fn from_journal(host: &Host) -> Status {
    let journal = host.journal();
    let state = match (journal.resetting().is_some(), journal.sealed()) {
        (true, _) => State::Resetting,
        (false, true) => State::Joined,
        (false, false) => State::Working,
    };
    Status {
        state,
        node: journal.fact(Fact::Node).map(str::to_owned),
        phases: journal.seconds(),
        warnings: vec!["Status: the last status is damaged; this one is from the journal".into()],
        ..Status::default()
    }
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
    use crate::paths::CURRENT_PEM;
    use rcgen::{CertificateParams, KeyPair};
    use serde_json::Value;

    #[test]
    fn what_was_written_down_and_what_has_changed_since() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        let none = look(&host).unwrap_err().to_string();
        assert!(none.ends_with("has firstboot run?"), "{none}");
        // As an older firstboot wrote it.
        let old = r#"{"state":"joined","node":"edge-1","phase":null,"whose_move":"host (look at it)","error":null,
            "next_try_seconds":null,"written":1795392000,"image":"generic-amd64","phases":[["join",1.5]]}"#;
        host.write(STATUS_FOR_ALL, old.as_bytes(), 0o644).unwrap();
        let status = look(&host).unwrap();
        assert_eq!((status.state, status.certificate_until), (State::Joined, None));
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_after = rcgen::date_time_ymd(2026, 1, 1);
        let pem = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        host.write(CURRENT_PEM, pem.as_bytes(), 0o600).unwrap();
        let (fake, _) = Fake::new();
        let fake = fake.answering(|argv| (argv[0] == "kubelet").then(|| Ok("Kubernetes v1.36.4\n".into())));
        let status = look(&Host::reading(dir.path(), Box::new(fake)).unwrap()).unwrap();
        let text = shown(&status, false).unwrap();
        assert!(text.contains("\ncertificate until: 2026-01-01T00:00:00Z, expired\n"), "{text}");
        assert!(text.contains("\nkubelet: 1.36.4\n"), "{text}");
        let json: Value = serde_json::from_str(&shown(&status, true).unwrap()).unwrap();
        assert_eq!((&json["certificate_until"], &json["versions"]["kubelet"]), (&1767225600.into(), &"1.36.4".into()));
    }
}
