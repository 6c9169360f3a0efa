// SPDX-License-Identifier: Apache-2.0
//! A node with its cache, and its clients: requests and watches, in the encodings of Kubernetes.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use apicache::body::{Body, whole};
use apicache::config::Config;
use apicache::object::{Change, Encoding, Frames, read_event};
use apicache::upstream::{Connection, Servers};
use apicache::worker::Published;
use firstboot::seed::Seed;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use qemu::control_plane::ControlPlane;
use qemu::link::namespace::Namespace;
use qemu::process::Process;
use qemu::{ports, wait};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::bench::*;

pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf,application/json";
pub const JSON: &str = "application/json";
/// As kubelet names itself.
pub const AGENT: &str = "kubelet/v1.36.3 (linux/amd64) kubernetes/0000000";
pub const LIMIT: Duration = Duration::from_secs(30);
/// Stands for the address of Service `kubernetes`.
pub const SERVICE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A node with its cache.
pub struct Fixture {
    /// Its name.
    pub node: String,
    pub dir: tempfile::TempDir,
    pub config: Config,
    pub process: Option<Process>,
    pub runtime: Runtime,
    /// Where it runs.
    namespace: Option<Arc<Namespace>>,
}

/// The program: what is on devices, unless another is named.
pub fn program() -> PathBuf {
    let named = std::env::var_os("FIRSTBOOT_TEST_PROGRAM").map(PathBuf::from);
    named.unwrap_or_else(|| imagebuild::device::ensure(e2e::own_arch()).unwrap())
}

impl Fixture {
    /// Joins as `node`, as a device does, and starts the cache with that node's certificate.
    pub fn new(plane: &ControlPlane, node: &str) -> Self {
        Fixture::behind(plane, node, vec![plane.endpoint_for_host()])
    }

    /// The same, with a way to the API server.
    pub fn behind(plane: &ControlPlane, node: &str, servers: Vec<String>) -> Self {
        let mut fixture = Fixture::joined(plane, node, servers);
        fixture.start();
        fixture
    }

    /// Joins as `node`, and starts no cache.
    pub fn joined(plane: &ControlPlane, node: &str, servers: Vec<String>) -> Self {
        let (_, seed) = good(plane);
        Fixture::with(&seed, node, servers, None)
    }

    /// [`Self::behind`] on a network of its own, on which this thread has to be, too: the control plane is at the address that
    /// devices know.
    pub fn within(plane: &ControlPlane, node: &str, namespace: &Arc<Namespace>) -> Self {
        let (server, token) = (plane.endpoint_for_guest(), plane.create_token("1h").unwrap());
        let seed = pinned(&server, &token, &plane.ca_pin().unwrap());
        let mut fixture = Fixture::with(&seed, node, vec![server], Some(namespace.clone()));
        fixture.start();
        fixture
    }

    fn with(seed: &Seed, node: &str, servers: Vec<String>, namespace: Option<Arc<Namespace>>) -> Self {
        let mut device = Bench::default();
        let joined = device.join(seed, node).unwrap();
        let dir = tempdir();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("ca.pem"), &joined.ca_pem).unwrap();
        std::fs::write(at("node.pem"), format!("{}{}", joined.certificate_pem, device.kubelets_key().expose()))
            .unwrap();
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), SERVICE.to_string()]).unwrap();
        std::fs::write(at("serving.pem"), format!("{}{}", own.cert.pem(), own.signing_key.serialize_pem())).unwrap();
        // What kubelet trusts: the cluster's CA and this one certificate.
        std::fs::write(at("both.pem"), format!("{}{}", joined.ca_pem, own.cert.pem())).unwrap();
        let config = Config {
            listen: ([127, 0, 0, 1], ports::free().unwrap()).into(),
            service: Some(SERVICE.into()),
            server_name: servers[0].rsplit_once(':').unwrap().0.to_owned(),
            servers,
            ca: at("ca.pem"),
            node: at("node.pem"),
            serving: at("serving.pem"),
            state: at("state"),
            status: Some(at("status.json")),
            secrets: true,
        };
        std::fs::write(at("offline.json"), serde_json::to_vec(&config).unwrap()).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Fixture { node: node.to_owned(), dir, config, process: None, runtime, namespace }
    }

    pub fn start(&mut self) {
        self.spawn();
        self.wait_for("any", |status| status.link != "unknown");
    }

    /// Starts the cache, and does not wait for it.
    pub fn spawn(&mut self) {
        let mut command = match &self.namespace {
            Some(namespace) => namespace.command(&program()),
            None => Command::new(program()),
        };
        command.arg("cache").arg(self.dir.path().join("offline.json"));
        let log = self.dir.path().join("log");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(&log).unwrap());
        let _ = std::fs::remove_file(self.dir.path().join("status.json"));
        self.process = Some(Process::spawn("firstboot cache", command, &log).unwrap());
    }

    /// As when the power goes: it hears nothing, and neither process ends by itself.
    pub fn kill(&mut self) {
        let serving = self.serving();
        let process = self.process.take().unwrap();
        kill(process.pid());
        kill(serving);
        drop(process);
    }

    /// The process that serves: the child of the one that was started.
    pub fn serving(&self) -> u32 {
        let parent = self.process.as_ref().unwrap().pid();
        let children = format!("/proc/{parent}/task/{parent}/children");
        let found = wait::until("the serving process", LIMIT, || {
            Ok(std::fs::read_to_string(&children)?.split_whitespace().next().and_then(|pid| pid.parse().ok()))
        });
        found.unwrap()
    }

    pub fn wait_for(&self, what: &str, good: impl Fn(&Published) -> bool) -> Published {
        let path = self.dir.path().join("status.json");
        let found = wait::until(&format!("the cache to be {what}"), LIMIT, || {
            let status = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Published>(&text).ok());
            Ok(status.filter(|status| good(status)))
        });
        found.unwrap_or_else(|e| {
            panic!("{e}; its log: {}", std::fs::read_to_string(self.dir.path().join("log")).unwrap())
        })
    }

    pub fn connected(&self) {
        self.wait_for("connected", |status| status.link == "connected");
    }

    pub fn disconnected(&self) {
        self.wait_for("disconnected", |status| status.link == "disconnected");
    }

    /// Clients of this cache; `direct` of the API server.
    pub fn client(&self, direct: bool) -> Servers {
        let (servers, server_name) = match direct {
            true => (self.config.servers.clone(), self.config.server_name.clone()),
            false => (vec![self.config.listen.to_string()], self.config.listen.ip().to_string()),
        };
        let ca = self.dir.path().join("both.pem");
        Servers::new(&Config { servers, server_name, ca, ..self.config.clone() }).unwrap()
    }

    pub fn send(&self, client: &Servers, ask: &Ask) -> Answer {
        self.runtime.block_on(async { tokio::time::timeout(LIMIT, ask.send(client)).await.unwrap() })
    }

    /// Through the cache, as the node.
    pub fn ask(&self, ask: &Ask) -> Answer {
        self.send(&self.client(false), ask)
    }

    pub fn directly(&self, ask: &Ask) -> Answer {
        self.send(&self.client(true), ask)
    }
}

pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// A request.
#[derive(Clone)]
pub struct Ask {
    pub method: Method,
    pub path: String,
    pub accept: &'static str,
    pub agent: &'static str,
    pub token: Option<String>,
    pub as_node: bool,
    pub body: Vec<u8>,
}

pub struct Answer {
    pub status: StatusCode,
    pub content_type: String,
    pub body: Vec<u8>,
}

impl Ask {
    pub fn get(path: &str, accept: &'static str) -> Self {
        let (method, path) = (Method::GET, path.into());
        Ask { method, path, accept, agent: AGENT, token: None, as_node: true, body: Vec::new() }
    }

    pub fn post(path: &str, body: &Value) -> Self {
        Ask { method: Method::POST, body: body.to_string().into_bytes(), ..Ask::get(path, JSON) }
    }

    pub fn with(&self, token: &str) -> Self {
        Ask { token: Some(token.to_owned()), as_node: false, ..self.clone() }
    }

    /// As client-go begins: all objects, then a bookmark, then changes.
    pub fn watch_list(path: &str, selector: &str, accept: &'static str) -> Self {
        let query = "allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&watch=true";
        let selector = selector.replace('=', "%3D").replace('!', "%21");
        Ask::get(&format!("{path}?{query}&fieldSelector={selector}&timeoutSeconds=300"), accept)
    }

    /// The request to a server: its whole address, or for HTTP/1.1 the path alone, beside the name of the server.
    pub fn request(&self, connection: &Connection) -> Request<Body> {
        let (server, path) = (connection.server(), &self.path);
        let mut request = match connection {
            Connection::Two(..) => Request::builder().uri(format!("https://{server}{path}")),
            Connection::One(..) => Request::builder().uri(path).header("host", server),
        };
        request = request.method(self.method.clone()).header("accept", self.accept).header("user-agent", self.agent);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if !self.body.is_empty() {
            let kind = if self.method == Method::PATCH { "application/merge-patch+json" } else { JSON };
            request = request.header("content-type", kind);
        }
        request.body(whole(self.body.clone())).unwrap()
    }

    pub async fn open(&self, servers: &Servers) -> (Connection, Response<Incoming>) {
        let mut connection = servers.connect(self.as_node, true).await.unwrap();
        let response = connection.send(self.request(&connection)).await.unwrap();
        (connection, response)
    }

    pub async fn send(&self, servers: &Servers) -> Answer {
        let (_connection, response) = self.open(servers).await;
        let status = response.status();
        let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        let body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
        Answer { status, content_type, body }
    }
}

/// A watch that is open.
pub struct Watch {
    pub _connection: Connection,
    pub response: Response<Incoming>,
    pub frames: Frames,
    pub encoding: Encoding,
    pub ready: std::collections::VecDeque<Vec<u8>>,
}

impl Watch {
    pub fn open(fixture: &Fixture, client: &Servers, ask: &Ask) -> Self {
        let (connection, response) =
            fixture.runtime.block_on(async { tokio::time::timeout(LIMIT, ask.open(client)).await.unwrap() });
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        assert_eq!(response.status(), 200, "{}", ask.path);
        let encoding = Encoding::of_content_type(&kind).unwrap();
        Watch { _connection: connection, response, frames: Frames::new(encoding), encoding, ready: [].into() }
    }

    /// The next event; none at the end of the watch.
    pub fn next(&mut self, fixture: &Fixture) -> Option<Vec<u8>> {
        fixture.runtime.block_on(self.event())
    }

    /// The same.
    pub async fn event(&mut self) -> Option<Vec<u8>> {
        while self.ready.is_empty() {
            let frame = tokio::time::timeout(LIMIT, self.response.frame()).await.expect("an event in time")?;
            let Ok(data) = frame.unwrap().into_data() else { continue };
            self.frames.push(&data, |frame| self.ready.push_back(frame.to_vec())).unwrap();
        }
        self.ready.pop_front()
    }

    /// Its events up to the bookmark that ends the initial ones, in the order of the names, and that one's version.
    pub fn initial(&mut self, fixture: &Fixture) -> (Vec<(String, Vec<u8>)>, u64) {
        let mut all = Vec::new();
        loop {
            let frame = self.next(fixture).expect("the bookmark");
            let event = read_event(self.encoding, &frame).unwrap();
            let meta = &event.object.meta;
            match event.change {
                Change::Added => all.push((meta.key(), frame.clone())),
                Change::Bookmark if meta.initial_events_end => {
                    all.sort();
                    return (all, meta.version);
                }
                _ => panic!("{:?}", String::from_utf8_lossy(&frame)),
            }
        }
    }
}
