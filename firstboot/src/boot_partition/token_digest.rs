// SPDX-License-Identifier: Apache-2.0
//! What is looked for on a medium when nobody knows it any more: a token's secret, by its digest. Any run of 16 characters
//! that a secret may have is tried, in UTF-8 and UTF-16. Pure.
//!
//! The digest gives nothing away: a secret is one of 36^16.

use crate::text::hex;
use sha2::{Digest, Sha256};

/// Characters of a secret (kubeadm's bootstrap tokens).
const LENGTH: usize = 16;
/// Longest that one is in any encoding, bytes.
pub(super) const LONGEST: usize = 2 * LENGTH;

/// A secret that is known by its digest alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sought {
    digest: String,
}

impl Sought {
    /// By the digest that [`Sought::digest`] gave.
    pub fn by_digest(digest: &str) -> Self {
        Sought { digest: digest.to_owned() }
    }

    /// By the secret itself.
    pub fn secret(secret: &str) -> Self {
        Sought { digest: digest(secret.as_bytes()) }
    }

    /// What may be kept of it.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Where it stands, and how many bytes it has there.
    pub(super) fn places(&self, bytes: &[u8]) -> Vec<(usize, usize)> {
        let mut found = self.runs(bytes, 0, 1);
        // In UTF-16, of either byte order, every second byte is 0.
        found.extend(self.runs(bytes, 0, 2));
        found.extend(self.runs(bytes, 1, 2));
        found
    }

    /// Looks at every `stride`th byte from `first` on.
    fn runs(&self, bytes: &[u8], first: usize, stride: usize) -> Vec<(usize, usize)> {
        let (mut found, mut run) = (Vec::new(), 0);
        let mut at = first;
        while at < bytes.len() {
            let follows = stride == 1 || run == 0 || bytes[at - 1] == 0;
            let fits = bytes[at].is_ascii_lowercase() || bytes[at].is_ascii_digit();
            run = match (fits, follows) {
                (true, true) => run + 1,
                (true, false) => 1,
                (false, _) => 0,
            };
            if run >= LENGTH {
                let start = at - (LENGTH - 1) * stride;
                let text: Vec<u8> = bytes[start..=at].iter().step_by(stride).copied().collect();
                if digest(&text) == self.digest {
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
    fn a_secret_is_found_by_its_digest_wherever_it_begins_and_in_every_encoding() {
        let sought = Sought::by_digest(Sought::secret(SECRET).digest());
        assert!(!sought.digest().contains(SECRET));
        for before in ["", "x", "token=\"abcdef.", "zzzzzzzzzzzzzzzzzzz"] {
            for form in encodings(&format!("{before}{SECRET}yy\"")) {
                assert_eq!(sought.places(&form).len(), 1, "{before} {form:?}");
            }
        }
        assert_eq!(sought.places(b"abcdef.0123456789abcdeg and 0123456789abcde"), []);
        assert_eq!(sought.places(&[b'a'; 100]), []);
    }
}
