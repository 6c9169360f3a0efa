// SPDX-License-Identifier: Apache-2.0
//! The phase with a join worker in the hands of an attacker: which files, units and clusters it reaches. S-numbers are
//! those of the security review.

use super::super::tests::cx;
use super::*;
use crate::host::fake::{Fake, Recorded};
use crate::join_worker::message::{JoinRequest, receive};
use crate::kube::wire_tests::cluster::TestCluster;
use crate::paths::{CA_FILE, CURRENT_PEM, KUBELET_CONF};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

const START: &str = "systemctl start firstboot-network.socket";
const STOP: &str = "systemctl stop firstboot-network.socket firstboot-network@*.service";
/// What an attempt that fails may leave: the key that it asked a certificate for, and the cluster's time.
const KEPT: [&str; 5] = ["join.key", "journal", "journal.copy", "verified-time", "verified-time.copy"];

/// What a join worker sends, each with its length before it.
type Frames = Arc<Mutex<Vec<u8>>>;

/// A device whose join worker sends `frames`, whatever it hears.
struct Device {
    cx: PhaseContext,
    seen: Rc<Recorded>,
    frames: Frames,
    root: tempfile::TempDir,
}

impl Device {
    fn new(seed: &str) -> Self {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let (fake, seen) = Fake::new();
        let frames = Frames::default();
        let say = frames.clone();
        let fake = fake.serving(join_worker::SOCKET, move |stream| speak(&stream, &say.lock().unwrap().clone()));
        let mut cx = cx(root.path(), fake, seed);
        // An image of before the servers' time.
        cx.image.build_time = 1_700_000_000;
        cx.host.record(Record::Fact { name: Fact::Node, value: "edge-1".into() }).unwrap();
        Device { cx, seen, frames, root }
    }

    /// One attempt, in which the join worker sends these bytes; what came of it, and the commands that were run.
    fn attempt(&self, bytes: Vec<u8>) -> (Result<(), Fault>, Vec<String>) {
        *self.frames.lock().unwrap() = bytes;
        let done = apply(&self.cx);
        (done, self.seen.commands.take())
    }

    /// The key that is kept for the next attempt; one is made where there is none.
    fn key(&self) -> Key {
        let path = self.root.path().join(&key_path()[1..]);
        let kept = || Key::from_pem(&std::fs::read_to_string(&path).ok()?);
        kept().unwrap_or_else(|| {
            let keeper = &mut DeviceJoinHost { host: &self.cx.host, image: &self.cx.image, node: "edge-1", key: None };
            keeper.request(false).unwrap();
            kept().unwrap()
        })
    }

    /// Every file below the root but those of an attempt, with its content.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all = BTreeMap::new();
        walk(self.root.path(), &mut all);
        all.retain(|path, _| !KEPT.iter().any(|name| path.ends_with(&format!("/var/lib/firstboot/{name}"))));
        all.retain(|path, _| !path.ends_with(".img"));
        all
    }
}

fn walk(directory: &Path, all: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() && !path.is_symlink() {
            true => walk(&path, all),
            false => drop(all.insert(path.display().to_string(), std::fs::read(&path).unwrap_or_default())),
        }
    }
}

/// What a join worker does that does not listen.
fn speak(stream: &UnixStream, bytes: &[u8]) {
    let _task = receive::<JoinRequest>(stream);
    // The other side may hang up before the end.
    let _ = (&mut &*stream).write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    while let Ok(Some(_)) = receive::<Value>(stream) {}
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

fn frames(messages: &[Value]) -> Vec<u8> {
    messages.iter().flat_map(|message| frame(message.to_string().as_bytes())).collect()
}

fn text(device: &Device, path: &str) -> String {
    let mut path = device.root.path().join(&path[1..]);
    if let Ok(target) = path.read_link() {
        path = device.root.path().join(target.strip_prefix("/").unwrap());
    }
    std::fs::read_to_string(path).unwrap()
}

/// A join worker ends with its attempt, however that ends; so does the way to start one.
#[test]
fn s16_the_join_worker_ends_with_every_attempt() {
    let real = TestCluster::new();
    let device = Device::new(&real.seed(true));
    let (found, ask) =
        (json!({"Found": {"endpoint": 0, "ca_pem": real.ca.pem, "time": null}}), json!({"Ask": {"fresh": false}}));
    let failed = json!({"Failed": {"code": "FB424", "text": "taken", "retry_after": null}});
    let issued = json!({ "Issued": real.issue(&device.key()) });
    for (messages, good) in [
        (vec![], false),
        (vec![json!({"Progress": "a"}), failed], false),
        (vec![found.clone(), found.clone()], false),
        (vec![json!(7)], false),
        (vec![found, ask, issued], true),
    ] {
        let (done, commands) = device.attempt(frames(&messages));
        assert_eq!(done.is_ok(), good, "{done:?}");
        assert_eq!(commands[..2], [START, STOP], "{done:?}");
    }
    // When it cannot be started either.
    let (fake, seen) = Fake::new();
    let root = tempfile::tempdir().unwrap();
    let cx = cx(root.path(), fake, &real.seed(true));
    cx.host.record(Record::Fact { name: Fact::Node, value: "edge-1".into() }).unwrap();
    assert_eq!(apply(&cx).unwrap_err().to_string(), format!("connect to {}: no program listens", join_worker::SOCKET));
    assert_eq!(*seen.commands.borrow(), [START, STOP]);
}

/// What the unit says of the log, and of an end that no other process brings about.
#[test]
fn s16_the_unit_writes_to_no_log_and_ends() {
    let unit = include_str!("../../units/firstboot-network@.service");
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    assert_eq!((value("StandardOutput"), value("StandardError")), (Some("null"), Some("null")));
    assert!(value("LogRateLimitBurst").is_some() && value("LogRateLimitIntervalSec").is_some());
    let most: u64 = value("RuntimeMaxSec").unwrap().parse().unwrap();
    assert!(most > privileged::DEADLINE.as_secs() && most < 2 * privileged::DEADLINE.as_secs());
}

/// What an attacker knows and has, for changes of a real conversation.
struct Attacker<'a> {
    real: &'a TestCluster,
    mine: &'a TestCluster,
    random: fastrand::Rng,
    /// For the key that is kept: by its cluster, and by the attacker's.
    issued: [String; 2],
}

impl Attacker<'_> {
    /// A conversation as a correct join worker has it.
    fn real(&self) -> Vec<Value> {
        vec![
            json!({"Progress": "looking for the cluster"}),
            json!({"Found": {"endpoint": 0, "ca_pem": self.real.ca.pem, "time": null}}),
            json!({"Progress": "asking for a certificate"}),
            json!({"Ask": {"fresh": false}}),
            json!({"Notice": "a notice"}),
            json!({"Issued": self.issued[0]}),
        ]
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.random.usize(..all.len())].clone()
    }

    fn certificates(&mut self) -> Value {
        let (real, mine) = (self.real.ca.pem.clone(), self.mine.ca.pem.clone());
        let secret = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";
        let all = [
            json!(real),
            json!(mine),
            json!(format!("{real}{mine}")),
            json!(format!("{mine}{real}")),
            json!(format!("{secret}{real}")),
            json!(self.flipped(real.as_bytes())),
            json!(self.issued[0]),
            json!(self.issued[1]),
            json!(format!("{}{mine}", self.issued[0])),
            json!(format!("{}{}", self.issued[1], self.issued[0])),
            json!(self.flipped(self.issued[0].clone().as_bytes())),
            json!(""),
            json!(null),
            json!([1, 2]),
            json!("x".repeat(100_000)),
        ];
        self.one_of(&all)
    }

    fn flipped(&mut self, bytes: &[u8]) -> String {
        let mut bytes = bytes.to_vec();
        let at = self.random.usize(..bytes.len());
        bytes[at] ^= 1 << self.random.u32(..7);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A message of any kind, correct or not.
    fn message(&mut self) -> Value {
        let text = self.one_of(&["", "abcdef.0123456789abcdef", "a\u{0}b\n\u{1b}[31m", "../../etc/shadow"]);
        let code = self.one_of(&["FB100", "FB205", "FB206", "FB306", "FB321", "FB424", "FB428", "", "FB999"]);
        let number =
            self.one_of(&[json!(0), json!(1), json!(u64::MAX), json!(-1), json!("0"), json!(null), json!(1e300)]);
        let (certificates, server) = (self.certificates(), format!("https://{}", self.mine.at));
        let time = json!({"secs_since_epoch": number, "nanos_since_epoch": number});
        let all = [
            json!({ "Progress": text }),
            json!({ "Notice": text }),
            json!({"Found": {"endpoint": number, "ca_pem": certificates, "time": null}}),
            json!({"Found": {"endpoint": 0, "ca_pem": certificates, "time": time}}),
            json!({"Found": {"endpoint": 0, "ca_pem": certificates, "time": null, "server": server}}),
            json!({"Ask": {"fresh": self.random.bool()}}),
            json!({ "Issued": certificates }),
            json!({"Failed": {"code": code, "text": text, "retry_after": number}}),
            json!({"Joined": {"server": server, "ca_pem": certificates, "certificate_pem": self.issued[0]}}),
            json!({ "Clock": number }),
            json!({ text: certificates }),
            number,
        ];
        self.one_of(&all)
    }

    /// A real conversation with some changes; how many messages it has.
    fn conversation(&mut self) -> (usize, Vec<u8>) {
        let mut messages = self.real();
        for _ in 0..self.random.usize(..4) {
            let at = self.random.usize(..messages.len());
            let message = self.message();
            match self.random.u8(..6) {
                0 => drop(messages.remove(at)),
                1 => messages.insert(at, messages[at].clone()),
                2 => {
                    let to = self.random.usize(..messages.len());
                    messages.swap(at, to);
                }
                3 => messages.insert(at, message),
                4 => messages[at] = message,
                _ => messages.truncate(at + 1),
            }
            if messages.is_empty() {
                messages.push(self.message());
            }
        }
        let mut all: Vec<Vec<u8>> = messages.iter().map(|message| frame(message.to_string().as_bytes())).collect();
        // In some the bytes themselves are changed.
        if self.random.u8(..4) == 0 {
            let at = self.random.usize(..all.len());
            let bytes = &mut all[at];
            let place = self.random.usize(..bytes.len());
            match self.random.u8(..5) {
                0 => bytes[place] ^= 1 << self.random.u32(..8),
                1 => bytes.truncate(place),
                2 => bytes[..4].copy_from_slice(&self.random.u32(..).to_be_bytes()),
                3 => bytes.insert(place, self.random.u8(..)),
                _ => *bytes = frame("[".repeat(self.random.usize(..10_000)).as_bytes()),
            }
        }
        (all.len(), all.concat())
    }
}

/// How many messages are sent to the privileged part by each of the two tests, in place of their own number.
const MESSAGES: &str = "FIRSTBOOT_WORKER_MESSAGES";

/// Changed conversations change no file, no unit and not the cluster that is joined: they fail and leave what an attempt
/// leaves, or the device joins the seed's cluster, as the cluster itself says.
#[test]
fn s01_fuzzed_messages_change_neither_files_nor_units_nor_the_cluster() {
    fuzz(2_000, 1);
}

#[test]
#[ignore = "takes minutes"]
fn s01_a_hundred_thousand_fuzzed_messages_change_neither_files_nor_units_nor_the_cluster() {
    fuzz(100_000, 2);
}

fn fuzz(most: usize, choice: u64) {
    let most = std::env::var(MESSAGES).map_or(most, |n| n.parse().unwrap());
    let (real, mine) = (TestCluster::new(), TestCluster::new());
    let random = fastrand::Rng::with_seed(choice);
    let mut attacker = Attacker { real: &real, mine: &mine, random, issued: Default::default() };
    let (mut sent, mut joined, mut key) = (0, 0, String::new());
    let new = |n: usize| {
        let device = Device::new(&real.seed(n.is_multiple_of(2)));
        device.key();
        let files = device.files();
        (device, files)
    };
    let (mut device, mut files) = new(0);
    while sent < most {
        let kept = device.key();
        if *kept.pem().expose() != key {
            key = kept.pem().expose().clone();
            attacker.issued = [real.issue(&kept), mine.issue(&kept)];
        }
        let (messages, bytes) = attacker.conversation();
        sent += messages;
        let shown = || String::from_utf8_lossy(&bytes).into_owned();
        let (done, commands) = device.attempt(bytes.clone());
        assert_eq!(commands[..2], [START, STOP], "{}", shown());
        match done {
            Err(fault) => {
                // As the first word, before it has met the network, it may say that the kernel does not confine it; that
                // is tried again, too.
                let unconfined = fault.code == Code::NotConfined && bytes[4..].starts_with(b"{\"Failed\":");
                assert!(fault.owner() == Owner::Cluster || unconfined, "{fault}: {}", shown());
                assert!(commands.len() == 2 && device.files() == files, "{commands:?} {}", shown());
            }
            Ok(()) => {
                joined += 1;
                let ca = real.ca.pem.replace("\r\n", "\n");
                assert_eq!(text(&device, CA_FILE), ca, "{}", shown());
                let server = format!("    server: https://{}\n", real.at);
                assert!(text(&device, KUBELET_CONF).contains(&server), "{}", shown());
                let issued = attacker.issued[0].replace("\r\n", "\n");
                assert!(text(&device, CURRENT_PEM).starts_with(&issued), "{}", shown());
                (device, files) = new(joined);
            }
        }
        assert_eq!(mine.connections(), 0, "{}", shown());
    }
    eprintln!("{sent} messages; {joined} conversations joined the seed's cluster, none another");
    assert!(joined > sent / 200, "only {joined} of {sent}");
}
