// SPDX-License-Identifier: Apache-2.0
//! Whether the API server is at an address that DNS gives for it: only the cluster's CA can say.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{pin, runtime, verified};

/// Longest time for one proof. An address that does not answer holds up what comes after it.
const PROOF: Duration = Duration::from_secs(10);

/// Whether the server at `address`, port `port`, proves by TLS that it is the API server `name` of the cluster whose CA
/// bundle is `ca_pem`. Asks without credentials; certificates are judged by that server's own time.
#[must_use]
pub fn proven(name: &str, port: u16, address: IpAddr, ca_pem: &str) -> bool {
    let Some(bundle) = pin::certificates(ca_pem) else { return false };
    let server = format!("https://{name}:{port}");
    let proof = async {
        let asked = verified::proven_at(SocketAddr::new(address, port), &server, bundle);
        Ok(tokio::time::timeout(PROOF, asked).await.is_ok_and(|answer| answer.is_ok()))
    };
    runtime::run(proof).unwrap_or(false)
}
