// SPDX-License-Identifier: Apache-2.0
//! The way between cache and API server fails in several ways, again and again, while a client watches as client-go does:
//! nothing that is there ever seems gone, and in the end it knows what the API server knows.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use apicache::object::{Change, Encoding, Frames, read_event};
use apicache::upstream::Servers;
use http_body_util::BodyExt;
use hyper::StatusCode;
use qemu::control_plane::ControlPlane;
use serde_json::json;

use super::bench::*;
use super::cache::workload;
use super::cache_bench::*;

/// What the way does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It leads to the API server.
    Open,
    /// Each ends at once.
    Closed,
    /// Nothing ever comes back.
    Silent,
    /// A page to log in, whatever is asked.
    Portal,
}

/// A way to an API server that can be changed. A change ends every connection, but for a way that becomes silent.
struct Relay {
    address: String,
    way: Arc<Mutex<(Way, Vec<TcpStream>)>>,
}

impl Relay {
    fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let way = Arc::new(Mutex::new((Way::Open, Vec::new())));
        let shared = way.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (shared, server) = (shared.clone(), server.clone());
                thread::spawn(move || drop(relay(&client, &server, &shared)));
            }
        });
        Relay { address, way }
    }

    fn set(&self, to: Way) {
        let mut way = self.way.lock().unwrap();
        way.0 = to;
        if to != Way::Silent {
            for stream in way.1.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

fn relay(mut client: &TcpStream, server: &str, way: &Mutex<(Way, Vec<TcpStream>)>) -> std::io::Result<()> {
    let now = way.lock().unwrap().0;
    match now {
        Way::Closed => return Ok(()),
        Way::Portal => {
            let page = "<html>Please log in</html>";
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n", page.len());
            return client.write_all(format!("{head}{page}").as_bytes());
        }
        Way::Open | Way::Silent => way.lock().unwrap().1.push(client.try_clone()?),
    }
    let server = TcpStream::connect(server)?;
    way.lock().unwrap().1.push(server.try_clone()?);
    let passing = || way.lock().unwrap().0 == Way::Open;
    thread::scope(|scope| {
        scope.spawn(|| pass(client, &server, passing));
        pass(&server, client, passing);
    });
    Ok(())
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, open: impl Fn() -> bool) {
    let mut bytes = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        // What is on its way when the way becomes silent is lost, as is all that follows.
        if open() && to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// A client like client-go's reflector, of the pods of a node.
pub struct Reflector {
    path: String,
    /// Name and version of each object.
    pub known: BTreeMap<String, u64>,
    version: Option<u64>,
    /// How often it began anew.
    pub begun: usize,
    /// How often it opened a watch.
    pub opened: usize,
    /// How often it was refused one: neither the API server nor the store had an answer.
    pub refused: usize,
}

impl Reflector {
    pub fn new(node: &str) -> Self {
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}");
        Reflector { path, known: BTreeMap::new(), version: None, begun: 0, opened: 0, refused: 0 }
    }

    /// Goes on watching for so long.
    pub fn run(&mut self, fixture: &Fixture, client: &Servers, time: Duration) {
        let until = Instant::now() + time;
        fixture.runtime.block_on(async {
            while Instant::now() < until {
                if !self.watch(client, until).await {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        });
    }

    /// Goes on until it knows what the API server knows, and says how long that took.
    pub fn catch_up(&mut self, plane: &ControlPlane, fixture: &Fixture, client: &Servers, limit: Duration) -> Duration {
        let began = Instant::now();
        loop {
            let wanted = pods(plane, fixture);
            if self.known == wanted {
                return began.elapsed();
            }
            assert!(began.elapsed() < limit, "{:?}, not {wanted:?}", self.known);
            self.run(fixture, client, Duration::from_millis(500));
        }
    }

    /// Watches once, until the watch ends or `until` has come. Says whether there was an answer.
    async fn watch(&mut self, client: &Servers, until: Instant) -> bool {
        let ask = match self.version {
            None => Ask::get(
                &format!(
                    "{}&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&watch=true",
                    self.path
                ),
                PROTOBUF,
            ),
            Some(version) => Ask::get(
                &format!("{}&allowWatchBookmarks=true&resourceVersion={version}&watch=true", self.path),
                PROTOBUF,
            ),
        };
        let rest = || until.saturating_duration_since(Instant::now());
        let Ok((_connection, mut response)) = tokio::time::timeout(rest(), ask.open(client)).await else {
            return false;
        };
        self.opened += 1;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::GONE => {
                self.version = None;
                return true;
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                self.refused += 1;
                return false;
            }
            other => panic!("{other}"),
        }
        let mut initial = self.version.is_none().then(BTreeMap::new);
        let mut frames = Frames::new(Encoding::Protobuf);
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(rest(), response.frame()).await {
            let Ok(data) = frame.into_data() else { continue };
            let mut events = Vec::new();
            frames.push(&data, |frame| events.push(frame.to_vec())).unwrap();
            for frame in events {
                let event = read_event(Encoding::Protobuf, &frame).unwrap();
                let (name, version) = (event.object.meta.name, event.object.meta.version);
                match (event.change, &mut initial) {
                    (Change::Added | Change::Modified, Some(all)) => drop(all.insert(name, version)),
                    (Change::Bookmark, Some(all)) if event.object.meta.initial_events_end => {
                        assert!(all.contains_key("one"), "what was always there seems gone: {all:?}");
                        self.known = std::mem::take(all);
                        (initial, self.version) = (None, Some(version));
                        self.begun += 1;
                    }
                    (Change::Added | Change::Modified, None) => {
                        self.known.insert(name, version);
                        self.version = Some(version);
                    }
                    (Change::Delete, None) => {
                        assert_ne!(name, "one", "it was never deleted");
                        self.known.remove(&name);
                        self.version = Some(version);
                    }
                    (Change::Bookmark, None) => self.version = Some(version),
                    // Too old: it begins anew.
                    _ => {
                        self.version = None;
                        return true;
                    }
                }
            }
        }
        true
    }
}

/// Name and version of each pod in the namespace of a node's name, as the API server has them.
pub fn pods(plane: &ControlPlane, fixture: &Fixture) -> BTreeMap<String, u64> {
    let pods = plane.get(&["-n", &fixture.node, "pods"]).unwrap();
    let pod = |pod: &serde_json::Value| {
        let meta = &pod["metadata"];
        (meta["name"].as_str().unwrap().to_owned(), meta["resourceVersion"].as_str().unwrap().parse().unwrap())
    };
    pods["items"].as_array().unwrap().iter().map(pod).collect()
}

/// A pod comes, and each third time the one before it goes.
pub fn come_and_go(plane: &ControlPlane, node: &str, number: usize) {
    let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}]});
    let meta = json!({"name": format!("flap-{number}"), "namespace": node});
    create(plane, &json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}));
    if number % 3 == 2 {
        let gone = format!("flap-{}", number - 1);
        plane.kubectl(&["-n", node, "delete", "pod", &gone, "--grace-period=0", "--force"]).unwrap();
    }
}

/// Every three seconds the way is another. Meanwhile pods come and go.
pub fn nothing_is_lost_on_a_bad_way(plane: &ControlPlane) {
    let node = "flapping";
    workload(plane, node);
    let relay = Relay::start(plane.endpoint_for_host());
    let fixture = Fixture::behind(plane, node, vec![relay.address.clone()]);
    fixture.connected();
    let client = fixture.client(false);
    let mut reflector = Reflector::new(node);
    reflector.run(&fixture, &client, Duration::from_secs(2));
    assert_eq!(reflector.known.keys().collect::<Vec<_>>(), ["one", "two"]);

    let ways = [Way::Closed, Way::Open, Way::Portal, Way::Open, Way::Silent, Way::Open];
    for (number, way) in ways.iter().cycle().take(18).enumerate() {
        relay.set(*way);
        come_and_go(plane, node, number);
        reflector.run(&fixture, &client, Duration::from_secs(3));
    }
    // A way that lost packets without a word is found out by the connection's signs of life.
    relay.set(Way::Open);
    let took = reflector.catch_up(plane, &fixture, &client, LIMIT);
    assert_eq!(reflector.known.len(), 2 + 18 - 6);
    fixture.connected();
    eprintln!("the same after {:.1} s; it began anew {} times", took.as_secs_f64(), reflector.begun);
}
