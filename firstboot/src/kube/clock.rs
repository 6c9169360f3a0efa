// SPDX-License-Identifier: Apache-2.0
//! The cluster's clock: the `Date` of a server that has proven to be the cluster's, asked for without credentials.

use super::client::url_of;
use super::verified::proven;
use super::{discovery, pin, runtime};
use crate::fault::{Code, Fault};
use crate::proxy::Via;
use crate::seed::{Cluster, Endpoint, Trust};
use std::time::SystemTime;

/// The time of the API server at `server` (`https://host:port[/path]`), whose CA bundle is `ca_pem`.
///
/// # Errors
/// A host fault when the bundle holds no certificate, else the cluster's: unreachable, not of this CA, no `Date`.
pub fn server_time(via: &Via, server: &str, ca_pem: &str) -> Result<SystemTime, Fault> {
    let bundle = pin::certificates(ca_pem)
        .ok_or_else(|| Fault::new(Code::NodeCredential, "read the cluster's CA certificate"))?;
    runtime::run(async { Ok(proven(via, server, bundle).await?.0) })
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
