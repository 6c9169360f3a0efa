// SPDX-License-Identifier: Apache-2.0
//! The cluster's clock: the `Date` of a server that has proven to be the cluster's, asked for without credentials. By the
//! same request an address that DNS gives is proven to be an API server's.

use super::client::url_of;
use super::verified::{proven, proven_at};
use super::{discovery, pin, runtime};
use crate::fault::{Code, Fault};
use crate::proxy::Via;
use crate::seed::{Cluster, Endpoint, Trust};
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

/// The time of the API server at `server` (`https://host:port[/path]`), whose CA bundle is `ca_pem`.
///
/// # Errors
/// A host fault when the bundle holds no certificate, else the cluster's: unreachable, not of this CA, no `Date`.
pub fn server_time(via: &Via, server: &str, ca_pem: &str) -> Result<SystemTime, Fault> {
    server_time_at(via, server, ca_pem, None)
}

/// The same; with `at` the server is looked for at that address alone, past any name server.
fn server_time_at(via: &Via, server: &str, ca_pem: &str, at: Option<SocketAddr>) -> Result<SystemTime, Fault> {
    let bundle = pin::certificates(ca_pem)
        .ok_or_else(|| Fault::new(Code::NodeCredential, "read the cluster's CA certificate"))?;
    runtime::run(async { Ok(proven_at(via, server, bundle, at).await?.0) })
}

/// Whether the server at `address`, port `port`, proves by TLS that it is the API server `name` of the cluster whose CA
/// bundle is `ca_pem`. Asks without credentials; certificates are judged by that server's own time.
#[must_use]
pub fn is_apiserver(name: &str, port: u16, address: IpAddr, ca_pem: &str) -> bool {
    let at = Some(SocketAddr::new(address, port));
    server_time_at(&Via::default(), &format!("https://{name}:{port}"), ca_pem, at).is_ok()
}

/// The time of `at`, an API server that a seed's table names.
///
/// # Errors
/// The cluster's: unreachable, not of the seed's CA, no signature of the seed's token, no `Date`.
pub fn endpoint_time(cluster: &Cluster, via: &Via, at: &Endpoint) -> Result<SystemTime, Fault> {
    runtime::run(async {
        let trusted = match &cluster.trust {
            Trust::Pins(pins) => discovery::pinned(cluster, via, at, pins).await?,
            Trust::Ca(pem) => pin::certificates(pem).unwrap_or_default(),
        };
        Ok(proven(via, &url_of(at), trusted).await?.0)
    })
}
