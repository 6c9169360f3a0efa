// SPDX-License-Identifier: Apache-2.0
//! Tests of combining what a device left with the private key, by a CA of their own.

#![allow(clippy::unwrap_used)]

use super::super::admin_key::{GROUP, NewKey};
use super::*;
use crate::cluster::{Credential, kubeconfig::access};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256 as P256, PublicKeyData, SignatureAlgorithm,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tempfile::TempDir;
use x509_cert::der::DecodePem;
use x509_cert::request::CertReq;

const DAY: u64 = 24 * 60 * 60;

/// A cluster's CA.
struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Ca {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        Ca { pem: params.self_signed(&key).unwrap().pem(), issuer: Issuer::new(params, key) }
    }

    /// What kube-controller-manager makes of a request, for a year from `from` on.
    fn sign(&self, request: &str, algorithm: &'static SignatureAlgorithm, from: SystemTime) -> String {
        let request = CertReq::from_pem(request).unwrap();
        let key = request.info.public_key.subject_public_key.raw_bytes().to_vec();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, GROUP);
        params.distinguished_name.push(DnType::CommonName, "admin");
        params.not_before = from.into();
        params.not_after = (from + Duration::from_secs(365 * DAY)).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(&Requested { key, algorithm }, &self.issuer).unwrap().pem()
    }
}

/// The public key of a request.
struct Requested {
    key: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl PublicKeyData for Requested {
    fn der_bytes(&self) -> &[u8] {
        &self.key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

/// A device's file (`firstboot/src/control_plane/card.rs`).
fn left(ca: &str, certificate: &str) -> String {
    let (ca, certificate) = (STANDARD.encode(ca), STANDARD.encode(certificate));
    format!(
        "# Without the private key\napiVersion: v1\nkind: Config\ncurrent-context: admin@kubernetes\n\
         clusters:\n- name: kubernetes\n  cluster:\n    server: https://192.0.2.7:6443\n    certificate-authority-data: {ca}\n\
         contexts:\n- name: admin@kubernetes\n  context:\n    cluster: kubernetes\n    user: admin\n\
         users:\n- name: admin\n  user:\n    client-certificate-data: {certificate}\n"
    )
}

/// A mounted card, and a directory with the key.
struct Bench {
    dir: TempDir,
    ca: Ca,
    key: NewKey,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("BOOT")).unwrap();
        let key = NewKey::make("admin").unwrap();
        fs::write(dir.path().join("admin.key"), &*key.pem).unwrap();
        Bench { dir, ca: Ca::new(), key }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn leave(&self, text: &str) {
        fs::write(self.at("BOOT").join(ADMIN_KUBECONFIG), text).unwrap();
    }

    fn good(&self) -> String {
        left(&self.ca.pem, &self.ca.sign(&self.key.request, &P256, ago(DAY)))
    }

    fn args(&self) -> Args {
        let (place, key) = (self.at("BOOT"), self.at("admin.key"));
        Args { place, key, out: None, context: "shop".into(), server: None, force: false }
    }

    fn fails(&self, args: &Args) -> String {
        let text = format!("{:#}", main(args).unwrap_err());
        assert!(!text.contains('\n') && !text.contains("BEGIN"), "{text}");
        text.replace(&format!("{}/", self.dir.path().display()), "")
    }
}

fn ago(seconds: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(seconds)
}

#[test]
fn certificate_and_key_become_a_kubeconfig() {
    let bench = Bench::new();
    bench.leave(&bench.good());
    main(&bench.args()).unwrap();
    let path = bench.at("kubeconfig");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let found = access(Some(&path), Some("shop")).unwrap();
    assert_eq!((found.server.as_str(), found.ca_pem.as_str()), ("https://192.0.2.7:6443", bench.ca.pem.as_str()));
    let Credential::Certificate(chain, key) = &found.credential else { panic!("it has no certificate") };
    assert_eq!((pin::certificates(chain).unwrap().len(), key.expose()), (1, &*bench.key.pem));
    // The client that uses it accepts certificate and key.
    crate::cluster::Api::new(&found).unwrap();
    assert!(bench.key.request.len() > 100 && chain.starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(bench.fails(&bench.args()), "create kubeconfig: it exists already; --force replaces it");
    let server = Some(Endpoint::parse("api.example.com").unwrap());
    main(&Args { server, context: "a: \"b".into(), force: true, ..bench.args() }).unwrap();
    let found = access(Some(&path), None).unwrap();
    assert_eq!(found.server, "https://api.example.com:6443");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let other = bench.at("other");
    main(&Args { out: Some(other.clone()), ..bench.args() }).unwrap();
    assert!(access(Some(&other), Some("shop")).is_ok());
}

#[test]
fn nothing_else_of_the_card_is_taken() {
    let bench = Bench::new();
    let plugin =
        "    exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/evil}\nextensions: [{name: evil}]\n";
    bench.leave(&format!("{}{plugin}", bench.good().replace(": https", ": \"https").replace(":6443", ":6443\"")));
    main(&bench.args()).unwrap();
    let text = fs::read_to_string(bench.at("kubeconfig")).unwrap();
    assert!(!text.contains("evil") && text.lines().count() == 18, "{text}");
}

#[test]
fn keys_in_other_forms_fit_too() {
    let bench = Bench::new();
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, GROUP);
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    fs::write(bench.at("own.key"), key.serialize_pem()).unwrap();
    bench.leave(&left(&bench.ca.pem, &bench.ca.sign(&request, &rcgen::PKCS_ED25519, ago(DAY))));
    main(&Args { key: bench.at("own.key"), ..bench.args() }).unwrap();
}

#[test]
fn what_does_not_fit_is_named_and_nothing_is_written() {
    let bench = Bench::new();
    let use_it = "use admin.kubeconfig on BOOT";
    assert_eq!(
        bench.fails(&bench.args()),
        "find admin.kubeconfig on BOOT: it is not there; a device leaves it when it has created its cluster"
    );
    fs::write(bench.at("BOOT/firstboot-status.txt"), "state: working\n").unwrap();
    assert_eq!(
        bench.fails(&bench.args()),
        "find admin.kubeconfig on BOOT: it is not there; the last lines of firstboot-status.txt there say how far the \
         device is"
    );
    let sign = |from| bench.ca.sign(&bench.key.request, &P256, from);
    let (good, old) = (sign(ago(DAY)), sign(ago(366 * DAY)));
    let early = sign(SystemTime::now() + Duration::from_secs(DAY));
    for (text, want) in [
        ("<html>".to_owned(), "it is no kubeconfig"),
        (left("", &good), "line 9: it holds no CA certificate"),
        (left("CA", &good), "its CA certificate cannot be read"),
        (left(&bench.ca.pem, ""), "its user has no client-certificate-data that can be read"),
        (left(&bench.ca.pem, "x"), "its user has no certificate that can be read"),
        (left(&bench.ca.pem, &old), "its certificate expired at "),
        (left(&bench.ca.pem, &early), "its certificate is not valid before "),
        (left(&Ca::new().pem, &good), "its certificate is not signed by the cluster's CA"),
        (left(&bench.ca.pem, &good).replace("https:", "http:"), "line 8: its server is no https:// address"),
    ] {
        bench.leave(&text);
        let found = bench.fails(&bench.args());
        assert!(found.starts_with(&format!("{use_it}: {want}")), "{found}");
    }
    bench.leave(&bench.good());
    fs::write(bench.at("other.key"), &*NewKey::make("admin").unwrap().pem).unwrap();
    assert_eq!(
        bench.fails(&Args { key: bench.at("other.key"), ..bench.args() }),
        format!(
            "{use_it}: other.key is the key of another request than its certificate; --key names the one that was made with \
             this device's seed"
        )
    );
    fs::write(bench.at("no.key"), "no key").unwrap();
    assert_eq!(
        bench.fails(&Args { key: bench.at("no.key"), ..bench.args() }),
        "read no.key: it has no private key in PEM without a passphrase, as admin.key is"
    );
    assert!(!bench.at("kubeconfig").exists());
}
