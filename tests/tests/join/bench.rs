// SPDX-License-Identifier: Apache-2.0
//! What the cases share: a device that keeps its key in memory, seeds, the audit log, a relay on another address.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use firstboot::fault::{Code, Fault, Owner};
use firstboot::join_worker::confined;
use firstboot::join_worker::privileged::obtain;
use firstboot::kube::confirm;
use firstboot::kube::contract::{FoundCluster, JoinHost, JoinInput, Joined};
use firstboot::kube::csr::Request;
use firstboot::kube::key::Key;
use firstboot::kube::node::NodeClient;
use firstboot::secret::Secret;
use firstboot::seed::{self, Seed};
use qemu::control_plane::ControlPlane;
use qemu::control_plane::audit::Event;

pub const KUBELET: &str = "1.36.3";

/// A device that keeps its key in memory.
pub struct Bench {
    /// The key on record.
    pub key: Option<String>,
    /// Name of the Node that joins.
    pub node: String,
    /// The cluster's clock.
    pub server_time: Option<SystemTime>,
    /// Progress and notices.
    pub reported: Vec<String>,
    /// Its own clock.
    pub now: SystemTime,
    pub csr_wait: Duration,
    pub ready_wait: Duration,
    pub kubelet: &'static str,
}

impl Default for Bench {
    fn default() -> Self {
        Bench {
            key: None,
            node: String::new(),
            server_time: None,
            reported: Vec::new(),
            now: SystemTime::now(),
            csr_wait: Duration::from_secs(15),
            ready_wait: Duration::ZERO,
            kubelet: KUBELET,
        }
    }
}

impl JoinHost for Bench {
    fn request(&mut self, fresh: bool) -> Result<Request, Fault> {
        let kept = self.key.as_deref().filter(|_| !fresh).and_then(Key::from_pem);
        let key = kept.map_or_else(Key::generate, Ok)?;
        self.key = Some(key.pem().expose().clone());
        key.request(&self.node)
    }
    fn found(&mut self, cluster: &FoundCluster) -> Result<(), Fault> {
        self.server_time = cluster.time;
        Ok(())
    }
    fn progress(&mut self, _text: &str) {}
    fn notice(&mut self, text: &str) {
        self.reported.push(text.to_owned());
    }
}

impl Bench {
    /// One attempt. As on a device, but for the sandbox: what is asked of the network is asked by the join worker.
    pub fn join(&mut self, seed: &Seed, node: &str) -> Result<Joined, Fault> {
        let (here, there) = UnixStream::pair().unwrap();
        let join_worker = std::thread::spawn(move || confined::serve(&there));
        let joined = self.join_through(&here, seed, node);
        drop(here);
        let _ = join_worker.join().unwrap();
        joined
    }

    /// One attempt, by the join worker at the other end.
    pub fn join_through(&mut self, join_worker: &UnixStream, seed: &Seed, node: &str) -> Result<Joined, Fault> {
        self.node = node.to_owned();
        let input = JoinInput {
            cluster: seed.join().unwrap().clone(),
            via: seed.network.via.clone(),
            node_name: node.to_owned(),
            kubelet_version: self.kubelet.to_owned(),
            target: "generic-amd64".to_owned(),
            cri_socket: "unix:///run/containerd/containerd.sock".to_owned(),
            resolv_conf: None,
            now: self.now,
            csr_wait: self.csr_wait,
            ready_wait: self.ready_wait,
        };
        let joined = obtain(join_worker, &input, self).and_then(|obtained| {
            let key = self.kubelets_key();
            confirm::joined(&input, &obtained.cluster, obtained.certificate_pem, &key, self)
        });
        let fault = joined.as_ref().err();
        let shown = format!("{:?} {:?} {:?}", fault.map(Fault::to_string), fault, self.reported);
        assert!(!shown.contains(seed.join().unwrap().token.secret()), "a message holds the token: {shown}");
        joined
    }

    /// The key on record, in the format that kubelet reads.
    pub fn kubelets_key(&self) -> Secret<String> {
        Key::from_pem(self.key.as_ref().unwrap()).unwrap().sec1_pem().unwrap()
    }

    /// The node itself.
    pub fn node_client(&self, joined: &Joined) -> NodeClient {
        let pair = format!("{}{}", joined.certificate_pem, self.kubelets_key().expose());
        NodeClient::new(&self.node, &joined.server, &joined.ca_pem, &pair).unwrap()
    }

    /// An attempt that fails.
    pub fn fails(&mut self, seed: &Seed, node: &str) -> (Code, String) {
        let Err(fault) = self.join(seed, node) else { panic!("{node} joined") };
        (fault.code, fault.to_string())
    }
}

/// A first attempt that fails before a key is made; gives the cluster's fault, `CODE: text`.
pub fn refused(seed: &Seed, node: &str) -> String {
    let mut device = Bench::default();
    let (code, text) = device.fails(seed, node);
    assert_eq!(code.owner(), Owner::Cluster);
    assert!(device.key.is_none(), "a key was made for {node}");
    format!("{code}: {text}")
}

pub fn seed_of(text: &str) -> Seed {
    seed::parse(text.as_bytes()).unwrap()
}

/// A seed with a pin.
pub fn pinned(endpoint: &str, token: &str, pin: &str) -> Seed {
    seed_of(&pinned_text(endpoint, token, pin))
}

pub fn pinned_text(endpoint: &str, token: &str, pin: &str) -> String {
    format!("version = 1\n[cluster]\napiserver = \"{endpoint}\"\ntoken = \"{token}\"\nca-cert-hashes = [\"{pin}\"]\n")
}

/// A new token and a seed that fits the cluster.
pub fn good(plane: &ControlPlane) -> (String, Seed) {
    let token = plane.create_token("1h").unwrap();
    let seed = pinned(&plane.endpoint_for_host(), &token, &plane.ca_pin().unwrap());
    (token, seed)
}

/// A seed with the cluster's CA.
pub fn with_ca(plane: &ControlPlane, token: &str) -> Seed {
    let (endpoint, ca) = (plane.endpoint_for_host(), plane.ca_pem().unwrap());
    seed_of(&format!(
        "version = 1\n[cluster]\napiserver = \"{endpoint}\"\ntoken = \"{token}\"\nca-cert = \"\"\"\n{ca}\"\"\"\n"
    ))
}

/// firstboot's requests since `before`, one line each.
pub fn requests(plane: &ControlPlane, before: usize) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let ours = |e: &Event| e.user_agent.starts_with("firstboot/");
    let events = plane.audit().unwrap().into_iter().skip(before).filter(ours);
    events
        .filter(|e| seen.insert(e.audit_id.clone()))
        .map(|e| {
            let path = e.request_uri.split('?').next().unwrap_or_default().to_owned();
            format!("{} {} {path}", e.user.username, e.verb)
        })
        .collect()
}

/// CSRs that a token has made.
pub fn csrs_by(plane: &ControlPlane, token: &str) -> Vec<String> {
    let requester = format!("system:bootstrap:{}", id(token));
    plane.csrs().unwrap().into_iter().filter(|c| c.requester == requester).map(|c| c.name).collect()
}

/// The cluster has neither a Node of this name nor a CSR by this token.
pub fn assert_no_trace(plane: &ControlPlane, node: &str, token: &str) {
    assert_eq!(plane.node(node).unwrap(), None);
    assert_eq!(csrs_by(plane, token), [] as [String; 0]);
}

pub fn id(token: &str) -> &str {
    token.split('.').next().unwrap()
}

pub fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Gives kubectl an object to create.
pub fn create(plane: &ControlPlane, object: &serde_json::Value) {
    let dir = tempdir();
    let path: PathBuf = dir.path().join("object.json");
    std::fs::write(&path, object.to_string()).unwrap();
    plane.kubectl(&["create", "-f", &path.display().to_string()]).unwrap();
}

/// The group of all kubeadm bootstrap tokens.
pub const TOKENS: &[&str] =
    &["--as=system:bootstrap:test", "--as-group=system:bootstrappers:kubeadm:default-node-token"];
/// Anybody.
pub const ANYBODY: &[&str] = &["--as=system:anonymous"];

/// Waits until `who` may (or may not) read a ConfigMap: the API server's authorizer takes changes of roles from its
/// own watch, a moment later.
pub fn wait_access(plane: &ControlPlane, who: &[&str], namespace: &str, map: &str, wanted: bool) {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/{map}");
    let asked = [&["get", "--raw", &path], who].concat();
    qemu::wait::until("the authorizer to know", Duration::from_secs(10), || {
        Ok((plane.kubectl(&asked).is_ok() == wanted).then_some(()))
    })
    .unwrap();
}

/// Makes a Node with this condition Ready.
pub fn report_ready(plane: &ControlPlane, node: &str, ready: &str) {
    let condition = serde_json::json!({
        "type": "Ready", "status": ready, "reason": "R", "message": "M", "lastTransitionTime": "2026-01-02T03:04:05Z",
    });
    let patch = serde_json::json!({ "status": { "conditions": [condition] } }).to_string();
    plane.kubectl(&["patch", "node", node, "--subresource=status", "--type=merge", "-p", &patch]).unwrap();
}

/// Listens on `address` and passes everything on to the API server, as a NAT would. Gives `host:port`.
pub fn relay(plane: &ControlPlane, address: &str) -> std::io::Result<String> {
    let listener = TcpListener::bind((address, 0))?;
    let (local, to) = (listener.local_addr()?, plane.endpoint_for_host());
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(&to) else { continue };
            let (Ok(from_server), Ok(to_client)) = (server.try_clone(), socket.try_clone()) else { continue };
            std::thread::spawn(move || pass(socket, server));
            std::thread::spawn(move || pass(from_server, to_client));
        }
    });
    Ok(local.to_string())
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16384];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
