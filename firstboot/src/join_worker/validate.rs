// SPDX-License-Identifier: Apache-2.0
//! Whether what the join worker hands over can be what the seed's cluster gave.

use crate::fault::{Code, Fault};
use crate::kube::cluster_networks::check_beside;
use crate::kube::config::check_skew;
use crate::kube::contract::{JoinInput, Joined};
use crate::kube::csr::Request;
use crate::kube::{kubeconfig, pin};
use crate::seed::Trust;
use ipnet::IpNet;

/// Longest of the texts that are kept as one word in the journal, bytes.
const WORD: usize = 200;

/// Returns the message when nothing in it is impossible.
///
/// The certificate has to be for this node and over the key that the privileged part made, the CA has to be the seed's,
/// the address one that kubelet.conf can hold, the versions ones that go together. What cannot be found out here:
/// whether the cluster's CA bundle has more than the seed names, and kubelet's configuration, over which kubelet lays
/// the hardened host's.
///
/// # Errors
/// The cluster's fault, by the name of what is wrong; the image's for a version that does not fit.
pub(super) fn joined(message: Joined, input: &JoinInput, request: Option<&Request>) -> Result<Joined, Fault> {
    if !request.is_some_and(|request| request.matches_request(&message.certificate_pem, &input.node_name)) {
        return Err(impossible("the certificate is not for this node and its key"));
    }
    if private(&message.certificate_pem) || private(&message.ca_pem) || !is_cas(&message.ca_pem, &input.cluster.trust) {
        return Err(impossible("the CA is not the one that the seed names"));
    }
    if message.server.len() > WORD || !kubeconfig::is_server(&message.server) {
        return Err(impossible("the API server is no https:// address"));
    }
    check_skew(&input.kubelet_version, &message.cluster_version, &input.target)?;
    let servers = input.servers(&message.server);
    let can_be = |range: &str| range.parse::<IpNet>().is_ok_and(|net| check_beside(&net, &servers).is_ok());
    let ranges = || message.networks.split(',').all(can_be);
    let words = [&message.cluster_version, &message.node_ports, &message.networks];
    let plain = |word: &&String| word.len() <= WORD && word.bytes().all(|b| b.is_ascii_graphic());
    if !words.iter().all(plain) || !(message.networks.is_empty() || ranges()) || message.cri_socket != input.cri_socket
    {
        return Err(impossible("kubeadm-config has values that cannot be"));
    }
    Ok(message)
}

/// What no join worker says that is as it was built.
pub(super) fn impossible(why: &str) -> Fault {
    Fault::new(Code::NetworkPart, format!("join through the join worker: {why}"))
}

/// Whether a text of certificates holds a key as well: it would stand before the node's own.
fn private(pem: &str) -> bool {
    pem.contains("PRIVATE KEY")
}

fn is_cas(bundle: &str, trust: &Trust) -> bool {
    let Some(certificates) = pin::certificates(bundle) else { return false };
    match trust {
        Trust::Pins(pins) => !pin::pinned(&certificates, pins).is_empty(),
        Trust::Ca(pem) => pin::certificates(pem).is_some_and(|seeds| seeds == certificates),
    }
}
