// SPDX-License-Identifier: Apache-2.0
//! No error of TLS or of a certificate is shown in a library's own words.

use std::time::Duration;

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{
    CertRevocationListError, ExtendedKeyPurpose, InvalidMessage, OtherError, PeerIncompatible, PeerMisbehaved,
};

use super::*;

/// A text that is written for people: none of Rust's punctuation, no name of a type or variant.
fn assert_words(text: &str) {
    let camel = |word: &str| {
        let letters = word.as_bytes();
        letters.first().is_some_and(u8::is_ascii_uppercase)
            && letters.windows(2).any(|w| w[0].is_ascii_lowercase() && w[1].is_ascii_uppercase())
    };
    let call = text.as_bytes().windows(2).any(|w| w[0].is_ascii_alphanumeric() && w[1] == b'(');
    assert!(!call && !["{", "}", "[", "]", "::", "\""].iter().any(|mark| text.contains(mark)), "{text}");
    assert!(!text.split(|c: char| !c.is_alphanumeric()).any(camel), "{text}");
    assert!(!text.is_empty() && !text.contains('\n'), "{text}");
}

fn time() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(1))
}

#[allow(deprecated)]
fn certificate_errors() -> Vec<CertificateError> {
    use CertificateError as E;
    let name = || ServerName::try_from("a.example").unwrap();
    vec![
        E::BadEncoding,
        E::Expired,
        E::ExpiredContext { time: time(), not_after: time() },
        E::NotValidYet,
        E::NotValidYetContext { time: time(), not_before: time() },
        E::Revoked,
        E::UnhandledCriticalExtension,
        E::UnknownIssuer,
        E::UnknownRevocationStatus,
        E::ExpiredRevocationList,
        E::ExpiredRevocationListContext { time: time(), next_update: time() },
        E::BadSignature,
        E::UnsupportedSignatureAlgorithm,
        E::UnsupportedSignatureAlgorithmContext { signature_algorithm_id: vec![6, 8], supported_algorithms: vec![] },
        E::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id: vec![6],
            public_key_algorithm_id: vec![7],
        },
        E::NotValidForName,
        E::NotValidForNameContext { expected: name(), presented: vec![] },
        E::NotValidForNameContext {
            expected: name(),
            presented: vec!["DnsName(\"b\")".into(), "IpAddress(10.0.0.1)".into()],
        },
        E::InvalidPurpose,
        E::InvalidPurposeContext {
            required: ExtendedKeyPurpose::ServerAuth,
            presented: vec![ExtendedKeyPurpose::Other(vec![1, 2])],
        },
        E::InvalidOcspResponse,
        E::ApplicationVerificationFailure,
        E::Other(OtherError(std::sync::Arc::new(std::fmt::Error))),
    ]
}

fn errors() -> Vec<Error> {
    let mut all: Vec<Error> = certificate_errors().into_iter().map(Error::InvalidCertificate).collect();
    all.extend((0..=u8::MAX).map(|number| Error::AlertReceived(Alert::from(number))));
    all.extend([
        Error::InappropriateMessage { expect_types: vec![], got_type: rustls::ContentType::Alert },
        Error::InappropriateHandshakeMessage { expect_types: vec![], got_type: rustls::HandshakeType::Finished },
        Error::InvalidMessage(InvalidMessage::InvalidContentType),
        Error::NoCertificatesPresented,
        Error::UnsupportedNameType,
        Error::DecryptError,
        Error::EncryptError,
        Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13),
        Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedCipherSuite),
        Error::InvalidCertRevocationList(CertRevocationListError::BadSignature),
        Error::General("LibraryText { a: 1 }".to_owned()),
        Error::FailedToGetCurrentTime,
        Error::FailedToGetRandomBytes,
        Error::HandshakeNotComplete,
        Error::PeerSentOversizedRecord,
        Error::NoApplicationProtocol,
        Error::BadMaxFragmentSize,
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch),
        Error::InconsistentKeys(InconsistentKeys::Unknown),
        Error::Other(OtherError(std::sync::Arc::new(std::fmt::Error))),
    ]);
    all
}

#[test]
fn every_failure_of_tls_is_told_in_words() {
    for error in errors() {
        let (_, text) = cause("api.example:6443", &error);
        assert_words(&text);
        assert!(text.contains("API server api.example:6443"), "{text}");
        assert_words(&words(&error));
    }
}

#[test]
fn names_of_a_certificate_are_told_without_their_types() {
    let name = ServerName::try_from("a.example").unwrap();
    let presented = [
        "DnsName(\"b.example\")",
        "DirectoryName",
        "UniformResourceIdentifier(\"spiffe://a/b\")",
        "Unsupported(0x01)",
        "IpAddress(10.0.0.1)",
    ];
    let presented = presented.map(str::to_owned).to_vec();
    let error = CertificateError::NotValidForNameContext { expected: name, presented };
    let (code, text) = cause("a.example:6443", &error.into());
    assert_eq!(code, Code::NameMismatch);
    let want = "certificate of API server a.example:6443 does not cover that address: it covers b.example, 10.0.0.1";
    assert_eq!(text, want);
}

#[test]
fn a_handshake_that_the_other_side_ends() {
    let text = |alert: Alert| cause("a:6443", &Error::AlertReceived(alert)).1;
    let want = "talk to API server a:6443: it ended TLS: no cipher, key exchange or signature in common (alert \
                handshake_failure)";
    assert_eq!(text(Alert::HandshakeFailure), want);
    assert_eq!(text(Alert::from(200)), "talk to API server a:6443: it ended TLS: alert 200");
}
