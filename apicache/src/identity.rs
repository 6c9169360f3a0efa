// SPDX-License-Identifier: Apache-2.0
//! Who asks. A client is what it proves: the node by its certificate in the TLS handshake, others by a bearer token that
//! the API server has issued through this cache or has accepted. Claims of a token alone count for nothing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};

use crate::store::digest;

/// `id-at-commonName` (RFC 5280, appendix A).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// kubelet, and root with its certificate.
    Node,
    /// The holder of a bearer token, by the token's digest.
    Token([u8; 32]),
    /// Nothing that can be kept apart: no credential, or one that speaks for another user (impersonation).
    Unknown,
}

impl Identity {
    /// By the client's certificate, if it is the node's, and the request's headers.
    pub fn of(is_node: bool, headers: &HeaderMap) -> Self {
        if headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
            return Identity::Unknown;
        }
        if is_node {
            return Identity::Node;
        }
        bearer(headers).map_or(Identity::Unknown, |token| Identity::Token(token_digest(token)))
    }
}

/// The bearer token of a request, by the letter of Kubernetes' rules (`bearertoken.AuthenticateRequest`): from a header
/// that it reads in another way, such as one with two spaces, it takes no token and serves an anonymous client. That
/// answer must vouch for no token here.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (first, None) = (all.next()?, all.next()) else { return None };
    let (scheme, token) = first.to_str().ok()?.split_once(' ')?;
    let plain = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    (plain && scheme.eq_ignore_ascii_case("bearer")).then_some(token)
}

/// Under which a token is kept; the token itself is not.
pub fn token_digest(token: &str) -> [u8; 32] {
    digest(&[b"token", token.as_bytes()])
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    iss: String,
    #[serde(default)]
    sub: String,
    #[serde(default)]
    exp: u64,
}

/// User and end of a token that the API server has vouched for: who issued it and for whom, because another issuer may
/// name users as it likes. A token without claims is a user of its own, for a day.
pub fn claims(token: &str, now: u64) -> (String, u64) {
    match payload::<Claims>(token) {
        Some(claims) if claims.sub.starts_with("system:serviceaccount:") && claims.exp > 0 => {
            (format!("user:{:?} of {:?}", claims.sub, claims.iss), claims.exp)
        }
        _ => {
            let name: String = token_digest(token).iter().map(|b| format!("{b:02x}")).collect();
            (format!("token:{name}"), now + 24 * 3600)
        }
    }
}

/// The end that a token names, whatever has issued it (RFC 7519, section 4.1.4: it may have a fraction); none where it
/// names none.
pub fn end(token: &str) -> Option<u64> {
    payload::<serde_json::Value>(token)?.get("exp")?.as_f64().map(|end| end as u64)
}

/// The claims of a JSON Web Token, of which the signature is not looked at (RFC 7515, section 7.1); none where it is no
/// such token.
fn payload<T: DeserializeOwned>(token: &str) -> Option<T> {
    let encoded = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

/// The subject of a certificate, encoded; none where it cannot be read.
pub fn subject(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    x509_cert::Certificate::from_der(certificate).ok()?.tbs_certificate.subject.to_der().ok()
}

/// The node that a certificate of kubelet names: `system:node:NAME` is its common name.
pub fn node_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
    let parts = certificate.tbs_certificate.subject.0.iter().flat_map(|part| part.0.iter());
    let common =
        parts.filter(|part| part.oid == COMMON_NAME).find_map(|part| std::str::from_utf8(part.value.value()).ok());
    Some(common?.strip_prefix("system:node:")?.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn who_asks() {
        let mut headers = HeaderMap::new();
        assert_eq!(Identity::of(false, &headers), Identity::Unknown);
        assert_eq!(Identity::of(true, &headers), Identity::Node);
        headers.insert(AUTHORIZATION, "bearer abc".parse().unwrap());
        assert_eq!(Identity::of(false, &headers), Identity::Token(token_digest("abc")));
        for other in ["Bearer  abc", "Bearer abc ", "Bearer abc def", "Bearer", "Bearer ", " Bearer abc", "Basic abc"] {
            headers.insert(AUTHORIZATION, other.parse().unwrap());
            assert_eq!(Identity::of(false, &headers), Identity::Unknown, "{other:?}");
        }
        headers.insert(AUTHORIZATION, "Bearer abc".parse().unwrap());
        headers.append(AUTHORIZATION, "Bearer def".parse().unwrap());
        assert_eq!(Identity::of(false, &headers), Identity::Unknown, "two of them");
        headers.insert("Impersonate-User", "other".parse().unwrap());
        assert_eq!(Identity::of(false, &headers), Identity::Unknown);
        assert_eq!(Identity::of(true, &headers), Identity::Unknown, "not the node's store, either");
    }

    #[test]
    fn tokens() {
        let jwt = |issuer: &str| {
            let text = format!("{{\"iss\":\"{issuer}\",\"sub\":\"system:serviceaccount:a:b\",\"exp\":99}}");
            format!("h.{}.s", URL_SAFE_NO_PAD.encode(text))
        };
        let (user, until) = claims(&jwt("https://k"), 5);
        assert_eq!((user.as_str(), until), (r#"user:"system:serviceaccount:a:b" of "https://k""#, 99));
        assert_ne!(user, claims(&jwt("https://other"), 5).0, "another issuer's user of that name");
        let (one, until) = claims("opaque", 5);
        assert!(one.starts_with("token:") && until == 5 + 86400);
        assert_ne!(one, claims("opaque2", 5).0);
    }
}
