// SPDX-License-Identifier: Apache-2.0
//! `firstboot cache` between clients and a real API server, which is then stopped: the requests of kubelet 1.36, in its
//! encoding, and those of clients with tokens.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use apicache::body::whole;
use apicache::object::{Change, Encoding, envelope, read_event, read_list};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Method, Request, StatusCode};
use qemu::control_plane::ControlPlane;
use qemu::wait;
use serde_json::{Value, json};

use super::bench::*;
use super::cache_bench::*;
use super::cluster::create_node;

/// What kubelet 1.36 watches for one pod (docs/offline.md): path and field selector.
pub fn watches(node: &str) -> Vec<(String, String)> {
    vec![
        ("/api/v1/nodes".into(), format!("metadata.name={node}")),
        ("/api/v1/pods".into(), format!("spec.nodeName={node}")),
        ("/api/v1/services".into(), "spec.clusterIP!=None".into()),
        ("/apis/node.k8s.io/v1/runtimeclasses".into(), String::new()),
        ("/apis/storage.k8s.io/v1/csidrivers".into(), String::new()),
        (format!("/api/v1/namespaces/{node}/configmaps"), "metadata.name=settings".into()),
        (format!("/api/v1/namespaces/{node}/secrets"), "metadata.name=password".into()),
    ]
}

/// A node with a pod that uses a ConfigMap and a Secret, in a namespace of its name.
pub fn workload(plane: &ControlPlane, node: &str) -> Value {
    create_node(plane, node, &json!({}), &json!([]));
    create(plane, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": node}}));
    let meta = |name: &str| json!({"name": name, "namespace": node, "labels": {"app": "web"}});
    create(plane, &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("settings"), "data": {"a": "1"}}));
    create(
        plane,
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta("password"), "stringData": {"p": "the-secret"}}),
    );
    wait::until("the namespace's service account", LIMIT, || {
        Ok(plane.get(&["-n", node, "serviceaccount", "default"]).ok())
    })
    .unwrap();
    for name in ["one", "two"] {
        let volumes = json!([
            {"name": "c", "configMap": {"name": "settings"}}, {"name": "s", "secret": {"secretName": "password"}},
        ]);
        let spec = json!({"nodeName": node, "volumes": volumes, "containers": [{"name": "c", "image": "i"}]});
        create(plane, &json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta(name), "spec": spec}));
    }
    // The node's authorizer takes what its pods name from a watch of its own.
    let (secret, user) = (format!("/api/v1/namespaces/{node}/secrets/password"), format!("--as=system:node:{node}"));
    wait::until("the authorizer to know", LIMIT, || {
        Ok(plane.kubectl(&["get", "--raw", &secret, &user, "--as-group=system:nodes"]).ok())
    })
    .unwrap();
    plane.get(&["-n", node, "pod", "one"]).unwrap()
}

/// kubelet's request for the token of pod `one` of [`workload`].
pub fn token_request(node: &str, pod: &Value) -> Ask {
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "one", "uid": pod["metadata"]["uid"]});
    let spec = json!({"audiences": null, "expirationSeconds": 3607, "boundObjectRef": bound});
    let body = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec});
    Ask::post(&format!("/api/v1/namespaces/{node}/serviceaccounts/default/token"), &body)
}

fn reason(answer: &Answer) -> (u16, String) {
    let status: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    (answer.status.as_u16(), status["reason"].as_str().unwrap_or_default().to_owned())
}

fn down(plane: &ControlPlane, fixture: &Fixture) {
    plane.stop_apiserver().unwrap();
    fixture.disconnected();
}

fn up(plane: &ControlPlane, fixture: &Fixture) {
    plane.start_apiserver().unwrap();
    fixture.connected();
}

pub fn what_was_read_comes_again(plane: &ControlPlane) {
    let node = "cached";
    let pod = workload(plane, node);
    let mut fixture = Fixture::new(plane, node);
    fixture.connected();
    let (cache, direct) = (fixture.client(false), fixture.client(true));

    // Online: the same bytes as without the cache.
    let mut online = Vec::new();
    let mut open = Vec::new();
    for accept in [PROTOBUF, JSON] {
        for (path, selector) in watches(node) {
            let ask = Ask::watch_list(&path, &selector, accept);
            let mut watch = Watch::open(&fixture, &cache, &ask);
            let (events, _) = watch.initial(&fixture);
            let (want, _) = Watch::open(&fixture, &direct, &ask).initial(&fixture);
            assert_eq!(events, want, "{path} {accept}");
            let expected = if path.ends_with("/pods") { 2 } else { usize::from(!path.contains("/apis/")) };
            assert!(events.len() == expected || path.contains("services"), "{path}: {}", events.len());
            online.push((ask, events));
            open.push(watch);
        }
    }
    let node_path = format!("/api/v1/nodes/{node}");
    let gets = [
        Ask::get(&node_path, PROTOBUF),
        Ask::get(&format!("/api/v1/namespaces/{node}/pods/one"), PROTOBUF),
        Ask::get(&format!("/api/v1/namespaces/{node}/secrets/password"), JSON),
        Ask::get(&format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}"), PROTOBUF),
        Ask::get("/version", JSON),
    ];
    let got: Vec<Answer> = gets.iter().map(|ask| fixture.ask(ask)).collect();
    for (ask, got) in gets.iter().zip(&got) {
        let want = fixture.directly(ask);
        assert_eq!((got.status, &got.content_type), (StatusCode::OK, &want.content_type), "{}", ask.path);
        if ask.path.contains("pods?") {
            // A list names the moment at which it was read.
            let [got, want] = [&got.body, &want.body].map(|body| read_list(Encoding::Protobuf, body).unwrap().items);
            assert_eq!(got, want, "{}", ask.path);
        } else {
            assert_eq!(got.body, want.body, "{}", ask.path);
        }
    }
    let missing = fixture.ask(&Ask::get("/apis/storage.k8s.io/v1/csinodes/cached", PROTOBUF));
    assert_eq!(missing.status, 404);
    let token = fixture.ask(&token_request(node, &pod));
    assert_eq!(token.status, 201, "{}", String::from_utf8_lossy(&token.body));
    let token: Value = serde_json::from_slice(&token.body).unwrap();

    // A change comes through a watch that is open, and is kept.
    plane.kubectl(&["-n", node, "label", "pod", "two", "changed=yes"]).unwrap();
    let changed = loop {
        let frame = open[1].next(&fixture).unwrap();
        let event = read_event(Encoding::Protobuf, &frame).unwrap();
        if event.object.meta.labels.contains_key("changed") {
            break event.object.bytes.into_owned();
        }
    };

    // Without API server: watches break off, and everything that was read comes again.
    down(plane, &fixture);
    for round in ["the same process", "after a power cut"] {
        let began = Instant::now();
        for (ask, want) in &online {
            let (events, version) = Watch::open(&fixture, &cache, ask).initial(&fixture);
            let names = |all: &[(String, Vec<u8>)]| all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            assert_eq!(names(&events), names(want), "{round}: {}", ask.path);
            assert!(version > 0, "{}", ask.path);
            if !ask.path.starts_with("/api/v1/pods") {
                assert_eq!(&events, want, "{round}: {}", ask.path);
            }
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{round}: {:?}", began.elapsed());
        let listed = fixture.ask(&gets[3]);
        let list = read_list(Encoding::Protobuf, &listed.body).unwrap();
        assert!(list.items.iter().any(|item| item.bytes == changed), "{round}: the change was kept");
        assert_eq!((list.items.len(), list.kind.kind.as_str()), (2, "Pod"));
        for (ask, want) in [(&gets[0], &got[0]), (&gets[2], &got[2]), (&gets[4], &got[4])] {
            let answer = fixture.ask(ask);
            assert_eq!(answer.status, 200, "{round}: {}", ask.path);
            let same = match ask.accept {
                PROTOBUF => envelope(&answer.body).unwrap() == envelope(&want.body).unwrap(),
                _ => answer.body.trim_ascii() == want.body.trim_ascii(),
            };
            assert!(same, "{round}: {}", ask.path);
        }
        // A selector that was never asked for, on what is kept; and what was never read is not said to be absent.
        let narrower =
            Ask::get(&format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}&labelSelector=changed"), PROTOBUF);
        assert_eq!(read_list(Encoding::Protobuf, &fixture.ask(&narrower).body).unwrap().items.len(), 1);
        for never in ["/api/v1/pods", "/api/v1/namespaces/cached/pods/three", "/apis/apps/v1/deployments", "/healthz"] {
            let want = (503, "ServiceUnavailable".to_owned());
            assert_eq!(reason(&fixture.ask(&Ask::get(never, PROTOBUF))), want, "{round}: {never}");
        }
        // What kubelet writes.
        let again: Value = serde_json::from_slice(&fixture.ask(&token_request(node, &pod)).body).unwrap();
        assert_eq!(again["status"]["token"], token["status"]["token"], "{round}");
        let body = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": node}});
        assert_eq!(reason(&fixture.ask(&Ask::post("/api/v1/nodes", &body))), (409, "AlreadyExists".to_owned()));
        for part in [format!("{node_path}/status"), format!("/api/v1/namespaces/{node}/pods/one/status")] {
            let patch = Ask { method: Method::PATCH, ..Ask::post(&part, &json!({})) };
            assert_eq!(reason(&fixture.ask(&patch)), (503, "ServiceUnavailable".to_owned()), "{part}");
        }
        if round == "the same process" {
            // At most so much is lost.
            std::thread::sleep(apicache::store::FLUSH + Duration::from_secs(1));
            fixture.kill();
            fixture.start();
            fixture.disconnected();
        }
    }

    // Back: a watch without API server ends, and goes on there from where it was.
    let mut waiting = Watch::open(&fixture, &cache, &online[1].0);
    let (_, version) = waiting.initial(&fixture);
    up(plane, &fixture);
    assert_eq!(waiting.next(&fixture), None);
    let resumed = format!(
        "/api/v1/pods?allowWatchBookmarks=true&fieldSelector=spec.nodeName%3D{node}&resourceVersion={version}\
         &timeoutSeconds=300&watch=true"
    );
    let mut resumed = Watch::open(&fixture, &cache, &Ask::get(&resumed, PROTOBUF));
    // An API server that has just started knows no history; then client-go begins anew, too.
    plane.kubectl(&["-n", node, "label", "pod", "one", "back=yes"]).unwrap();
    let first = resumed.next(&fixture).unwrap();
    if read_event(Encoding::Protobuf, &first).unwrap().change == Change::Other {
        assert!(String::from_utf8_lossy(&first).contains("too old resource version"), "{first:?}");
        resumed = Watch::open(&fixture, &cache, &online[1].0);
        resumed.initial(&fixture);
    }
    plane.kubectl(&["-n", node, "delete", "pod", "two", "--grace-period=0", "--force"]).unwrap();
    loop {
        let frame = resumed.next(&fixture).unwrap();
        let event = read_event(Encoding::Protobuf, &frame).unwrap();
        if event.change == Change::Delete {
            assert_eq!(event.object.meta.name, "two");
            break;
        }
    }
    down(plane, &fixture);
    let listed = fixture.ask(&gets[3]);
    let names: Vec<_> =
        read_list(Encoding::Protobuf, &listed.body).unwrap().items.into_iter().map(|i| i.meta.name).collect();
    assert_eq!(names, ["one"], "what was deleted is gone from the store");
    up(plane, &fixture);

    // A watch that would leave a gap is refused once, and the client lists anew.
    let ahead = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}&resourceVersion=999999999&watch=true");
    assert_eq!(reason(&fixture.ask(&Ask::get(&ahead, PROTOBUF))), (410, "Expired".to_owned()));
}

pub fn one_client_never_reads_what_another_may(plane: &ControlPlane) {
    let node = "apart";
    let pod = workload(plane, node);
    let fixture = Fixture::new(plane, node);
    fixture.connected();
    let request = |pod: &Value| -> String {
        let answer: Value = serde_json::from_slice(&fixture.ask(&token_request(node, pod)).body).unwrap();
        answer["status"]["token"].as_str().unwrap().to_owned()
    };
    let token = request(&pod);
    plane
        .kubectl(&[
            "-n",
            node,
            "create",
            "rolebinding",
            "r",
            "--clusterrole=view",
            &format!("--serviceaccount={node}:default"),
        ])
        .unwrap();
    let maps = Ask::get(&format!("/api/v1/namespaces/{node}/configmaps"), JSON);
    let secret = Ask::get(&format!("/api/v1/namespaces/{node}/secrets/password"), JSON);
    let pods = Ask::watch_list("/api/v1/pods", &format!("spec.nodeName={node}"), PROTOBUF);
    wait::until("the role to be known", LIMIT, || Ok((fixture.ask(&maps.with(&token)).status == 200).then_some(())))
        .unwrap();
    let by_token = fixture.ask(&maps.with(&token));
    // kubelet reads more than the pod may.
    assert_eq!(fixture.ask(&secret).status, 200);
    Watch::open(&fixture, &fixture.client(false), &pods).initial(&fixture);
    for ask in [&secret, &pods] {
        assert_eq!(fixture.ask(&ask.with(&token)).status, 403, "{}", ask.path);
    }
    let anonymous = Ask { as_node: false, ..secret.clone() };
    assert_eq!(fixture.ask(&anonymous).status, 403);
    // Its claims are right, its signature is not.
    let mut forged = token.clone().into_bytes();
    let last = forged.len() - 20;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    assert_eq!(fixture.ask(&maps.with(&forged)).status, 401);

    down(plane, &fixture);
    let again = fixture.ask(&maps.with(&token));
    assert_eq!(again.status, 200, "what it read itself");
    let names = |body: &[u8]| {
        let list = read_list(Encoding::Json, body).unwrap();
        list.items.into_iter().map(|i| i.meta.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&again.body), names(&by_token.body));
    for ask in [&secret, &pods] {
        assert_eq!(fixture.ask(&ask.with(&token)).status, 503, "{}", ask.path);
    }
    assert_eq!(fixture.ask(&maps).status, 503, "nor does the node read what the pod has read");
    for ask in [anonymous, maps.with(&forged), secret.with(&forged), maps.with("abc"), pods.with(&forged)] {
        assert_eq!(reason(&fixture.ask(&ask)), (401, "Unauthorized".to_owned()), "{}", ask.path);
    }
    // No token is handed to one who is not the node.
    assert_eq!(fixture.ask(&token_request(node, &pod).with(&token)).status, 503);
    // What is on disk holds no token of a request.
    up(plane, &fixture);
}

pub fn a_failed_cache_is_out_of_the_way(plane: &ControlPlane) {
    let node = "failing";
    workload(plane, node);
    let mut fixture = Fixture::new(plane, node);
    fixture.connected();
    let ask = Ask::get(&format!("/api/v1/nodes/{node}"), PROTOBUF);
    let good = fixture.directly(&ask).body;
    let answers = |fixture: &Fixture, within: Duration| {
        let began = Instant::now();
        let client = fixture.client(false);
        loop {
            let tried = fixture.runtime.block_on(async {
                let mut connection = client.connect(true, true).await.ok()?;
                let uri = format!("https://{}{}", connection.server(), ask.path);
                let request = Request::get(uri).header("accept", ask.accept).body(whole(Bytes::new())).unwrap();
                let sent = tokio::time::timeout(Duration::from_secs(2), connection.send(request)).await.ok()?;
                Some(sent.ok()?.into_body().collect().await.ok()?.to_bytes())
            });
            if let Some(body) = tried {
                assert_eq!(body, good);
                return began.elapsed();
            }
            assert!(began.elapsed() < within, "no answer within {within:?}");
        }
    };
    // It ends.
    let first = fixture.serving();
    kill(first);
    let took = answers(&fixture, Duration::from_secs(3));
    eprintln!("ended: an answer after {:.2} s", took.as_secs_f64());
    // It hangs.
    wait::until("another serving process", LIMIT, || Ok((fixture.serving() != first).then_some(()))).unwrap();
    let log = || std::fs::read_to_string(fixture.dir.path().join("log")).unwrap();
    assert!(log().contains("the serving process ended (signal: 9 (SIGKILL)): clients reach the API server directly"));
    fixture.connected();
    let hung = rustix::process::Pid::from_raw(i32::try_from(fixture.serving()).unwrap()).unwrap();
    rustix::process::kill_process(hung, rustix::process::Signal::STOP).unwrap();
    let took = answers(&fixture, Duration::from_secs(10));
    eprintln!("hung: an answer after {:.2} s", took.as_secs_f64());
    // Its store is torn: it is set aside, and what comes is kept anew.
    fixture.connected();
    fixture.kill();
    let store = fixture.config.state.join(apicache::worker::STORE);
    for damage in [damage_cut as fn(&Path), damage_zeroes, damage_noise] {
        damage(&store);
        fixture.start();
        fixture.connected();
        assert_eq!(fixture.ask(&ask).body, good);
        fixture.kill();
    }
}

fn damage_cut(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 3).unwrap();
}

fn damage_zeroes(path: &Path) {
    std::fs::write(path, vec![0; 65_536]).unwrap();
}

fn damage_noise(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..200 {
        let at = random.usize(..bytes.len());
        bytes[at] = random.u8(..);
    }
    std::fs::write(path, bytes).unwrap();
}
