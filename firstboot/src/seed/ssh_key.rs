// SPDX-License-Identifier: Apache-2.0
//! A public key as OpenSSH writes it, read as OpenSSH reads it.
//!
//! Messages of `parse` say what was expected, never what was found.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Algorithms of keys that are taken: OpenSSH's names. RSA is judged by its length.
const ALGORITHMS: [&str; 7] = [
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
];
/// Shortest RSA modulus, bits.
const RSA_BITS: usize = 3072;
/// Longest number that sshd reads, bits (`SSHBUF_MAX_BIGNUM`, sshbuf.h).
const RSA_MOST: usize = 16_384;

/// A public key, as a line of `authorized_keys` without options (sshd(8)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshKey {
    /// OpenSSH's name of the algorithm.
    pub algorithm: String,
    /// The key, base64 (RFC 4253, section 6.6).
    pub key: String,
    /// Comment of the key, usually its owner; may be empty.
    pub comment: String,
}

impl SshKey {
    /// Reads `ALGORITHM BASE64 [COMMENT]`, as a `.pub` file has it.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || "expected a line of a .pub file, as in ssh-ed25519 AAAA… name".to_owned();
        let mut words = text.split_whitespace();
        let (Some(algorithm), Some(key)) = (words.next(), words.next()) else { return Err(expected()) };
        if text.chars().any(char::is_control) || !ALGORITHMS.contains(&algorithm) {
            return Err(format!("{} ({})", expected(), ALGORITHMS.join(", ")));
        }
        let blob = STANDARD.decode(key).map_err(|_| expected())?;
        let fields = fields(&blob).ok_or_else(expected)?;
        if !is_key(algorithm, &fields) {
            return Err(expected());
        }
        if algorithm == "ssh-rsa" && fields.get(2).map_or(0, |n| bits(n)) < RSA_BITS {
            return Err(format!("expected an RSA key of at least {RSA_BITS} bits, or better ssh-ed25519"));
        }
        let comment = words.collect::<Vec<_>>().join(" ");
        Ok(SshKey { algorithm: algorithm.to_owned(), key: key.to_owned(), comment })
    }
}

impl fmt::Display for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, self.key)?;
        match self.comment.is_empty() {
            true => Ok(()),
            false => write!(f, " {}", self.comment),
        }
    }
}

/// Whether the strings of a key blob are those of a key that sshd reads (`sshkey_from_blob_internal`, sshkey.c): of
/// ECDSA a point in its plain form (RFC 5656, 3.1), of keys on a token the application too.
fn is_key(algorithm: &str, fields: &[&[u8]]) -> bool {
    let [name, parts @ ..] = fields else { return false };
    let point = |curve: &[u8], point: &[u8], size: usize| {
        algorithm.trim_end_matches("@openssh.com").as_bytes().ends_with(curve)
            && point.len() == 1 + 2 * size
            && point[0] == 4
    };
    // The curves of nistp256, nistp384 and nistp521 have coordinates of so many bytes.
    let curve = |curve: &[u8], q: &[u8]| match curve {
        b"nistp256" => point(curve, q, 32),
        b"nistp384" => point(curve, q, 48),
        b"nistp521" => point(curve, q, 66),
        _ => false,
    };
    // A number with its first bit set would be negative (RFC 4251, 5: mpint).
    let positive = |n: &[u8]| n.first().is_some_and(|first| *first < 0x80) && (1..=RSA_MOST).contains(&bits(n));
    *name == algorithm.as_bytes()
        && match (algorithm, parts) {
            ("ssh-ed25519", [key]) | ("sk-ssh-ed25519@openssh.com", [key, _]) => key.len() == 32,
            ("ssh-rsa", [e, n]) => positive(e) && positive(n),
            (_, [c, q]) if !algorithm.starts_with("sk-") => curve(c, q),
            ("sk-ecdsa-sha2-nistp256@openssh.com", [c, q, _]) => curve(c, q),
            _ => false,
        }
}

/// Bits of a number, big endian.
fn bits(number: &[u8]) -> usize {
    let first = number.iter().position(|b| *b != 0);
    first.map_or(0, |at| 8 * (number.len() - at) - number[at].leading_zeros() as usize)
}

/// Strings, each after its length in four bytes (RFC 4251, section 5); none where they do not fill the bytes.
pub(super) fn fields(mut blob: &[u8]) -> Option<Vec<&[u8]>> {
    let mut all = Vec::new();
    while !blob.is_empty() {
        let (length, rest) = blob.split_first_chunk::<4>()?;
        let (field, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        all.push(field);
        blob = rest;
    }
    Some(all)
}
