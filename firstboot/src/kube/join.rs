// SPDX-License-Identifier: Apache-2.0
//! The join, top to bottom: discovery, version, name, certificate. Six requests, no file; the join worker makes them.
//!
//! 1–2 cluster-info (unverified, verified) · 3 kubeadm-config · 4 Node of this name · 5 CSR · 6 watch for its certificate.
//! All but the first share one connection. With `ca-cert` in the seed, one request for the server's time takes the place
//! of 1–2. Where kubeadm-config names no version, the API server is asked for it. What the device keeps is read by
//! [`super::confirm`].

use std::time::SystemTime;

use super::client::Client;
use super::cluster_config_maps::{cluster_configuration, configured, existing_node};
use super::config::ClusterConfiguration;
use super::contract::{JoinHost, JoinInput};
use super::csr::{self, Outcome};
use super::error::Error;
use super::{cluster_networks, config, discovery, pin, runtime, verified};
use crate::fault::{Code, Fault};

/// Joins: blocks until the certificate is there or something failed; gives its chain, PEM. Trying again is always safe.
///
/// # Errors
/// One fault, one line: the image's for a version that does not fit, the host's when the key cannot be kept, else
/// the cluster's. No text holds the token's secret.
pub fn obtain(input: &JoinInput, device: &mut dyn JoinHost) -> Result<String, Fault> {
    runtime::run(join(input, device))
}

async fn join(input: &JoinInput, device: &mut dyn JoinHost) -> Result<String, Fault> {
    device.progress("looking for the cluster");
    let found = discovery::discover(&input.cluster, &input.via, input.now).await?;
    device.found(&found.cluster)?;
    pin::weaknesses(&found.cluster.ca_pem).iter().for_each(|text| device.notice(text));
    let (api, reply) = configured(&found, &input.cluster).await?;
    let cluster = cluster_configuration(&reply)?;
    cluster_networks::judge(&cluster.networking, &input.servers(api.server()))?;
    let version = version(&api, &cluster).await?;
    config::check_skew(&input.kubelet_version, &version, &input.target)?;
    existing_node(&api, input, device).await?;
    let now = found.cluster.time.unwrap_or(input.now);
    certificate(&api, input, now, device).await
}

/// Of the control plane. kubeadm would ask the Internet what a channel means, or take its own version; the API server
/// knows.
pub(super) async fn version(api: &Client, cluster: &ClusterConfiguration) -> Result<String, Error> {
    match &cluster.kubernetes_version {
        Some(version) => Ok(version.clone()),
        None => server_version(api).await,
    }
}

/// Of the API server itself; anyone may ask it (ClusterRole `system:public-info-viewer`).
pub(super) async fn server_version(api: &Client) -> Result<String, Error> {
    let reply = api.get(verified::VERSION).await?;
    let version = reply.body["gitVersion"].as_str().map(str::to_owned);
    version.ok_or_else(|| Error::answer(Code::ApiError, format!("API server {} names no version", api.host())))
}

/// The certificate chain. Its key is on record before the CSR is sent, so that a power cut costs nothing.
async fn certificate(
    api: &Client,
    input: &JoinInput,
    now: SystemTime,
    device: &mut dyn JoinHost,
) -> Result<String, Fault> {
    device.progress("asking for a certificate");
    let request = device.request(false)?;
    let why = match csr::certificate(api, &request, &input.node_name, now, input.csr_wait).await? {
        Outcome::Issued(chain) => return Ok(chain),
        Outcome::Unusable(_, why) => why,
    };
    device.notice(&format!("{why}: sending another"));
    let request = device.request(true)?;
    match csr::certificate(api, &request, &input.node_name, now, input.csr_wait).await? {
        Outcome::Issued(chain) => Ok(chain),
        Outcome::Unusable(code, why) => Err(Fault::new(code, format!("{why}; the next try sends another"))),
    }
}
