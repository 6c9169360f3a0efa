// SPDX-License-Identifier: Apache-2.0
//! The caches that are compared, as their documentation starts them, and a way to the API server that can be closed.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use apicache::config::Config;
use apicache::upstream::{Connection, Servers};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Response;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use imagebuild::arch::Arch;
use imagebuild::lock::Lock;
use imagebuild::source::{Request, gomod};
use qemu::control_plane::ControlPlane;
use qemu::process::Process;
use qemu::{ports, wait};
use serde_json::json;

use super::bench::*;
use super::cache_bench::*;

/// A way to the API server. While it is closed its port refuses connections, as a host without a server does.
pub struct Way {
    server: String,
    pub address: String,
    open: RefCell<Option<Open>>,
}

/// An open way: whether it is to close, its connections, and the thread that listens.
struct Open {
    closed: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    thread: JoinHandle<()>,
}

impl Way {
    pub fn new(server: String) -> Self {
        let address = format!("127.0.0.1:{}", ports::free().unwrap());
        let way = Way { server, address, open: RefCell::new(None) };
        way.open();
        way
    }

    pub fn open(&self) {
        let listener = TcpListener::bind(&self.address).unwrap();
        let (closed, streams) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (ends, passed, server) = (closed.clone(), streams.clone(), self.server.clone());
        let thread = thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(server) = TcpStream::connect(&server) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    from.set_nodelay(true).unwrap();
                    passed.lock().unwrap().push(from.try_clone().unwrap());
                    thread::spawn(move || pass(from, to));
                }
            }
        });
        self.open.replace(Some(Open { closed, streams, thread }));
    }

    pub fn close(&self) {
        let Some(Open { closed, streams, thread }) = self.open.take() else { return };
        closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        thread.join().unwrap();
        for stream in streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.close();
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// Whose cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Ours,
    /// OpenYurt's. kubelet asks it by HTTP, pods by HTTPS at another port.
    Yurthub,
    /// SuperEdge's.
    Lite,
}

/// A node with one of the caches.
pub struct Hub {
    pub whose: Whose,
    pub node: String,
    /// Whether its clients list and then watch, as those of Kubernetes 1.34 and before do, instead of watching from nothing.
    pub lists: bool,
    pub fixture: Fixture,
    pub way: Way,
    process: Option<Process>,
    plain: String,
    secure: String,
    health: String,
    args: Vec<String>,
}

impl Hub {
    pub fn new(plane: &ControlPlane, whose: Whose, lists: bool) -> Self {
        let name = format!("{whose:?}").to_lowercase();
        let node = format!("beside-{name}{}", if lists { "-lists" } else { "" });
        let way = Way::new(plane.endpoint_for_host());
        let fixture = Fixture::joined(plane, &node, vec![way.address.clone()]);
        let [plain, secure, health] = [0; 3].map(|_| format!("127.0.0.1:{}", ports::free().unwrap()));
        let mut hub = Hub { whose, node, lists, fixture, way, process: None, plain, secure, health, args: Vec::new() };
        hub.args = match whose {
            Whose::Ours => Vec::new(),
            Whose::Yurthub => hub.yurthub(plane),
            Whose::Lite => hub.lite(),
        };
        hub
    }

    fn at(&self, name: &str) -> PathBuf {
        self.fixture.dir.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }

    /// As its chart and `yurtadm join` start it; but for addresses and paths, so that several find room on one machine.
    fn yurthub(&self, plane: &ControlPlane) -> Vec<String> {
        let (server, node) = (format!("https://{}", self.way.address), &self.node);
        // It takes the CA from the file itself, and waits for ever without.
        let ca = STANDARD.encode(std::fs::read(self.at("ca.pem")).unwrap());
        let cluster = json!({"server": server, "certificate-authority-data": ca});
        let conf = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "kubernetes", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": plane.create_token("1h").unwrap()}}],
            "contexts": [{"name": "c", "context": {"cluster": "kubernetes", "user": "u"}}],
        });
        std::fs::write(self.at("bootstrap-hub.conf"), conf.to_string()).unwrap();
        let port = |address: &str| address.rsplit(':').next().unwrap().to_owned();
        let args = [
            ("node-name", node.clone()),
            ("nodepool-name", "edge".to_owned()),
            ("server-addr", server),
            ("bootstrap-file", self.path("bootstrap-hub.conf")),
            ("bind-address", "127.0.0.1".to_owned()),
            ("working-mode", "edge".to_owned()),
            ("namespace", "kube-system".to_owned()),
            ("v", "2".to_owned()),
            // Otherwise in /var/lib and /etc, and the machine would get a network interface.
            ("root-dir", self.path("yurthub")),
            ("disk-cache-path", self.path("state")),
            ("enable-dummy-if", "false".to_owned()),
            ("node-ip", "127.0.0.1".to_owned()),
            ("proxy-port", port(&self.plain)),
            ("proxy-secure-port", port(&self.secure)),
            ("serve-port", port(&self.health)),
            ("multiplexer-port", ports::free().unwrap().to_string()),
        ];
        args.iter().map(|(name, value)| format!("--{name}={value}")).collect()
    }

    /// As deployment/lite-apiserver.yaml of SuperEdge starts it; but for its port and paths. Its certificate is not of the
    /// cluster's CA here; clients trust it in the same way as ours.
    fn lite(&self) -> Vec<String> {
        let node = self.path("node.pem");
        let pairs = json!([{"cert": node, "key": node}]);
        std::fs::write(self.at("tls.json"), pairs.to_string()).unwrap();
        let (host, port) = self.way.address.split_once(':').unwrap();
        let args = [
            ("ca-file", self.path("ca.pem")),
            ("tls-cert-file", self.path("serving.pem")),
            ("tls-private-key-file", self.path("serving.pem")),
            ("kube-apiserver-url", host.to_owned()),
            ("kube-apiserver-port", port.to_owned()),
            ("port", self.secure.rsplit(':').next().unwrap().to_owned()),
            ("tls-config-file", self.path("tls.json")),
            ("v", "4".to_owned()),
            ("file-cache-path", self.path("state")),
            ("timeout", "3".to_owned()),
        ];
        args.iter().map(|(name, value)| format!("--{name}={value}")).collect()
    }

    /// Starts it, and does not wait.
    pub fn spawn(&mut self) {
        let name = match self.whose {
            Whose::Ours => return self.fixture.spawn(),
            Whose::Yurthub => "yurthub",
            Whose::Lite => "lite-apiserver",
        };
        let program = imagebuild::component::ensure(name, e2e::own_arch(), None).unwrap();
        self.process = Some(Process::start(name, &program, &self.args, &self.at("log")).unwrap());
    }

    /// Starts it for the first time, until it says that it is ready.
    pub fn start(&mut self, plane: &ControlPlane) {
        self.spawn();
        match self.whose {
            Whose::Ours => self.fixture.connected(),
            Whose::Lite => {
                let up = || Ok(TcpStream::connect(&self.secure).ok());
                wait::until("lite-apiserver", LIMIT, up).unwrap();
            }
            Whose::Yurthub => {
                // Its controller in the cluster approves what it asks for; here an administrator does.
                let ready = wait::every(Duration::from_millis(500), "yurthub to be ready", 6 * LIMIT, || {
                    self.process.as_ref().unwrap().check()?;
                    for csr in plane.csrs()?.iter().filter(|csr| !csr.issued) {
                        plane.kubectl(&["certificate", "approve", &csr.name])?;
                    }
                    Ok((health(&self.health).as_deref() == Some("OK")).then_some(()))
                });
                ready.unwrap_or_else(|e| panic!("{e}; its log ends: {}", self.process.as_ref().unwrap().tail(40)));
            }
        }
    }

    /// As when the power goes.
    pub fn kill(&mut self) {
        match self.process.take() {
            Some(process) => process.kill().unwrap(),
            None => self.fixture.kill(),
        }
    }

    /// A connection for a request: as the node, with a token, or without proof of anything.
    pub async fn connect(&self, ask: &Ask) -> Result<Connection, String> {
        if self.whose == Whose::Yurthub && ask.token.is_none() {
            let failed = |e: &dyn std::fmt::Display| format!("connect to {}: {e}", self.plain);
            let stream = tokio::net::TcpStream::connect(&self.plain).await.map_err(|e| failed(&e))?;
            stream.set_nodelay(true).unwrap();
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
            tokio::spawn(connection);
            return Ok(Connection::One(sender, self.plain.clone()));
        }
        // Over TLS yurthub speaks HTTP/1.1 alone.
        let two = self.whose != Whose::Yurthub;
        self.servers().connect(ask.as_node, two).await.map_err(|e| e.to_string())
    }

    fn servers(&self) -> Servers {
        match self.whose {
            Whose::Ours => self.fixture.client(false),
            Whose::Yurthub | Whose::Lite => {
                let config = self.fixture.config.clone();
                let ca = self.at("both.pem");
                Servers::new(&Config { servers: vec![self.secure.clone()], ca, ..config }).unwrap()
            }
        }
    }

    pub async fn open(&self, ask: &Ask) -> Result<(Connection, Response<Incoming>), String> {
        let mut connection = self.connect(ask).await?;
        let response = connection.send(ask.request(&connection)).await.map_err(|e| e.to_string())?;
        Ok((connection, response))
    }

    /// Resident memory, KiB.
    pub fn resident(&self) -> u64 {
        let pids = match &self.process {
            Some(process) => vec![process.pid()],
            None => vec![self.fixture.process.as_ref().unwrap().pid(), self.fixture.serving()],
        };
        pids.iter().map(|pid| super::cache_figures::proc(*pid, "status", "VmRSS:")).sum()
    }

    /// Files of the store: how many, their bytes, and how many every user of the machine may read.
    pub fn store(&self) -> (usize, u64, usize) {
        let mut found = (0, 0, 0);
        files(&self.at("state"), true, &mut found);
        found
    }
}

fn files(path: &Path, mut open: bool, found: &mut (usize, u64, usize)) {
    let about = path.metadata().unwrap();
    open &= about.permissions().mode() & if about.is_dir() { 0o001 } else { 0o004 } != 0;
    if about.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| files(&entry.unwrap().path(), open, found));
    } else {
        *found = (found.0 + 1, found.1 + about.len(), found.2 + usize::from(open));
    }
}

/// What yurthub says of itself, in few words.
fn health(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    stream.write_all(b"GET /v1/readyz HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.rsplit_once("\r\n\r\n")?.1.trim().to_owned())
}

/// What OpenYurt's charts put into a cluster for yurthub: the kind NodePool, its settings, and what nodes may read then.
pub fn prepare_openyurt(plane: &ControlPlane) {
    let lock = Lock::find().unwrap();
    let component = lock.component("yurthub", "1.36").unwrap();
    let request = Request { lock: &lock, component, arch: Arch::host().unwrap() };
    let module = gomod::module_dir(&request, "openyurt-1.7").unwrap();
    let crd = module.join("charts/yurt-manager/crds/apps.openyurt.io_nodepools.yaml");
    plane.kubectl(&["create", "-f", &crd.display().to_string()]).unwrap();
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    let (read, follow) = (["get", "list", "watch"], ["list", "watch"]);
    let rules = json!([
        rule("", &["events"], &["get"]),
        rule("apps.openyurt.io", &["nodepools"], &follow),
        rule("", &["configmaps"], &read),
        rule("coordination.k8s.io", &["leases"], &["get", "update"]),
        rule("discovery.k8s.io", &["endpointslices"], &follow),
        rule("", &["endpoints"], &follow),
    ]);
    let rbac = "rbac.authorization.k8s.io";
    let api = format!("{rbac}/v1");
    create(plane, &json!({"apiVersion": api, "kind": "ClusterRole", "metadata": {"name": "yurt-hub"}, "rules": rules}));
    let role = json!({"apiGroup": rbac, "kind": "ClusterRole", "name": "yurt-hub"});
    let nodes = json!([{"apiGroup": rbac, "kind": "Group", "name": "system:nodes"}]);
    let (kind, meta) = ("ClusterRoleBinding", json!({"name": "yurt-hub"}));
    create(plane, &json!({"apiVersion": api, "kind": kind, "metadata": meta, "roleRef": role, "subjects": nodes}));
    let labels = json!({"openyurt.io/configmap-name": "yurt-hub-cfg"});
    let meta = json!({"name": "yurt-hub-cfg", "namespace": "kube-system", "labels": labels});
    let data = json!({"cache_agents": "", "servicetopology": "", "discardcloudservice": "", "masterservice": ""});
    create(plane, &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}));
}

/// Takes it away again.
pub fn remove_openyurt(plane: &ControlPlane) {
    for what in [
        &["crd", "nodepools.apps.openyurt.io"][..],
        &["clusterrolebinding", "yurt-hub"],
        &["clusterrole", "yurt-hub"],
        &["configmap", "yurt-hub-cfg", "-n", "kube-system"],
    ] {
        plane.kubectl(&[&["delete"], what].concat()).unwrap();
    }
}
