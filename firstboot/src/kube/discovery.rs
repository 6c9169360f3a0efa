// SPDX-License-Identifier: Apache-2.0
//! Finding the cluster: cluster-info, and why it may be believed.
//!
//! With pins (`ca-cert-hashes`) as kubeadm's token discovery does: an unverified, anonymous fetch; its JWS by the
//! token; a CA pin; then a second fetch over TLS that must give the same bytes. Stricter than kubeadm in one thing:
//! the second handshake accepts only the *pinned* certificates, not the whole bundle, for whoever shares the token
//! could put a CA of his own beside the right one. With `ca-cert` no unverified request is made at all.
//! No request of this module carries a credential.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::CertificateError;
use rustls::pki_types::CertificateDer;

use super::client::{Client, Reply, url_of};
use super::error::{Error, Kind};
use super::kubeconfig::ClusterInfo;
use super::tls::{self, PinnedCa, Validity};
use super::{clock, jws, kubeconfig, pin};
use crate::seed::{CaPin, Cluster, Endpoint, Trust};

/// Path of the ConfigMap that anybody may read.
const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

/// A cluster that is proven to be the seed's.
pub struct Found {
    /// Its CA bundle, PEM, whole.
    pub ca_pem: String,
    /// Where cluster-info says that it answers, `https://…`; the seed's own endpoint when cluster-info is not shown.
    pub server: String,
    /// The clock of the verified server.
    pub server_time: Option<SystemTime>,
    /// Client of the seed's endpoint, verified, anonymous, with its connection open.
    pub client: Client,
}

/// Tries the seed's API servers in order.
///
/// # Errors
/// Why not, server by server.
pub async fn discover(cluster: &Cluster, now: SystemTime) -> Result<Found, Error> {
    let mut failures: Vec<Error> = Vec::new();
    for endpoint in &cluster.apiserver {
        let found = match &cluster.trust {
            Trust::Pins(pins) => by_pins(cluster, endpoint, pins, now).await,
            Trust::Ca(pem) => by_ca(endpoint, pem, now).await,
        };
        match found {
            Ok(found) => return Ok(found),
            Err(error) => failures.push(error),
        }
    }
    let kind = failures.first().map_or(Kind::Answer, |e| e.kind);
    let mut texts: Vec<String> = failures.into_iter().map(|e| e.text).collect();
    texts.dedup();
    Err(Error { kind, text: texts.join("; ") })
}

/// Token discovery.
async fn by_pins(cluster: &Cluster, at: &Endpoint, pins: &[CaPin], now: SystemTime) -> Result<Found, Error> {
    let server = url_of(at);
    let first = unverified(&server).await?;
    if !is_signed(&first, cluster, at)? {
        // "Expired" is a word about time, and only the clock of a server that has proven itself may say it.
        let time = match claim(&first, at, pins) {
            Ok(claim) => clock::proven(&server, claim.pinned).await.ok(),
            Err(_) => None,
        };
        return Err(unknown_token(cluster, time));
    }
    let Claim { info, bundle, pinned } = claim(&first, at, pins)?;
    let (client, ca) = verified(&server, pinned)?;
    let second = client.get(CLUSTER_INFO).await?;
    if second.body["data"]["kubeconfig"] != first.body["data"]["kubeconfig"] {
        return Err(Error::answer(format!("cluster-info of {at} differs between unverified and verified request")));
    }
    settle(&ca, bundle, second.date.unwrap_or(now), at)?;
    Ok(Found { ca_pem: info.ca_pem, server: info.server, server_time: second.date, client })
}

/// The first look at cluster-info, which proves nothing yet.
async fn unverified(server: &str) -> Result<Reply, Error> {
    Client::new(server, tls::unverified().map_err(setup)?)?.get(CLUSTER_INFO).await
}

/// What cluster-info claims of its cluster.
struct Claim {
    info: ClusterInfo,
    /// Its CA certificates.
    bundle: Vec<CertificateDer<'static>>,
    /// Those of them that the seed names.
    pinned: Vec<CertificateDer<'static>>,
}

fn claim(reply: &Reply, at: &Endpoint, pins: &[CaPin]) -> Result<Claim, Error> {
    let info = kubeconfig::read(kubeconfig_in(reply, at)?);
    let info = info.map_err(|why| Error::answer(format!("cluster-info of {at}: {why}")))?;
    let bundle = pin::certificates(&info.ca_pem)
        .ok_or_else(|| Error::answer(format!("cluster-info of {at}: its CA certificate cannot be read")))?;
    let pinned = pin::pinned(&bundle, pins);
    if pinned.is_empty() {
        let offered: Vec<String> = bundle.iter().filter_map(|c| pin::pin_of(c)).map(|p| p.to_string()).collect();
        return Err(Error::answer(format!(
            "CA of the cluster at {at} does not match ca-cert-hashes: it is {}",
            offered.join(", ")
        )));
    }
    Ok(Claim { info, bundle, pinned })
}

/// The CA certificates of the cluster at `at` that the seed names; no token is needed for that, only its pins.
pub(super) async fn pinned(at: &Endpoint, pins: &[CaPin]) -> Result<Vec<CertificateDer<'static>>, Error> {
    Ok(claim(&unverified(&url_of(at)).await?, at, pins)?.pinned)
}

fn kubeconfig_in<'r>(reply: &'r Reply, at: &Endpoint) -> Result<&'r str, Error> {
    let config = reply.body["data"]["kubeconfig"].as_str();
    config.ok_or_else(|| Error::answer(format!("cluster-info of {at}: it holds no kubeconfig")))
}

/// Whether cluster-info is signed with the token; `false` when there is no signature by this token at all.
fn is_signed(reply: &Reply, cluster: &Cluster, at: &Endpoint) -> Result<bool, Error> {
    let id = cluster.token.id();
    let config = kubeconfig_in(reply, at)?;
    let Some(signature) = reply.body["data"][format!("jws-kubeconfig-{id}")].as_str() else { return Ok(false) };
    if !jws::verify(signature, config.as_bytes(), &cluster.token) {
        return Err(Error::answer(format!(
            "JWS signature of cluster-info does not match join token \"{id}\": its secret is not the cluster's, or \
             {at} is an impostor"
        )));
    }
    Ok(true)
}

/// `time` is that of the proven cluster, when it could be had.
fn unknown_token(cluster: &Cluster, time: Option<SystemTime>) -> Error {
    let expired = cluster.token_expires.filter(|expires| time.is_some_and(|now| *expires < now));
    let when = match expired {
        Some(expires) => format!("it expired at {}", rfc3339(expires)),
        None => "it may have expired, or never existed".to_owned(),
    };
    Error::answer(format!(
        "join token \"{}\" is unknown to the cluster (no JWS signature for it in cluster-info): {when}",
        cluster.token.id()
    ))
}

/// Discovery by the CA that the seed carries; cluster-info is only asked for the server's preferred address, and its
/// clock.
async fn by_ca(at: &Endpoint, ca_pem: &str, now: SystemTime) -> Result<Found, Error> {
    let server = url_of(at);
    let bundle = pin::certificates(ca_pem).unwrap_or_default();
    let (client, ca) = verified(&server, bundle.clone())?;
    let (preferred, time) = match client.get(CLUSTER_INFO).await {
        Ok(reply) => {
            settle(&ca, bundle, reply.date.unwrap_or(now), at)?;
            let info = reply.body["data"]["kubeconfig"].as_str().and_then(|text| kubeconfig::read(text).ok());
            (info.map(|info| info.server), reply.date)
        }
        // A cluster need not publish cluster-info; its refusals tell the time all the same.
        Err(Error { kind: Kind::Status(401 | 403 | 404), .. }) => {
            let time = client.clock(CLUSTER_INFO).await?;
            settle(&ca, bundle, time, at)?;
            (None, Some(time))
        }
        Err(error) => return Err(error),
    };
    let server = preferred.unwrap_or(server);
    Ok(Found { ca_pem: ca_pem.to_owned(), server, server_time: time, client })
}

pub(super) fn verified(server: &str, trusted: Vec<CertificateDer<'static>>) -> Result<(Client, Arc<PinnedCa>), Error> {
    let ca = PinnedCa::new(trusted, Validity::SetAside);
    Ok((Client::new(server, tls::verified(ca.clone()).map_err(setup)?)?, ca))
}

/// Trusts the whole bundle from here on, and judges dates by the clock of the server that has just proven itself.
pub(super) fn settle(
    ca: &PinnedCa,
    bundle: Vec<CertificateDer<'static>>,
    now: SystemTime,
    at: &dyn fmt::Display,
) -> Result<(), Error> {
    ca.settle(bundle, now).map_err(|why| {
        let what = match why {
            CertificateError::Expired => "has expired",
            _ => "is not yet valid",
        };
        let now = rfc3339(now);
        Error { kind: Kind::Transport, text: format!("certificate of API server {at} {what} at its own time, {now}") }
    })
}

fn setup(error: rustls::Error) -> Error {
    Error::answer(format!("set up TLS: {error}"))
}

fn rfc3339(time: SystemTime) -> String {
    let format = time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::from(time).format(&format).unwrap_or_default()
}
