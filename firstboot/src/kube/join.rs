// SPDX-License-Identifier: Apache-2.0
//! The join, top to bottom: discovery, configuration, name, certificate. Seven requests, no file.
//!
//! 1–2 cluster-info (unverified, verified) · 3 kubeadm-config · 4 kubelet-config · 5 Node of this name ·
//! 6 CSR · 7 watch for its certificate. All but the first share one connection. With `ca-cert` in the seed, one request
//! for the server's time takes the place of 1–2. Where kubeadm-config names no version, the API server is asked for it.

use std::time::SystemTime;

use super::client::Client;
use super::cluster_config_maps::{config_map, configured, data, existing_node};
use super::config::ClusterConfiguration;
use super::contract::{JoinHost, JoinInput, Joined};
use super::csr::{self, Outcome};
use super::error::Error;
use super::{cluster_networks, config, discovery, pin, runtime};
use crate::fault::{Code, Fault};

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
    cluster_networks::judge(&cluster.networking, &input.servers(api.server()))?;
    let version = version(&api, &cluster).await?;
    config::check_skew(&input.kubelet_version, &version, &input.target)?;
    let published = config_map(&api, input, "kubelet-config").await?;
    let kubelet_config = data(&published, "kubelet-config", "kubelet")?;
    let kubelet_config =
        config::kubelet_config(kubelet_config, &cluster, &input.cri_socket, input.resolv_conf.as_deref())?;
    cluster.odd.iter().chain(&kubelet_config.odd).for_each(|odd| device.notice(odd));
    let leftover = existing_node(&api, input, device).await?;
    let now = found.server_time.unwrap_or(input.now);
    let certificate_pem = certificate(&api, input, now, device).await?;
    Ok(Joined {
        server: api.server().to_owned(),
        ca_pem: found.ca_pem,
        networks: cluster.networking.ranges(),
        node_ports: cluster.node_ports,
        cluster_version: version,
        kubelet_config: kubelet_config.text,
        cri_socket: input.cri_socket.clone(),
        certificate_pem,
        leftover_node: leftover.is_some(),
    })
}

/// Of the control plane. kubeadm would ask the Internet what a channel means, or take its own version; the API server
/// knows.
async fn version(api: &Client, cluster: &ClusterConfiguration) -> Result<String, Error> {
    if let Some(version) = &cluster.kubernetes_version {
        return Ok(version.clone());
    }
    let reply = api.get("/version").await?;
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
