// SPDX-License-Identifier: Apache-2.0
//! Warnings about the life of a seed's bootstrap token. With kubeadm's defaults such a token gives a certificate of any
//! node's name, also of one that exists: the approver looks at the group of the requester, not at the name
//! (pkg/controller/certificates/approver/sarapprove.go).

use crate::progress;
use anyhow::{Result, bail};
use firstboot::seed::Seed;
use std::time::{Duration, SystemTime};

/// A token that lives longer was asked for: it is the life that `kubeadm token create` gives one by default, and longer than
/// the work with one batch of cards takes.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);
const GIVES: &str = "who has it can get a certificate of any node";

/// Whether the token can still be good at the time `now`.
///
/// # Errors
/// Its end is in the seed, and past.
pub(super) fn ended(seed: &Seed, now: SystemTime) -> Result<()> {
    match seed.join().and_then(|cluster| cluster.token_expires) {
        Some(ends) if ends <= now => {
            bail!("cluster.token-expires is past: the token has ended, and no device joins with it; make a new seed")
        }
        _ => Ok(()),
    }
}

/// What is to be said of the token's life at the time `now`, on one line.
pub fn warning(seed: &Seed, now: SystemTime) -> Option<String> {
    let Some(ends) = seed.join()?.token_expires else {
        return Some(format!(
            "the seed has no token-expires: until the token ends, {GIVES}; `kubeadm token list` shows when that is"
        ));
    };
    match ends.duration_since(now) {
        Err(_) => Some("token-expires is past: the token has ended, and no device joins with it".to_owned()),
        Ok(left) if left > LONG => Some(format!(
            "the token ends in {}: until then {GIVES}; `kubeadm token create --ttl 2h` makes a shorter one",
            shown(left)
        )),
        Ok(_) => None,
    }
}

/// Whole hours, or days from the second on.
fn shown(left: Duration) -> String {
    match left.as_secs() / 3600 {
        hours @ 0..48 => format!("{hours} h"),
        hours => format!("{} days", hours / 24),
    }
}

/// Says it on standard error.
pub(super) fn warn(seed: &Seed) {
    if let Some(text) = warning(seed, SystemTime::now()) {
        progress::warn(&text);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn seed(expires: &str) -> Seed {
        let text = format!(
            "version = 1\n[cluster]\napiserver = \"192.0.2.1\"\ntoken = \"abcdef.0123456789abcdef\"\n\
             ca-cert-hashes = \"sha256:{}\"\n{expires}\n",
            "0".repeat(64)
        );
        firstboot::seed::parse(text.as_bytes()).unwrap()
    }

    /// 2026-11-28T12:00:00Z.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_867_200)
    }

    fn said(expires: &str) -> Option<String> {
        warning(&seed(expires), now())
    }

    #[test]
    fn a_seed_whose_token_has_ended_is_not_good() {
        ended(&seed(""), now()).unwrap();
        ended(&seed("token-expires = 2026-11-28T12:00:01Z"), now()).unwrap();
        let error = ended(&seed("token-expires = 2026-11-28T12:00:00Z"), now()).unwrap_err().to_string();
        assert!(error.starts_with("cluster.token-expires is past: the token has ended"), "{error}");
    }

    #[test]
    fn s02_a_token_without_an_end_or_with_a_late_one_is_named() {
        let text = said("").unwrap();
        assert!(text.starts_with("the seed has no token-expires: until the token ends, who has it can get"), "{text}");
        let text = said("token-expires = 2026-11-29T13:00:00Z").unwrap();
        assert!(text.starts_with("the token ends in 25 h: until then who has it can get"), "{text}");
        assert!(said("token-expires = 2027-11-28T12:00:00Z").unwrap().starts_with("the token ends in 365 days: "));
        let text = said("token-expires = 2026-11-28T11:59:59Z").unwrap();
        assert_eq!(text, "token-expires is past: the token has ended, and no device joins with it");
        assert_eq!(said("token-expires = 2026-11-29T12:00:00Z"), None);
        assert!(!said("").unwrap().contains("0123456789abcdef"));
    }
}
