// SPDX-License-Identifier: Apache-2.0
//! How long to wait between two tries.

use crate::backoff::{LONGEST, backoff};
use std::time::Duration;

/// How often a waiting device looks for a seed.
pub(super) const LOOK: Duration = Duration::from_secs(5);
/// First and longest wait after a fault of this device.
const HOST_FIRST: Duration = Duration::from_secs(30);
const HOST_LONGEST: Duration = Duration::from_secs(600);

/// How long to wait: as long as the server asks for, if that is longer, but never longer than [`LONGEST`], for the
/// server that asks need not be the cluster's.
pub(super) fn for_cluster(tries: u32, random: f64, retry_after: Option<Duration>) -> Duration {
    backoff(tries, random).max(retry_after.unwrap_or_default().min(LONGEST))
}

/// Between two tries after a fault of this device: longer each time, up to ten minutes.
pub(super) fn for_host(tries: u32) -> Duration {
    (HOST_FIRST * 2u32.saturating_pow(tries.min(8))).min(HOST_LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_tries_again_after_longer_and_longer_waits() {
        let seconds: Vec<u64> = (0..7).map(|tries| for_host(tries).as_secs()).collect();
        assert_eq!(seconds, [30, 60, 120, 240, 480, 600, 600]);
    }

    #[test]
    fn a_server_that_asks_for_time_gets_it_within_limits() {
        let at = |tries, after: u64| for_cluster(tries, 0.5, Some(Duration::from_secs(after))).as_secs();
        assert_eq!((at(0, 7), at(3, 7), at(0, 86_400)), (7, 8, 300));
        assert_eq!(for_cluster(3, 0.5, None).as_secs(), 8);
    }
}
