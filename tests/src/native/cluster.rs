// SPDX-License-Identifier: Apache-2.0
//! The cluster as its administrator sees it, by one kept connection: thousands of questions take no program each.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use firstboot::kube::client::{Client, Reply};
use firstboot::kube::error::{Error, Kind};
use firstboot::kube::pin;
use firstboot::kube::tls::{PinnedCa, Validity, identified};
use qemu::control_plane::ControlPlane;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, SystemTime};
use tokio::runtime::Runtime;

const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// A client of the API server, be it the administrator's or a node's.
pub struct Cluster {
    client: Client,
    runtime: Runtime,
}

impl Cluster {
    /// The administrator's.
    ///
    /// # Errors
    /// When the harness's kubeconfig cannot be used.
    pub fn of(plane: &ControlPlane) -> Result<Self> {
        let conf = std::fs::read_to_string(plane.kubeconfig()).context("read the administrator's kubeconfig")?;
        let data = |key: &str| -> Result<String> {
            let line = conf.lines().find_map(|l| l.trim().strip_prefix(key)?.strip_prefix(": "));
            let bytes = STANDARD.decode(line.with_context(|| format!("find {key}"))?)?;
            String::from_utf8(bytes).with_context(|| format!("read {key}"))
        };
        let pair = format!("{}{}", data("client-certificate-data")?, data("client-key-data")?);
        Cluster::by_pair(&format!("https://{}", plane.endpoint_for_host()), &plane.ca_pem()?, &pair)
    }

    /// The node's own, by kubelet's files below a root directory.
    ///
    /// # Errors
    /// When they are not there or cannot be used.
    pub fn as_node(root: &Path) -> Result<Self> {
        let text = |path: &str| -> Result<String> {
            let mut path = root.join(path);
            if let Ok(target) = path.read_link() {
                path = root.join(target.strip_prefix("/").unwrap_or(&target));
            }
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let conf = text("etc/kubernetes/kubelet.conf")?;
        let server = conf.lines().find_map(|l| l.trim().strip_prefix("server: ")).context("find the server")?;
        let pair = text("var/lib/kubelet/pki/kubelet-client-current.pem")?;
        Cluster::by_pair(server, &text("etc/kubernetes/pki/ca.crt")?, &pair)
    }

    fn by_pair(server: &str, ca: &str, pair: &str) -> Result<Self> {
        let ca = PinnedCa::new(pin::certificates(ca).context("read the CA")?, Validity::SystemClock);
        let chain = pin::certificates(pair).context("read the certificate")?;
        let tls = identified(ca, chain, PrivateKeyDer::from_pem_slice(pair.as_bytes()).context("read the key")?)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Cluster { client: Client::new(server, tls)?, runtime })
    }

    /// An object; none where there is none.
    ///
    /// # Errors
    /// Any other answer, or none.
    pub fn get(&self, path: &str) -> Result<Option<Value>> {
        absent_or(self.runtime.block_on(self.client.get(path)), 404)
    }

    /// Creates an object; one that is there stays.
    fn create(&self, path: &str, object: &Value) -> Result<()> {
        absent_or(self.runtime.block_on(self.client.post(path, object)), 409).map(drop)
    }

    fn patch(&self, path: &str, patch: &Value) -> Result<()> {
        Ok(self.runtime.block_on(self.client.patch(path, patch)).map(drop)?)
    }

    fn delete(&self, path: &str) -> Result<()> {
        absent_or(self.runtime.block_on(self.client.delete(path, &json!({}))), 404).map(drop)
    }

    /// The Node of this name.
    ///
    /// # Errors
    /// As [`Cluster::get`].
    pub fn node(&self, name: &str) -> Result<Option<Value>> {
        self.get(&format!("/api/v1/nodes/{name}"))
    }

    /// The cluster has no such Node any more, nor its Lease.
    ///
    /// # Errors
    /// When it does not let go.
    pub fn forget(&self, name: &str) -> Result<()> {
        self.delete(&format!("{LEASES}/{name}"))?;
        self.delete(&format!("/api/v1/nodes/{name}"))
    }

    /// Names of the signing requests that a token has made.
    ///
    /// # Errors
    /// As [`Cluster::get`].
    pub fn csrs_by(&self, token: &str) -> Result<Vec<String>> {
        let requester = format!("system:bootstrap:{}", token.split('.').next().unwrap_or_default());
        let list = self.get(CSRS)?.context("list signing requests")?;
        let all = list["items"].as_array().cloned().unwrap_or_default();
        let ours = all.iter().filter(|csr| csr["spec"]["username"] == requester.as_str());
        Ok(ours.filter_map(|csr| csr["metadata"]["name"].as_str().map(str::to_owned)).collect())
    }

    /// Forgets a signing request.
    ///
    /// # Errors
    /// When it does not let go.
    pub fn forget_csr(&self, name: &str) -> Result<()> {
        self.delete(&format!("{CSRS}/{name}"))
    }

    /// What kubelet says when it starts: here it is, Ready, from this boot; and it renews its Lease.
    ///
    /// # Errors
    /// What the API server refuses to a node.
    pub fn register(&self, name: &str, boot_id: &str) -> Result<()> {
        let labels = json!({"kubernetes.io/hostname": name});
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
        self.create("/api/v1/nodes", &node)?;
        let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
            "lastHeartbeatTime": rfc3339(), "lastTransitionTime": rfc3339()});
        let status = json!({"status": {"conditions": [ready], "nodeInfo": {"bootID": boot_id}}});
        self.patch(&format!("/api/v1/nodes/{name}/status"), &status)?;
        // A moment ahead: what waits for it compares with a time that it took just before.
        let spec = json!({"holderIdentity": name, "renewTime": "2040-01-01T00:00:00.000000Z"});
        let meta = json!({"name": name, "namespace": "kube-node-lease"});
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec});
        self.create(LEASES, &lease)
    }
}

fn absent_or(reply: Result<Reply, Error>, code: u16) -> Result<Option<Value>> {
    match reply {
        Ok(reply) => Ok(Some(reply.body)),
        Err(Error { kind: Kind::Status(found), .. }) if found == code => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn rfc3339() -> String {
    firstboot::text::timestamp(firstboot::text::unix_seconds(SystemTime::now()))
}

/// Lets cluster-info name this server (`HOST:PORT`), and waits until it is signed anew.
///
/// # Errors
/// When the cluster does not answer, or signs nothing.
pub fn publish_server(plane: &ControlPlane, server: &str) -> Result<()> {
    let data = || -> Result<Value> {
        let mut found = plane.get(&["-n", "kube-public", "configmap", "cluster-info"])?;
        Ok(found["data"].take())
    };
    let before = data()?;
    let text = before["kubeconfig"].as_str().context("find cluster-info's kubeconfig")?;
    let line = text.lines().find(|l| l.trim_start().starts_with("server: ")).context("find cluster-info's server")?;
    let now = text.replace(line, &format!("    server: https://{server}"));
    if now == text {
        return Ok(());
    }
    let patch = json!({ "data": { "kubeconfig": now } }).to_string();
    plane.kubectl(&["-n", "kube-public", "patch", "configmap", "cluster-info", "--type=merge", "-p", &patch])?;
    let signatures = before.as_object().into_iter().flatten().filter(|(key, _)| key.starts_with("jws-"));
    let old: Vec<(&String, &Value)> = signatures.collect();
    qemu::wait::until("cluster-info to be signed anew", Duration::from_secs(60), || {
        let now = data()?;
        Ok(old.iter().all(|(key, signature)| now[key.as_str()] != **signature).then_some(()))
    })
}

/// The ranges of addresses that the cluster gave a Node for its pods.
///
/// # Errors
/// When it has none.
pub fn pod_cidr(node: &Value) -> Result<String> {
    let cidr = node["spec"]["podCIDR"].as_str().unwrap_or_default();
    ensure!(!cidr.is_empty(), "find the podCIDR of a Node");
    Ok(cidr.to_owned())
}
