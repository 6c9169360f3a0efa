// SPDX-License-Identifier: Apache-2.0
//! What a join worker sends to the privileged part: no bytes make it give out a key, believe a cluster, or stop.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use firstboot::fault::{Code, Fault, Owner};
use firstboot::join_worker::privileged::until;
use firstboot::kube::contract::{FoundCluster, JoinHost, JoinInput};
use firstboot::kube::csr::Request;
use firstboot::proxy::Via;
use firstboot::seed::{Cluster, Endpoint, JoinToken, Trust};

const SECRET: &str = "0123456789abcdef";
/// Of the CA in pki/.
const CA: &str = include_str!("../pki/ca.pem");
/// Longest text that may reach a person, characters, with what firstboot says before it.
const TEXT: usize = 2100;

/// A device that must not be asked for anything.
struct Device;

impl JoinHost for Device {
    fn request(&mut self, _fresh: bool) -> Result<Request, Fault> {
        panic!("a key is asked for before any cluster has proven itself");
    }
    fn found(&mut self, cluster: &FoundCluster) -> Result<(), Fault> {
        panic!("a cluster is believed that nothing answers for: {cluster:?}");
    }
    fn progress(&mut self, text: &str) {
        line(text);
    }
    fn notice(&mut self, text: &str) {
        line(text);
    }
}

fn line(text: &str) {
    assert!(!text.contains(SECRET), "a text holds the token");
    assert!(!text.chars().any(char::is_control) && text.chars().count() <= TEXT, "{text:?}");
}

/// The bytes are all that the join worker sends. The seed's API server is a port on which no program listens.
pub fn run(input: &[u8]) {
    let (here, mut there) = UnixStream::pair().expect("a pair of sockets");
    // Less than a socket holds.
    there.write_all(input).expect("write to a socket");
    there.shutdown(Shutdown::Write).expect("end of the messages");
    let cluster = Cluster {
        apiserver: vec![Endpoint { host: "127.0.0.1".to_owned(), port: 1 }],
        token: JoinToken::parse(&format!("abcdef.{SECRET}")).expect("a token"),
        trust: Trust::Ca(CA.to_owned()),
        token_expires: None,
        certificate_key: None,
        virtual_ip: None,
    };
    let input = JoinInput {
        cluster,
        via: Via::default(),
        node_name: "edge-1".to_owned(),
        kubelet_version: "1.36.3".to_owned(),
        target: "generic-amd64".to_owned(),
        cri_socket: "unix:///run/containerd/containerd.sock".to_owned(),
        resolv_conf: None,
        now: SystemTime::UNIX_EPOCH,
        csr_wait: Duration::ZERO,
        ready_wait: Duration::ZERO,
    };
    let fault = until(Instant::now() + Duration::from_secs(4), &here, &input, &mut Device);
    let fault = fault.expect_err("no cluster answers");
    assert!(fault.owner() == Owner::Cluster || fault.code == Code::NotConfined, "{fault}");
    line(&fault.to_string());
}
