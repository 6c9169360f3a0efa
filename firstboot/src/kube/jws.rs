// SPDX-License-Identifier: Apache-2.0
//! The detached JWS by which cluster-info is signed with a bootstrap token (cluster-bootstrap `token/jws`, RFC 7515
//! appendix F): `B64URL(header)..B64URL(HMAC-SHA256)`, keyed by the 16 characters of the token's secret.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::seed::JoinToken;

/// Whether `jws` is `token`'s signature over `payload`; compared in constant time.
///
/// Stricter than kubeadm, which recomputes the header: this one is parsed, and must say HS256 and the token's id.
pub fn verify(jws: &str, payload: &[u8], token: &JoinToken) -> bool {
    let Some((header, signature)) = jws.split_once("..") else { return false };
    let (Ok(header_json), Ok(signature)) = (URL_SAFE_NO_PAD.decode(header), URL_SAFE_NO_PAD.decode(signature)) else {
        return false;
    };
    let Ok(fields) = serde_json::from_slice::<serde_json::Value>(&header_json) else { return false };
    if fields["alg"] != "HS256" || fields["kid"] != token.id() || fields.get("b64").is_some() {
        return false;
    }
    // ring does not zero the state that it makes of the key.
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.secret().as_bytes());
    let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    hmac::verify(&key, input.as_bytes(), &signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl dgst -sha256 -hmac 0123456789abcdef -binary`.
    const JWS: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..K1chermAQEq0rdqy-ehj0VDfmA_ytv8Wzh9g26FldrE";

    #[test]
    fn agrees_with_openssl() {
        let token = JoinToken::parse("abcdef.0123456789abcdef").unwrap();
        assert!(verify(JWS, b"apiVersion: v1\n", &token));
        assert!(!verify(JWS, b"apiVersion: v1", &token));
        assert!(!verify(JWS, b"apiVersion: v1\n", &JoinToken::parse("abcdef.0123456789abcdee").unwrap()));
        assert!(!verify(JWS, b"apiVersion: v1\n", &JoinToken::parse("abcdeg.0123456789abcdef").unwrap()));
    }

    #[test]
    fn other_algorithms_and_broken_forms_are_refused() {
        let token = JoinToken::parse("abcdef.0123456789abcdef").unwrap();
        let sign = |header: &str| {
            let header = URL_SAFE_NO_PAD.encode(header);
            let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
            let tag = hmac::sign(&key, format!("{header}.{}", URL_SAFE_NO_PAD.encode("p")).as_bytes());
            format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag))
        };
        assert!(verify(&sign(r#"{"kid":"abcdef","alg":"HS256"}"#), b"p", &token));
        for header in [
            r#"{"kid":"abcdef","alg":"none"}"#,
            r#"{"kid":"abcdef","alg":"HS512"}"#,
            r#"{"alg":"HS256"}"#,
            r#"{"kid":"abcdef","alg":"HS256","b64":false}"#,
            "",
        ] {
            assert!(!verify(&sign(header), b"p", &token), "{header}");
        }
        for jws in ["", "..", "a.b.c", &JWS[..JWS.len() - 1], &format!("{JWS}=")] {
            assert!(!verify(jws, b"apiVersion: v1\n", &token), "{jws}");
        }
    }
}
