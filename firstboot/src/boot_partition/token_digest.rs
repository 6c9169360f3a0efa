// SPDX-License-Identifier: Apache-2.0
//! Finds remaining copies of join tokens on the boot partition by their secrets' SHA-256 alone, after the tokens themselves
//! are destroyed. Every run of 16 characters that a secret may consist of is tried, in UTF-8 and UTF-16. Pure.
//!
//! The digest does not reveal the secret, which is one of 36^16.

use crate::text::hex;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Characters of a secret (kubeadm bootstrap token).
const LENGTH: usize = 16;
/// Longest encoding of a secret, bytes.
pub(super) const LONGEST: usize = 2 * LENGTH;

/// Digests of tokens' secrets, which find the secrets without knowing them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretDigest {
    digests: BTreeSet<String>,
}

impl SecretDigest {
    /// From the lines that [`SecretDigest::of_secret`] returned.
    pub fn from_digests(lines: &str) -> Self {
        SecretDigest { digests: lines.lines().map(str::to_owned).collect() }
    }

    /// The digest of `secret` as hexadecimal text, which may be stored.
    pub fn of_secret(secret: &str) -> String {
        digest(secret.as_bytes())
    }

    /// Offset and length in bytes of every occurrence of the secret.
    pub(super) fn places(&self, bytes: &[u8]) -> Vec<(usize, usize)> {
        let mut found = self.runs(bytes, 0, 1);
        // In UTF-16 of either byte order every second byte is 0.
        found.extend(self.runs(bytes, 0, 2));
        found.extend(self.runs(bytes, 1, 2));
        found
    }

    /// Searches every `stride`th byte, starting at `first`.
    fn runs(&self, bytes: &[u8], first: usize, stride: usize) -> Vec<(usize, usize)> {
        let (mut found, mut run) = (Vec::new(), 0);
        let mut at = first;
        while at < bytes.len() {
            let follows = stride == 1 || run == 0 || bytes[at - 1] == 0;
            let is_secret_char = bytes[at].is_ascii_lowercase() || bytes[at].is_ascii_digit();
            run = match (is_secret_char, follows) {
                (true, true) => run + 1,
                (true, false) => 1,
                (false, _) => 0,
            };
            if run >= LENGTH {
                let start = at - (LENGTH - 1) * stride;
                let text: Vec<u8> = bytes[start..=at].iter().step_by(stride).copied().collect();
                if self.digests.contains(&digest(&text)) {
                    found.push((start, at + 1 - start));
                }
            }
            at += stride;
        }
        found
    }
}

fn digest(secret: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(b"firstboot token 10");
    hash.update(secret);
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot_partition::encodings;

    const SECRET: &str = "0123456789abcdef";

    #[test]
    fn secret_is_found_by_its_digest_at_any_offset_and_in_every_encoding() {
        let other = SecretDigest::of_secret("fedcba9876543210");
        let digest = SecretDigest::of_secret(SECRET);
        assert!(!digest.contains(SECRET));
        let secret = SecretDigest::from_digests(&format!("{other}\n{digest}"));
        for before in ["", "x", "token=\"abcdef.", "zzzzzzzzzzzzzzzzzzz"] {
            for form in encodings(&format!("{before}{SECRET}yy\"")) {
                assert_eq!(secret.places(&form).len(), 1, "{before} {form:?}");
            }
        }
        assert_eq!(secret.places(b"abcdef.0123456789abcdeg and 0123456789abcde"), []);
        assert_eq!(secret.places(&[b'a'; 100]), []);
        assert_eq!(secret.places(b"0123456789abcdef fedcba9876543210").len(), 2);
    }
}
