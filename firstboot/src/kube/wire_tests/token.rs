// SPDX-License-Identifier: Apache-2.0
//! Which servers get to see the join token when the seed has `ca-cert`, and whose clock says that it has expired.

use std::time::Duration;

use super::*;
use crate::fault::{Code, Fault};
use crate::kube::clock::endpoint_time;
use crate::kube::contract::{FoundCluster, JoinHost, JoinInput};
use crate::kube::csr::Request;
use crate::kube::join::obtain;
use crate::kube::key::Key;
use crate::kube::kubeconfig;

/// A device that accepts a time, or refuses it.
struct Clock {
    accepts: bool,
    times: Vec<SystemTime>,
}

impl JoinHost for Clock {
    fn request(&mut self, _fresh: bool) -> Result<Request, Fault> {
        Key::generate()?.request("edge-1")
    }
    fn found(&mut self, cluster: &FoundCluster) -> Result<(), Fault> {
        self.times.extend(cluster.time);
        if self.accepts { Ok(()) } else { Err(Fault::new(Code::ClusterTime, "below the floor")) }
    }
    fn progress(&mut self, _text: &str) {}
    fn notice(&mut self, _text: &str) {}
}

/// The requests of a join by `ca-cert` to a server with this certificate, and why the join failed. The server answers
/// every request with an empty object of [`ok_json`]'s time, so the join ends at kubeadm-config at the latest.
fn join(ca: &Ca, leaf: (CertificateDer<'static>, KeyPair), accepts: bool) -> (Vec<String>, String, Clock) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, requests) = serve_chain(listener, vec![leaf.0], &leaf.1, ok_json("{}"));
    let cluster = Cluster {
        apiserver: vec![at.clone()],
        token: JoinToken::parse("abcdef.0123456789abcdef").unwrap(),
        trust: Trust::Ca(ca.pem.clone()),
        token_expires: None,
        certificate_key: None,
        virtual_ip: None,
    };
    let input = JoinInput {
        cluster,
        via: Via::default(),
        node_name: "edge-1".into(),
        kubelet_version: "1.36.3".into(),
        target: "generic-amd64".into(),
        cri_socket: "unix:///run/containerd/containerd.sock".into(),
        resolv_conf: None,
        now: year(2020),
        csr_wait: Duration::ZERO,
        ready_wait: Duration::ZERO,
    };
    let mut device = Clock { accepts, times: Vec::new() };
    let text = obtain(&input, &mut device).unwrap_err().to_string().replace(&at.to_string(), "HOST");
    let requests = requests.lock().unwrap().clone();
    (requests, text, device)
}

fn with_token(requests: &[String]) -> usize {
    requests.iter().filter(|r| r.to_ascii_lowercase().contains("\r\nauthorization: bearer abcdef.")).count()
}

#[test]
fn a_server_whose_certificate_was_not_valid_at_its_own_time_never_sees_the_token() {
    let ca = Ca::new();
    for (from, until, what) in [(2020, 2022, "has expired"), (2030, 2032, "is not yet valid")] {
        let (requests, text, device) = join(&ca, ca.leaf("127.0.0.1", from, until), true);
        assert_eq!(text, format!("certificate of API server HOST {what} at its own time, 2026-11-22T16:31:48Z"));
        assert_eq!((requests.len(), with_token(&requests), device.times), (1, 0, vec![]));
    }
}

#[test]
fn a_server_whose_time_the_device_refuses_never_sees_the_token() {
    let ca = Ca::new();
    let (requests, text, device) = join(&ca, ca.leaf("127.0.0.1", 2020, 2090), false);
    assert_eq!((text.as_str(), device.times.len()), ("below the floor", 1));
    assert_eq!((requests.len(), with_token(&requests)), (1, 0), "{requests:?}");
}

#[test]
fn a_server_that_has_proven_itself_and_tells_a_possible_time_sees_the_token_in_the_second_request() {
    let ca = Ca::new();
    let (requests, text, _) = join(&ca, ca.leaf("127.0.0.1", 2020, 2090), true);
    assert_eq!(text, "ConfigMap kubeadm-config: key ClusterConfiguration is missing");
    assert_eq!((requests.len(), with_token(&requests[..1]), with_token(&requests)), (2, 0, 1), "{requests:?}");
    assert!(requests[0].starts_with("GET /version HTTP/1.1\r\n"), "{requests:?}");
}

/// The join would choose it for good, although the next one could serve.
#[test]
fn a_server_that_cannot_serve_is_left_for_the_next_one() {
    let ca = Ca::new();
    let answers = |reply: String| serve(ca.leaf("127.0.0.1", 2020, 2090), reply);
    let sick = |code: &str| answers(http(&format!("{code}\r\nDate: Sun, 22 Nov 2026 16:31:48 GMT"), "no"));
    let chosen = |servers: &[&Endpoint]| {
        let cluster = Cluster {
            apiserver: servers.iter().map(|at| (*at).clone()).collect(),
            token: JoinToken::parse("abcdef.0123456789abcdef").unwrap(),
            trust: Trust::Ca(ca.pem.clone()),
            token_expires: None,
            certificate_key: None,
            virtual_ip: None,
        };
        let mut found = None;
        let runtime = crate::kube::runtime::new().unwrap();
        let done = crate::kube::runtime::block_on(&runtime, async {
            let discovered = crate::kube::discovery::discover(&cluster, &Via::default(), year(2026)).await;
            found = discovered.map(|found| found.cluster.endpoint).ok();
            Ok(())
        });
        done.unwrap();
        found
    };
    let good = answers(ok_json("{}"));
    let refuses = sick("401 Unauthorized");
    for code in ["500 Internal Server Error", "429 Too Many Requests", "503 Service Unavailable"] {
        assert_eq!(chosen(&[&sick(code), &good]), Some(1), "{code}");
    }
    // Anonymous requests are off, or there is no other: it is asked, and says itself what is wrong.
    assert_eq!(chosen(&[&refuses, &good]), Some(0));
    assert_eq!(chosen(&[&sick("500 Internal Server Error")]), Some(0));
}

/// `Date` of [`ok_json`]: 2026-11-22T16:31:48Z.
const DATE: u64 = 1_795_365_108;
const DAY: u64 = 86_400;

fn seconds(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn only_the_proven_clusters_clock_says_that_a_token_has_expired() {
    let (ca, impostor) = (Ca::new(), Ca::new());
    let config = kubeconfig::kubelet_conf("https://10.0.0.1:6443", &ca.pem);
    let info = ok_json(&serde_json::json!({ "data": { "kubeconfig": config } }).to_string());
    let judged = |server: &Ca, expires: u64, clock: u64| {
        let trust = Trust::Pins(vec![pin::pin_of(&ca.trusted()[0]).unwrap()]);
        let cluster = Cluster {
            apiserver: vec![serve(server.leaf("127.0.0.1", 2020, 2090), info.clone())],
            token: JoinToken::parse("abcdef.0123456789abcdef").unwrap(),
            trust,
            token_expires: Some(seconds(expires)),
            certificate_key: None,
            virtual_ip: None,
        };
        let mut error = None;
        run(async {
            error = discover(&cluster, &Via::default(), seconds(clock)).await.err();
            Ok(())
        })
        .unwrap();
        error.unwrap().text
    };
    let unsure = "join token \"abcdef\" is unknown to the cluster (no JWS signature for it in cluster-info): it may have \
                  expired, or never existed";
    let expired = "join token \"abcdef\" is unknown to the cluster (no JWS signature for it in cluster-info): it expired \
                   at 2026-11-22T16:31:40Z";
    // The device's own clock is far behind, then far ahead: neither is asked.
    assert_eq!(judged(&ca, DATE - 8, 0), expired);
    assert_eq!(judged(&ca, DATE + 60, DATE + DAY), unsure);
    assert_eq!(judged(&impostor, DATE - 8, DATE), unsure);
}

/// Nothing of a text is parsed that the token has not signed: neither by the join worker, nor by commands, as root.
#[test]
fn s11_cluster_info_without_a_signature_is_not_parsed() {
    let ca = Ca::new();
    // Each of these is found out by parsing it.
    for text in ["<html>", "a:\n\tb: c", "clusters: a", "clusters: []"] {
        for expires in [None, Some(seconds(DATE - 8))] {
            let info = ok_json(&serde_json::json!({ "data": { "kubeconfig": text } }).to_string());
            let at = serve(ca.leaf("127.0.0.1", 2020, 2090), info);
            let cluster = Cluster {
                apiserver: vec![at.clone()],
                token: JoinToken::parse("abcdef.0123456789abcdef").unwrap(),
                trust: Trust::Pins(vec![pin::pin_of(&ca.trusted()[0]).unwrap()]),
                token_expires: expires,
                certificate_key: None,
                virtual_ip: None,
            };
            let want = "join token \"abcdef\" is unknown to the cluster (no JWS signature for it in cluster-info): it \
                        may have expired, or never existed";
            let by_command = endpoint_time(&cluster, &Via::default(), &at).unwrap_err();
            assert_eq!((by_command.code, by_command.to_string().as_str()), (Code::TokenUnknown, want), "{text}");
            let found = run(async { Ok(discover(&cluster, &Via::default(), seconds(DATE)).await.err()) });
            assert_eq!(found.unwrap().unwrap().text, want, "{text}");
        }
    }
}

/// With a signature by another secret neither.
#[test]
fn s11_cluster_info_with_a_wrong_signature_is_not_parsed() {
    let ca = Ca::new();
    let other = JoinToken::parse("abcdef.q7w2e9r4t1y6u8i3").unwrap();
    let at = serve(ca.leaf("127.0.0.1", 2020, 2090), cluster_info("no certificate", &other));
    let cluster = Cluster {
        apiserver: vec![at.clone()],
        token: JoinToken::parse("abcdef.0123456789abcdef").unwrap(),
        trust: Trust::Pins(vec![pin::pin_of(&ca.trusted()[0]).unwrap()]),
        token_expires: None,
        certificate_key: None,
        virtual_ip: None,
    };
    let fault = endpoint_time(&cluster, &Via::default(), &at).unwrap_err();
    assert_eq!(fault.code, Code::SignatureMismatch, "{fault}");
    // The right secret's signature lets the same text be parsed.
    let at = serve(ca.leaf("127.0.0.1", 2020, 2090), cluster_info("no certificate", &cluster.token));
    let fault = endpoint_time(&cluster, &Via::default(), &at).unwrap_err();
    assert_eq!(fault.code, Code::ClusterInfo, "{fault}");
}
