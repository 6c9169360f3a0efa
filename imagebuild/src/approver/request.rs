// SPDX-License-Identifier: Apache-2.0
//! What a CertificateSigningRequest of a token of one node asks for, and whether that is its node's client certificate.
//!
//! User and groups in it are the API server's words, not the requester's (Kubernetes, "Certificate Signing Requests").
//! The API server has also verified that the requester has the key.

use crate::cluster::bootstrap_token::{COMMON, group, node_of};
use crate::cluster::word;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use firstboot::kube::csr::{SIGNER, is_nodes_name};
use firstboot::text::hex;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use x509_cert::der::{Decode, Encode};
use x509_cert::request::CertReq;

/// Usages of kubelets' client certificates: with an elliptic key, and with an RSA key
/// (pkg/apis/certificates/helpers.go).
const USAGES: [&[&str]; 2] =
    [&["client auth", "digital signature"], &["client auth", "digital signature", "key encipherment"]];

/// A request that is good as far as it says itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Id of the token.
    pub token: String,
    /// The node that it is for.
    pub node: String,
    /// SHA-256 of the public key (DER SubjectPublicKeyInfo), hex.
    pub key: String,
}

/// Why a request is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// One word, for programs.
    pub reason: &'static str,
    /// One line, for people; the device shows it.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Refusal { reason, message: message.into() }
    }
}

/// Whether the request comes from a token of one node, and nothing has decided it yet.
pub fn is_open(csr: &Value) -> bool {
    let decided = csr["status"]["conditions"].as_array().is_some_and(|all| !all.is_empty());
    !decided && is_ours(csr)
}

/// Whether the request comes from a token of one node.
pub fn is_ours(csr: &Value) -> bool {
    csr["spec"]["signerName"] == SIGNER && groups(csr).iter().any(|group| node_of(group).is_some())
}

/// Id of the token that made a request; none when no token did.
pub fn token(csr: &Value) -> Option<&str> {
    word(&csr["spec"]["username"]).strip_prefix("system:bootstrap:")
}

/// The node whose token made a request.
pub fn node(csr: &Value) -> Option<String> {
    groups(csr).iter().find_map(|group| node_of(group))
}

/// Judges a request for which [`is_ours`] holds.
///
/// # Errors
/// Why it is denied.
pub fn judge(csr: &Value) -> Result<Asked, Refusal> {
    let wrong = |message: &str| Refusal::new("FirstbootNotItsNode", message);
    let token = token(csr).ok_or_else(|| wrong("the requester is no bootstrap token"))?.to_owned();
    let node = node(csr).ok_or_else(|| wrong("the requester has no node"))?;
    let mut only: BTreeSet<&str> = COMMON.into();
    let own = group(&node);
    only.insert(&own);
    if groups(csr) != only {
        return Err(wrong(&format!("the token of node {node} is in other groups, too")));
    }
    let list = csr["spec"]["usages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let usages: BTreeSet<&str> = list.iter().map(word).collect();
    if usages.len() != list.len() || !USAGES.iter().any(|good| usages == good.iter().copied().collect()) {
        return Err(wrong("a node's certificate has the usages digital signature and client auth, and no others"));
    }
    let der = STANDARD.decode(word(&csr["spec"]["request"])).ok().and_then(|pem| only_block(&pem));
    let request = der.and_then(|der| CertReq::from_der(&der).ok());
    let request = request.ok_or_else(|| wrong("the request is no PEM as kubelet and firstboot write it"))?.info;
    // Further names would be an attribute (RFC 2985, 5.4.2). kubelet and firstboot send none at all.
    if !request.attributes.is_empty() {
        return Err(wrong("the request asks for more than a subject: a node's has no further names"));
    }
    if !is_nodes_name(&request.subject, &node) {
        return Err(wrong(&format!("this token is for node {node} alone: O=system:nodes, CN=system:node:{node}")));
    }
    let key = request.public_key.to_der().map_err(|_| wrong("the public key cannot be read"))?;
    Ok(Asked { token, node, key: hex(&Sha256::digest(&key)) })
}

/// The DER in a PEM text that has one block, in the form that everybody writes, and nothing else. Parsers differ on any
/// other text: the signer could read another request out of it than this does, for another node.
fn only_block(pem: &[u8]) -> Option<Vec<u8>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----\n";
    const END: &str = "-----END CERTIFICATE REQUEST-----\n";
    let text = std::str::from_utf8(pem).ok()?;
    let body = text.strip_prefix(BEGIN)?.strip_suffix(END)?;
    let der = STANDARD.decode(body.replace('\n', "")).ok()?;
    let whole = STANDARD.encode(&der).into_bytes();
    let lines: String = whole.chunks(64).map(|line| format!("{}\n", String::from_utf8_lossy(line))).collect();
    (lines == body).then_some(der)
}

fn groups(csr: &Value) -> BTreeSet<&str> {
    csr["spec"]["groups"].as_array().map(|all| all.iter().map(word).collect()).unwrap_or_default()
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
