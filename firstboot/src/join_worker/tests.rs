// SPDX-License-Identifier: Apache-2.0
//! The conversation with a join worker that was taken over: whatever it says, the privileged part names what is wrong
//! with it, and does nothing of it.

use super::confined::serve;
use super::message::{JoinRequest, LONGEST, WorkerMessage, receive, send};
use super::privileged::obtain;
use crate::fault::{Code, Fault, Owner};
use crate::kube::contract::{JoinHost, JoinInput, Joined};
use crate::kube::csr::{Key, Request};
use crate::kube::pin;
use crate::kube::wire_tests::{Ca, ok_json, serve_chain};
use crate::proxy::Via;
use crate::seed::{Cluster, Endpoint, Seed, parse};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

const SECRET: &str = "0123456789abcdef";

/// A certificate over `key`, which signs it itself.
fn certificate(key: &KeyPair, names: &[(DnType, &str)]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    names.iter().for_each(|(kind, name)| params.distinguished_name.push(kind.clone(), *name));
    params.self_signed(key).unwrap().pem()
}

fn ca() -> String {
    certificate(&KeyPair::generate().unwrap(), &[(DnType::CommonName, "kubernetes")])
}

fn node_certificate(key: &Key, node: &str) -> String {
    let key = KeyPair::from_pem(key.pem().expose()).unwrap();
    let name = format!("system:node:{node}");
    certificate(&key, &[(DnType::OrganizationName, "system:nodes"), (DnType::CommonName, &name)])
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
    seed(ca, "").cluster
}

fn input(cluster: &Cluster) -> JoinInput {
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
struct Bench {
    key: Key,
    asked: Vec<String>,
    /// No time before this one is accepted.
    floor: SystemTime,
}

impl Bench {
    fn new() -> Self {
        Bench { key: Key::generate().unwrap(), asked: Vec::new(), floor: SystemTime::UNIX_EPOCH }
    }
}

impl JoinHost for Bench {
    fn request(&mut self, fresh: bool) -> Result<Request, Fault> {
        self.asked.push(format!("request {fresh}"));
        self.key.request("edge-1")
    }
    fn server_time(&mut self, time: SystemTime) -> Result<(), Fault> {
        self.asked.push(format!("clock {}", crate::text::unix_seconds(time)));
        if self.floor <= time { Ok(()) } else { Err(Fault::new(Code::ClusterTime, "below the floor")) }
    }
    fn progress(&mut self, text: &str) {
        self.asked.push(format!("progress {text}"));
    }
    fn notice(&mut self, text: &str) {
        self.asked.push(format!("notice {text}"));
    }
}

/// What a right join worker hands over at the end.
fn good(ca: &str, key: &Key) -> Joined {
    Joined {
        server: "https://10.0.0.1:6443".into(),
        ca_pem: ca.to_owned(),
        cluster_version: "v1.36.3".into(),
        networks: "10.244.0.0/16,fd00:10::/112".into(),
        node_ports: "20000-22767".into(),
        kubelet_config: "kind: KubeletConfiguration\n".into(),
        cri_socket: "unix:///run/containerd/containerd.sock".into(),
        certificate_pem: node_certificate(key, "edge-1"),
        leftover_node: true,
    }
}

/// The privileged part, which receives these messages and then nothing more.
fn talk(cluster: &Cluster, device: &mut Bench, message: Vec<WorkerMessage>) -> Result<Joined, Fault> {
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

fn refused(message: Vec<WorkerMessage>) -> (String, Vec<String>) {
    let (ca, mut device) = (ca(), Bench::new());
    let Err(fault) = talk(&cluster(&ca), &mut device, message) else { panic!("it was believed") };
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
        let input = JoinInput { via: seed.network.via.clone(), ..input(&seed.cluster) };
        let mut bytes = Vec::new();
        send(&mut bytes, &JoinRequest::new(&input)).unwrap();
        let task: JoinRequest = receive(&bytes[..]).unwrap().unwrap();
        assert_eq!(task.input().unwrap(), input);
    }
}

#[test]
fn secrets_are_written_down_in_a_task_alone() {
    let seed = seed(&ca(), "[network]\nproxy = \"http://u:hunter22@10.0.0.9:3128\"\n");
    let input = JoinInput { via: seed.network.via.clone(), ..input(&seed.cluster) };
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

#[test]
fn a_whole_conversation() {
    let (ca, mut device) = (ca(), Bench::new());
    let joined = good(&ca, &device.key);
    let message = vec![
        WorkerMessage::Progress("looking for the cluster".into()),
        WorkerMessage::Clock(1_795_365_110),
        WorkerMessage::Ask { fresh: false },
        WorkerMessage::Notice(format!("a\nb \x1b[31m abcdef.{SECRET}")),
        WorkerMessage::Ask { fresh: true },
        WorkerMessage::Joined(Box::new(joined.clone())),
    ];
    assert_eq!(talk(&cluster(&ca), &mut device, message).unwrap(), joined);
    let asked = [
        "progress looking for the cluster",
        "clock 1795365110",
        "request false",
        "notice a b  [31m abcdef.…",
        "request true",
    ];
    assert_eq!(device.asked, asked);
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
        let cluster = parse(text(&at).as_bytes()).unwrap().cluster;
        let mut device = Bench { floor: SystemTime::UNIX_EPOCH + Duration::from_secs(floor), ..Bench::new() };
        let (here, there) = UnixStream::pair().unwrap();
        let confined = std::thread::spawn(move || serve(&there));
        obtain(&here, &input(&cluster), &mut device).unwrap_err();
        drop(here);
        let _ = confined.join().unwrap();
        let requests = requests.lock().unwrap();
        let with_token = requests.iter().filter(|r| r.to_ascii_lowercase().contains("\r\nauthorization:")).count();
        assert_eq!((with_token, device.asked.len()), (authorized, 2), "{requests:?} {:?}", device.asked);
    }
}

#[test]
fn a_failure_keeps_its_code_and_loses_the_token() {
    let (ca, mut device) = (ca(), Bench::new());
    let failed = |code: &str| WorkerMessage::Failed {
        code: code.into(),
        text: format!("{SECRET}\n!"),
        retry_after: Some(u64::MAX),
    };
    let fault = talk(&cluster(&ca), &mut device, vec![failed("FB205")]).unwrap_err();
    assert_eq!((fault.code, fault.to_string().as_str()), (Code::KubeletVersion, "… !"));
    assert_eq!(fault.retry_after, Some(Duration::from_secs(3600)));
    // No code, and codes by which it could stop the device.
    for code in ["nobody", "FB999", "FB100", "FB107", "FB206", "FB306"] {
        let (text, _) = refused(vec![failed(code)]);
        assert_eq!(text, "join through the join worker: its fault has no code that a join can have", "{code}");
    }
}

#[test]
fn messages_out_of_turn() {
    let ask = |fresh| WorkerMessage::Ask { fresh };
    let turn = "join through the join worker: it asks for a key out of turn";
    let time = "join through the join worker: it tells the time a second time or too late";
    let end = "join through the join worker: it ended without a word; journalctl -u 'firstboot-network@*'";
    for (message, text, asked) in [
        (vec![], end, vec![]),
        (vec![ask(true)], turn, vec![]),
        (vec![ask(false), ask(false)], turn, vec!["request false"]),
        (vec![ask(false), ask(true), ask(true)], turn, vec!["request false", "request true"]),
        (vec![WorkerMessage::Clock(1), WorkerMessage::Clock(2)], time, vec!["clock 1"]),
        (vec![ask(false), WorkerMessage::Clock(1)], time, vec!["request false"]),
    ] {
        assert_eq!(refused(message), (text.to_owned(), asked.iter().map(|a| (*a).to_owned()).collect()));
    }
    let many = (0..100).map(|n| WorkerMessage::Progress(n.to_string())).collect();
    let (text, asked) = refused(many);
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

#[test]
fn what_cannot_come_from_the_cluster() {
    let ca = ca();
    let cluster = cluster(&ca);
    let refused = |change: &dyn Fn(&mut Joined)| {
        let mut device = Bench::new();
        let mut joined = good(&ca, &device.key);
        change(&mut joined);
        let message = vec![WorkerMessage::Ask { fresh: false }, WorkerMessage::Joined(Box::new(joined))];
        let fault = talk(&cluster, &mut device, message).unwrap_err();
        let text = fault.to_string();
        (fault.code, text.strip_prefix("join through the join worker: ").unwrap_or(&text).to_owned())
    };
    let key = "the certificate is not for this node and its key";
    let other = Key::generate().unwrap();
    let wrong_ca = "the CA is not the one that the seed names";
    let server = "the API server is no https:// address";
    let values = "kubeadm-config has values that cannot be";
    type Change = Box<dyn Fn(&mut Joined)>;
    let secret = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";
    let changes: Vec<(Change, &str)> = vec![
        (Box::new(move |j| j.certificate_pem = node_certificate(&other, "edge-1")), key),
        (Box::new(|j| j.certificate_pem = String::new()), key),
        (Box::new(move |j| j.certificate_pem.insert_str(0, secret)), wrong_ca),
        (Box::new(move |j| j.ca_pem.push_str(secret)), wrong_ca),
        (Box::new(|j| j.ca_pem = super::tests::ca()), wrong_ca),
        (Box::new(|j| j.ca_pem = String::new()), wrong_ca),
        (Box::new(|j| j.server = "http://10.0.0.1".into()), server),
        (Box::new(|j| j.server = "https://a\nusers: []".into()), server),
        (Box::new(|j| j.server = format!("https://{}", "a".repeat(300))), server),
        (Box::new(|j| j.cluster_version = "v1.36.3\n".into()), values),
        (Box::new(|j| j.node_ports = "1 2".into()), values),
        (Box::new(|j| j.networks = "everything".into()), values),
        // s10: past an egress list and past the proxy, for ever.
        (Box::new(|j| j.networks = "10.244.0.0/16,0.0.0.0/0".into()), values),
        (Box::new(|j| (j.server, j.networks) = ("https://10.9.0.1:6443".into(), "10.9.0.0/16".into())), values),
        (Box::new(|j| j.cri_socket = "unix:///tmp/x".into()), values),
    ];
    for (change, text) in changes {
        assert_eq!(refused(&change), (Code::NetworkPart, text.to_owned()));
    }
    let (code, text) = refused(&|j| j.cluster_version = "v1.30.0".into());
    assert!(code == Code::ClusterTooOld && text.contains("newer than the cluster"), "{text}");
    // No key was requested.
    let mut device = Bench::new();
    let message = vec![WorkerMessage::Joined(Box::new(good(&ca, &device.key)))];
    let text = talk(&cluster, &mut device, message).unwrap_err().to_string();
    assert_eq!(text, format!("join through the join worker: {key}"));
    // With all in order.
    let mut device = Bench::new();
    let mut joined = good(&ca, &device.key);
    joined.networks = String::new();
    let message = vec![WorkerMessage::Ask { fresh: false }, WorkerMessage::Joined(Box::new(joined.clone()))];
    assert_eq!(talk(&cluster, &mut device, message).unwrap(), joined);
}
