// SPDX-License-Identifier: Apache-2.0
//! Answers that kubelet needs again without an API server: tokens for pods, and who may use kubelet's port.
//!
//! Fields: `k8s.io/api/authentication/v1/generated.proto` and `authorization/v1/generated.proto`.

use std::time::Duration;

use serde_json::Value as Json;
use x509_cert::der::DateTime;

use crate::identity;
use crate::object::{self, Encoding};
use crate::request::Question;
use crate::wire::{self, Value};

/// Shortest time for which a token is handed out: kubelet asks again then, and pods start meanwhile.
const SHORTEST: u64 = 600;

/// What is kept of an answer; none where it said no, or cannot be read. A TokenReview repeats the token, which is left out.
pub fn kept(question: Question, encoding: Encoding, body: &[u8]) -> Option<Vec<u8>> {
    let yes = match question {
        Question::Token => return token(encoding, body).map(|_| body.to_vec()),
        Question::TokenReview => "authenticated",
        Question::AccessReview => "allowed",
    };
    match encoding {
        Encoding::Json => {
            let mut answer: Json = serde_json::from_slice(body).ok()?;
            answer["status"][yes].as_bool().filter(|yes| *yes)?;
            if question == Question::TokenReview {
                answer.as_object_mut()?.remove("spec");
            }
            serde_json::to_vec(&answer).ok()
        }
        Encoding::Protobuf => {
            let (kind, message) = object::envelope(body)?;
            let status = wire::fields(wire::field(message, 3)?)?;
            status.iter().find(|(number, value)| *number == 1 && *value == Value::Number(1))?;
            let without = |number: u64| question == Question::TokenReview && number == 2;
            Some(object::write(encoding, &kind, &copied(message, |number, _| without(number).then(Vec::new))?))
        }
    }
}

/// A message with some fields replaced; those that become empty are left out.
fn copied(message: &[u8], replace: impl Fn(u64, &[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut to = Vec::with_capacity(message.len());
    for (number, value) in wire::fields(message)? {
        match value {
            Value::Number(value) => wire::push_varint(&mut to, number, value),
            Value::Bytes(bytes) => match replace(number, bytes) {
                Some(other) if other.is_empty() => {}
                Some(other) => wire::push(&mut to, number, &other),
                None => wire::push(&mut to, number, bytes),
            },
            Value::Fixed => return None,
        }
    }
    Some(to)
}

/// The token in the answer to a TokenRequest.
pub fn token(encoding: Encoding, body: &[u8]) -> Option<String> {
    let token = match encoding {
        Encoding::Json => serde_json::from_slice::<Json>(body).ok()?["status"]["token"].as_str()?.to_owned(),
        Encoding::Protobuf => wire::text(wire::field(object::envelope(body)?.1, 3)?, 1).to_owned(),
    };
    (!token.is_empty()).then_some(token)
}

/// Whether the token that a TokenReview asks about has not ended by its own word.
pub fn lives(request: &[u8], now: u64) -> bool {
    let token = || match object::envelope(request) {
        Some((_, message)) => Some(wire::text(wire::field(message, 2)?, 1).to_owned()),
        None => {
            let request: Json = serde_json::from_slice(request).ok()?;
            Some(request.get("spec")?.get("token")?.as_str()?.to_owned())
        }
    };
    token().is_some_and(|token| identity::end(&token).is_none_or(|end| end > now))
}

/// Whether a TokenRequest is for the API server itself. A token for another audience (`audience` of a projected volume) is
/// refused there, and so it opens nothing here.
pub fn for_api_server(request: &[u8]) -> bool {
    let none = || match object::envelope(request) {
        Some((_, message)) => wire::fields(wire::field(message, 2)?).map(|spec| spec.iter().all(|(n, _)| *n != 1)),
        None => {
            let request: Json = serde_json::from_slice(request).ok()?;
            let audiences = request.get("spec")?.get("audiences");
            Some(audiences.is_none_or(|all| all.is_null() || all.as_array().is_some_and(Vec::is_empty)))
        }
    };
    none().unwrap_or(false)
}

/// Until when a kept token is handed out at `now`: for as long as kubelet asked (`expirationSeconds`), but not beyond the
/// token's own end. API servers let a token live longer than they say (`--service-account-extend-token-expiration`), and
/// kubelet goes by what it hears: the time in the answer as it was kept has passed after an hour.
fn until(token: &str, seconds: u64, now: u64) -> u64 {
    let (_, end) = identity::claims(token, now);
    end.min(now + seconds).max(now + SHORTEST)
}

/// The answer to a TokenRequest that was kept, with a time at which kubelet asks again.
pub fn renewed(encoding: Encoding, body: &[u8], now: u64) -> Option<Vec<u8>> {
    let token = token(encoding, body)?;
    match encoding {
        Encoding::Json => {
            let mut answer: Json = serde_json::from_slice(body).ok()?;
            let seconds = answer["spec"]["expirationSeconds"].as_u64().unwrap_or(SHORTEST);
            answer["status"]["expirationTimestamp"] = rfc3339(until(&token, seconds, now)).into();
            serde_json::to_vec(&answer).ok()
        }
        Encoding::Protobuf => {
            let (kind, message) = object::envelope(body)?;
            let spec = wire::fields(wire::field(message, 2)?)?;
            let seconds = spec.iter().find_map(|field| match field {
                (4, Value::Number(seconds)) => Some(*seconds),
                _ => None,
            });
            let mut time = Vec::new();
            wire::push_varint(&mut time, 1, until(&token, seconds.unwrap_or(SHORTEST), now));
            let replaced = copied(message, |number, bytes| {
                (number == 3).then(|| copied(bytes, |n, _| (n == 2).then(|| time.clone())).unwrap_or_default())
            });
            Some(object::write(encoding, &kind, &replaced?))
        }
    }
}

/// A time in UTC as Kubernetes writes it. Days to a date: Howard Hinnant, "chrono-compatible low-level date algorithms".
pub(crate) fn rfc3339(seconds: u64) -> String {
    DateTime::from_unix_duration(Duration::from_secs(seconds)).map_or_else(|_| seconds.to_string(), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_365_108), "2026-11-22T16:31:48Z");
    }

    #[test]
    fn a_kept_token_is_handed_out_for_as_long_as_it_lives() {
        use base64::Engine;
        let jwt = |end: u64| {
            let payload = format!("{{\"sub\":\"system:serviceaccount:a:b\",\"exp\":{end}}}");
            format!("h.{}.s", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(payload))
        };
        assert_eq!(until(&jwt(100_000), 3607, 10_000), 13_607);
        assert_eq!(until(&jwt(11_000), 3607, 10_000), 11_000);
        assert_eq!(until(&jwt(9_000), 3607, 10_000), 10_600, "the pod starts; the API server will refuse the token");
        let body = format!("{{\"spec\":{{\"expirationSeconds\":3607}},\"status\":{{\"token\":\"{}\"}}}}", jwt(100_000));
        let answer: Json = serde_json::from_slice(&renewed(Encoding::Json, body.as_bytes(), 10_000).unwrap()).unwrap();
        assert_eq!(answer["status"]["expirationTimestamp"], "1970-01-01T03:46:47Z");
    }

    #[test]
    fn a_token_that_has_ended_is_not_reviewed() {
        use base64::Engine;
        let jwt =
            format!("h.{}.s", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"sub":"a","exp":100}"#));
        let json =
            |token: &str| format!("{{\"kind\":\"TokenReview\",\"spec\":{{\"token\":\"{token}\"}}}}").into_bytes();
        let protobuf = |token: &str| {
            let (mut spec, mut message) = (Vec::new(), Vec::new());
            wire::push(&mut spec, 1, token.as_bytes());
            wire::push(&mut message, 2, &spec);
            let kind = object::Kind { api_version: "authentication.k8s.io/v1".into(), kind: "TokenReview".into() };
            object::write(Encoding::Protobuf, &kind, &message)
        };
        for request in [json(&jwt), protobuf(&jwt)] {
            assert_eq!([lives(&request, 99), lives(&request, 100)], [true, false]);
        }
        assert!(lives(&json("opaque"), 100) && lives(&protobuf("opaque"), 100), "it names no end");
        assert!(!lives(b"{}", 1) && !lives(b"", 1));
    }

    #[test]
    fn only_a_yes_is_kept() {
        let review = br#"{"kind":"TokenReview","spec":{"token":"secret"},"status":{"authenticated":true}}"#;
        let kept_review = kept(Question::TokenReview, Encoding::Json, review).unwrap();
        assert!(!String::from_utf8(kept_review).unwrap().contains("secret"));
        let no = br#"{"kind":"SubjectAccessReview","status":{"allowed":false}}"#;
        assert_eq!(kept(Question::AccessReview, Encoding::Json, no), None);
        assert_eq!(kept(Question::Token, Encoding::Json, b"{}"), None);
        assert_eq!(kept(Question::TokenReview, Encoding::Protobuf, b"k8s\0"), None);
    }
}
