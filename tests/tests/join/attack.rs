// SPDX-License-Identifier: Apache-2.0
//! Attackers who hold a join token: inside the join worker, with a cluster of their own, and outside of any device.
//! S-numbers are those of the security review.

use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

use firstboot::fault::{Code, Fault, OwnedBy, Owner};
use firstboot::join_worker::message::{Accepted, JoinRequest, WorkerMessage, receive, send};
use firstboot::kube::client::Client;
use firstboot::kube::contract::{FoundCluster, JoinHost, Joined};
use firstboot::kube::csr::{self, Outcome, Request};
use firstboot::kube::join::obtain;
use firstboot::kube::key::Key;
use firstboot::kube::pin;
use firstboot::kube::tls::{PinnedCa, Validity, identified, verified};
use firstboot::seed::{JoinToken, Seed};
use qemu::control_plane::{ControlPlane, Options};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::bench::*;
use super::cluster::create_node;

/// In what the join worker lies, after a real join with the real cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// The attacker's CA beside the real one.
    TwoCas,
    /// The attacker's CA alone.
    OtherCa,
    /// A certificate of the attacker's cluster, over the node's key.
    OtherCertificate,
    /// The last message of older versions, which named an API server.
    Server,
}

/// What the attacker has.
#[derive(Clone)]
struct Mine {
    server: String,
    ca: String,
    token: String,
}

/// The device, as a join worker that lies shows it to the code of the join.
struct Liar<'a> {
    stream: &'a UnixStream,
    lie: Lie,
    mine: &'a Mine,
    request: Option<Request>,
}

impl JoinHost for Liar<'_> {
    fn request(&mut self, fresh: bool) -> Result<Request, Fault> {
        send(self.stream, &WorkerMessage::Ask { fresh }).owned_by(Owner::Host)?;
        let request: Option<Request> = receive(self.stream).owned_by(Owner::Host)?;
        self.request.clone_from(&request);
        request.ok_or_else(|| Fault::new(Code::Host, "no request"))
    }
    fn found(&mut self, cluster: &FoundCluster) -> Result<(), Fault> {
        let ca_pem = match self.lie {
            Lie::TwoCas => format!("{}{}", self.mine.ca, cluster.ca_pem),
            Lie::OtherCa => self.mine.ca.clone(),
            _ => cluster.ca_pem.clone(),
        };
        send(self.stream, &WorkerMessage::Found(FoundCluster { ca_pem, ..cluster.clone() })).owned_by(Owner::Host)?;
        let accepted: Option<Accepted> = receive(self.stream).owned_by(Owner::Host)?;
        accepted.map(drop).ok_or_else(|| Fault::new(Code::Host, "not accepted"))
    }
    fn progress(&mut self, _text: &str) {}
    fn notice(&mut self, _text: &str) {}
}

/// A join worker in the attacker's hands.
fn lying(stream: &UnixStream, lie: Lie, mine: &Mine) {
    let Ok(Some(task)) = receive::<JoinRequest>(stream) else { return };
    let mut liar = Liar { stream, lie, mine, request: None };
    let Ok(issued) = obtain(&task.input().unwrap(), &mut liar) else { return };
    let request = liar.request.unwrap();
    let last = match lie {
        Lie::OtherCertificate => json!({ "Issued": by_token(mine, &request, "lied-to") }),
        Lie::Server => json!({"Joined": {
            "server": mine.server, "ca_pem": format!("{}{issued}", mine.ca), "cluster_version": "v1.36.3", "networks": "",
            "node_ports": "60000-60001", "kubelet_config": "", "cri_socket": "unix:///run/containerd/containerd.sock",
            "certificate_pem": issued, "leftover_node": false,
        }}),
        _ => json!({ "Issued": issued }),
    };
    let _ = send(stream, &last);
}

/// The certificate that a cluster gives to a holder of its token over this request, whose node it is for.
fn by_token(cluster: &Mine, request: &Request, node: &str) -> String {
    let trusted = PinnedCa::new(pin::certificates(&cluster.ca).unwrap(), Validity::SystemClock);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let client = Client::new(&cluster.server, verified(trusted).unwrap()).unwrap();
        let client = client.with_token(&JoinToken::parse(&cluster.token).unwrap());
        csr::certificate(&client, request, node, SystemTime::now(), Duration::from_secs(15)).await
    });
    match outcome.unwrap() {
        Outcome::Issued(chain) => chain,
        Outcome::Unusable(_, why) => panic!("{why}"),
    }
}

fn attempt(seed: &Seed, lie: Lie, mine: &Mine) -> (Bench, Result<Joined, Fault>) {
    let (here, there) = UnixStream::pair().unwrap();
    let mine = mine.clone();
    let worker = std::thread::spawn(move || lying(&there, lie, &mine));
    let mut device = Bench::default();
    let joined = device.join_through(&here, seed, "lied-to");
    drop(here);
    worker.join().unwrap();
    (device, joined)
}

/// A lying join worker and a second control plane: the device never talks to that one, with pins and with `ca-cert`.
pub fn s01_a_lying_join_worker_and_a_second_control_plane(plane: &ControlPlane) {
    let second = ControlPlane::start(&Options::without_addons()).unwrap();
    let token = second.create_token("1h").unwrap();
    let mine = Mine { server: format!("https://{}", second.endpoint_for_host()), ca: second.ca_pem().unwrap(), token };
    for by_pin in [true, false] {
        for lie in [Lie::TwoCas, Lie::OtherCa, Lie::OtherCertificate, Lie::Server] {
            let token = plane.create_token("1h").unwrap();
            let (endpoint, pin) = (plane.endpoint_for_host(), plane.ca_pin().unwrap());
            let seed = if by_pin { pinned(&endpoint, &token, &pin) } else { with_ca(plane, &token) };
            let (device, joined) = attempt(&seed, lie, &mine);
            match joined {
                Ok(joined) => {
                    // The lie counts for nothing: it is the seed's cluster, and the node works there.
                    assert_eq!((lie, by_pin), (Lie::TwoCas, true));
                    assert_eq!(joined.server, format!("https://{endpoint}"));
                    assert_eq!(pin::certificates(&joined.ca_pem), pin::certificates(&plane.ca_pem().unwrap()));
                    assert_eq!(joined.node_ports, "");
                    assert_eq!(device.node_client(&joined).node().unwrap(), None);
                }
                Err(fault) => {
                    assert!((lie, by_pin) != (Lie::TwoCas, true), "{fault}");
                    assert_eq!(fault.code, Code::NetworkPart, "{lie:?} {by_pin}: {fault}");
                }
            }
        }
    }
    let requests = second.audit().unwrap();
    let ours = requests.iter().filter(|e| e.user_agent.starts_with("firstboot/"));
    // Those are the attacker's own.
    let device: Vec<String> = ours
        .filter(|e| !e.user.username.starts_with("system:bootstrap:"))
        .map(|e| format!("{} {}", e.user.username, e.request_uri))
        .collect();
    assert_eq!(device, [""; 0]);
    assert!(requests.iter().any(|e| e.user.username.starts_with("system:bootstrap:")), "the attacker was there");
}

/// What a bootstrap token permits by kubeadm's defaults: a certificate for the name of any node, and with it all that
/// this node may read. It is a fact about Kubernetes, not about firstboot, which docs/threat-model.md states.
pub fn s02_a_token_can_name_any_node(plane: &ControlPlane) {
    let (node, server) = ("s02-victim", format!("https://{}", plane.endpoint_for_host()));
    create_node(plane, node, &json!({}), &json!([]));
    report_ready(plane, node, "True");
    create(
        plane,
        &json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s02", "namespace": "default"},
            "stringData": {"password": "of a pod"},
        }),
    );
    let volume = json!({"name": "s02", "secret": {"secretName": "s02"}});
    let mounts = json!([{"name": "s02", "mountPath": "/s02"}]);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "s02", "namespace": "default"},
        "spec": {
            "nodeName": node, "automountServiceAccountToken": false, "volumes": [volume],
            "containers": [{"name": "a", "image": "a", "volumeMounts": mounts}],
        },
    });
    qemu::wait::until("the service account of pods", Duration::from_secs(30), || {
        Ok(plane.get(&["-n", "default", "serviceaccount", "default"]).ok())
    })
    .unwrap();
    create(plane, &pod);

    // The attacker has a token that was made for another device, and nothing else.
    let token = plane.create_token("1h").unwrap();
    let ca = plane.ca_pem().unwrap();
    let key = Key::generate().unwrap();
    let request = key.request(node).unwrap();
    let chain = by_token(&Mine { server: server.clone(), ca: ca.clone(), token }, &request, node);
    let reason = plane.get(&["csr", &request.name]).unwrap()["status"]["conditions"][0]["reason"].clone();
    assert_eq!(reason, "AutoApproved");
    let trusted = PinnedCa::new(pin::certificates(&ca).unwrap(), Validity::SystemClock);
    let key = PrivateKeyDer::from_pem_slice(key.pem().expose().as_bytes()).unwrap();
    let tls = identified(trusted, pin::certificates(&chain).unwrap(), key).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = Client::new(&server, tls).unwrap();
    let read = |path: &str| -> Result<Value, String> {
        runtime.block_on(client.get(path)).map(|reply| reply.body).map_err(|error| error.text)
    };
    // The authorizer learns of the pod from its own watch.
    let secret = qemu::wait::until("the Secret to be readable", Duration::from_secs(20), || {
        Ok(read("/api/v1/namespaces/default/secrets/s02").ok())
    })
    .unwrap();
    assert_eq!(secret["data"]["password"], "b2YgYSBwb2Q=");
    // What no pod of that node has stays closed.
    assert!(read("/api/v1/namespaces/kube-system/secrets").unwrap_err().contains("403"));
    plane.kubectl(&["-n", "default", "delete", "pod", "s02", "--force", "--grace-period=0"]).unwrap();
    plane.kubectl(&["-n", "default", "delete", "secret", "s02"]).unwrap();
    plane.kubectl(&["delete", "node", node]).unwrap();
}
