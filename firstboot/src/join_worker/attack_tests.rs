// SPDX-License-Identifier: Apache-2.0
//! A join worker in the hands of an attacker who has the token, a cluster of their own, and the real cluster's
//! certificates: what the privileged part makes of it. S-numbers are those of the security review.

use super::message::{JoinRequest, WorkerMessage, receive, send};
use super::privileged::{Obtained, obtain, until};
use super::tests::{Bench, SECRET, found, input, table, talk};
use crate::fault::{Code, Fault, Owner};
use crate::kube::confirm::joined;
use crate::kube::contract::FoundCluster;
use crate::kube::key::Key;
use crate::kube::wire_tests::Ca;
use crate::kube::wire_tests::cluster::{Says, TestCluster};
use crate::seed::{Cluster, parse};
use rcgen::{BasicConstraints, DnType, ExtendedKeyUsagePurpose, IsCa, date_time_ymd};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

fn by(cluster: &TestCluster, pin: bool) -> Cluster {
    parse(cluster.seed(pin).as_bytes()).unwrap().join().unwrap().clone()
}

fn normal(pem: &str) -> String {
    pem.replace("\r\n", "\n")
}

/// A conversation with this hint at the cluster and this certificate.
fn with(cluster: &Cluster, device: &mut Bench, hint: FoundCluster, issued: String) -> Result<Obtained, Fault> {
    let ask = WorkerMessage::Ask { fresh: false };
    talk(cluster, device, vec![WorkerMessage::Found(hint), ask, WorkerMessage::Issued(issued)])
}

/// Whatever the join worker says, the device goes to the seed's cluster or nowhere; the attacker's cluster is not even
/// connected to. By pin and by `ca-cert`.
#[test]
fn s01_a_join_worker_does_not_choose_the_cluster() {
    let (real, mine) = (TestCluster::new(), TestCluster::new());
    let (r, m) = (real.ca.pem.as_str(), mine.ca.pem.as_str());
    for pin in [true, false] {
        let seed = by(&real, pin);
        let hints = [r.to_owned(), m.to_owned(), format!("{r}{m}"), format!("{m}{r}"), String::new()];
        for (endpoint, ca_pem) in hints.into_iter().flat_map(|ca| [(0, ca.clone()), (1, ca.clone()), (usize::MAX, ca)])
        {
            for issuer in [&real, &mine] {
                let mut device = Bench::new();
                let issued = issuer.issue(&device.key);
                let hint = FoundCluster { endpoint, ca_pem: ca_pem.clone(), time: None };
                let Ok(obtained) = with(&seed, &mut device, hint, issued) else { continue };
                assert!(
                    endpoint == 0 && ca_pem.contains(r) && std::ptr::eq(issuer, &real),
                    "{pin} {endpoint} {ca_pem}"
                );
                let (input, key) = (input(&seed), device.key.sec1_pem().unwrap());
                let kept =
                    joined(&input, &obtained.cluster, obtained.certificate_pem.clone(), &key, &mut device).unwrap();
                assert_eq!((kept.server, kept.ca_pem), (format!("https://{}", real.at), normal(r)));
                assert_eq!(kept.node_ports, "20000-22767");
            }
        }
    }
    assert_eq!((mine.connections(), mine.requests().len()), (0, 0));
    assert!(real.requests().iter().any(|asked| asked.starts_with("node ")), "{:?}", real.requests());
}

/// A CA that the cluster itself publishes beside the pinned one is kept, as in the replacement of a CA; one that only the
/// join worker names is not.
#[test]
fn s01_the_bundle_is_the_clusters_own() {
    let (next, mine) = (Ca::new(), Ca::new());
    let real = TestCluster::saying(Says { others: next.pem.clone(), ..Says::default() });
    let mut device = Bench::new();
    let ca_pem = format!("{}{}", real.ca.pem, mine.pem);
    let issued = real.issue(&device.key);
    let hint = FoundCluster { endpoint: 0, ca_pem, time: None };
    let obtained = with(&by(&real, true), &mut device, hint, issued).unwrap();
    assert_eq!(obtained.cluster.found.ca_pem, normal(&format!("{}{}", real.ca.pem, next.pem)));
}

/// The pinned certificates have to vouch for the seed's own API server: that the cluster's CA vouches for some other
/// server, a kubelet say, does not make that one the cluster.
#[test]
fn s01_another_server_of_the_same_ca_is_not_asked() {
    let elsewhere = TestCluster::new();
    let real = TestCluster::saying(Says { server: Some(format!("https://{}", elsewhere.at)), ..Says::default() });
    let mut device = Bench::new();
    let issued = real.issue(&device.key);
    let hint = FoundCluster { endpoint: 0, ca_pem: real.ca.pem.clone(), time: None };
    let seed = by(&real, true);
    let obtained = with(&seed, &mut device, hint, issued).unwrap();
    // The cluster names a load balancer, which is confirmed by the cluster itself. It does not prove itself, so the
    // seed's own endpoint stays.
    assert_eq!(obtained.cluster.server, format!("https://{}", elsewhere.at));
    let key = device.key.sec1_pem().unwrap();
    let kept = joined(&input(&seed), &obtained.cluster, obtained.certificate_pem.clone(), &key, &mut device).unwrap();
    assert_eq!((kept.server, elsewhere.requests().len()), (format!("https://{}", real.at), 0));
    let notice = device.asked.last().unwrap();
    assert!(notice.starts_with(&format!("notice keeping API server {} of the seed", real.at)), "{notice}");
}

/// The fields that a join worker could once set are not in any of its messages, and unknown ones end the conversation or
/// are not read.
#[test]
fn s21_ranges_of_ports_and_networks_are_the_clusters_own() {
    let says = Says::default().kubeadm.replace("20000-22767", "1 2");
    let real = TestCluster::saying(Says { kubeadm: says, ..Says::default() });
    let mut device = Bench::new();
    let issued = real.issue(&device.key);
    let seed = by(&real, true);
    let obtained =
        with(&seed, &mut device, FoundCluster { endpoint: 0, ca_pem: real.ca.pem.clone(), time: None }, issued);
    let (obtained, key) = (obtained.unwrap(), device.key.sec1_pem().unwrap());
    let fault =
        joined(&input(&seed), &obtained.cluster, obtained.certificate_pem.clone(), &key, &mut device).unwrap_err();
    assert_eq!(fault.code, Code::ClusterConfiguration, "{fault}");
    let json = serde_json::to_string(&WorkerMessage::Issued("PEM".to_owned())).unwrap();
    assert_eq!(json, r#"{"Issued":"PEM"}"#);
    let (here, mut there) = UnixStream::pair().unwrap();
    let joined = br#"{"Joined":{"server":"https://198.51.100.66","ca_pem":"","node_ports":"60000-60001"}}"#;
    there.write_all(&[&(joined.len() as u32).to_be_bytes()[..], joined].concat()).unwrap();
    assert_eq!(
        obtain(&here, &input(&seed), &mut Bench::new()).unwrap_err().to_string(),
        "read a message: it is not one"
    );
}

/// The certificate is the cluster's own, for this node and this key, as a client, and valid at the cluster's time.
#[test]
fn s16_only_the_clusters_certificate_for_this_node_is_kept() {
    let (real, mine) = (TestCluster::new(), TestCluster::new());
    let seed = table(&real);
    let why = |issued: &dyn Fn(&Key) -> String| {
        let mut device = Bench::new();
        let issued = issued(&device.key);
        let hint = FoundCluster { endpoint: 0, ca_pem: real.ca.pem.clone(), time: None };
        let fault = with(&seed, &mut device, hint, issued).unwrap_err();
        assert_eq!(fault.code, Code::NetworkPart);
        let text = fault.to_string();
        text.strip_prefix("join through the join worker: the node's certificate ").unwrap_or(&text).to_owned()
    };
    let other = Key::generate().unwrap();
    let key = "is not for this node and its key";
    let unknown = "is not signed by the cluster's CA";
    let secret = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";
    assert_eq!(why(&|_| String::new()), key);
    assert_eq!(why(&|_| secret.to_owned()), key);
    assert_eq!(why(&|_| real.issue(&other)), key);
    assert_eq!(why(&|k| mine.issue(k)), unknown);
    assert_eq!(why(&|k| format!("{}{}", mine.issue(k), real.issue(k))), unknown);
    let changed = |change: &dyn Fn(&mut rcgen::CertificateParams)| why(&|k| real.issue_with(k, change));
    assert_eq!(changed(&|p| p.distinguished_name.push(DnType::CommonName, "system:node:edge-2")), key);
    assert_eq!(changed(&|p| p.distinguished_name.push(DnType::OrganizationName, "system:masters")), key);
    assert_eq!(changed(&|p| p.distinguished_name.push(DnType::OrganizationalUnitName, "x,O=system:masters")), key);
    let server = "is not for clients: its extendedKeyUsage lacks clientAuth";
    assert_eq!(changed(&|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]), server);
    assert_eq!(changed(&|p| p.not_after = date_time_ymd(2026, 11, 22)), "has expired");
    assert_eq!(changed(&|p| p.not_before = date_time_ymd(2026, 11, 23)), "is not yet valid");
    assert_eq!(changed(&|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), "is a CA's, not a node's");
    // A key beside it is left out: it would stand before the node's own.
    let mut device = Bench::new();
    let issued = real.issue(&device.key);
    let hint = FoundCluster { endpoint: 0, ca_pem: real.ca.pem.clone(), time: None };
    let kept = with(&seed, &mut device, hint, format!("{secret}{issued}{secret}")).unwrap().certificate_pem;
    assert_eq!(kept, normal(&issued));
}

/// `Failed` stops the device only when the privileged part finds the same.
#[test]
fn s16_a_join_worker_does_not_stop_the_device() {
    let failed =
        |code: &str| WorkerMessage::Failed { code: code.into(), text: "kubelet is too old".into(), retry_after: None };
    let real = TestCluster::new();
    let fault = |message| talk(&table(&real), &mut Bench::new(), message).unwrap_err();
    for code in Code::ALL.iter().filter(|code| code.owner() != Owner::Cluster) {
        for before in [None, Some(found(&real.ca.pem)), Some(WorkerMessage::Progress("a".into()))] {
            // Before it has met the network, and then alone, it may say that the kernel does not confine it.
            if *code == Code::NotConfined && before.is_none() {
                continue;
            }
            let fault = fault(before.into_iter().chain([failed(code.as_str())]).collect());
            assert_eq!(fault.owner(), Owner::Cluster, "{code}: {fault}");
            assert_eq!(fault.to_string(), "join through the join worker: kubelet is too old");
        }
    }
    assert_eq!(fault(vec![failed("FB321")]).code, Code::NotConfined);
    for code in ["", "FB999", "fb424"] {
        assert_eq!(fault(vec![failed(code)]).code, Code::NetworkPart, "{code}");
    }
    // The server itself says a version that the image's kubelet does not fit.
    let newer = TestCluster::saying(Says { version: "v1.40.0".into(), ..Says::default() });
    let message = vec![found(&newer.ca.pem), failed("FB205")];
    let fault = talk(&table(&newer), &mut Bench::new(), message).unwrap_err();
    assert_eq!((fault.code, fault.owner()), (Code::KubeletVersion, Owner::Image), "{fault}");
    assert!(fault.to_string().contains("too old for the cluster, 1.40.0: "), "{fault}");
}

/// Bytes that trickle in do not prolong the conversation.
#[test]
fn s16_the_whole_conversation_has_one_deadline() {
    let real = TestCluster::new();
    for trickle in [false, true] {
        let (here, mut there) = UnixStream::pair().unwrap();
        let started = Instant::now();
        let speaker = std::thread::spawn(move || {
            let _task: Option<JoinRequest> = receive(&there).unwrap();
            let mut line = Vec::new();
            send(&mut line, &WorkerMessage::Progress("x".repeat(1000))).unwrap();
            let mut bytes = line.iter().cycle();
            while trickle && there.write_all(&[*bytes.next().unwrap()]).is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
            there
        });
        let fault = until(started + Duration::from_millis(300), &here, &input(&table(&real)), &mut Bench::new());
        let fault = fault.unwrap_err();
        assert_eq!(
            (fault.code, fault.to_string().as_str()),
            (Code::NetworkPart, "join through the join worker: it takes too long")
        );
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        drop(here);
        drop(speaker.join());
    }
}

/// No text of the join worker holds the token, however it is cut.
#[test]
fn s16_texts_hold_no_token() {
    let real = TestCluster::new();
    let mut device = Bench::new();
    let text = |by: &str| SECRET.chars().map(String::from).collect::<Vec<_>>().join(by);
    let message = ["", "\0", "\n", "\u{200b}"].iter().map(|by| WorkerMessage::Notice(text(by))).collect();
    talk(&table(&real), &mut device, message).unwrap_err();
    assert_eq!(device.asked.len(), 4);
    assert!(device.asked.iter().all(|line| !line.contains(SECRET) && !line.contains('\n')), "{:?}", device.asked);
}
