// SPDX-License-Identifier: Apache-2.0
//! Whether one API server answers, asked as a load balancer would.

use super::tls::{self, PinnedCa, Validity};
use super::{client::Client, pin, runtime};
use crate::fault::{Code, Fault};
use crate::proxy::Via;

/// Anyone may read it (ClusterRole `system:public-info-viewer`). etcd is left out: where it has no quorum, no other API
/// server is better.
const LIVEZ: &str = "/livez?exclude=etcd";

/// Asks `server` (`https://host:port`), which one of `ca_pem` has to vouch for.
///
/// # Errors
/// It does not answer, or is not alive.
pub fn ask(server: &str, ca_pem: &str) -> Result<(), Fault> {
    let host = |why: &str| Fault::new(Code::NodeCredential, format!("ask API server {server}: {why}"));
    let ca = pin::certificates(ca_pem).ok_or_else(|| host("the cluster's CA cannot be read"))?;
    let tls = tls::verified(PinnedCa::new(ca, Validity::SystemClock)).map_err(|error| host(&error.to_string()))?;
    let client = Client::through(&Via::default(), server, tls).map_err(|error| host(&error.text))?;
    runtime::block_on(&runtime::new()?, async { client.succeeds(LIVEZ).await.map_err(Fault::from) })
}
