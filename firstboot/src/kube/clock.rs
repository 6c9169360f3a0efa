// SPDX-License-Identifier: Apache-2.0
//! The cluster's clock: the `Date` of a server that has proven to be the cluster's, asked for without credentials.
//!
//! The certificate chain and the name are held against the cluster's CA with validity dates set aside, because the
//! device's own clock cannot judge them yet; then they are judged by the time that was told. So whoever has only an
//! expired certificate of the cluster can set no clock to a time at which it was not valid.

use super::client::url_of;
use super::error::Error;
use super::{discovery, pin};
use crate::fault::{Fault, Owner};
use crate::proxy::Via;
use crate::seed::{Endpoint, Trust};
use rustls::pki_types::CertificateDer;
use std::time::SystemTime;

/// Anybody may read this; where anonymous requests are switched off, the refusal has a `Date`, too.
pub(super) const PATH: &str = "/version";

/// The time of the API server at `server` (`https://host:port[/path]`), whose CA bundle is `ca_pem`.
///
/// # Errors
/// A host fault when the bundle holds no certificate, else the cluster's: unreachable, not of this CA, no `Date`.
pub fn server_time(via: &Via, server: &str, ca_pem: &str) -> Result<SystemTime, Fault> {
    let bundle =
        pin::certificates(ca_pem).ok_or_else(|| Fault::new(Owner::Host, "read the cluster's CA certificate"))?;
    super::run(async { Ok(proven(via, server, bundle).await?) })
}

/// The time of an API server as a seed names it.
///
/// # Errors
/// The cluster's: unreachable, not of the seed's CA, no `Date`.
pub fn endpoint_time(via: &Via, at: &Endpoint, trust: &Trust) -> Result<SystemTime, Fault> {
    super::run(async {
        let trusted = match trust {
            Trust::Pins(pins) => discovery::pinned(via, at, pins).await?,
            Trust::Ca(pem) => pin::certificates(pem).unwrap_or_default(),
        };
        Ok(proven(via, &url_of(at), trusted).await?)
    })
}

/// The time of a server that one of `trusted` vouches for.
pub(super) async fn proven(
    via: &Via,
    server: &str,
    trusted: Vec<CertificateDer<'static>>,
) -> Result<SystemTime, Error> {
    let (client, ca) = discovery::verified(via, server, trusted.clone())?;
    let time = client.clock(PATH).await?;
    discovery::settle(&ca, trusted, time, &client.host())?;
    Ok(time)
}
