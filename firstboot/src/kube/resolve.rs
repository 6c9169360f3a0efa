// SPDX-License-Identifier: Apache-2.0
//! The addresses of a name, by the system's resolver, under a deadline.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::runtime;

/// Longest time for one name; less than for one connection, so that a DNS server that does not answer is not taken for
/// an API server that does not.
const TIMEOUT: Duration = Duration::from_secs(4);

/// All addresses of a host; none when it has none or no answer comes in time.
#[must_use]
pub fn addresses(host: &str) -> BTreeSet<IpAddr> {
    let found = runtime::run(async { Ok(look_up(host).await.unwrap_or_default()) });
    found.unwrap_or_default().iter().map(SocketAddr::ip).collect()
}

async fn look_up(host: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((host, 0))).await??.collect())
}

/// Where an HTTP client finds a host: by the system's resolver, or at one address whatever the name.
pub(super) struct Resolver(pub(super) Option<SocketAddr>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let fixed = self.0;
        Box::pin(async move {
            let found = match fixed {
                Some(address) => vec![address],
                None => look_up(name.as_str()).await?,
            };
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn addresses_of_this_machine_and_of_a_name_that_does_not_exist() {
        let found = super::addresses("localhost");
        assert!(!found.is_empty() && found.iter().all(std::net::IpAddr::is_loopback), "{found:?}");
        assert!(super::addresses("no.name.invalid").is_empty());
    }
}
