// SPDX-License-Identifier: Apache-2.0
//! Failures of TLS in words. rustls and webpki print their own types: those are for programmers, and none is shown.

use rustls::AlertDescription as Alert;
use rustls::{CertificateError, Error, InconsistentKeys};

use super::chain::{Refusal, Which};
use crate::fault::Code;

/// Code and sentence for what is wrong with the TLS of `server` (`host:port`).
pub(super) fn cause(server: &str, error: &Error) -> (Code, String) {
    if let Some(refusal) = refusal(error) {
        return (refusal.code, refusal.of(server));
    }
    let code = match error {
        Error::InvalidMessage(_) => Code::NotKubernetes,
        _ => Code::Tls,
    };
    (code, format!("talk to API server {server}: {}", words(error)))
}

/// What is wrong with a certificate, where that is what is wrong.
pub(super) fn refusal(error: &Error) -> Option<Refusal> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            Some(other.0.downcast_ref::<Refusal>().cloned().unwrap_or_else(unreadable))
        }
        Error::InvalidCertificate(error) => Some(certificate(error)),
        Error::NoCertificatesPresented => Some(Refusal::new(Code::Tls, Which::Server, "was not sent")),
        _ => None,
    }
}

fn unreadable() -> Refusal {
    Refusal::new(Code::Tls, Which::Server, "cannot be read: reissue it")
}

/// What rustls itself finds wrong with a certificate: the name, and the signature of the handshake.
fn certificate(error: &CertificateError) -> Refusal {
    use CertificateError as E;
    let server = |code: Code, what: &str| Refusal::new(code, Which::Server, what);
    match error {
        E::NotValidForNameContext { presented, .. } => match names(presented) {
            names if names.is_empty() => {
                let what = "has no subjectAltName of a server, and its common name does not count: reissue it with its \
                            addresses";
                server(Code::NameMismatch, what)
            }
            names => server(Code::NameMismatch, &format!("does not cover that address: it covers {names}")),
        },
        E::NotValidForName => server(Code::NameMismatch, "does not cover that address"),
        E::UnknownIssuer => server(Code::UnknownCa, "is not signed by the cluster's CA"),
        E::BadSignature => server(Code::UnknownCa, "is not the server's own: it does not hold the key"),
        E::Expired | E::ExpiredContext { .. } => server(Code::CertificateDates, "has expired"),
        E::NotValidYet | E::NotValidYetContext { .. } => server(Code::CertificateDates, "is not yet valid"),
        E::Revoked => server(Code::Tls, "is revoked"),
        E::UnhandledCriticalExtension => server(Code::Tls, "has a critical extension that firstboot does not know"),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            server(Code::Tls, "is not for servers: its extendedKeyUsage lacks serverAuth")
        }
        E::UnsupportedSignatureAlgorithmContext { .. } | E::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            server(Code::Tls, "has a key that does not fit the server's signature")
        }
        E::UnknownRevocationStatus | E::ExpiredRevocationList | E::ExpiredRevocationListContext { .. } => {
            server(Code::Tls, "cannot be looked up in a revocation list")
        }
        E::InvalidOcspResponse => server(Code::Tls, "comes with a broken OCSP response"),
        E::ApplicationVerificationFailure => server(Code::Tls, "is refused"),
        _ => unreadable(),
    }
}

/// Names and addresses of servers, which rustls gives as its own types are printed: `DnsName("a")`, `IpAddress(10.0.0.1)`.
/// The server wrote them: printable, at most 300 characters.
fn names(presented: &[String]) -> String {
    let name = |name: &String| {
        let (kind, value) = name.split_once('(')?;
        let value = value.strip_suffix(')')?.trim_matches('"').to_owned();
        ["DnsName", "IpAddress"].contains(&kind).then_some(value)
    };
    let all: Vec<String> = presented.iter().filter_map(name).collect();
    all.join(", ").chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

/// What went wrong, without the server's name.
pub(super) fn words(error: &Error) -> String {
    if let Some(refusal) = refusal(error) {
        return refusal.to_string();
    }
    match error {
        Error::InvalidMessage(_) => "it does not speak TLS: is a captive portal or a proxy in between?",
        Error::AlertReceived(alert) => return format!("it ended TLS: {}", alert_words(*alert)),
        Error::PeerIncompatible(_) => {
            "it has no version, cipher or key exchange of TLS 1.2 or 1.3 in common with firstboot"
        }
        Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::PeerSentOversizedRecord
        | Error::InvalidEncryptedClientHello(_) => "it breaks the rules of TLS: is a firewall or a proxy in between?",
        Error::DecryptError => "what it sends cannot be decrypted: is a firewall or a proxy in between?",
        Error::NoApplicationProtocol => "it speaks neither HTTP/1.1 nor HTTP/2",
        Error::UnsupportedNameType => "its address is neither a name nor an IP address",
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => "certificate and key do not belong together",
        Error::InconsistentKeys(_) => "the key cannot be used",
        Error::FailedToGetCurrentTime => "the clock cannot be read",
        Error::FailedToGetRandomBytes => "the kernel gives no random numbers",
        Error::InvalidCertRevocationList(_) => "a revocation list cannot be used",
        Error::EncryptError | Error::HandshakeNotComplete | Error::BadMaxFragmentSize => "it failed on this side",
        _ => "it failed",
    }
    .to_owned()
}

/// Why the other side ends TLS (RFC 8446, 6.2; RFC 5246, 7.2.2).
fn alert_words(alert: Alert) -> String {
    match alert {
        Alert::CloseNotify | Alert::UserCanceled => "it closed the connection",
        Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            "no cipher, key exchange or signature in common (alert handshake_failure)"
        }
        Alert::ProtocolVersion | Alert::InappropriateFallback => "no version in common (alert protocol_version)",
        Alert::UnrecognisedName => "it does not serve that name (alert unrecognized_name)",
        Alert::CertificateRequired | Alert::NoCertificate => {
            "it wants a client certificate (alert certificate_required)"
        }
        Alert::AccessDenied => "it denies access (alert access_denied)",
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateUnknown
        | Alert::CertificateUnobtainable
        | Alert::BadCertificateStatusResponse
        | Alert::BadCertificateHashValue => "it does not accept the node's certificate (alert bad_certificate)",
        Alert::CertificateRevoked => "the node's certificate is revoked (alert certificate_revoked)",
        Alert::CertificateExpired => "the node's certificate has expired (alert certificate_expired)",
        Alert::UnknownCA => "another CA signed the node's certificate (alert unknown_ca)",
        Alert::NoApplicationProtocol => "no protocol above TLS in common (alert no_application_protocol)",
        Alert::InternalError => "an error of its own (alert internal_error)",
        Alert::UnexpectedMessage
        | Alert::BadRecordMac
        | Alert::DecryptionFailed
        | Alert::RecordOverflow
        | Alert::DecompressionFailure
        | Alert::IllegalParameter
        | Alert::DecodeError
        | Alert::DecryptError
        | Alert::ExportRestriction
        | Alert::NoRenegotiation
        | Alert::MissingExtension
        | Alert::UnsupportedExtension
        | Alert::UnknownPSKIdentity
        | Alert::EncryptedClientHelloRequired => {
            let number = u8::from(alert);
            return format!("what it got breaks the rules (alert {number}): is a firewall or a proxy in between?");
        }
        other => return format!("alert {}", u8::from(other)),
    }
    .to_owned()
}

#[cfg(test)]
#[path = "tls_error_tests.rs"]
mod tests;
