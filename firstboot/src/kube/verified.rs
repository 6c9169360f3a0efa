// SPDX-License-Identifier: Apache-2.0
//! Connections to a server that has to prove itself by the cluster's CA, when the device's own clock cannot judge dates.
//!
//! The certificate chain and the name are verified with validity dates set aside; the dates are judged by the time that
//! the server then gives. So an expired certificate of the cluster sets no clock to a time at which it was not valid,
//! and gets no token.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

use super::client::Client;
use super::error::{Error, Kind};
use super::resolve::Resolver;
use super::tls::{self, PinnedCa, Validity};
use crate::fault::Code;
use crate::proxy::Via;
use crate::text::{timestamp, unix_seconds};

/// CA certificates.
pub(super) type Certificates = Vec<CertificateDer<'static>>;

/// Anyone may read this. Where anonymous requests are switched off, the refusal has a `Date`, too.
pub(super) const VERSION: &str = "/version";

/// An anonymous client of a server that one of `pinned` vouches for, with dates set aside until [`settle`]; `pinned` are
/// those certificates of `bundle` that the seed names.
pub(super) fn pinned(
    via: &Via,
    server: &str,
    pinned: Certificates,
    bundle: &Certificates,
) -> Result<(Client, Arc<PinnedCa>), Error> {
    let others = bundle.iter().filter(|certificate| !pinned.contains(certificate)).cloned().collect();
    with(via, server, PinnedCa::beside(pinned, others, Validity::SetAside), None)
}

fn with(via: &Via, server: &str, ca: Arc<PinnedCa>, at: Option<SocketAddr>) -> Result<(Client, Arc<PinnedCa>), Error> {
    let tls = tls::verified(ca.clone()).map_err(tls::setup)?;
    Ok((Client::found_by(Resolver(at), via, server, tls)?, ca))
}

/// Judges the dates of the server that has just proven itself by its own time `now`, and those of later connections by
/// that clock; trusts the whole `bundle` from then on. `at` names the server in the error.
pub(super) fn settle(ca: &PinnedCa, bundle: Certificates, now: SystemTime, at: &dyn fmt::Display) -> Result<(), Error> {
    ca.settle(bundle, now).map_err(|why| {
        let at_time = match why.code {
            Code::CertificateDates => format!(" at its own time, {}", timestamp(unix_seconds(now))),
            _ => String::new(),
        };
        Error::new(Kind::Transport, why.code, format!("{}{at_time}", why.of(&at.to_string())))
    })
}

/// The time of a server that one of `trusted` vouches for, and an anonymous client of it that judges dates by that time.
/// One request.
pub(super) async fn proven(via: &Via, server: &str, trusted: Certificates) -> Result<(SystemTime, Client), Error> {
    proven_at(via, server, trusted, None).await
}

/// The same; with `at` the server is looked for at that address alone, past any name server.
pub(super) async fn proven_at(
    via: &Via,
    server: &str,
    trusted: Certificates,
    at: Option<SocketAddr>,
) -> Result<(SystemTime, Client), Error> {
    let (client, ca) = with(via, server, PinnedCa::new(trusted.clone(), Validity::SetAside), at)?;
    let time = client.clock(VERSION).await?;
    settle(&ca, trusted, time, &client.host())?;
    Ok((time, client))
}
