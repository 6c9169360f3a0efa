// SPDX-License-Identifier: Apache-2.0
//! Back-off between retries.

use std::time::Duration;

/// Longest back-off.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);

/// Exponential back-off with full jitter (at least one second), so that a thousand devices do not retry at the same
/// time. `random` is between 0 and 1.
pub(crate) fn backoff(tries: u32, random: f64) -> Duration {
    let ceiling = Duration::from_secs(2u64.saturating_pow(tries.min(16) + 1)).min(LONGEST);
    ceiling.mul_f64(random).max(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_with_jitter_and_stay_below_five_minutes() {
        let at = |tries, random| backoff(tries, random).as_secs_f64();
        assert_eq!(at(0, 1.0), 2.0);
        assert_eq!(at(0, 0.0), 1.0);
        assert_eq!(at(3, 0.5), 8.0);
        assert_eq!(at(7, 1.0), 256.0);
        assert_eq!(at(8, 1.0), 300.0);
        assert_eq!(at(1000, 1.0), 300.0);
    }
}
