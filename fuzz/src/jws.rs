// SPDX-License-Identifier: Apache-2.0
//! `jws::verify` accepts what an independent computation accepts, and nothing else.

use base64ct::{Base64UrlUnpadded, Encoding};
use firstboot::kube::jws::verify;
use firstboot::seed::JoinToken;
use hmac::{Hmac, Mac};
use sha2::Sha256;

const ID: &str = "abcdef";
const SECRET: &str = "0123456789abcdef";

fn tag(header: &str, payload: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("HMAC takes any key");
    mac.update(header.as_bytes());
    mac.update(b".");
    mac.update(Base64UrlUnpadded::encode_string(payload).as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// Whether a header is one that cluster-bootstrap could have written for this token.
fn header_is_good(header: &str) -> bool {
    let Ok(json) = Base64UrlUnpadded::decode_vec(header) else { return false };
    let Ok(serde_json::Value::Object(fields)) = serde_json::from_slice(&json) else { return false };
    let is = |key: &str, want: &str| fields.get(key).and_then(|v| v.as_str()) == Some(want);
    is("alg", "HS256") && is("kid", ID) && !fields.contains_key("b64")
}

/// First byte: 0, the rest is `JWS LF payload`; otherwise the rest is `header LF payload` and is signed here, with the
/// header encoded (odd) or as it stands (even), and two bits of the first byte break it.
pub fn run(input: &[u8]) {
    let token = JoinToken::parse(&format!("{ID}.{SECRET}")).expect("a token");
    let Some((&mode, rest)) = input.split_first() else { return };
    let end = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    let (Ok(first), payload) = (std::str::from_utf8(&rest[..end]), rest.get(end + 1..).unwrap_or_default()) else {
        return;
    };
    if mode == 0 {
        let good = first.split_once("..").is_some_and(|(header, signature)| {
            header_is_good(header) && Base64UrlUnpadded::decode_vec(signature).is_ok_and(|s| s == tag(header, payload))
        });
        assert_eq!(verify(first, payload, &token), good, "{first}");
        return;
    }
    let header = match mode & 1 {
        1 => Base64UrlUnpadded::encode_string(first.as_bytes()),
        _ => first.to_owned(),
    };
    let signature = Base64UrlUnpadded::encode_string(&tag(&header, payload));
    let jws = format!("{header}..{signature}");
    // A header with two dots in it ends at them, for firstboot as for this.
    let good = !header.contains("..") && !header.ends_with('.') && header_is_good(&header);
    assert_eq!(verify(&jws, payload, &token), good, "{jws}");
    if good {
        let other = JoinToken::parse(&format!("{ID}.0123456789abcdeg")).expect("a token");
        assert!(!verify(&jws, payload, &other), "another secret's signature is accepted");
        let mut changed = payload.to_vec();
        changed.push(mode);
        assert!(!verify(&jws, &changed, &token), "another payload is accepted");
        let mut torn = tag(&header, payload);
        torn[usize::from(mode) % 32] ^= 1 << (mode % 8);
        let torn = format!("{header}..{}", Base64UrlUnpadded::encode_string(&torn));
        assert!(!verify(&torn, payload, &token), "another signature is accepted");
        assert!(!verify(&jws[..jws.len() - 1], payload, &token), "a shorter signature is accepted");
    }
}
