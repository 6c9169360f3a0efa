// SPDX-License-Identifier: Apache-2.0
//! Reading of certificates, on the CAs of tests/field; the rules are held against Go's in tests/tests/certificates.rs.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::Certificate;
use super::algorithm::{Curve, Hash, Key, Signature};

/// The first certificate in a file of tests/field.
fn read(path: &str) -> Certificate {
    let path = Path::new("tests/field").join(path);
    let text = std::fs::read(path).unwrap();
    Certificate::read(&CertificateDer::from_pem_slice(&text).unwrap()).unwrap()
}

#[test]
fn keys_and_signatures_by_name() {
    for (name, key, signature) in [
        ("ca-ed25519", "an Ed25519 key", "Ed25519"),
        ("ca-p224", "an ECDSA key on P-224", "ECDSA with SHA-256"),
        ("ca-p256-sha512", "an ECDSA key on P-256", "ECDSA with SHA-512"),
        ("ca-p384-sha384", "an ECDSA key on P-384", "ECDSA with SHA-384"),
        ("ca-p521-sha512", "an ECDSA key on P-521", "ECDSA with SHA-512"),
        ("ca-rsa512", "an RSA key of 512 bits", "RSA with SHA-256"),
        ("ca-rsa1024-sha1", "an RSA key of 1024 bits", "RSA with SHA-1"),
        ("ca-rsa8192", "an RSA key of 8192 bits", "RSA with SHA-512"),
        ("ca-rsa-pss", "an RSA key of 2048 bits", "RSA-PSS with SHA-256"),
        ("ca-rsa-pss-key", "a key of type RSA for PSS alone", "RSA-PSS with SHA-256"),
        ("ca-secp256k1", "a key of type ECDSA on secp256k1", "ECDSA with SHA-256"),
        ("ca-brainpool", "a key of type ECDSA on curve 1.3.36.3.3.2.8.1.1.7", "ECDSA with SHA-256"),
        ("ca-ed448", "a key of type Ed448", "Ed448"),
    ] {
        let read = read(&format!("21-ca-kinds/{name}.seed"));
        assert_eq!((read.key.to_string().as_str(), read.signature.to_string().as_str()), (key, signature), "{name}");
        assert!(read.is_ca() && read.is_self_issued() && read.cannot_sign().is_none(), "{name}");
        assert_eq!(read.cannot_serve(), None, "{name}");
    }
}

#[test]
fn what_may_sign() {
    let leaf = read("31-ca-cert-forms/h-server-leaf.seed");
    assert_eq!(leaf.cannot_sign(), Some("is not a CA's: it has no basicConstraints"));
    assert_eq!(leaf.dns_names, ["localhost", "kubernetes"]);
    let unsigned = read("31-ca-cert-forms/v-without-cert-sign.seed");
    assert_eq!(unsigned.cannot_sign(), Some("may not sign certificates: its keyUsage lacks keyCertSign"));
    let last = read("31-ca-cert-forms/zb-path-length-0.seed");
    assert_eq!(last.cannot_issue(true, 0), None);
    assert_eq!(last.cannot_issue(true, 1), Some("has more CAs below it than its pathLenConstraint permits"));
}

#[test]
fn signatures_that_cannot_be_verified() {
    let refusal = |signature: Signature, key: Key| signature.refusal(&key);
    let p256 = || Key::Ecdsa(Curve::P256);
    for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
        for curve in [Curve::P256, Curve::P384, Curve::P521] {
            assert_eq!(refusal(Signature::Ecdsa(hash), Key::Ecdsa(curve)), None);
        }
        for bits in [2048, 3072, 8192] {
            assert_eq!(refusal(Signature::Rsa(hash), Key::Rsa(bits)), None);
            assert_eq!(refusal(Signature::RsaPss(hash), Key::Rsa(bits)), None);
        }
        assert!(refusal(Signature::RsaPss(hash), Key::Rsa(2047)).is_some());
        assert!(refusal(Signature::Ecdsa(hash), Key::Ecdsa(Curve::P224)).is_some());
        assert_eq!(refusal(Signature::Rsa(hash), Key::Rsa(1024)).is_some(), hash == Hash::Sha384);
    }
    for hash in [Hash::Md5, Hash::Sha1, Hash::Sha224] {
        assert!(refusal(Signature::Ecdsa(hash), p256()).unwrap().contains(", which Kubernetes refuses: reissue it"));
    }
    assert_eq!(refusal(Signature::Ed25519, Key::Ed25519), None);
    let want = "is signed by RSA with SHA-256 and an RSA key of 1023 bits, which Kubernetes refuses: reissue it with RSA \
                with 2048 bits or more, ECDSA or Ed25519, and SHA-256 or longer";
    assert_eq!(refusal(Signature::Rsa(Hash::Sha256), Key::Rsa(1023)).as_deref(), Some(want));
    // No algorithm is at fault where key and signature are of two kinds.
    assert_eq!(refusal(Signature::Ecdsa(Hash::Sha256), Key::Rsa(2048)), None);
}

#[test]
fn what_is_no_certificate() {
    for der in [&b""[..], b"\x30\x00", b"\x30\x03\x02\x01\x01", b"-----BEGIN CERTIFICATE-----"] {
        assert_eq!(Certificate::read(der), None);
        assert!(super::signed(der).is_none());
    }
}
