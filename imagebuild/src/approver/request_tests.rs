// SPDX-License-Identifier: Apache-2.0
//! Requests that are good, and every way in which one is not its node's.

#![allow(clippy::unwrap_used)]

use super::*;
use rcgen::{CertificateParams, CertificateSigningRequest, DistinguishedName, DnType, KeyPair, SanType};
use serde_json::json;

/// PKCS#10 over a new key.
fn pkcs10(attributes: &[(DnType, &str)], names: Vec<SanType>) -> (CertificateSigningRequest, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in attributes {
        params.distinguished_name.push(kind.clone(), *value);
    }
    params.subject_alt_names = names;
    (params.serialize_request(&key).unwrap(), key)
}

fn subject(node: &str) -> Vec<(DnType, String)> {
    vec![(DnType::OrganizationName, "system:nodes".to_owned()), (DnType::CommonName, format!("system:node:{node}"))]
}

fn good(node: &str) -> CertificateSigningRequest {
    let subject = subject(node);
    let pairs: Vec<(DnType, &str)> = subject.iter().map(|(kind, value)| (kind.clone(), value.as_str())).collect();
    pkcs10(&pairs, Vec::new()).0
}

/// A request as the API server stores it, for a token of node `shop-1.a`.
fn csr(request: &CertificateSigningRequest) -> Value {
    json!({
        "metadata": { "name": "node-csr-x" },
        "spec": {
            "signerName": SIGNER,
            "username": "system:bootstrap:abcdef",
            "groups": ["system:bootstrappers:firstboot:shop-1:a", "system:bootstrappers", "system:authenticated"],
            "usages": ["digital signature", "client auth"],
            "request": STANDARD.encode(request.pem().unwrap()),
        },
    })
}

fn refused(csr: &Value) -> String {
    let refusal = judge(csr).unwrap_err();
    assert_eq!(refusal.reason, "FirstbootNotItsNode");
    refusal.message
}

#[test]
fn its_own_certificate_is_good_and_known_by_its_key() {
    let (request, key) = {
        let subject = subject("shop-1.a");
        let pairs: Vec<(DnType, &str)> = subject.iter().map(|(kind, value)| (kind.clone(), value.as_str())).collect();
        pkcs10(&pairs, Vec::new())
    };
    let mut csr = csr(&request);
    let spki = hex(&Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&key)));
    let asked = Asked { token: "abcdef".into(), node: "shop-1.a".into(), key: spki };
    assert_eq!(judge(&csr), Ok(asked.clone()));
    csr["spec"]["usages"] = json!(["key encipherment", "client auth", "digital signature"]);
    assert_eq!(judge(&csr), Ok(asked));
    assert!(is_open(&csr));
    csr["status"]["conditions"] = json!([{"type": "Denied"}]);
    assert!(!is_open(&csr) && is_ours(&csr));
}

#[test]
fn requests_of_others_are_left_alone() {
    let mut csr = csr(&good("shop-1.a"));
    csr["spec"]["signerName"] = json!("kubernetes.io/kube-apiserver-client");
    assert!(!is_open(&csr));
    csr["spec"]["signerName"] = json!(SIGNER);
    csr["spec"]["groups"] = json!(["system:bootstrappers:kubeadm:default-node-token", "system:bootstrappers"]);
    assert!(!is_open(&csr));
}

#[test]
fn another_name_is_refused() {
    let want = "this token is for node shop-1.a alone: O=system:nodes, CN=system:node:shop-1.a";
    for other in ["shop-2.a", "shop-1-a", "shop-1", "shop-1.a.b", "Shop-1.a", "", "shop-1:a"] {
        assert_eq!(refused(&csr(&good(other))), want, "{other}");
    }
    let name = (DnType::CommonName, "system:node:shop-1.a");
    let organization = (DnType::OrganizationName, "system:nodes");
    for subject in [
        vec![name.clone()],
        vec![organization.clone()],
        vec![organization.clone(), (DnType::CommonName, "shop-1.a")],
        vec![(DnType::OrganizationName, "system:masters"), name.clone()],
        vec![organization, name, (DnType::OrganizationalUnitName, "x")],
    ] {
        assert_eq!(refused(&csr(&pkcs10(&subject, Vec::new()).0)), want);
    }
}

/// The signer reads PEM by Go's rules: no text may mean one request to it and another to the approver.
#[test]
fn s02_pem_in_any_other_form_is_refused() {
    let (own, other) = (good("shop-1.a").pem().unwrap(), good("victim").pem().unwrap());
    assert!(!own.contains('\r') && own.ends_with("-----END CERTIFICATE REQUEST-----\n"));
    let head = "-----BEGIN CERTIFICATE REQUEST-----\n";
    for text in [
        String::new(),
        format!("{own}{other}"),
        format!("{other}{own}"),
        format!("{other}\n{own}"),
        format!("text\n{own}"),
        format!("{own}\n"),
        format!(" {own}"),
        own.trim_end().to_owned(),
        own.replace('\n', "\r\n"),
        own.replace(head, &format!("{head}Proc-Type: 4\n\n")),
        own.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
        own.replacen("MI", "MI\n", 1),
        format!("{head}MIIB\n-----END CERTIFICATE REQUEST-----\n"),
    ] {
        let mut csr = csr(&good("shop-1.a"));
        csr["spec"]["request"] = json!(STANDARD.encode(&text));
        assert_eq!(refused(&csr), "the request is no PEM as kubelet and firstboot write it", "{text}");
    }
}

#[test]
fn further_names_usages_and_groups_are_refused() {
    let subject = subject("shop-1.a");
    let pairs: Vec<(DnType, &str)> = subject.iter().map(|(kind, value)| (kind.clone(), value.as_str())).collect();
    let names = vec![SanType::DnsName("shop-1.a".try_into().unwrap())];
    let want = "the request asks for more than a subject: a node's has no further names";
    assert_eq!(refused(&csr(&pkcs10(&pairs, names).0)), want);

    let want = "a node's certificate has the usages digital signature and client auth, and no others";
    for usages in [
        json!([]),
        json!(["client auth"]),
        json!(["digital signature", "client auth", "server auth"]),
        json!(["digital signature", "client auth", "client auth"]),
    ] {
        let mut csr = csr(&good("shop-1.a"));
        csr["spec"]["usages"] = usages;
        assert_eq!(refused(&csr), want);
    }

    for more in
        ["system:bootstrappers:kubeadm:default-node-token", "system:bootstrappers:firstboot:zzz", "system:masters"]
    {
        let mut csr = csr(&good("shop-1.a"));
        csr["spec"]["groups"].as_array_mut().unwrap().push(json!(more));
        assert_eq!(refused(&csr), "the token of node shop-1.a is in other groups, too");
    }
    let mut csr = csr(&good("shop-1.a"));
    csr["spec"]["username"] = json!("system:node:shop-1.a");
    assert_eq!(refused(&csr), "the requester is no bootstrap token");
}
