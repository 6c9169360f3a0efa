// SPDX-License-Identifier: Apache-2.0
//! How long to wait between two tries.

use std::time::Duration;

/// Longest wait between two tries.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);

/// Exponential with full jitter (at least one second), so that a thousand devices do not come back at once.
pub(crate) fn backoff(tries: u32, random: f64) -> Duration {
    let ceiling = Duration::from_secs(2u64.saturating_pow(tries.min(16) + 1)).min(LONGEST);
    ceiling.mul_f64(random).max(Duration::from_secs(1))
}
