// SPDX-License-Identifier: Apache-2.0
//! The device's own join code, natively, against a real control plane: seconds a case instead of a boot.
//!
//! One control plane for all cases; each has its own token and node name, so that what it left in the cluster can be
//! told apart. All cases run, then the failed ones are named.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, SystemTime};

use firstboot::fault::{Fault, Owner};
use firstboot::kube::files::{Content, files};
use firstboot::kube::join::{Device, JoinInput, Joined, obtain};
use firstboot::kube::node::NodeClient;
use firstboot::secret::Secret;
use firstboot::seed::{self, Seed};
use qemu::control_plane::audit::Event;
use qemu::control_plane::config::Family;
use qemu::control_plane::{ControlPlane, Options};

const KUBELET: &str = "1.36.3";

/// A device that keeps its key in memory.
#[derive(Default)]
struct Bench {
    key: Option<String>,
    server_time: Option<SystemTime>,
    told: Vec<String>,
}

impl Device for Bench {
    fn stored_key(&mut self) -> Result<Option<Secret<String>>, Fault> {
        Ok(self.key.clone().map(Secret::new))
    }
    fn store_key(&mut self, pem: &Secret<String>) -> Result<(), Fault> {
        assert!(self.key.is_none(), "a stored key was replaced");
        self.key = Some(pem.expose().clone());
        Ok(())
    }
    fn server_time(&mut self, time: SystemTime) -> Result<(), Fault> {
        self.server_time = Some(time);
        Ok(())
    }
    fn progress(&mut self, text: &str) {
        self.told.push(text.to_owned());
    }
}

fn seed_of(text: &str) -> Seed {
    seed::parse(text.as_bytes()).unwrap()
}

/// A seed with a pin.
fn pinned(endpoint: &str, token: &str, pin: &str) -> Seed {
    seed_of(&format!(
        "version = 1\n[cluster]\napiserver = \"{endpoint}\"\ntoken = \"{token}\"\nca-cert-hashes = [\"{pin}\"]\n"
    ))
}

fn join_as(seed: &Seed, node: &str, kubelet: &str, device: &mut Bench) -> Result<Joined, Fault> {
    let input = JoinInput {
        cluster: &seed.cluster,
        node_name: node,
        kubelet_version: kubelet,
        target: "generic-amd64",
        cri_socket: "unix:///run/containerd/containerd.sock",
        resolv_conf: None,
        now: SystemTime::now(),
        csr_wait: Duration::from_secs(15),
    };
    let joined = obtain(&input, device);
    if let Err(fault) = &joined {
        let shown = format!("{fault} {fault:?} {:?}", device.told);
        assert!(!shown.contains(seed.cluster.token.secret()), "a message holds the token: {shown}");
    }
    joined
}

fn refused(seed: &Seed, node: &str) -> (Owner, String) {
    let mut device = Bench::default();
    let Err(fault) = join_as(seed, node, KUBELET, &mut device) else { panic!("{node} joined") };
    assert!(device.key.is_none(), "a key was made for {node}");
    (fault.owner, fault.to_string())
}

/// firstboot's requests since `before`, one line each.
fn requests(plane: &ControlPlane, before: usize) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let ours = |e: &Event| e.user_agent.starts_with("firstboot/");
    let events = plane.audit().unwrap().into_iter().skip(before).filter(ours);
    events
        .filter(|e| seen.insert(e.audit_id.clone()))
        .map(|e| {
            let path = e.request_uri.split('?').next().unwrap_or_default().to_owned();
            format!("{} {} {path}", e.user.username, e.verb)
        })
        .collect()
}

/// The cluster has neither a Node of this name nor a CSR by this token.
fn assert_no_trace(plane: &ControlPlane, node: &str, token_id: &str) {
    assert_eq!(plane.node(node).unwrap(), None);
    let requester = format!("system:bootstrap:{token_id}");
    let csrs: Vec<_> = plane.csrs().unwrap().into_iter().filter(|c| c.requester == requester).collect();
    assert_eq!(csrs, []);
}

fn id(token: &str) -> &str {
    token.split('.').next().unwrap()
}

/// Writes what a node has on disk below `root`; what names a path on the device names it below `root` then.
fn write(joined: &Joined, seed: &Seed, node: &str, root: &Path) {
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    for spec in files(joined, &seed.node, node, "localhost", SystemTime::now()) {
        match spec.content {
            Content::Dir(_) => std::fs::create_dir_all(below(&spec.path)).unwrap(),
            Content::File(bytes, _) => {
                let text = String::from_utf8(bytes).unwrap();
                let text = text.replace("/var/lib/kubelet/", &format!("{}/", below("/var/lib/kubelet").display()));
                std::fs::write(below(&spec.path), text).unwrap();
            }
            Content::Link(target) => std::os::unix::fs::symlink(below(&target), below(&spec.path)).unwrap(),
        }
    }
}

fn joins_with_seven_requests_and_resumes(plane: &ControlPlane) {
    let token = plane.create_token("1h").unwrap();
    let seed = pinned(&plane.endpoint_for_host(), &token, &plane.ca_pin().unwrap());
    let before = plane.audit().unwrap().len();
    let mut device = Bench::default();
    let joined = join_as(&seed, "happy", KUBELET, &mut device).unwrap();
    let bootstrap = format!("system:bootstrap:{}", id(&token));
    let info = "system:anonymous get /api/v1/namespaces/kube-public/configmaps/cluster-info".to_owned();
    assert_eq!(
        requests(plane, before),
        [
            info.clone(),
            info,
            format!("{bootstrap} get /api/v1/namespaces/kube-system/configmaps/kubeadm-config"),
            format!("{bootstrap} get /api/v1/namespaces/kube-system/configmaps/kubelet-config"),
            format!("{bootstrap} get /api/v1/nodes/happy"),
            format!("{bootstrap} create /apis/certificates.k8s.io/v1/certificatesigningrequests"),
            format!("{bootstrap} watch /apis/certificates.k8s.io/v1/certificatesigningrequests"),
        ]
    );
    assert_eq!((joined.cluster_version.as_str(), joined.leftover_node), ("v1.36.3", false));
    let skew = SystemTime::now().duration_since(device.server_time.unwrap()).unwrap();
    assert!(skew < Duration::from_secs(30), "{skew:?}");

    // As after a power cut between CSR and kubelet.conf: same key, same CSR, same certificate.
    let again = join_as(&seed, "happy", KUBELET, &mut device).unwrap();
    assert_eq!(again.certificate_pem, joined.certificate_pem);
    let ours = plane.csrs().unwrap().into_iter().filter(|c| c.requester == bootstrap).count();
    assert_eq!(ours, 1);

    // kubectl, as kubelet would, reads kubelet.conf and the pair that it names.
    let root = tempdir("happy");
    write(&joined, &seed, "happy", &root);
    let conf = root.join("etc/kubernetes/kubelet.conf").display().to_string();
    let who = plane.kubectl(&["--kubeconfig", &conf, "auth", "whoami", "-o", "jsonpath={.status.userInfo}"]).unwrap();
    assert!(who.contains("\"system:node:happy\"") && who.contains("\"system:nodes\""), "{who}");
    let pair = format!("{}{}", joined.certificate_pem, joined.key_pem.expose());
    let node = NodeClient::new("happy", &joined.server, &joined.ca_pem, &pair).unwrap();
    assert_eq!(node.node().unwrap(), None);
    assert_eq!(node.cni_pod().unwrap(), None);
    std::fs::remove_dir_all(root).unwrap();
}

fn tempdir(name: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("firstboot-join-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn ca_in_the_seed_needs_no_unverified_request(plane: &ControlPlane) {
    let token = plane.create_token("1h").unwrap();
    let (endpoint, ca) = (plane.endpoint_for_host(), plane.ca_pem().unwrap());
    let text = format!(
        "version = 1\n[cluster]\napiserver = \"{endpoint}\"\ntoken = \"{token}\"\nca-cert = \"\"\"\n{ca}\"\"\"\n"
    );
    let before = plane.audit().unwrap().len();
    join_as(&seed_of(&text), "by-ca", KUBELET, &mut Bench::default()).unwrap();
    let all = requests(plane, before);
    assert_eq!(all.iter().filter(|r| r.starts_with("system:anonymous")).count(), 1, "{all:?}");
    assert_eq!(all.len(), 6, "{all:?}");
}

fn wrong_ca_hash(plane: &ControlPlane) {
    let token = plane.create_token("1h").unwrap();
    let endpoint = plane.endpoint_for_host();
    let before = plane.audit().unwrap().len();
    let (owner, text) = refused(&pinned(&endpoint, &token, &format!("sha256:{}", "0".repeat(64))), "wrong-pin");
    let pin = plane.ca_pin().unwrap();
    let want = format!("CA of the cluster at {endpoint} does not match ca-cert-hashes: it is {pin}");
    assert_eq!((owner, text), (Owner::Cluster, want));
    assert_no_trace(plane, "wrong-pin", id(&token));
    let all = requests(plane, before);
    assert!(all.iter().all(|r| r.starts_with("system:anonymous get ")), "{all:?}");
}

fn unknown_token(plane: &ControlPlane) {
    let (endpoint, pin) = (plane.endpoint_for_host(), plane.ca_pin().unwrap());
    let (owner, text) = refused(&pinned(&endpoint, "zzzzzz.q7w2e9r4t1y6u8i3", &pin), "no-token");
    let want = "join token \"zzzzzz\" is unknown to the cluster (no JWS signature for it in cluster-info): it may \
                have expired, or never existed";
    assert_eq!((owner, text.as_str()), (Owner::Cluster, want));
    assert_no_trace(plane, "no-token", "zzzzzz");
}

fn wrong_token_secret(plane: &ControlPlane) {
    let token = plane.create_token("1h").unwrap();
    let endpoint = plane.endpoint_for_host();
    let wrong = format!("{}.q7w2e9r4t1y6u8i3", id(&token));
    let (owner, text) = refused(&pinned(&endpoint, &wrong, &plane.ca_pin().unwrap()), "wrong-secret");
    let want = format!(
        "JWS signature of cluster-info does not match join token \"{}\": its secret is not the cluster's, or \
         {endpoint} is an impostor",
        id(&token)
    );
    assert_eq!((owner, text), (Owner::Cluster, want));
    assert_no_trace(plane, "wrong-secret", id(&token));
}

fn refused_connection_then_the_next_server(plane: &ControlPlane) {
    let token = plane.create_token("1h").unwrap();
    let (endpoint, pin) = (plane.endpoint_for_host(), plane.ca_pin().unwrap());
    let closed = format!("127.0.0.1:{}", qemu::ports::free().unwrap());
    let (owner, text) = refused(&pinned(&closed, &token, &pin), "refused");
    let want = format!("connect to API server {closed}: connection refused");
    assert_eq!((owner, text), (Owner::Cluster, want));
    assert_no_trace(plane, "refused", id(&token));
    let both = format!("{closed}\", \"{endpoint}");
    let text = format!(
        "version = 1\n[cluster]\napiserver = [\"{both}\"]\ntoken = \"{token}\"\nca-cert-hashes = [\"{pin}\"]\n"
    );
    join_as(&seed_of(&text), "refused", KUBELET, &mut Bench::default()).unwrap();
}

fn kubelet_newer_than_the_cluster(plane: &ControlPlane) {
    let token = plane.create_token("1h").unwrap();
    let seed = pinned(&plane.endpoint_for_host(), &token, &plane.ca_pin().unwrap());
    let Err(fault) = join_as(&seed, "newer", "1.37.0", &mut Bench::default()) else { panic!("joined") };
    let want = "kubelet 1.37.0 of this image is newer than the cluster, 1.36.3: imagebuild build --target \
                generic-amd64 --kubernetes-version 1.36";
    assert_eq!((fault.owner, fault.to_string().as_str()), (Owner::Image, want));
    assert_no_trace(plane, "newer", id(&token));
}

fn name_of_a_ready_node_then_of_a_leftover(plane: &ControlPlane) {
    let token = plane.create_token("1h").unwrap();
    let seed = pinned(&plane.endpoint_for_host(), &token, &plane.ca_pin().unwrap());
    let manifest = tempdir("taken").join("node.json");
    std::fs::write(&manifest, r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"taken"}}"#).unwrap();
    plane.kubectl(&["create", "-f", &manifest.display().to_string()]).unwrap();
    std::fs::remove_dir_all(manifest.parent().unwrap()).unwrap();
    let report = |ready: &str| {
        let patch = format!(
            r#"{{"status":{{"conditions":[{{"type":"Ready","status":"{ready}","reason":"R","message":"M"}}]}}}}"#
        );
        plane.kubectl(&["patch", "node", "taken", "--subresource=status", "--type=merge", "-p", &patch]).unwrap();
    };
    report("True");
    let (owner, text) = refused(&seed, "taken");
    let want = "a Node named \"taken\" is already Ready in the cluster: kubectl delete node taken, or give this \
                device another name in seed.toml";
    assert_eq!((owner, text.as_str()), (Owner::Cluster, want));
    report("False");
    let joined = join_as(&seed, "taken", KUBELET, &mut Bench::default()).unwrap();
    assert!(joined.leftover_node);
    let pair = format!("{}{}", joined.certificate_pem, joined.key_pem.expose());
    let node = NodeClient::new("taken", &joined.server, &joined.ca_pem, &pair).unwrap();
    let labels = firstboot::kube::config::labels(seed.node.role, "taken", &seed.node.labels);
    node.set_labels(&labels).unwrap();
    assert_eq!(plane.node("taken").unwrap().unwrap()["metadata"]["labels"]["superedge.io/node-edge"], "enable");
    let cidrs = node.wait_pod_cidrs(Duration::from_secs(20)).unwrap();
    assert!(cidrs[0].starts_with("10.244."), "{cidrs:?}");
    let text = node.wait_ready(None, Duration::from_secs(2)).unwrap_err().to_string();
    assert_eq!(text, "node taken is not Ready after 2 s: R: M");
}

/// Last: takes automatic approval away from the cluster.
fn certificate_by_hand(plane: &ControlPlane) {
    plane.kubectl(&["delete", "clusterrolebinding", "kubeadm:node-autoapprove-bootstrap"]).unwrap();
    let token = plane.create_token("1h").unwrap();
    let seed = pinned(&plane.endpoint_for_host(), &token, &plane.ca_pin().unwrap());
    let mut device = Bench::default();
    let Err(fault) = join_as(&seed, "by-hand", KUBELET, &mut device) else { panic!("joined without approval") };
    let requester = format!("system:bootstrap:{}", id(&token));
    let csr = plane.csrs().unwrap().into_iter().find(|c| c.requester == requester).unwrap().name;
    let want = format!("CSR {csr} waits for approval: kubectl certificate approve {csr}");
    assert_eq!((fault.owner, fault.to_string()), (Owner::Cluster, want));
    plane.kubectl(&["certificate", "approve", &csr]).unwrap();
    join_as(&seed, "by-hand", KUBELET, &mut device).unwrap();
}

#[test]
fn native_join() {
    let plane = ControlPlane::start(&Options { addons: false, ..Options::default() }).unwrap();
    type Case = (&'static str, fn(&ControlPlane));
    let cases: &[Case] = &[
        ("seven requests, resumed", joins_with_seven_requests_and_resumes),
        ("CA in the seed", ca_in_the_seed_needs_no_unverified_request),
        ("wrong CA hash", wrong_ca_hash),
        ("unknown token", unknown_token),
        ("wrong token secret", wrong_token_secret),
        ("refused connection", refused_connection_then_the_next_server),
        ("kubelet newer than the cluster", kubelet_newer_than_the_cluster),
        ("name taken", name_of_a_ready_node_then_of_a_leftover),
        ("certificate by hand", certificate_by_hand),
    ];
    let failed: Vec<&str> = cases
        .iter()
        .filter(|(name, case)| {
            eprintln!("case: {name}");
            catch_unwind(AssertUnwindSafe(|| case(&plane))).is_err()
        })
        .map(|(name, _)| *name)
        .collect();
    assert!(failed.is_empty(), "failed: {failed:?}\n{}", plane.logs(20));
}

#[test]
fn native_join_of_an_ipv6_cluster() {
    let options = Options { addons: false, family: Family::V6, ..Options::default() };
    let plane = ControlPlane::start(&options).unwrap();
    let endpoint = plane.endpoint_for_host();
    assert!(endpoint.starts_with("[::1]:"), "{endpoint}");
    let token = plane.create_token("1h").unwrap();
    let seed = pinned(&endpoint, &token, &plane.ca_pin().unwrap());
    let joined = join_as(&seed, "six", KUBELET, &mut Bench::default()).unwrap();
    let pair = format!("{}{}", joined.certificate_pem, joined.key_pem.expose());
    let node = NodeClient::new("six", &joined.server, &joined.ca_pem, &pair).unwrap();
    assert_eq!(node.node().unwrap(), None);
    let services = plane.get(&["service", "kubernetes"]).unwrap();
    assert_eq!(services["spec"]["clusterIPs"], serde_json::json!(["fd00:96::1"]));
    let closed = format!("[::1]:{}", qemu::ports::free().unwrap());
    let (owner, text) = refused(&pinned(&closed, &token, &plane.ca_pin().unwrap()), "six-refused");
    assert_eq!((owner, text), (Owner::Cluster, format!("connect to API server {closed}: connection refused")));
}
