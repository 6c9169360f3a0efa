// SPDX-License-Identifier: Apache-2.0
//! Finding the cluster: cluster-info, and why it may be believed.
//!
//! With pins (`ca-cert-hashes`) as kubeadm's token discovery does: an unverified, anonymous fetch; its JWS by the
//! token; a CA pin; then a second fetch over TLS that must give the same bytes. Stricter than kubeadm in two things:
//! the second handshake accepts only the *pinned* certificates, not the whole bundle, because a holder of the token
//! could put a CA of his own beside the right one; and no YAML is parsed before its signature holds.
//!
//! The join worker does all of that; the privileged part then makes the second fetch by itself ([`again`]), by pinned
//! certificates that it is given.
//!
//! With `ca-cert` one verified request reads the server's time. Either way none of these requests carries a credential:
//! the token is sent only after the caller has accepted the time at which the server's certificate is valid.

use std::time::SystemTime;

use super::client::{Client, Reply, url_of};
use super::contract::FoundCluster;
use super::error::{Error, Kind};
use super::kubeconfig::ClusterInfo;
use super::verified::{Certificates, proven, settle};
use super::{jws, kubeconfig, pin, tls, verified};
use crate::fault::Code;
use crate::proxy::Via;
use crate::seed::{CaPin, Cluster, Endpoint, Trust};
use crate::text::rfc3339;

/// Path of the ConfigMap that anybody may read.
pub(super) const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

/// Whether an API server and its etcd can serve; anybody may ask, unless anonymous requests are off, which is an answer, too.
const READYZ: &str = "/readyz";

/// A cluster that is proven to be the seed's.
pub struct Found {
    /// Which of the seed's API servers proved it, its CA bundle and its clock.
    pub cluster: FoundCluster,
    /// Where cluster-info says that it answers, `https://…`; the seed's own endpoint when the seed carries the CA.
    pub server: String,
    /// Client of the seed's endpoint, verified, anonymous, with its connection open.
    pub client: Client,
}

/// Tries the seed's API servers in order.
///
/// # Errors
/// Why not, server by server.
pub async fn discover(cluster: &Cluster, via: &Via, now: SystemTime) -> Result<Found, Error> {
    let mut failures: Vec<Error> = Vec::new();
    for (n, endpoint) in cluster.apiserver.iter().enumerate() {
        let found = match &cluster.trust {
            Trust::Pins(pins) => by_pins(cluster, via, endpoint, pins, now).await,
            Trust::Ca(pem) => match by_ca(via, endpoint, pem).await {
                // It proves itself without etcd, and is chosen for the whole join: where there is another, one that is sick
                // must not keep it from being asked.
                Ok(found) if n + 1 < cluster.apiserver.len() => found.client.serves(READYZ).await.map(|()| found),
                found => found,
            },
        };
        match found {
            Ok(found) => return Ok(Found { cluster: FoundCluster { endpoint: n, ..found.cluster }, ..found }),
            Err(error) => failures.push(error),
        }
    }
    let (kind, code) = failures.first().map_or((Kind::Answer, Code::Cluster), |e| (e.kind, e.code));
    let retry_after = failures.iter().filter_map(|e| e.retry_after).max();
    let mut texts: Vec<String> = failures.into_iter().map(|e| e.text).collect();
    texts.dedup();
    Err(Error { kind, code, text: texts.join("; "), retry_after })
}

/// Looks at the cluster once more, at the seed's API server number `endpoint`: only a server is believed that one of
/// `known` vouches for, of those which the seed pins. With `ca-cert` it is one of the seed's own.
///
/// # Errors
/// Why not.
pub async fn again(
    cluster: &Cluster,
    via: &Via,
    endpoint: usize,
    known: &Certificates,
    now: SystemTime,
) -> Result<Found, Error> {
    let at = &cluster.apiserver[endpoint];
    let found = match &cluster.trust {
        Trust::Pins(pins) => by_pinned(via, at, pins, &pin::pinned(known, pins), None, now).await,
        Trust::Ca(pem) => by_ca(via, at, pem).await,
    }?;
    Ok(Found { cluster: FoundCluster { endpoint, ..found.cluster }, ..found })
}

/// Token discovery.
async fn by_pins(cluster: &Cluster, via: &Via, at: &Endpoint, pins: &[CaPin], now: SystemTime) -> Result<Found, Error> {
    let first = unverified(via, at).await?;
    let config = match signed(cluster, at, &first)? {
        Some(config) => config,
        None => return Err(unsigned(cluster, via, at, pins, kubeconfig_in(&first, at)?).await),
    };
    let (_, bundle) = trusted(at, pins, config)?;
    by_pinned(via, at, pins, &bundle, Some(config), now).await
}

/// The kubeconfig in cluster-info when the token has signed it; none when there is no signature of this token.
///
/// # Errors
/// The signature does not hold.
pub(super) fn signed<'r>(cluster: &Cluster, at: &Endpoint, reply: &'r Reply) -> Result<Option<&'r str>, Error> {
    let (config, id) = (kubeconfig_in(reply, at)?, cluster.token.id());
    let Some(signature) = reply.body["data"][format!("jws-kubeconfig-{id}")].as_str() else { return Ok(None) };
    match jws::verify(signature, config.as_bytes(), &cluster.token) {
        true => Ok(Some(config)),
        false => Err(Error::answer(
            Code::SignatureMismatch,
            format!(
                "JWS signature of cluster-info does not match join token \"{id}\": its secret is not the cluster's, or \
                 {at} is an impostor"
            ),
        )),
    }
}

/// cluster-info of a server that those certificates of `bundle` vouch for which the seed pins; it has to say what was
/// `expected`, if anything was.
pub(super) async fn by_pinned(
    via: &Via,
    at: &Endpoint,
    pins: &[CaPin],
    bundle: &Certificates,
    expected: Option<&str>,
    now: SystemTime,
) -> Result<Found, Error> {
    let (client, ca) = verified::pinned(via, &url_of(at), pin::pinned(bundle, pins), bundle)?;
    let reply = client.get(CLUSTER_INFO).await.map_err(|e| unpublished(e, at))?;
    let config = kubeconfig_in(&reply, at)?;
    if expected.is_some_and(|expected| expected != config) {
        let text = format!("cluster-info of {at} differs between unverified and verified request");
        return Err(Error::answer(Code::ClusterInfo, text));
    }
    let (info, bundle) = trusted(at, pins, config)?;
    settle(&ca, bundle, reply.date.unwrap_or(now), at)?;
    let cluster = FoundCluster { endpoint: 0, ca_pem: info.ca_pem, time: reply.date };
    Ok(Found { cluster, server: info.server, client })
}

/// The first look at cluster-info, which proves nothing yet.
pub(super) async fn unverified(via: &Via, at: &Endpoint) -> Result<Reply, Error> {
    let reply = Client::through(via, &url_of(at), tls::unverified().map_err(tls::setup)?)?.get(CLUSTER_INFO).await;
    reply.map_err(|e| unpublished(e, at))
}

pub(super) fn kubeconfig_in<'r>(reply: &'r Reply, at: &Endpoint) -> Result<&'r str, Error> {
    let config = reply.body["data"]["kubeconfig"].as_str();
    config.ok_or_else(|| Error::answer(Code::ClusterInfo, format!("cluster-info of {at}: it holds no kubeconfig")))
}

/// The CA certificates of the cluster at `at` that the seed names: its token has signed them, and its pins match.
pub(super) async fn pinned(cluster: &Cluster, via: &Via, at: &Endpoint, pins: &[CaPin]) -> Result<Certificates, Error> {
    let reply = unverified(via, at).await?;
    match signed(cluster, at, &reply)? {
        Some(config) => trusted(at, pins, config).map(|(_, bundle)| pin::pinned(&bundle, pins)),
        None => Err(unknown_token(cluster, None)),
    }
}

/// What cluster-info says, and its CA bundle, of which the seed pins a certificate at least.
pub(super) fn trusted(at: &Endpoint, pins: &[CaPin], config: &str) -> Result<(ClusterInfo, Certificates), Error> {
    let unusable = |why: &str| Error::answer(Code::ClusterInfo, format!("cluster-info of {at}: {why}"));
    let mut info = kubeconfig::read(config).map_err(|why| unusable(&why))?;
    let pem = kubeconfig::ca_certificates(&info.ca_pem);
    info.ca_pem = pem.ok_or_else(|| unusable("its CA certificate cannot be read"))?;
    let bundle = pin::certificates(&info.ca_pem).ok_or_else(|| unusable("its CA certificate cannot be read"))?;
    if pin::pinned(&bundle, pins).is_empty() {
        let offered: Vec<String> = bundle.iter().filter_map(|c| pin::pin_of(c)).map(|p| p.to_string()).collect();
        return Err(Error::answer(
            Code::PinMismatch,
            format!("CA of the cluster at {at} does not match ca-cert-hashes: it is {}", offered.join(", ")),
        ));
    }
    Ok((info, bundle))
}

/// Why cluster-info has no signature for the token. Whether the token has expired is judged by the clock of a server
/// that holds the pinned CA's certificate, never by this device's, which may have started in 1970. That certificate is
/// found without parsing the text, which nothing proves: its digest is proof enough of it.
pub(super) async fn unsigned(cluster: &Cluster, via: &Via, at: &Endpoint, pins: &[CaPin], config: &str) -> Error {
    let bundle = || pin::certificates(&kubeconfig::ca_certificates(&kubeconfig::ca_data(config)?)?);
    let mut verified_time = None;
    if cluster.token_expires.is_some()
        && let Some(pinned) = bundle().map(|all| pin::pinned(&all, pins)).filter(|pinned| !pinned.is_empty())
    {
        verified_time = proven(via, &url_of(at), pinned).await.ok().map(|(time, _)| time);
    }
    unknown_token(cluster, verified_time)
}

/// That cluster-info has no signature for the token.
fn unknown_token(cluster: &Cluster, verified_time: Option<SystemTime>) -> Error {
    let (code, when) = match expired(cluster, verified_time) {
        Some(when) => (Code::TokenExpired, when),
        None => (Code::TokenUnknown, "it may have expired, or never existed".to_owned()),
    };
    let id = cluster.token.id();
    Error::answer(
        code,
        format!("join token \"{id}\" is unknown to the cluster (no JWS signature for it in cluster-info): {when}"),
    )
}

/// That the token has expired, if the seed says when it does and the verified time is later.
pub(super) fn expired(cluster: &Cluster, verified_time: Option<SystemTime>) -> Option<String> {
    let (expires, now) = (cluster.token_expires?, verified_time?);
    (expires < now).then(|| format!("it expired at {}", rfc3339(expires)))
}

/// A cluster whose cluster-info only known users may read cannot be found by digest.
fn unpublished(error: Error, at: &Endpoint) -> Error {
    let what = match error.kind {
        Kind::Status(401) => "may not be read without a credential (401)",
        Kind::Status(403) => "may not be read without a credential (403)",
        Kind::Status(404) => "does not exist (404)",
        _ => return error,
    };
    error.saying(Code::ClusterInfo, format!(
        "cluster-info of {at} {what}: publish it with kubeadm init phase bootstrap-token, or put ca-cert in place of \
         ca-cert-hashes in seed.toml"
    ))
}

/// Discovery by the CA that the seed carries. The server has to hold a certificate of that CA, and its answer to an
/// anonymous request, whatever it is, gives the time by which that certificate's dates are judged. As with kubeadm's
/// file discovery the given address is kept.
pub(super) async fn by_ca(via: &Via, at: &Endpoint, ca_pem: &str) -> Result<Found, Error> {
    let server = url_of(at);
    let bundle = pin::certificates(ca_pem).unwrap_or_default();
    let (time, client) = proven(via, &server, bundle).await?;
    let cluster = FoundCluster { endpoint: 0, ca_pem: ca_pem.to_owned(), time: Some(time) };
    Ok(Found { cluster, server, client })
}
