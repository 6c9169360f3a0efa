// SPDX-License-Identifier: Apache-2.0
//! What the cluster knows: nodes, certificate signing requests, events, the pin of its CA.

use super::ControlPlane;
use crate::wait;
use anyhow::{Context, Result, bail};
use firstboot::text::hex;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::time::Duration;
use x509_cert::Certificate;
use x509_cert::der::{DecodePem, Encode};

/// A certificate signing request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csr {
    /// Name of the object.
    pub name: String,
    /// Identity that made the request.
    pub requester: String,
    /// Whether a certificate was issued.
    pub issued: bool,
}

impl ControlPlane {
    /// `sha256:` and the hex digest of the CA's public key, as `kubeadm join` takes it.
    pub fn ca_pin(&self) -> Result<String> {
        let certificate = Certificate::from_pem(self.ca_pem()?).context("parse the cluster CA")?;
        let key = certificate.tbs_certificate.subject_public_key_info.to_der().context("encode the CA's public key")?;
        Ok(format!("sha256:{}", hex(&Sha256::digest(&key))))
    }

    /// Waits until node `name` is Ready; calls `look` between two tries, so that the caller can stop waiting.
    pub fn wait_node_ready(&self, name: &str, limit: Duration, mut look: impl FnMut() -> Result<()>) -> Result<Value> {
        let mut last = "the node never appeared".to_owned();
        let found = wait::every(Duration::from_millis(500), &format!("node {name} to be Ready"), limit, || {
            look()?;
            let Some(node) = self.node(name)? else { return Ok(None) };
            last = conditions(&node);
            Ok(is_ready(&node).then_some(node))
        });
        found.map_err(|e| e.context(format!("last seen: {last}")))
    }

    /// Waits until the node of this name is there and Ready, by kubectl's watch: as exact as the API server's event.
    pub fn wait_ready(&self, name: &str, limit: Duration) -> Result<()> {
        let (node, limit) = (format!("node/{name}"), format!("--timeout={}s", limit.as_secs()));
        self.kubectl(&["wait", "--for=create", &node, &limit])?;
        self.kubectl(&["wait", "--for=condition=Ready", &node, &limit]).map(drop)
    }

    /// The node of this name, as JSON.
    pub fn node(&self, name: &str) -> Result<Option<Value>> {
        Ok(self.nodes()?.into_iter().find(|n| n["metadata"]["name"] == name))
    }

    /// All nodes, as JSON.
    pub fn nodes(&self) -> Result<Vec<Value>> {
        items(self.get(&["nodes"])?)
    }

    /// All certificate signing requests.
    pub fn csrs(&self) -> Result<Vec<Csr>> {
        let list = items(self.get(&["certificatesigningrequests"])?)?;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        Ok(list
            .iter()
            .map(|csr| Csr {
                name: text(&csr["metadata"]["name"]),
                requester: text(&csr["spec"]["username"]),
                issued: csr["status"]["certificate"].is_string(),
            })
            .collect())
    }

    /// Events of all namespaces with this reason, as `namespace/object: message`.
    pub fn events(&self, reason: &str) -> Result<Vec<String>> {
        let list = items(self.get(&["events", "-A", "--field-selector", &format!("reason={reason}")])?)?;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        Ok(list
            .iter()
            .map(|e| {
                let object = &e["involvedObject"];
                format!("{}/{}: {}", text(&object["namespace"]), text(&object["name"]), text(&e["message"]))
            })
            .collect())
    }

    /// Deletes a node and every signing request, so that a device of the same name joins a clean cluster.
    pub fn forget_nodes(&self) -> Result<()> {
        for kind in ["nodes", "certificatesigningrequests"] {
            self.kubectl(&["delete", kind, "--all", "--wait=true", "--timeout=60s"])?;
        }
        Ok(())
    }
}

/// The list in a kubectl answer.
fn items(mut answer: Value) -> Result<Vec<Value>> {
    match answer["items"].take() {
        Value::Array(list) => Ok(list),
        _ => bail!("read items in kubectl's answer"),
    }
}

/// Whether a node's condition Ready is true.
pub fn is_ready(node: &Value) -> bool {
    condition(node, "Ready").is_some_and(|c| c["status"] == "True")
}

/// One condition of a node or pod.
pub fn condition<'v>(object: &'v Value, kind: &str) -> Option<&'v Value> {
    object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)
}

/// A node's conditions on one line, for people.
pub fn conditions(node: &Value) -> String {
    let list = node["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let word = |v: &Value| v.as_str().unwrap_or("?").to_owned();
    let one = |c: &Value| format!("{}={} ({})", word(&c["type"]), word(&c["status"]), word(&c["message"]));
    match list {
        [] => "no conditions yet".to_owned(),
        list => list.iter().map(one).collect::<Vec<_>>().join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn readiness_is_read_from_the_condition() {
        let node = |status: &str| {
            json!({"status": {"conditions": [
                {"type": "MemoryPressure", "status": "False", "message": "fine"},
                {"type": "Ready", "status": status, "message": "posting"}]}})
        };
        assert!(is_ready(&node("True")));
        assert!(!is_ready(&node("Unknown")));
        assert!(!is_ready(&json!({})));
        assert_eq!(conditions(&node("False")), "MemoryPressure=False (fine); Ready=False (posting)");
    }
}
