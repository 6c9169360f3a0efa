// SPDX-License-Identifier: Apache-2.0
//! Key, request and CSR states. openssl checks the forms.

use std::io::Write;
use std::process::{Command, Stdio};

use super::super::key::Key;
use super::*;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use x509_cert::der::Decode;

/// What openssl says of `input`; the tool is part of every build machine's base system.
fn openssl(args: &[&str], input: &str) -> String {
    let mut child = Command::new("openssl").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "openssl {args:?}");
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn request_has_kubelets_form() {
    let key = Key::generate().unwrap();
    let request = key.request("edge-1").unwrap();
    let text = openssl(&["req", "-noout", "-text", "-verify", "-nameopt", "show_type,sep_comma_plus"], &request.pem);
    for want in [
        "Version: 1 (0x0)",
        "Subject: O=PRINTABLESTRING:system:nodes,CN=PRINTABLESTRING:system:node:edge-1",
        "ASN1 OID: prime256v1",
        "Signature Algorithm: ecdsa-with-SHA256",
    ] {
        assert!(text.contains(want), "{want}\n{text}");
    }
    assert!(!text.contains("Alternative Name"), "{text}");
}

#[test]
fn key_has_kubelets_form_and_survives_storing() {
    let key = Key::generate().unwrap();
    let sec1 = key.sec1_pem().unwrap();
    assert!(sec1.expose().starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
    let public = openssl(&["ec", "-pubout"], sec1.expose());
    assert_eq!(public.trim(), openssl(&["pkey", "-pubout"], key.pem().expose()).trim());
    let stored = Key::from_pem(key.pem().expose()).unwrap();
    assert_eq!(stored.request("edge-1").unwrap().name, key.request("edge-1").unwrap().name);
    for torn in ["", "-----BEGIN PRIVATE KEY-----\n", sec1.expose().as_str()] {
        assert!(Key::from_pem(torn).is_none());
    }
}

#[test]
fn csr_name_follows_key_and_node() {
    let (a, b) = (Key::generate().unwrap(), Key::generate().unwrap());
    let name = |key: &Key, node: &str| key.request(node).unwrap().name;
    let first = name(&a, "edge-1");
    assert_eq!(first.len(), "node-csr-".len() + 32);
    assert_eq!(a.request("edge-1").unwrap().csr()["metadata"]["name"], first);
    assert_ne!(first, name(&a, "edge-2"));
    assert_ne!(first, name(&b, "edge-1"));
}

#[test]
fn certificate_must_fit() {
    let key = Key::generate().unwrap();
    let issue = |names: &[(DnType, &str)], key: &KeyPair| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        names.iter().for_each(|(kind, name)| params.distinguished_name.push(kind.clone(), *name));
        params.self_signed(key).unwrap().pem()
    };
    let request = key.request("edge-1").unwrap();
    let names = [(DnType::OrganizationName, "system:nodes"), (DnType::CommonName, "system:node:edge-1")];
    assert!(request.matches_request(&issue(&names, &key.0), "edge-1"));
    assert!(!request.matches_request(&issue(&names, &key.0), "edge-2"));
    assert!(!request.matches_request(&issue(&names[1..], &key.0), "edge-1"));
    assert!(!request.matches_request(&issue(&names, &Key::generate().unwrap().0), "edge-1"));
    assert!(!request.matches_request("", "edge-1"));
}

/// The certificate with all parts of its subject in one RDN.
fn in_one_rdn(pem: &str) -> String {
    renamed(pem, |subject| {
        let parts = subject.0.iter().flat_map(|rdn| rdn.0.iter().cloned());
        let all = x509_cert::der::asn1::SetOfVec::from_iter(parts).unwrap();
        *subject = x509_cert::name::RdnSequence(vec![all.into()]);
    })
}

/// The certificate with an organization more in its subject.
fn with_organization(pem: &str, name: &str) -> String {
    renamed(pem, |subject| {
        let value = Any::from(Utf8StringRef::new(name).unwrap());
        let part = x509_cert::attr::AttributeTypeAndValue { oid: ORGANIZATION, value };
        subject.0.push(x509_cert::der::asn1::SetOfVec::from_iter([part]).unwrap().into());
    })
}

/// The certificate with another subject; the signature no longer fits and is not looked at.
fn renamed(pem: &str, change: impl FnOnce(&mut Name)) -> String {
    let mut certificate = x509_cert::Certificate::from_der(&pin::certificates(pem).unwrap()[0]).unwrap();
    change(&mut certificate.tbs_certificate.subject);
    let der = STANDARD.encode(certificate.to_der().unwrap());
    format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n")
}

#[test]
fn subjects_are_compared_by_their_parts() {
    let key = Key::generate().unwrap();
    let request = key.request("edge-1").unwrap();
    let issue = |names: &[(DnType, &str)]| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        names.iter().for_each(|(kind, name)| params.distinguished_name.push(kind.clone(), *name));
        params.self_signed(&key.0).unwrap().pem()
    };
    let (name, group) = ((DnType::CommonName, "system:node:edge-1"), (DnType::OrganizationName, "system:nodes"));
    let both = issue(&[group.clone(), name.clone()]);
    assert!(request.matches_request(&both, "edge-1") && request.matches_request(&in_one_rdn(&both), "edge-1"));
    assert!(request.matches_request(&issue(&[name.clone(), group.clone()]), "edge-1"));
    // Nothing besides, and an attribute that needs escapes when it is printed is one attribute all the same.
    let unit = |text| (DnType::OrganizationalUnitName, text);
    for more in [unit("a"), unit("a,b+c\\,\"d")] {
        assert!(!request.matches_request(&issue(&[more.clone(), group.clone(), name.clone()]), "edge-1"), "{more:?}");
    }
    for more in ["system:masters", "system:nodes"] {
        assert!(!request.matches_request(&with_organization(&both, more), "edge-1"), "{more}");
    }
    assert!(!request.matches_request(&issue(&[unit("a,O=system:nodes"), name.clone()]), "edge-1"));
    assert!(!request.matches_request(&issue(&[group.clone(), unit("a,CN=system:node:edge-1")]), "edge-1"));
    assert!(!request.matches_request(&issue(&[group, (DnType::CommonName, "system:node:edge-1,b")]), "edge-1"));
}

#[test]
fn states_of_a_csr() {
    let key = Key::generate().unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_365_108);
    let request = key.request("edge-1").unwrap();
    let state = |csr: Value| state(&request, "edge-1", &csr, now);
    let with = |kind: &str| {
        let condition = json!({"type": kind, "status": "True", "reason": "R", "message": "a\nb"});
        json!({"status": {"conditions": [condition]}})
    };
    let issued = |until: i32| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, "system:node:edge-1");
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params.self_signed(&key.0).unwrap().pem()
    };
    let signed = |chain: &str| json!({"status": {"certificate": STANDARD.encode(chain)}});
    let coded = |fault: &Fault| format!("{}: {fault}", fault.code);
    let lost = |code: Code, text: &str| CsrState::Lost(code, text.to_owned());
    assert_eq!(state(json!({"status": {}})), CsrState::UnderWay);
    assert_eq!(state(with("Approved")), CsrState::UnderWay);
    let good = issued(2030);
    assert_eq!(state(signed(&good)), CsrState::Signed(good));
    assert_eq!(state(with("Denied")), lost(Code::CsrRejected, "was denied: R a b"));
    assert_eq!(state(with("Failed")), lost(Code::CsrRejected, "could not be signed: R a b"));
    assert_eq!(state(signed("PEM")), lost(Code::CsrNotSigned, "has a certificate that is not for this key and node"));
    assert_eq!(
        state(signed(&issued(2026))),
        lost(Code::CsrNotSigned, "has a certificate that expired at 2026-01-01T00:00:00Z")
    );
    assert_eq!(
        coded(&pending("c", false)),
        "FB425: CSR c waits for approval by an administrator of the cluster: kubectl certificate approve c"
    );
    assert_eq!(
        coded(&pending("c", true)),
        "FB426: CSR c is approved but not signed: no signer for kubernetes.io/kube-apiserver-client-kubelet is at work"
    );
}
