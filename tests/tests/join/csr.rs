// SPDX-License-Identifier: Apache-2.0
//! The certificate signing request without automatic approval: pending, denied, failed, too old, its key lost.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use firstboot::fault::Code;
use firstboot::seed::Seed;
use qemu::control_plane::ControlPlane;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::json;

use super::bench::*;

/// Long enough for the answer of a server next door, short for one that does not come.
const SHORT: Duration = Duration::from_secs(2);

fn pending(csr: &str) -> (Code, String) {
    let text =
        format!("CSR {csr} waits for approval by an administrator of the cluster: kubectl certificate approve {csr}");
    (Code::CsrPending, text)
}

/// A device whose CSR waits; gives its name, too. Nothing approves CSRs from then on, whichever case is the first.
fn waiting(plane: &ControlPlane, node: &str) -> (Bench, Seed, String, String) {
    plane.kubectl(&["delete", "--ignore-not-found", "clusterrolebinding", e2e::APPROVER]).unwrap();
    let (token, seed) = good(plane);
    let mut device = Bench { csr_wait: SHORT, ..Bench::default() };
    let fault = device.fails(&seed, node);
    let [csr] = csrs_by(plane, &token).try_into().unwrap();
    assert_eq!(fault, pending(&csr));
    (device, seed, token, csr)
}

/// The CSR that is there besides those that are known.
fn another(plane: &ControlPlane, token: &str, known: &[&str]) -> String {
    let new: Vec<String> = csrs_by(plane, token).into_iter().filter(|c| !known.contains(&c.as_str())).collect();
    let [new] = new.try_into().unwrap();
    new
}

fn approve_and_join(plane: &ControlPlane, device: &mut Bench, seed: &Seed, node: &str, csr: &str) {
    plane.kubectl(&["certificate", "approve", csr]).unwrap();
    device.csr_wait = Duration::from_secs(15);
    let joined = device.join(seed, node).unwrap();
    assert_eq!(device.node_client(&joined).node().unwrap(), None);
}

pub fn certificate_by_hand(plane: &ControlPlane) {
    let (mut device, seed, token, csr) = waiting(plane, "by-hand");
    // The next attempt takes the same one up again.
    assert_eq!(device.fails(&seed, "by-hand"), pending(&csr));
    approve_and_join(plane, &mut device, &seed, "by-hand", &csr);
    assert_eq!((csrs_by(plane, &token).len(), device.reported.len()), (1, 0));
}

pub fn denied(plane: &ControlPlane) {
    let (mut device, seed, token, first) = waiting(plane, "denied");
    let why = "was denied: KubectlDeny This CSR was denied by kubectl certificate deny.";
    // Denied while the device waits for it: a fault, so that no request follows at once.
    device.csr_wait = Duration::from_secs(30);
    let watched = |e: &&qemu::control_plane::audit::Event| {
        e.verb == "watch" && e.request_uri.contains(&first) && e.stage == "ResponseStarted"
    };
    let before = plane.audit().unwrap().iter().filter(watched).count();
    let reported = std::thread::scope(|scope| {
        scope.spawn(|| {
            qemu::wait::until("the device to watch its CSR", Duration::from_secs(20), || {
                Ok((plane.audit()?.iter().filter(watched).count() > before).then_some(()))
            })
            .unwrap();
            plane.kubectl(&["certificate", "deny", &first]).unwrap();
        });
        device.fails(&seed, "denied")
    });
    assert_eq!(reported, (Code::CsrRejected, format!("CSR {first} {why}; the next try sends another")));
    assert_eq!((csrs_by(plane, &token).len(), device.reported.len()), (1, 0));
    // Denied before: another key, another CSR, and it says so.
    let key = device.key.clone();
    device.csr_wait = SHORT;
    let fault = device.fails(&seed, "denied");
    let second = another(plane, &token, &[&first]);
    assert_eq!(fault, pending(&second));
    assert_eq!(device.reported, [format!("CSR {first} {why}: sending another")]);
    assert_ne!(device.key, key);
    approve_and_join(plane, &mut device, &seed, "denied", &second);
    assert_eq!(csrs_by(plane, &token).len(), 2);
}

fn set_status(plane: &ControlPlane, csr: &str, status: serde_json::Value) {
    let patch = json!({ "status": status }).to_string();
    plane.kubectl(&["patch", "csr", csr, "--subresource=status", "--type=merge", "-p", &patch]).unwrap();
}

pub fn failed(plane: &ControlPlane) {
    let (mut device, seed, token, first) = waiting(plane, "failed");
    let condition = json!({"type": "Failed", "status": "True", "reason": "SigningError", "message": "no CA"});
    set_status(plane, &first, json!({ "conditions": [condition] }));
    let fault = device.fails(&seed, "failed");
    let second = another(plane, &token, &[&first]);
    assert_eq!(fault, pending(&second));
    assert_eq!(device.reported, [format!("CSR {first} could not be signed: SigningError no CA: sending another")]);
    approve_and_join(plane, &mut device, &seed, "failed", &second);
}

pub fn certificate_of_an_old_csr_has_expired(plane: &ControlPlane) {
    let (mut device, seed, token, first) = waiting(plane, "expired-csr");
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, "system:node:expired-csr");
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = KeyPair::from_pem(device.key.as_ref().unwrap()).unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    set_status(plane, &first, json!({ "certificate": STANDARD.encode(pem) }));
    let fault = device.fails(&seed, "expired-csr");
    let second = another(plane, &token, &[&first]);
    assert_eq!(fault, pending(&second));
    let why = "has a certificate that expired at 2020-01-01T00:00:00Z";
    assert_eq!(device.reported, [format!("CSR {first} {why}: sending another")]);
    approve_and_join(plane, &mut device, &seed, "expired-csr", &second);
}

pub fn kept_key_is_unreadable(plane: &ControlPlane) {
    let (mut device, seed, token, first) = waiting(plane, "lost-key");
    device.key = Some("-----BEGIN PRIVATE KEY-----\n".to_owned());
    let fault = device.fails(&seed, "lost-key");
    let second = another(plane, &token, &[&first]);
    assert_eq!(fault, pending(&second));
    approve_and_join(plane, &mut device, &seed, "lost-key", &second);
}
