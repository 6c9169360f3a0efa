// SPDX-License-Identifier: Apache-2.0
//! The conversation with a join worker that was taken over: whatever it says, the privileged part names what is wrong
//! with it, and does nothing of it.

use super::confined::serve;
use super::message::{JoinRequest, LONGEST, WorkerMessage, receive, send};
use super::privileged::{Obtained, obtain};
use crate::fault::{Code, Fault, Owner};
use crate::kube::confirm::joined;
use crate::kube::contract::{FoundCluster, JoinHost, JoinInput};
use crate::kube::csr::Request;
use crate::kube::key::Key;
use crate::kube::pin;
use crate::kube::wire_tests::cluster::TestCluster;
use crate::kube::wire_tests::{Ca, ok_json, serve_chain};
use crate::proxy::Via;
use crate::seed::{Cluster, Endpoint, Seed, parse};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

pub(super) const SECRET: &str = "0123456789abcdef";

fn ca() -> String {
    Ca::new().pem
}

/// A seed that names `ca` by its pin.
fn seed(ca: &str, more: &str) -> Seed {
    let pin = pin::pin_of(&pin::certificates(ca).unwrap()[0]).unwrap();
    let text = format!(
        "version = 1\n[cluster]\napiserver = [\"10.0.0.1\", \"[fd00::1]:443\"]\ntoken = \"abcdef.{SECRET}\"\nca-cert-hashes \
         = \"{pin}\"\n{more}"
    );
    parse(text.as_bytes()).unwrap()
}

fn cluster(ca: &str) -> Cluster {
    seed(ca, "").join().unwrap().clone()
}

pub(super) fn input(cluster: &Cluster) -> JoinInput {
    JoinInput {
        cluster: cluster.clone(),
        via: Via::default(),
        node_name: "edge-1".into(),
        kubelet_version: "1.36.3".into(),
        target: "generic-amd64".into(),
        cri_socket: "unix:///run/containerd/containerd.sock".into(),
        resolv_conf: Some("/run/systemd/resolve/resolv.conf".into()),
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_365_108),
        csr_wait: Duration::from_secs(60),
        ready_wait: Duration::from_secs(90),
    }
}

/// A device with one key, which notes what it is asked.
pub(super) struct Bench {
    pub(super) key: Key,
    pub(super) asked: Vec<String>,
    /// No time before this one is accepted.
    floor: SystemTime,
}

impl Bench {
    pub(super) fn new() -> Self {
        Bench { key: Key::generate().unwrap(), asked: Vec::new(), floor: SystemTime::UNIX_EPOCH }
    }
}

impl JoinHost for Bench {
    fn request(&mut self, fresh: bool) -> Result<Request, Fault> {
        self.asked.push(format!("request {fresh}"));
        self.key.request("edge-1")
    }
    fn found(&mut self, cluster: &FoundCluster) -> Result<(), Fault> {
        let time = cluster.time.unwrap();
        self.asked.push(format!("cluster {} at {}", cluster.endpoint, crate::text::unix_seconds(time)));
        if time < self.floor { Err(Fault::new(Code::ClusterTime, "below the floor")) } else { Ok(()) }
    }
    fn progress(&mut self, text: &str) {
        self.asked.push(format!("progress {text}"));
    }
    fn notice(&mut self, text: &str) {
        self.asked.push(format!("notice {text}"));
    }
}

/// The seed's table of a cluster that runs.
pub(super) fn table(cluster: &TestCluster) -> Cluster {
    parse(cluster.seed(true).as_bytes()).unwrap().join().unwrap().clone()
}

/// What a right join worker says of this cluster.
pub(super) fn found(ca_pem: &str) -> WorkerMessage {
    WorkerMessage::Found(FoundCluster { endpoint: 0, ca_pem: ca_pem.to_owned(), time: None })
}

/// The privileged part, which receives these messages and then nothing more.
pub(super) fn talk(cluster: &Cluster, device: &mut Bench, message: Vec<WorkerMessage>) -> Result<Obtained, Fault> {
    let (here, there) = UnixStream::pair().unwrap();
    let speaker = std::thread::spawn(move || {
        let _task: Option<JoinRequest> = receive(&there).unwrap();
        // The other side may hang up before the end.
        let _ = message.iter().try_for_each(|message| send(&there, message));
        let _ = there.shutdown(std::net::Shutdown::Write);
        // Its answers are read, so that it is not cut off while it sends them.
        while let Ok(Some(_)) = receive::<serde_json::Value>(&there) {}
    });
    let result = obtain(&here, &input(cluster), device);
    drop(here);
    speaker.join().unwrap();
    result
}

fn refused(cluster: &TestCluster, message: Vec<WorkerMessage>) -> (String, Vec<String>) {
    let mut device = Bench::new();
    let Err(fault) = talk(&table(cluster), &mut device, message) else { panic!("it was believed") };
    assert_eq!(fault.owner(), Owner::Cluster);
    (fault.to_string(), device.asked)
}

#[test]
fn a_task_is_the_same_at_the_other_end() {
    let ca = crate::kube::wire_tests::Ca::new().pem;
    let more = "token-expires = 2027-01-01T00:00:00Z\n[network]\nproxy = \"http://u:hunter22@10.0.0.9:3128\"\nno-proxy = \
                [\"10.0.0.0/8\", \".example\"]\n";
    let by_ca = format!(
        "version = 1\n[cluster]\napiserver = \"a.example\"\ntoken = \"abcdef.{SECRET}\"\nca-cert = \"\"\"\n{ca}\"\"\"\n"
    );
    for seed in [seed(&ca, more), parse(by_ca.as_bytes()).unwrap()] {
        let input = JoinInput { via: seed.network.via.clone(), ..input(seed.join().unwrap()) };
        let mut bytes = Vec::new();
        send(&mut bytes, &JoinRequest::new(&input)).unwrap();
        let task: JoinRequest = receive(&bytes[..]).unwrap().unwrap();
        assert_eq!(task.input().unwrap(), input);
    }
}

#[test]
fn secrets_are_written_down_in_a_task_alone() {
    let seed = seed(&ca(), "[network]\nproxy = \"http://u:hunter22@10.0.0.9:3128\"\n");
    let input = JoinInput { via: seed.network.via.clone(), ..input(seed.join().unwrap()) };
    let json = serde_json::to_string(&input).unwrap();
    for shown in [format!("{input:?} {input:#?}"), json.clone()] {
        assert!(!shown.contains(SECRET) && !shown.contains("hunter22"), "{shown}");
    }
    // What was left out is not made up.
    let read: JoinInput = serde_json::from_str(&json).unwrap();
    assert!(read.cluster.token.is_erased() && !read.via.proxy.unwrap().has_credentials());
    let values = |token: &str, proxy: &str| {
        let task = serde_json::json!({"input": input, "token": token, "proxy": proxy}).to_string();
        serde_json::from_str::<JoinRequest>(&task).unwrap().input().unwrap_err().to_string()
    };
    // The secret of the other tests is the message's own example.
    let other = "q7w2e9r4t1y6u8i3";
    for text in [values(&format!("abcdef.{other}!"), "http://a"), values(&format!("abcdef.{other}"), "hunter22")] {
        assert!(text.starts_with("read the task's ") && !text.contains(other) && !text.contains("hunter22"), "{text}");
    }
}

#[test]
fn what_is_no_message() {
    let read = |bytes: &[u8]| receive::<WorkerMessage>(bytes).map_err(|e| e.to_string());
    assert_eq!(read(b""), Ok(None));
    assert_eq!(read(b"\0\0\0\x05{}"), Err("receive a message: it ends in the middle".to_owned()));
    assert_eq!(read(b"\xff\xff\xff\xff"), Err(format!("receive a message: it is longer than {LONGEST} bytes")));
    assert_eq!(read(b"\0\0\0\x02{}"), Err("read a message: it is not one".to_owned()));
    let long = WorkerMessage::Notice("x".repeat(LONGEST));
    assert_eq!(
        send(Vec::new(), &long).unwrap_err().to_string(),
        format!("send a message: it is longer than {LONGEST} bytes")
    );
}

/// `Date` of all answers, 2026-11-22T16:31:48Z.
const DATE: &str = "cluster 0 at 1795365108";

#[test]
fn a_whole_conversation() {
    let (cluster, mut device) = (TestCluster::new(), Bench::new());
    let issued = cluster.issue(&device.key);
    let message = vec![
        WorkerMessage::Progress("looking for the cluster".into()),
        found(&cluster.ca.pem),
        WorkerMessage::Ask { fresh: false },
        WorkerMessage::Notice(format!("a\nb \x1b[31m abcdef.{SECRET}")),
        WorkerMessage::Ask { fresh: true },
        WorkerMessage::Issued(format!("subject: x\n{issued}")),
    ];
    let obtained = talk(&table(&cluster), &mut device, message).unwrap();
    assert_eq!(obtained.certificate_pem, issued.replace("\r\n", "\n"));
    assert_eq!(obtained.cluster.server, format!("https://{}", cluster.at));
    assert_eq!(cluster.requests(), ["anonymous /api/v1/namespaces/kube-public/configmaps/cluster-info"]);
    let asked =
        ["progress looking for the cluster", DATE, "request false", "notice a b  [31m abcdef.…", "request true"];
    assert_eq!(device.asked, asked);
    // What the device keeps is what this cluster says to the node itself.
    let key = device.key.sec1_pem().unwrap();
    let input = input(&table(&cluster));
    let joined = joined(&input, &obtained.cluster, obtained.certificate_pem.clone(), &key, &mut device).unwrap();
    assert_eq!(
        (joined.server, joined.ca_pem),
        (format!("https://{}", cluster.at), cluster.ca.pem.replace("\r\n", "\n"))
    );
    assert_eq!(joined.networks, "10.244.0.0/16,10.96.0.0/12");
    assert_eq!((joined.node_ports.as_str(), joined.cluster_version.as_str()), ("20000-22767", "v1.36.3"));
    assert!(joined.kubelet_config.contains("maxPods: 60\n") && !joined.leftover_node);
    let as_node = &cluster.requests()[1..];
    assert!(as_node.len() == 3 && as_node.iter().all(|asked| asked.starts_with("node ")), "{as_node:?}");
}

/// The join worker sends the token only after the privileged part has accepted the server's time.
#[test]
fn a_refused_time_ends_the_join_before_the_token_is_sent() {
    let ca = Ca::new();
    let text = |at: &Endpoint| {
        let ca = &ca.pem;
        format!(
            "version = 1\n[cluster]\napiserver = \"{at}\"\ntoken = \"abcdef.{SECRET}\"\nca-cert = \"\"\"\n{ca}\"\"\"\n"
        )
    };
    // The server's time is 2026-11-22T16:31:48Z.
    for (floor, authorized) in [(1_795_365_109, 0), (1_795_365_108, 1)] {
        let (leaf, key) = ca.leaf("127.0.0.1", 2020, 2090);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (at, requests) = serve_chain(listener, vec![leaf], &key, ok_json("{}"));
        let cluster = parse(text(&at).as_bytes()).unwrap().join().unwrap().clone();
        let mut device = Bench { floor: SystemTime::UNIX_EPOCH + Duration::from_secs(floor), ..Bench::new() };
        let (here, there) = UnixStream::pair().unwrap();
        let confined = std::thread::spawn(move || serve(&there));
        obtain(&here, &input(&cluster), &mut device).map(drop).unwrap_err();
        drop(here);
        let _ = confined.join().unwrap();
        let requests = requests.lock().unwrap();
        let with_token = requests.iter().filter(|r| r.to_ascii_lowercase().contains("\r\nauthorization:")).count();
        assert_eq!((with_token, device.asked.len()), (authorized, 2), "{requests:?} {:?}", device.asked);
        // Before: one of the join worker, one of the privileged part.
        assert!(requests[..2].iter().all(|r| r.starts_with("GET /version ")), "{requests:?}");
    }
}

#[test]
fn a_failure_keeps_its_code_and_loses_the_token() {
    let (cluster, mut device) = (TestCluster::new(), Bench::new());
    let failed =
        WorkerMessage::Failed { code: "FB424".into(), text: format!("{SECRET}\n!"), retry_after: Some(u64::MAX) };
    let fault = talk(&table(&cluster), &mut device, vec![failed]).unwrap_err();
    assert_eq!((fault.code, fault.to_string().as_str()), (Code::NodeNameTaken, "… !"));
    assert_eq!(fault.retry_after, Some(Duration::from_secs(3600)));
}

#[test]
fn messages_out_of_turn() {
    let cluster = TestCluster::new();
    let (ask, find) = (|fresh| WorkerMessage::Ask { fresh }, || found(&cluster.ca.pem));
    let turn = "join through the join worker: it asks for a key out of turn";
    let again = "join through the join worker: it finds a cluster a second time";
    let early = "join through the join worker: it gives a certificate out of turn";
    let end = "join through the join worker: it ended without a word; journalctl -u 'firstboot-network@*'";
    for (message, text, asked) in [
        (vec![], end, vec![]),
        (vec![ask(false)], turn, vec![]),
        (vec![find(), ask(true)], turn, vec![DATE]),
        (vec![find(), ask(false), ask(false)], turn, vec![DATE, "request false"]),
        (vec![find(), ask(false), ask(true), ask(true)], turn, vec![DATE, "request false", "request true"]),
        (vec![find(), find()], again, vec![DATE]),
        (vec![find(), ask(false), find()], again, vec![DATE, "request false"]),
        (vec![find(), WorkerMessage::Issued(String::new())], early, vec![DATE]),
        (vec![WorkerMessage::Issued(String::new())], early, vec![]),
    ] {
        assert_eq!(refused(&cluster, message), (text.to_owned(), asked.iter().map(|a| (*a).to_owned()).collect()));
    }
    let many = (0..100).map(|n| WorkerMessage::Progress(n.to_string())).collect();
    let (text, asked) = refused(&cluster, many);
    assert_eq!((text.as_str(), asked.len()), ("join through the join worker: it talks without end", 50));
}

#[test]
fn a_message_that_is_none_ends_the_conversation() {
    let ca = ca();
    let cluster = cluster(&ca);
    let (here, mut there) = UnixStream::pair().unwrap();
    there.write_all(b"\0\0\0\x07garbage").unwrap();
    let fault = obtain(&here, &input(&cluster), &mut Bench::new()).unwrap_err();
    assert_eq!((fault.code, fault.to_string().as_str()), (Code::NetworkPart, "read a message: it is not one"));
}
