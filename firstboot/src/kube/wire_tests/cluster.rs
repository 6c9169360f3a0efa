// SPDX-License-Identifier: Apache-2.0
//! A cluster of one small TLS server: what kube-apiserver answers to a join, and who asked.

use super::*;
use crate::kube::key::Key;
use rcgen::ExtendedKeyUsagePurpose;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) const TOKEN: &str = "abcdef.0123456789abcdef";

/// What the server says.
#[derive(Clone)]
pub(crate) struct Says {
    /// Certificates beside its own CA's in cluster-info.
    pub(crate) others: String,
    /// `server` in cluster-info; its own address where there is none.
    pub(crate) server: Option<String>,
    /// `gitVersion` of the server.
    pub(crate) version: String,
    /// ConfigMap kubeadm-config.
    pub(crate) kubeadm: String,
    /// ConfigMap kubelet-config.
    pub(crate) kubelet: String,
}

impl Default for Says {
    fn default() -> Self {
        Says {
            others: String::new(),
            server: None,
            version: "v1.36.3".to_owned(),
            kubeadm: "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.3\n\
                      networking:\n  podSubnet: 10.244.0.0/16\napiServer:\n  extraArgs:\n  - name: \
                      service-node-port-range\n    value: 20000-22767\n"
                .to_owned(),
            kubelet: "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 60\n".to_owned(),
        }
    }
}

/// A cluster that runs until the test ends.
pub(crate) struct TestCluster {
    pub(crate) ca: Ca,
    pub(crate) at: Endpoint,
    requests: Requests,
    connections: Arc<AtomicUsize>,
}

impl TestCluster {
    pub(crate) fn new() -> Self {
        TestCluster::saying(Says::default())
    }

    pub(crate) fn saying(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let at = Endpoint { host: local.ip().to_string(), port: local.port() };
        let ca = Ca::new();
        let (requests, connections) = (Requests::default(), Arc::new(AtomicUsize::new(0)));
        let mut roots = RootCertStore::empty();
        ca.trusted().into_iter().for_each(|root| roots.add(root).unwrap());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let clients = clients.allow_unauthenticated().build().unwrap();
        let (leaf, key) = ca.leaf("127.0.0.1", 2020, 2090);
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_client_cert_verifier(clients).with_single_cert(vec![leaf], key).unwrap();
        let answers = Answers { bundle: format!("{}{}", ca.pem, says.others), at: at.to_string(), says };
        let (seen, met) = (requests.clone(), connections.clone());
        std::thread::spawn(move || {
            let config = Arc::new(config);
            for socket in listener.incoming() {
                met.fetch_add(1, Ordering::Relaxed);
                let (mut socket, mut tls) = (socket.unwrap(), ServerConnection::new(config.clone()).unwrap());
                let mut request = [0; 4096];
                if let Ok(n) = Stream::new(&mut tls, &mut socket).read(&mut request)
                    && n > 0
                {
                    let who = if tls.peer_certificates().is_some() { "node" } else { "anonymous" };
                    let request = String::from_utf8_lossy(&request[..n]).into_owned();
                    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                    seen.lock().unwrap().push(format!("{who} {path}"));
                    let _ = Stream::new(&mut tls, &mut socket).write_all(answers.to(&path, who == "node").as_bytes());
                    tls.send_close_notify();
                    let _ = tls.complete_io(&mut socket);
                }
            }
        });
        TestCluster { ca, at, requests, connections }
    }

    /// Who asked for what so far: `node` or `anonymous`, and the path.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// How many connections were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Text of a seed for this cluster, by its pin, or by `ca-cert`.
    pub(crate) fn seed(&self, by_pin: bool) -> String {
        let (at, ca) = (&self.at, &self.ca.pem);
        let trust = match by_pin {
            true => format!("ca-cert-hashes = \"{}\"\n", pin::pin_of(&self.ca.trusted()[0]).unwrap()),
            false => format!("ca-cert = \"\"\"\n{ca}\"\"\"\n"),
        };
        format!("version = 1\n[cluster]\napiserver = \"{at}\"\ntoken = \"{TOKEN}\"\n{trust}")
    }

    /// The certificate that this cluster gives the node `edge-1` over this key.
    pub(crate) fn issue(&self, key: &Key) -> String {
        self.issue_with(key, |_| ())
    }

    /// The same, after `change`.
    pub(crate) fn issue_with(&self, key: &Key, change: impl FnOnce(&mut CertificateParams)) -> String {
        let key = KeyPair::from_pem(key.pem().expose()).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, "system:node:edge-1");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        params.signed_by(&key, &self.ca.issuer).unwrap().pem()
    }
}

/// What the server's thread needs.
struct Answers {
    bundle: String,
    at: String,
    says: Says,
}

impl Answers {
    fn to(&self, path: &str, node: bool) -> String {
        let says = &self.says;
        let map = |key: &str, text: &str| ok_json(&serde_json::json!({ "data": { key: text } }).to_string());
        let named = path.strip_prefix("/api/v1/namespaces/kube-system/configmaps/");
        match named.unwrap_or(path) {
            "/api/v1/namespaces/kube-public/configmaps/cluster-info" => {
                let server = says.server.clone().unwrap_or_else(|| format!("https://{}", self.at));
                cluster_info_of(&server, &self.bundle, &JoinToken::parse(TOKEN).unwrap())
            }
            "/version" => ok_json(&serde_json::json!({ "gitVersion": says.version }).to_string()),
            "kubeadm-config" if node => map("ClusterConfiguration", &says.kubeadm),
            "kubelet-config" if node => map("kubelet", &says.kubelet),
            _ => {
                let (line, code) = if node { ("404 Not Found", 404) } else { ("401 Unauthorized", 401) };
                let status = serde_json::json!({ "kind": "Status", "apiVersion": "v1", "code": code });
                http(&format!("{line}\r\nContent-Type: application/json"), &status.to_string())
            }
        }
    }
}
