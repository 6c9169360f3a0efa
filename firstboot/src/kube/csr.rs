// SPDX-License-Identifier: Apache-2.0
//! The node's client certificate: the CertificateSigningRequest as kubelet makes it.
//!
//! The CSR's name is a digest over key, subject and usages, and the key is stored before the CSR is sent: after a
//! power cut the same key gives the same name, the server answers 409, and the old request is taken up again. Neither
//! the token nor the node may delete a CSR, so one from which nothing can come any more (denied, failed, its
//! certificate expired) is left behind, and a new key makes a new one.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_cert::der::asn1::{Any, ObjectIdentifier, PrintableStringRef, Utf8StringRef};
use x509_cert::der::{Encode, Tag, Tagged};
use x509_cert::name::Name;

use super::client::Client;
use super::error::{Error, Kind, remote};
use super::{pin, tls};
use crate::certificate;
use crate::fault::{Code, Fault};
use crate::text::rfc3339;

/// Collection of CSRs.
pub const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// The signer of kubelets' client certificates.
pub const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// What the certificate is for, with an elliptic key.
pub const USAGES: [&str; 2] = ["digital signature", "client auth"];
/// Attributes of a name (RFC 5280, appendix A.1).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");

/// Name of the CSR object that belongs to a public key and a node.
pub(super) fn name(spki: &[u8], node: &str) -> String {
    let mut hash = Sha256::new().chain_update(spki);
    for part in ["system:nodes", node].iter().chain(&USAGES) {
        hash.update([0]);
        hash.update(part);
    }
    hash.finalize().iter().take(16).fold("node-csr-".to_owned(), |name, b| name + &format!("{b:02x}"))
}

/// A CSR object, of a request in PEM.
pub(super) fn object(name: &str, signer: &str, request: &str) -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": { "name": name },
        "spec": { "signerName": signer, "usages": USAGES, "request": STANDARD.encode(request) },
    })
}

/// The public side of the node's key: what is sent, and what a certificate is held against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Name of the CSR object.
    pub name: String,
    /// PKCS#10, PEM.
    pub pem: String,
    /// The public key, DER SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
}

impl Request {
    /// The CSR object.
    fn csr(&self) -> Value {
        object(&self.name, SIGNER, &self.pem)
    }

    /// Whether a certificate is over this key and names this node, and nothing besides: another organization would be
    /// another group of Kubernetes.
    pub fn matches_request(&self, chain_pem: &str, node: &str) -> bool {
        let Some(leaf) = pin::certificates(chain_pem).and_then(|c| c.into_iter().next()) else { return false };
        let Some(leaf) = certificate::parse(&leaf) else { return false };
        let key = leaf.subject_public_key_info.to_der();
        key.is_ok_and(|key| key == self.spki) && is_nodes_name(&leaf.subject, node)
    }
}

/// Whether a subject is the node's, and nothing besides: `O=system:nodes, CN=system:node:<name>`.
pub fn is_nodes_name(subject: &Name, node: &str) -> bool {
    let name = format!("system:node:{node}");
    let wanted = [(ORGANIZATION, Some("system:nodes")), (COMMON_NAME, Some(name.as_str()))];
    let found = attributes(subject);
    found.len() == wanted.len() && wanted.iter().all(|attribute| found.contains(attribute))
}

/// All attributes of a name, over all its RDNs: to Go, neither their order nor their grouping makes another name. None
/// in place of a value that is no text.
fn attributes(name: &Name) -> Vec<(ObjectIdentifier, Option<&str>)> {
    name.0.iter().flat_map(|rdn| rdn.0.iter()).map(|part| (part.oid, text(&part.value))).collect()
}

/// A value of the types that signers use for names.
fn text(value: &Any) -> Option<&str> {
    match value.tag() {
        Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().ok().map(|s| s.as_str()),
        _ => value.decode_as::<Utf8StringRef<'_>>().ok().map(|s| s.as_str()),
    }
}

/// What came of a CSR.
pub enum Outcome {
    /// It is signed: the certificate chain, PEM.
    Issued(String),
    /// It is from an earlier attempt and nothing can come of it any more, for this reason; another key and CSR can.
    Unusable(Code, String),
}

/// Sends the CSR and waits, by one watch of at most `limit`, until it is signed. `now` is the cluster's clock.
///
/// # Errors
/// Refused, denied, failed, or still pending; always the cluster's move.
pub async fn certificate(
    client: &Client,
    request: &Request,
    node: &str,
    now: SystemTime,
    limit: Duration,
) -> Result<Outcome, Fault> {
    let name = &request.name;
    // Ours from before a power cut: no other device has this key.
    let adopted = match client.post(CSRS, &request.csr()).await {
        Ok(_) => false,
        Err(Error { kind: Kind::Status(409), .. }) => true,
        Err(error) => return Err(error.into()),
    };
    let (mut approved, mut first) = (false, true);
    let selector = format!("metadata.name={name}");
    let seen = client
        .watch(CSRS, &selector, None, limit, |event, csr| {
            if event == "DELETED" {
                return Err(Fault::new(Code::CsrRejected, format!("CSR {name} was deleted before it was signed")));
            }
            approved = condition(csr, "Approved").is_some();
            // What is decided by the first event was decided before this attempt.
            let old = adopted && std::mem::take(&mut first);
            match state(request, node, csr, now) {
                CsrState::UnderWay => Ok(None),
                CsrState::Signed(chain) => Ok(Some(Outcome::Issued(chain))),
                CsrState::Lost(code, why) if old => Ok(Some(Outcome::Unusable(code, format!("CSR {name} {why}")))),
                CsrState::Lost(code, why) => {
                    Err(Fault::new(code, format!("CSR {name} {why}; the next try sends another")))
                }
            }
        })
        .await?;
    seen.ok_or_else(|| pending(name, approved))
}

/// How far a CSR is.
#[derive(Debug, PartialEq, Eq)]
enum CsrState {
    UnderWay,
    /// With this certificate chain, PEM.
    Signed(String),
    /// Without a certificate for good, for this reason.
    Lost(Code, String),
}

fn state(request: &Request, node: &str, csr: &Value, now: SystemTime) -> CsrState {
    if let Some(why) = condition(csr, "Denied") {
        return CsrState::Lost(Code::CsrRejected, format!("was denied{why}"));
    }
    if let Some(why) = condition(csr, "Failed") {
        return CsrState::Lost(Code::CsrRejected, format!("could not be signed{why}"));
    }
    let Some(encoded) = csr["status"]["certificate"].as_str() else { return CsrState::UnderWay };
    let chain = STANDARD.decode(encoded).ok().and_then(|pem| String::from_utf8(pem).ok());
    let Some(chain) = chain.filter(|chain| request.matches_request(chain, node)) else {
        return CsrState::Lost(Code::CsrNotSigned, "has a certificate that is not for this key and node".to_owned());
    };
    let until = pin::certificates(&chain).and_then(|c| tls::dates(c.first()?)).map(|(_, until)| until);
    match until.filter(|until| *until <= now) {
        Some(until) => {
            CsrState::Lost(Code::CsrNotSigned, format!("has a certificate that expired at {}", rfc3339(until)))
        }
        None => CsrState::Signed(chain),
    }
}

/// Reason and message of a condition that holds, as `: …` for a sentence.
pub(super) fn condition(csr: &Value, kind: &str) -> Option<String> {
    let conditions = csr["status"]["conditions"].as_array()?;
    let held = conditions.iter().find(|c| c["type"] == kind && c["status"] != "False")?;
    let words: Vec<&str> = ["reason", "message"].iter().filter_map(|k| held[*k].as_str()).collect();
    let words = remote(&words.join(" "));
    Some(if words.is_empty() { words } else { format!(": {words}") })
}

fn pending(name: &str, approved: bool) -> Fault {
    match approved {
        false => {
            let command = format!("kubectl certificate approve {name}");
            let text = format!("CSR {name} waits for approval by an administrator of the cluster: {command}");
            Fault::new(Code::CsrPending, text)
        }
        true => {
            let text = format!("CSR {name} is approved but not signed: no signer for {SIGNER} is at work");
            Fault::new(Code::CsrNotSigned, text)
        }
    }
}

#[cfg(test)]
#[path = "csr_tests.rs"]
mod tests;
