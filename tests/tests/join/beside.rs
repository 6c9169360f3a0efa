// SPDX-License-Identifier: Apache-2.0
//! `firstboot cache` beside yurthub and lite-apiserver, with the same clients: what comes back without an API server, and
//! when; who else may read; what follows once it is there again; what each costs.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use apicache::upstream::Connection;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::BodyExt;
use hyper::Method;
use qemu::control_plane::ControlPlane;
use qemu::wait;
use serde_json::{Value, json};

use super::bench::*;
use super::beside_bench::*;
use super::beside_client::*;
use super::cache::{token_request, watches, workload};
use super::cache_bench::*;
use super::cache_figures::{crowd, summary};

const PROXY: &str = "kube-proxy/v1.36.3 (linux/amd64) kubernetes/0000000";
const COREDNS: &str = "CoreDNS/1.14.2 git_commit:0000000 (linux/amd64/go1.26)";
/// How long a client that starts anew is watched.
const START: Duration = Duration::from_secs(30);
/// How long all may take to see what the API server says once it is back.
const BACK: Duration = Duration::from_secs(120);
/// The same for one who may read nothing.
const STRANGER: Duration = Duration::from_secs(3);

type Row = (String, String);

/// What kubelet, kube-proxy and CoreDNS of Kubernetes 1.36 keep watching.
fn questions(node: &str, token: &str) -> Vec<Question> {
    let names = ["Node", "Pods", "Services", "RuntimeClasses", "CSIDrivers", "ConfigMap", "Secret"];
    let mut all = Vec::new();
    for ((path, selector), what) in watches(node).into_iter().zip(names) {
        let selector = selector.replace('=', "%3D").replace('!', "%21");
        let selectors = if selector.is_empty() { String::new() } else { format!("fieldSelector={selector}&") };
        all.push(Question { of: "kubelet", what, path, selectors, agent: AGENT, token: None, as_node: true });
    }
    let slices = ("EndpointSlices", "/apis/discovery.k8s.io/v1/endpointslices");
    let services = ("Services", "/api/v1/services");
    let foreign = "labelSelector=%21service.kubernetes.io%2Fheadless%2C%21service.kubernetes.io%2Fservice-proxy-name&";
    let own = format!("fieldSelector=metadata.name%3D{node}&");
    for (of, agent, (what, path), selectors) in [
        ("kube-proxy", PROXY, services, foreign),
        ("kube-proxy", PROXY, slices, foreign),
        ("kube-proxy", PROXY, ("Node", "/api/v1/nodes"), &own),
        ("kube-proxy", PROXY, ("ServiceCIDRs", "/apis/networking.k8s.io/v1/servicecidrs"), ""),
        ("CoreDNS", COREDNS, services, ""),
        ("CoreDNS", COREDNS, slices, ""),
        ("CoreDNS", COREDNS, ("Namespaces", "/api/v1/namespaces"), ""),
    ] {
        let (path, selectors) = (path.to_owned(), selectors.to_owned());
        all.push(Question { of, what, path, selectors, agent, token: Some(token.to_owned()), as_node: false });
    }
    all
}

/// What kubelet asks for once.
fn reads(node: &str, pod: &Value) -> Vec<(&'static str, Ask)> {
    vec![
        ("Node", Ask::get(&format!("/api/v1/nodes/{node}"), PROTOBUF)),
        ("Pod", Ask::get(&format!("/api/v1/namespaces/{node}/pods/one"), PROTOBUF)),
        ("CSINode", Ask::get(&format!("/apis/storage.k8s.io/v1/csinodes/{node}"), PROTOBUF)),
        ("token", token_request(node, pod)),
    ]
}

fn lease(node: &str) -> Ask {
    Ask::get(&format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}"), JSON)
}

/// What kubelet writes.
fn writes(node: &str) -> Vec<(&'static str, Ask)> {
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"generateName": "e", "namespace": node},
        "involvedObject": {"kind": "Node", "name": node}, "reason": "R", "message": "M", "type": "Normal",
    });
    let body = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}});
    let status = Ask::post(&format!("/api/v1/nodes/{node}/status"), &json!({"status": {"phase": "Running"}}));
    let spec = json!({"holderIdentity": node, "leaseDurationSeconds": 40});
    let renewed = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec,
        "metadata": {"name": node, "namespace": "kube-node-lease"},
    });
    vec![
        ("POST Node", Ask::post("/api/v1/nodes", &body)),
        ("PATCH Node status", Ask { method: Method::PATCH, ..status }),
        ("PUT Lease", Ask { method: Method::PUT, path: lease(node).path, ..Ask::post("", &renewed) }),
        ("POST Event", Ask::post(&format!("/api/v1/namespaces/{node}/events"), &event)),
    ]
}

/// Sends a request once: status, body, and how long it took. None without an answer.
async fn once(hub: &Hub, ask: &Ask) -> Option<(u16, Vec<u8>, Duration)> {
    let began = Instant::now();
    let asked = async {
        let (_connection, response) = hub.open(ask).await.ok()?;
        let status = response.status().as_u16();
        Some((status, response.into_body().collect().await.ok()?.to_bytes().to_vec(), began.elapsed()))
    };
    tokio::time::timeout(START, asked).await.ok()?
}

/// As kubelet renews its Lease.
async fn renew(hub: &Hub) {
    if let Some((200, body, _)) = once(hub, &lease(&hub.node)).await {
        let put = Ask { method: Method::PUT, body, ..lease(&hub.node) };
        let _ = once(hub, &put).await;
    }
}

fn token_of(body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    answer["status"]["token"].as_str().unwrap_or_default().to_owned()
}

/// Whether the API server has made it: the others sign theirs with a constant.
fn is_genuine(token: &str) -> bool {
    let head = token.split('.').next().and_then(|head| URL_SAFE_NO_PAD.decode(head).ok()).unwrap_or_default();
    serde_json::from_slice::<Value>(&head).is_ok_and(|head| head["alg"] == "RS256")
}

/// How one fares.
struct Run {
    hub: Hub,
    pod: Value,
    clients: Vec<Reflector>,
    /// Names that each client knew online.
    want: Vec<Vec<String>>,
    rows: Vec<Row>,
}

fn names(known: Option<&BTreeMap<String, u64>>) -> Vec<String> {
    known.map(|known| known.keys().cloned().collect()).unwrap_or_default()
}

impl Run {
    fn row(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.rows.push((name.into(), value.into()));
    }

    fn is_ours(&self) -> bool {
        self.hub.whose == Whose::Ours
    }

    /// The cache is there, and its clients ask for the first time.
    fn warm(&mut self, plane: &ControlPlane) {
        self.hub.start(plane);
        let runtime = &self.hub.fixture.runtime;
        let hub = &self.hub;
        let (_, token, _) = runtime.block_on(once(hub, &token_request(&hub.node, &self.pod))).unwrap();
        let token = token_of(&token);
        assert!(is_genuine(&token), "{}: {token}", hub.node);
        let questions = questions(&hub.node, &token);
        self.clients = questions.iter().map(|question| Reflector::new(question, hub.lists)).collect();
        let reads = reads(&hub.node, &self.pod);
        let (came, (median, resident)) =
            runtime.block_on(together(hub, &mut self.clients, Instant::now() + 2 * START, async {
                for (what, ask) in &reads {
                    let (status, ..) = once(hub, ask).await.unwrap();
                    assert_eq!(status, if *what == "token" { 201 } else { 200 }, "{}: {what}", hub.node);
                }
                (added(hub, &reads[1].1).await, hub.resident())
            }));
        for (client, came) in self.clients.iter().zip(&came) {
            let question = &client.question;
            let what = format!("{}, {} of {}: {:?}", hub.node, question.what, question.of, client.refused);
            let want = runtime.block_on(directly(hub, question));
            assert!(came.is_some(), "{what}");
            assert_eq!(names(client.known.as_ref()), want, "{what}");
            self.want.push(want);
        }
        let lists = self.clients.iter().filter(|client| client.by_list && !self.hub.lists).count();
        let all = self.clients.len();
        let rest = if lists > 0 { format!(", {lists} after a list") } else { String::new() };
        self.row("online: answered", format!("{all} of {all}{rest}"));
        let stranger = self.stranger();
        self.row("a process without credentials, online", stranger);
        self.row("resident, MiB", format!("{:.1}", resident as f64 / 1024.0));
        self.row("GET through it, median, ms more", format!("{median:.2}"));
    }

    /// What one without any proof gets of the Secret when it names itself as kubelet does.
    fn stranger(&self) -> String {
        let hub = &self.hub;
        let secret = self.clients.iter().find(|c| c.question.what == "Secret").unwrap();
        let question = Question { as_node: false, ..secret.question.clone() };
        hub.fixture.runtime.block_on(async {
            let one = Ask { as_node: false, ..Ask::get(&format!("{}/password", question.path), JSON) };
            let mut seen = once(hub, &one).await.map(|(status, ..)| status);
            for lists in [true, false] {
                let mut client = Reflector::new(&question, lists);
                client.run(hub, Instant::now() + STRANGER, |known| !known.is_empty()).await;
                if client.known.is_some_and(|known| !known.is_empty()) {
                    seen = Some(200);
                }
                seen = seen.or(client.refused);
            }
            match seen {
                Some(200) => "reads the Secret".to_owned(),
                Some(other) => other.to_string(),
                None => "nothing".to_owned(),
            }
        })
    }

    /// The power goes, and comes again, without an API server.
    fn offline(&mut self) {
        self.hub.kill();
        let (files, bytes, open) = self.hub.store();
        self.hub.spawn();
        let began = Instant::now();
        let mut clients: Vec<Reflector> =
            self.clients.iter().map(|client| Reflector::new(&client.question, self.hub.lists)).collect();
        let (hub, mut once_rows) = (&self.hub, Vec::new());
        let (came, ()) = hub.fixture.runtime.block_on(together(hub, &mut clients, began + START, async {
            for (what, ask) in reads(&hub.node, &self.pod).into_iter().chain(writes(&hub.node)) {
                let answer = once(hub, &ask).await;
                let value = match &answer {
                    Some((status, body, _)) if what == "token" => match is_genuine(&token_of(body)) {
                        true => format!("{status}"),
                        false => format!("{status}, none that counts"),
                    },
                    Some((status, ..)) => status.to_string(),
                    None => "nothing".to_owned(),
                };
                let what = if what.contains(' ') || what == "token" { what.to_owned() } else { format!("GET {what}") };
                once_rows.push((format!("kubelet: {what}"), value));
            }
        }));
        for ((client, came), want) in clients.iter().zip(came).zip(&self.want) {
            let question = &client.question;
            let value = match (came, client.refused) {
                (Some(came), _) => {
                    let got = names(client.known.as_ref()).iter().filter(|name| want.contains(name)).count();
                    let count = if got == want.len() { got.to_string() } else { format!("{got} of {}", want.len()) };
                    let how = if client.by_list && !self.hub.lists { ", list" } else { "" };
                    format!("{count} in {:.2} s{how}", came.duration_since(began).as_secs_f64())
                }
                (None, Some(refused)) => refused.to_string(),
                (None, None) => "nothing".to_owned(),
            };
            if self.hub.whose == Whose::Ours {
                assert_eq!(&names(client.known.as_ref()), want, "{}: {}", question.of, question.what);
            }
            self.rows.push((format!("{}: {}", question.of, question.what), value));
        }
        if self.is_ours() {
            for (what, value) in &once_rows[..4] {
                assert_eq!(value, if what.ends_with("token") { "201" } else { "200" }, "{what}");
            }
        }
        self.rows.append(&mut once_rows);
        self.clients = clients;
        let stranger = self.stranger();
        assert!(!self.is_ours() || stranger == "401", "{stranger}");
        self.row("a process without credentials, offline", stranger);
        self.row("store, KiB in files", format!("{} in {files}", bytes / 1024));
        assert!(!self.is_ours() || open == 0, "{open} files of ours");
        self.row("files that every user may read", open.to_string());
    }

    /// One pod was deleted and one changed meanwhile.
    fn back(&mut self, plane: &ControlPlane) {
        let node = self.hub.node.clone();
        plane.kubectl(&["-n", &node, "delete", "pod", "two", "--grace-period=0", "--force"]).unwrap();
        plane.kubectl(&["-n", &node, "label", "pod", "one", "back=yes"]).unwrap();
        let one = plane.get(&["-n", &node, "pod", "one"]).unwrap();
        let version: u64 = one["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        let [one, two] = ["one", "two"].map(|name| format!("{node}/{name}"));
        let pods = self.clients.iter_mut().find(|c| (c.question.of, c.question.what) == ("kubelet", "Pods")).unwrap();
        let (hub, began, changed, gone) = (&self.hub, Instant::now(), Cell::new(None), Cell::new(None));
        let note = |cell: &Cell<Option<Duration>>| cell.set(cell.get().or_else(|| Some(began.elapsed())));
        let follow = pods.run(hub, began + BACK, |known| {
            if known.get(&one).is_some_and(|at| *at >= version) {
                note(&changed);
            }
            if !known.contains_key(&two) {
                note(&gone);
            }
            changed.get().is_some() && gone.get().is_some()
        });
        let renewing = async {
            hub.way.open();
            loop {
                renew(hub).await;
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
        };
        hub.fixture.runtime.block_on(async {
            tokio::select! { () = follow => (), () = renewing => () }
        });
        let shown =
            |at: Option<Duration>| at.map_or("not in 120 s".to_owned(), |at| format!("{:.1}", at.as_secs_f64()));
        if self.hub.whose == Whose::Ours {
            assert!(changed.get().is_some() && gone.get().is_some(), "{changed:?} {gone:?}");
        }
        self.row("API server back: a change arrives, s", shown(changed.get()));
        self.row("API server back: a deletion arrives, s", shown(gone.get()));
    }
}

/// Names that the API server itself gives.
async fn directly(hub: &Hub, question: &Question) -> Vec<String> {
    let servers = hub.fixture.client(true);
    let answer = question.ask(LIST).send(&servers).await;
    let encoding = apicache::object::Encoding::of_content_type(&answer.content_type).unwrap();
    let list = apicache::object::read_list(encoding, &answer.body).unwrap();
    let mut names: Vec<String> = list.items.iter().map(|item| item.meta.key()).collect();
    names.sort();
    names
}

/// What the median of a request is more than without the cache, ms; by turns, on two connections that stay.
async fn added(hub: &Hub, ask: &Ask) -> f64 {
    let mut connections =
        [hub.fixture.client(true).connect(true, true).await.unwrap(), hub.connect(ask).await.unwrap()];
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..300 {
        for (connection, times) in connections.iter_mut().zip(&mut times) {
            if let Connection::One(sender, _) = connection {
                sender.ready().await.unwrap();
            }
            let began = Instant::now();
            let response = connection.send(ask.request(connection)).await.unwrap();
            response.into_body().collect().await.unwrap();
            times.push(began.elapsed());
        }
    }
    let [direct, through] = times.map(|times| summary(times).0.as_secs_f64() * 1e3);
    through - direct
}

/// What the nodes of all runs have, before any client asks.
fn prepare(plane: &ControlPlane) -> Vec<Run> {
    prepare_openyurt(plane);
    let resources = "services,endpointslices.discovery.k8s.io,nodes,namespaces,servicecidrs.networking.k8s.io";
    let resources = format!("--resource={resources}");
    plane.kubectl(&["create", "clusterrole", "beside", "--verb=list,watch", &resources]).unwrap();
    let role = ["--clusterrole=beside", "--group=system:serviceaccounts"];
    plane.kubectl(&[&["create", "clusterrolebinding", "beside"][..], &role].concat()).unwrap();
    let mut runs = Vec::new();
    for lists in [false, true] {
        for whose in [Whose::Ours, Whose::Yurthub, Whose::Lite] {
            let hub = Hub::new(plane, whose, lists);
            let node = &hub.node;
            let pod = workload(plane, node);
            crowd(plane, node, 58);
            let spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80}]});
            let meta = json!({"name": "web", "namespace": node});
            create(plane, &json!({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}));
            let (api, meta) = ("storage.k8s.io/v1", json!({"name": node}));
            create(plane, &json!({"apiVersion": api, "kind": "CSINode", "metadata": meta, "spec": {"drivers": []}}));
            let (api, meta) = ("coordination.k8s.io/v1", json!({"name": node, "namespace": "kube-node-lease"}));
            let spec = json!({"holderIdentity": node, "leaseDurationSeconds": 40});
            create(plane, &json!({"apiVersion": api, "kind": "Lease", "metadata": meta, "spec": spec}));
            runs.push(Run { hub, pod, clients: Vec::new(), want: Vec::new(), rows: Vec::new() });
        }
    }
    for run in &runs {
        wait::until("the Service's endpoints", LIMIT, || {
            let found = plane.get(&["-n", &run.hub.node, "endpointslices"])?;
            Ok(found["items"].as_array().is_some_and(|items| !items.is_empty()).then_some(()))
        })
        .unwrap();
    }
    runs
}

/// The figures of docs/performance.md.
pub fn beside_others(plane: &ControlPlane) {
    let mut runs = prepare(plane);
    for run in &mut runs {
        run.warm(plane);
    }
    // What firstboot's cache holds is flushed at the latest after this.
    std::thread::sleep(apicache::store::FLUSH + Duration::from_secs(1));
    plane.stop_apiserver().unwrap();
    for run in &mut runs {
        run.hub.way.close();
        run.offline();
    }
    plane.start_apiserver().unwrap();
    for run in &mut runs {
        run.back(plane);
    }
    for runs in runs.chunks(3) {
        let lists = if runs[0].hub.lists { "that list, then watch" } else { "as of Kubernetes 1.36" };
        eprintln!("\n| clients {lists} | firstboot | yurthub | lite-apiserver |\n|---|---|---|---|");
        for (at, (name, _)) in runs[0].rows.iter().enumerate() {
            let cells: Vec<&str> = runs.iter().map(|run| run.rows[at].1.as_str()).collect();
            assert!(runs.iter().all(|run| run.rows[at].0 == *name));
            eprintln!("| {name} | {} |", cells.join(" | "));
        }
    }
    remove_openyurt(plane);
    for what in [["clusterrolebinding", "beside"], ["clusterrole", "beside"]] {
        plane.kubectl(&[&["delete"], &what[..]].concat()).unwrap();
    }
}
