// SPDX-License-Identifier: Apache-2.0
//! Who says on a segment that it has a virtual address: VRRP advertisements (RFC 9568, 5.2) by their place and time.

use std::time::Duration;

/// Protocol number of VRRP.
const VRRP: u8 = 112;
/// Where a frame has its type, its protocol, and its priority: Ethernet and IPv4 without options.
const TYPE: usize = 12;
const PROTOCOL: usize = 23;
const PRIORITY: usize = 36;
/// A holder says so every second; one that says nothing for so long has the address no more (RFC 9568, 6.1: 3 s and a skew).
const SILENCE: Duration = Duration::from_secs(4);

/// Whether a frame says that its sender has the address; with priority 0 it gives it up.
pub(super) fn is_claim(frame: &[u8]) -> bool {
    frame.get(TYPE..TYPE + 2) == Some(&[8, 0])
        && frame.get(PROTOCOL) == Some(&VRRP)
        && frame.get(PRIORITY).is_some_and(|priority| *priority > 0)
}

/// One advertisement: the place on the segment, and when it was, since the segment began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Number of the place.
    pub place: usize,
    /// When.
    pub at: Duration,
}

/// Times without a long silence in which one place has the address: from its first claim to its last.
fn runs(claims: &[Claim], place: usize) -> Vec<(Duration, Duration)> {
    let mut runs: Vec<(Duration, Duration)> = Vec::new();
    for claim in claims.iter().filter(|claim| claim.place == place) {
        match runs.last_mut() {
            Some((_, end)) if claim.at.saturating_sub(*end) < SILENCE => *end = claim.at,
            _ => runs.push((claim.at, claim.at)),
        }
    }
    runs
}

/// The longest time for which two places have the address at once, by what they say of it.
pub fn longest_overlap(claims: &[Claim]) -> Duration {
    let places = claims.iter().map(|claim| claim.place + 1).max().unwrap_or(0);
    let all: Vec<Held> = (0..places)
        .flat_map(|place| runs(claims, place).into_iter().map(move |(from, to)| Held { place, from, to }))
        .collect();
    longest_shared(&all)
}

/// That a place has the address, from one moment to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Number of the place.
    pub place: usize,
    /// Since when.
    pub from: Duration,
    /// Until when.
    pub to: Duration,
}

/// The longest time for which two places have the address at once.
pub fn longest_shared(all: &[Held]) -> Duration {
    let overlaps = all.iter().flat_map(|one| {
        let others = all.iter().filter(|other| other.place != one.place);
        others.map(|other| one.to.min(other.to).saturating_sub(one.from.max(other.from)))
    });
    overlaps.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_an_advertisement_with_a_priority() {
        let mut frame = [0; 60];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[23] = 112;
        assert!(!is_claim(&frame), "priority 0 gives the address up");
        frame[36] = 100;
        assert!(is_claim(&frame) && !is_claim(&frame[..30]));
        frame[23] = 17;
        assert!(!is_claim(&frame));
    }

    #[test]
    fn two_holders_at_once() {
        let claims = |all: &[(usize, u64)]| -> Vec<Claim> {
            all.iter().map(|(place, at)| Claim { place: *place, at: Duration::from_secs(*at) }).collect()
        };
        assert_eq!(longest_overlap(&claims(&[(0, 0), (0, 1), (1, 5), (1, 6), (0, 20), (0, 21)])), Duration::ZERO);
        let both = claims(&[(0, 0), (1, 1), (0, 1), (0, 2), (1, 3), (0, 4), (1, 5), (1, 6)]);
        assert_eq!(longest_overlap(&both), Duration::from_secs(3));
        assert_eq!(longest_overlap(&[]), Duration::ZERO);
    }
}
