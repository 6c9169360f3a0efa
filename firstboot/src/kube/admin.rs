// SPDX-License-Identifier: Apache-2.0
//! The API as the administrator of a cluster, by kubeadm's admin.conf: on the control plane of a cluster that this device
//! created, and on no other device.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

use super::client::Client;
use super::csr::{self, CSRS, condition};
use super::error::{Error, Kind};
use super::node::identified;
use super::{kubeconfig, runtime};
use crate::fault::{Code, Fault};
use crate::proxy::Via;
use crate::text::hex;

/// The signer of client certificates, other than kubelets'. It refuses the group `system:masters`.
const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// Who changed what, in the objects that are applied.
const FIELD_MANAGER: &str = "firstboot";

/// A client that is the administrator. Blocking; keeps its connection.
pub struct AdminClient {
    client: Client,
    runtime: Runtime,
}

impl AdminClient {
    /// The user of a kubeconfig that kubeadm wrote.
    ///
    /// # Errors
    /// The host's: it cannot be read. No text holds anything of the key.
    pub fn new(conf: &str) -> Result<Self, Fault> {
        let unusable = |why: String| Fault::new(Code::NodeCredential, format!("use admin.conf: {why}"));
        let cluster = kubeconfig::read(conf).map_err(unusable)?;
        let pem = kubeconfig::user_pem(conf).map_err(unusable)?;
        let client = identified(&Via::default(), &cluster.server, &cluster.ca_pem, &pem).map_err(unusable)?;
        Ok(AdminClient { client, runtime: runtime::new()? })
    }

    /// Makes an object be as it is given (server-side apply): created, or changed where it differs.
    ///
    /// # Errors
    /// The cluster's.
    pub fn apply(&self, path: &str, object: &Value) -> Result<(), Fault> {
        runtime::block_on(&self.runtime, async {
            self.client.apply(path, FIELD_MANAGER, object).await.map(drop).map_err(Fault::from)
        })
    }

    /// The certificate for a certificate request, PEM: approved, and signed by the cluster's CA. The same request is
    /// taken up again where it was sent before.
    ///
    /// # Errors
    /// The cluster's: it is not signed, or not within `limit`.
    pub fn sign(&self, request: &str, limit: Duration) -> Result<String, Fault> {
        let digest = Sha256::digest(request.as_bytes());
        let name = format!("firstboot-admin-{}", hex(&digest[..8]));
        runtime::block_on(&self.runtime, self.signed(&name, request, limit))
    }

    async fn signed(&self, name: &str, request: &str, limit: Duration) -> Result<String, Fault> {
        let object = csr::object(name, SIGNER, request);
        match self.client.post(CSRS, &object).await {
            Ok(_) | Err(Error { kind: Kind::Status(409), .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let path = format!("{CSRS}/{name}");
        let mut found = self.client.get(&path).await?.body;
        if found["status"]["conditions"].as_array().is_none_or(Vec::is_empty) {
            found["status"]["conditions"] = json!([{
                "type": "Approved",
                "status": "True",
                "reason": "FirstbootSeed",
                "message": "the seed that created this cluster carries this request",
            }]);
            self.client.put(&format!("{path}/approval"), &found).await?;
        }
        let refused = |why: &str| Fault::new(Code::CsrRejected, format!("CSR {name} of the administrator {why}"));
        let selector = format!("metadata.name={name}");
        let seen = self.client.watch(CSRS, &selector, None, limit, |event, csr| {
            if condition(csr, "Failed").or_else(|| condition(csr, "Denied")).is_some() || event == "DELETED" {
                return Err(refused("was not signed: make a seed with another admin-request"));
            }
            let chain = csr["status"]["certificate"].as_str().and_then(|text| STANDARD.decode(text).ok());
            Ok(chain.and_then(|pem| String::from_utf8(pem).ok()))
        });
        seen.await?
            .ok_or_else(|| Fault::new(Code::CsrNotSigned, format!("CSR {name} of the administrator is not signed yet")))
    }
}
