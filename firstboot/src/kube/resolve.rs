// SPDX-License-Identifier: Apache-2.0
//! The addresses of a name, by the system's resolver, under a deadline.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// Longest time for one name.
const TIMEOUT: Duration = Duration::from_secs(4);

/// All addresses of a host; none when it has none or nobody answers in time.
#[must_use]
pub fn addresses(host: &str) -> BTreeSet<IpAddr> {
    let look = async {
        let found = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((host, 0))).await;
        let found = found.ok().and_then(Result::ok);
        Ok(found.into_iter().flatten().map(|a| a.ip()).collect())
    };
    super::run(look).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn addresses_of_this_machine_and_of_nobody() {
        let found = super::addresses("localhost");
        assert!(!found.is_empty() && found.iter().all(std::net::IpAddr::is_loopback), "{found:?}");
        assert!(super::addresses("no.name.invalid").is_empty());
    }
}
