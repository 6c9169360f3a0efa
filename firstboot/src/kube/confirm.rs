// SPDX-License-Identifier: Apache-2.0
//! What the privileged part finds out about the cluster by itself, at servers that have proven themselves to it.
//!
//! The join worker may be in an attacker's hands. So what it says of the cluster is a hint: which of the seed's API
//! servers answers, and certificates, of which only those count that the seed pins. [`confirm`] looks at the cluster
//! again, through these alone, before the token is sent; which server and which CA the device keeps is what the cluster
//! publishes there. [`joined`] then reads, as the node, what else the device keeps. Of the join worker's own words only
//! the certificate is left, and that has to be signed by this cluster, for this node and its key.

use std::time::Instant;

use zeroize::Zeroizing;

use super::chain::Roots;
use super::client::{Client, Reply, url_of};
use super::cluster_config_maps::{cluster_configuration, kubeadm_config, kubelet_config};
use super::config;
use super::contract::{FoundCluster, JoinHost, JoinInput, Joined};
use super::csr::Request;
use super::error::{Error, Kind};
use super::node::NodeClient;
use super::tls::{self, PinnedCa, Validity};
use super::{cluster_networks, discovery, join, kubeconfig, pin, runtime};
use crate::fault::{Code, Fault};
use crate::secret::Secret;

/// Longest of the texts that are kept as one word in the journal, bytes.
const WORD: usize = 200;

/// A cluster that has proven to the privileged part that it is the seed's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfirmedCluster {
    /// Which of the seed's API servers proved it, its CA bundle and its clock.
    pub found: FoundCluster,
    /// Where the cluster says that it answers; the seed's own endpoint when the seed carries the CA.
    pub server: String,
}

/// Looks at the cluster of the seed again: two requests at most, without a credential.
///
/// # Errors
/// The cluster's: the server that the hint names is not proven by a certificate that the seed names.
pub fn confirm(input: &JoinInput, hint: &FoundCluster) -> Result<ConfirmedCluster, Fault> {
    let known = pin::certificates(&hint.ca_pem).unwrap_or_default();
    runtime::run(async {
        let found = discovery::again(&input.cluster, &input.via, hint.endpoint, &known, input.now).await?;
        Ok(ConfirmedCluster { found: found.cluster, server: found.server })
    })
}

/// Whether this image's kubelet fits the API server's own version.
///
/// # Errors
/// As [`config::check_skew`]; the cluster's when the server does not say its version.
pub fn check_version(input: &JoinInput, cluster: &ConfirmedCluster) -> Result<(), Fault> {
    let roots = pin::certificates(&cluster.found.ca_pem).unwrap_or_default();
    let server = url_of(&input.cluster.apiserver[cluster.found.endpoint]);
    let validity = cluster.found.time.map_or(Validity::SystemClock, |time| Validity::Server(time, Instant::now()));
    let version = runtime::run(async {
        let tls = tls::verified(PinnedCa::new(roots, validity)).map_err(tls::setup)?;
        Ok(join::server_version(&Client::through(&input.via, &server, tls)?).await?)
    })?;
    config::check_skew(&input.kubelet_version, &version, &input.target)
}

/// The certificate chain in `pem`, in one form, when the cluster has signed it for this node and its key.
///
/// # Errors
/// Why it is not the node's; a predicate of the certificate.
pub fn node_certificate(
    pem: &str,
    input: &JoinInput,
    request: &Request,
    cluster: &ConfirmedCluster,
) -> Result<String, String> {
    let plain = kubeconfig::ca_certificates(pem).unwrap_or_default();
    let (Some(chain), true) = (pin::certificates(&plain), request.matches_request(&plain, &input.node_name)) else {
        return Err("is not for this node and its key".to_owned());
    };
    let Some((leaf, intermediates)) = chain.split_first() else { return Err("is missing".to_owned()) };
    let roots = Roots::new(pin::certificates(&cluster.found.ca_pem).unwrap_or_default());
    let now = cluster.found.time.unwrap_or(input.now);
    roots.verify_client(leaf, intermediates, now).map_err(|refusal| refusal.what)?;
    Ok(plain)
}

/// Reads, as the node, what the device keeps of the cluster; four requests, the first of which proves the certificate.
///
/// kubeadm goes over to cluster-info's `server` whatever happens. Where that one does not answer, as behind a NAT,
/// the seed's own endpoint has already proven that it is the same cluster, and stays.
///
/// # Errors
/// The image's for a version that does not fit, else the cluster's.
pub fn joined(
    input: &JoinInput,
    cluster: &ConfirmedCluster,
    certificate_pem: String,
    key: &Secret<String>,
    device: &mut dyn JoinHost,
) -> Result<Joined, Fault> {
    let ca_pem = &cluster.found.ca_pem;
    let pair = Zeroizing::new([certificate_pem.as_str(), key.expose().as_str()].concat());
    let node = NodeClient::through(&input.via, &input.node_name, &cluster.server, ca_pem, &pair)?;
    node.run(async {
        let (api, reply) = configured(&node.client, input, cluster, device).await?;
        let kubeadm = cluster_configuration(&reply)?;
        cluster_networks::judge(&kubeadm.networking, &input.servers(api.server()))?;
        let version = join::version(&api, &kubeadm).await?;
        config::check_skew(&input.kubelet_version, &version, &input.target)?;
        let (networks, node_ports) = (kubeadm.networking.ranges(), kubeadm.node_ports.clone());
        if ![&version, &networks, &node_ports].iter().all(|word| is_word(word)) {
            let text = "ConfigMap kubeadm-config: a version, range of addresses or range of ports is no single word";
            return Err(Fault::new(Code::ClusterConfiguration, text));
        }
        let kubelet = kubelet_config(&api, &kubeadm, &input.cri_socket, input.resolv_conf.as_deref()).await?;
        kubeadm.odd.iter().chain(&kubelet.odd).for_each(|odd| device.notice(odd));
        let leftover_node = match api.get(&node.node_path()).await {
            Ok(_) => true,
            Err(Error { kind: Kind::Status(404), .. }) => false,
            Err(error) => return Err(error.into()),
        };
        Ok(Joined {
            server: api.server().to_owned(),
            ca_pem: ca_pem.clone(),
            cluster_version: version,
            networks,
            node_ports,
            api_service: kubeadm.networking.api_service().map(|a| a.to_string()).unwrap_or_default(),
            kubelet_config: kubelet.text,
            cri_socket: input.cri_socket.clone(),
            certificate_pem,
            leftover_node,
        })
    })
}

/// The first request as the node, kubeadm-config; decides which address of the cluster is kept.
async fn configured(
    preferred: &Client,
    input: &JoinInput,
    cluster: &ConfirmedCluster,
    device: &mut dyn JoinHost,
) -> Result<(Client, Reply), Error> {
    let seeds = preferred.at(&url_of(&input.cluster.apiserver[cluster.found.endpoint]));
    match kubeadm_config(preferred).await {
        Ok(reply) => Ok((preferred.clone(), reply)),
        // What the API server itself refused it would refuse at the other address too.
        Err(error) if !matches!(error.kind, Kind::Status(_)) && preferred.server() != seeds.server() => {
            let (seed, error) = (seeds.host(), error.text);
            device.notice(&format!("keeping API server {seed} of the seed, as cluster-info's own failed: {error}"));
            let reply = kubeadm_config(&seeds).await?;
            Ok((seeds, reply))
        }
        Err(error) => Err(error),
    }
}

fn is_word(text: &str) -> bool {
    text.len() <= WORD && text.bytes().all(|b| b.is_ascii_graphic())
}
