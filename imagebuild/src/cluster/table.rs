// SPDX-License-Identifier: Apache-2.0
//! Table `[cluster]` of a seed, and what a cluster itself gives for it.

use super::bootstrap_token::{self, Created, Facts};
use super::{Access, Api};
use anyhow::{Context, Result, anyhow, ensure};
use firstboot::kube::client::host_of;
use firstboot::kube::pin;
use firstboot::seed::{Endpoint, VXLAN};
use firstboot::text::{timestamp, unix_seconds};
use serde::Serialize;
use std::time::{Duration, SystemTime};

/// Flannel's DaemonSet, by its own manifest.
const FLANNEL: &str = "/apis/apps/v1/namespaces/kube-flannel/daemonsets/kube-flannel-ds";
/// Life of a token: long enough for the work with one batch of cards.
const TTL: Duration = Duration::from_secs(2 * 60 * 60);

/// Table `[cluster]` as it is written.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cluster {
    /// Tried in this order.
    pub apiserver: Vec<String>,
    /// `ID.SECRET`.
    pub token: String,
    /// `sha256:…`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ca_cert_hashes: Vec<String>,
    /// PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_cert: Option<String>,
    /// When the token ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_expires: Option<toml::value::Datetime>,
}

/// What a cluster says of itself for the seeds of one batch.
pub struct Known {
    /// The table; its token is still empty.
    pub table: Cluster,
    /// When the tokens of this batch end.
    pub expires: SystemTime,
    /// Ports that the pod network needs open on each node, as a seed names them: VXLAN where it is flannel. Where it is
    /// another one, or the user may not look, the seed's `open` has to say it.
    pub open: Vec<String>,
    /// Whether cluster-info is published, which has to be signed for each token.
    published: bool,
}

impl Known {
    /// Asks the cluster; `apiserver` counts instead of its own address, unless it is empty.
    ///
    /// # Errors
    /// No answer, or one that cannot be used.
    pub fn of(api: &Api, access: &Access, apiserver: &[String], ttl: Option<Duration>) -> Result<Known> {
        let facts = bootstrap_token::facts(api, &access.ca_pem, &access.server)?;
        let apiserver = match apiserver.is_empty() {
            true => vec![endpoint(&facts.server)?],
            false => apiserver.to_vec(),
        };
        let pins = pin::certificates(&facts.ca_pem).unwrap_or_default();
        let pins: Vec<String> = pins.iter().filter_map(|der| pin::pin_of(der)).map(|pin| pin.to_string()).collect();
        ensure!(!pins.is_empty(), "read the cluster's CA: it cannot be read");
        let expires = facts.now + ttl.unwrap_or(TTL);
        let Facts { ca_pem, published, .. } = facts;
        let table = Cluster {
            apiserver,
            token: String::new(),
            // Without cluster-info nothing can be held against a hash.
            ca_cert_hashes: if published { pins } else { Vec::new() },
            ca_cert: (!published).then_some(ca_pem),
            token_expires: Some(timestamp(unix_seconds(expires)).parse().context("write the end of the tokens")?),
        };
        let open = api.get(FLANNEL).is_ok().then(|| VXLAN.to_string()).into_iter().collect();
        Ok(Known { table, expires, open, published })
    }

    /// What is to be said of a new token that no device can join with yet. The signatures of those that were made before
    /// it are there before its own.
    ///
    /// # Errors
    /// cluster-info cannot be read.
    pub fn unsigned(&self, token: &Created<'_>) -> Result<Option<String>> {
        if !self.published || token.is_signed()? {
            return Ok(None);
        }
        Ok(Some(format!(
            "cluster-info is not signed for token {}: no device joins before it is; kube-controller-manager does that with \
             its controller bootstrapsigner",
            token.id
        )))
    }
}

/// `HOST:PORT` of a server's URL.
fn endpoint(server: &str) -> Result<String> {
    let shown = server.trim_start_matches("https://").trim_end_matches('/');
    ensure!(
        !shown.contains('/'),
        "read API server {shown} of the cluster: a seed has no path; give --apiserver HOST:PORT"
    );
    let endpoint = Endpoint::parse(&host_of(server));
    endpoint.map(|found| found.to_string()).map_err(|why| anyhow!("read API server {shown} of the cluster: {why}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_a_port_is_at_that_of_https() {
        assert_eq!(endpoint("https://api.example.com").unwrap(), "api.example.com:443");
        assert_eq!(endpoint("https://[fd00::1]:6443/").unwrap(), "[fd00::1]:6443");
        let error = endpoint("https://rancher.example.com/k8s/clusters/c1").unwrap_err().to_string();
        assert_eq!(
            error,
            "read API server rancher.example.com/k8s/clusters/c1 of the cluster: a seed has no path; give --apiserver HOST:PORT"
        );
    }
}
