// SPDX-License-Identifier: Apache-2.0
//! Words for what webpki refuses. The rules themselves are held against Go's in tests/tests/certificates.rs.

use rcgen::KeyPair;
use rustls::pki_types::ServerName;
use webpki::{
    DerTypeId, InvalidNameContext, KeyUsage, RequiredEkuNotFoundContext, UnsupportedSignatureAlgorithmContext,
    UnsupportedSignatureAlgorithmForPublicKeyContext,
};

use super::*;
use crate::kube::wire_tests::Ca;

#[allow(deprecated)]
fn webpki_errors() -> Vec<webpki::Error> {
    use webpki::Error as E;
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1));
    let algorithm =
        || UnsupportedSignatureAlgorithmContext { signature_algorithm_id: vec![6], supported_algorithms: vec![] };
    let key = || UnsupportedSignatureAlgorithmForPublicKeyContext {
        signature_algorithm_id: vec![6],
        public_key_algorithm_id: vec![6],
    };
    vec![
        E::BadDer,
        E::BadDerTime,
        E::CaUsedAsEndEntity,
        E::CertDistrusted,
        E::CertExpired { time, not_after: time },
        E::CertNotValidForName(InvalidNameContext {
            expected: ServerName::try_from("a.example").unwrap(),
            presented: vec![],
        }),
        E::CertNotValidYet { time, not_before: time },
        E::CertRevoked,
        E::CrlExpired { time, next_update: time },
        E::EmptyEkuExtension,
        E::EndEntityUsedAsCa,
        E::ExtensionValueInvalid,
        E::InvalidCertValidity,
        E::InvalidCrlNumber,
        E::InvalidNetworkMaskConstraint,
        E::InvalidSerialNumber,
        E::InvalidCrlSignatureForPublicKey,
        E::InvalidSignatureForPublicKey,
        E::IssuerNotCrlSigner,
        E::MalformedDnsIdentifier,
        E::MalformedExtensions,
        E::MalformedNameConstraint,
        E::MaximumNameConstraintComparisonsExceeded,
        E::MaximumPathBuildCallsExceeded,
        E::MaximumPathDepthExceeded,
        E::MaximumSignatureChecksExceeded,
        E::NameConstraintViolation,
        E::PathLenConstraintViolated,
        E::RequiredEkuNotFound,
        E::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext {
            required: KeyUsage::server_auth(),
            present: vec![],
        }),
        E::SignatureAlgorithmMismatch,
        E::TrailingData(DerTypeId::Certificate),
        E::UnknownIssuer,
        E::UnknownRevocationStatus,
        E::UnsupportedCertVersion,
        E::UnsupportedCriticalExtension,
        E::UnsupportedNameType,
        E::UnsupportedSignatureAlgorithm,
        E::UnsupportedSignatureAlgorithmContext(algorithm()),
        E::UnsupportedSignatureAlgorithmForPublicKey,
        E::UnsupportedSignatureAlgorithmForPublicKeyContext(key()),
    ]
}

#[test]
fn what_webpki_refuses_is_told_in_words() {
    for error in webpki_errors() {
        let text = refusal(&error).of("a:6443");
        let variant = format!("{error:?}");
        let variant = variant.split(|c: char| !c.is_alphanumeric()).next().unwrap();
        assert!(!text.contains(variant) && !text.contains(['{', '[']) && !text.contains("::"), "{text}");
        assert!(text.contains(" of API server a:6443 "), "{text}");
    }
}

/// Certificates that sign each other, as many as fit, above a server that is a CA's or not: the search ends.
#[test]
fn certificates_that_sign_each_other_cost_no_time() {
    let (ca, key) = (Ca::new(), KeyPair::generate().unwrap());
    let copy = || KeyPair::from_pem(&key.serialize_pem()).unwrap();
    let ring = Ca::named("ring", copy());
    let sent = |count: usize| -> Vec<CertificateDer<'static>> {
        (0..count).map(|n| ring.sign_ca("ring", &KeyPair::generate().unwrap(), 2000, 2050 + n as i32 % 9)).collect()
    };
    let own = ring.sign_ca("127.0.0.1", &KeyPair::generate().unwrap(), 2000, 2090);
    let (leaf, _) = ring.leaf("127.0.0.1", 2000, 2090);
    let roots = Roots::new(ca.trusted());
    let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_795_365_108);
    // webpki looks at signatures last.
    for (server, why) in [(own, Refusal::unknown()), (leaf, Refusal::too_many())] {
        assert_eq!(roots.verify(&server, &sent(MAX_SENT), now), Err(why));
        assert_eq!(roots.verify(&server, &sent(MAX_SENT + 1), now), Err(Refusal::too_many()));
    }
    // All with the one key.
    let same: Vec<_> = (0..MAX_SENT).map(|n| ring.sign_ca("ring", &copy(), 2000, 2050 + n as i32)).collect();
    let server = ring.sign_ca("127.0.0.1", &KeyPair::generate().unwrap(), 2000, 2090);
    assert!(roots.verify(&server, &same, now).is_err());
}

#[test]
fn nothing_vouches_for_anything_where_nothing_is_trusted() {
    let ca = Ca::new();
    let (leaf, _) = ca.leaf("127.0.0.1", 2020, 2090);
    let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_795_365_108);
    assert_eq!(Roots::new(vec![]).verify(&leaf, &[], now), Err(Refusal::unknown()));
    assert_eq!(Roots::new(ca.trusted()).verify(&leaf, &[], now), Ok(()));
    let broken = CertificateDer::from(vec![0x30, 0]);
    let text = Roots::new(ca.trusted()).verify(&broken, &[], now).unwrap_err().to_string();
    assert_eq!(text, "certificate cannot be read: reissue it");
}
