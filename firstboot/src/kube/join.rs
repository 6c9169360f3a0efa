// SPDX-License-Identifier: Apache-2.0
//! The join, top to bottom: discovery, configuration, name, certificate. Seven requests, no file.
//!
//! 1–2 cluster-info (unverified, verified) · 3 kubeadm-config · 4 kubelet-config · 5 Node of this name ·
//! 6 CSR · 7 watch for its certificate. All but the first share one connection. With `ca-cert` in the seed, one request
//! for the server's time takes the place of 1–2.

use std::time::SystemTime;

use super::client::Client;
use super::cluster_config_maps::{config_map, configured, data, existing_node};
use super::contract::{JoinHost, JoinInput, Joined};
use super::csr::{self, Outcome};
use super::{config, discovery, pin, runtime};
use crate::fault::Fault;

/// Joins: blocks until the certificate is there or something failed. Trying again is always safe.
///
/// # Errors
/// One fault, one line: the image's for a version that does not fit, the host's when the key cannot be kept, else
/// the cluster's. No text holds the token's secret.
pub fn obtain(input: &JoinInput, device: &mut dyn JoinHost) -> Result<Joined, Fault> {
    runtime::run(join(input, device))
}

async fn join(input: &JoinInput, device: &mut dyn JoinHost) -> Result<Joined, Fault> {
    device.progress("looking for the cluster");
    let found = discovery::discover(&input.cluster, &input.via, input.now).await?;
    if let Some(time) = found.server_time {
        device.server_time(time)?;
    }
    pin::weaknesses(&found.ca_pem).iter().for_each(|text| device.notice(text));
    let (api, reply) = configured(&found, input, device).await?;
    let cluster = config::cluster_configuration(data(&reply, "kubeadm-config", "ClusterConfiguration")?)?;
    config::check_skew(&input.kubelet_version, &cluster.kubernetes_version, &input.target)?;
    let published = config_map(&api, input, "kubelet-config").await?;
    let kubelet_config = data(&published, "kubelet-config", "kubelet")?;
    let kubelet_config =
        config::kubelet_config(kubelet_config, &cluster, &input.cri_socket, input.resolv_conf.as_deref())?;
    let leftover = existing_node(&api, input, device).await?;
    let now = found.server_time.unwrap_or(input.now);
    let certificate_pem = certificate(&api, input, now, device).await?;
    Ok(Joined {
        server: api.server().to_owned(),
        ca_pem: found.ca_pem,
        networks: cluster.networking.ranges(),
        node_ports: cluster.api_server.node_ports(),
        cluster_version: cluster.kubernetes_version,
        kubelet_config,
        cri_socket: input.cri_socket.clone(),
        certificate_pem,
        leftover_node: leftover.is_some(),
    })
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
