// SPDX-License-Identifier: Apache-2.0
//! A watch of many objects through the cache: the same as at the API server, and the same again without one; and what that
//! costs in memory.

use std::collections::BTreeMap;

use apicache::body::whole;
use apicache::config::Config;
use apicache::object::{Change, Encoding, Meta, read_event, read_list};
use apicache::upstream::Servers;
use http_body_util::BodyExt;
use hyper::{Method, Request};
use imagebuild::cluster::{Credential, kubeconfig};
use imagebuild::digest;
use qemu::control_plane::ControlPlane;
use qemu::wait;
use serde_json::json;

use super::bench::create;
use super::cache::workload;
use super::cache_bench::*;
use super::cache_figures::proc;

/// Requests at once while objects are made.
const AT_ONCE: usize = 50;

pub fn a_thousand(plane: &ControlPlane) {
    the_same_again(plane, "thousand", 1_000);
}

pub fn ten_thousand(plane: &ControlPlane) {
    the_same_again(plane, "ten-thousand", 10_000);
}

/// Name, version and digest of each object.
type Known = BTreeMap<String, (u64, String)>;

fn known(meta: &Meta, bytes: &[u8]) -> (String, (u64, String)) {
    (meta.name.clone(), (meta.version, digest::bytes(bytes)))
}

/// The administrator at the API server: none of its requests waits behind others.
fn administrator(plane: &ControlPlane, fixture: &Fixture) -> Servers {
    let access = kubeconfig::access(Some(&plane.path().join("super-admin.conf")), None).unwrap();
    let Credential::Certificate(certificate, key) = access.credential else { panic!("it has no certificate") };
    let node = fixture.dir.path().join("administrator.pem");
    std::fs::write(&node, certificate + key.expose()).unwrap();
    Servers::new(&Config { node, ..fixture.config.clone() }).unwrap()
}

/// Makes ConfigMaps of 1 KiB.
fn fill(plane: &ControlPlane, fixture: &Fixture, namespace: &str, count: usize) {
    let servers = administrator(plane, fixture);
    let mut random = fastrand::Rng::with_seed(24);
    let bodies: Vec<String> = (0..count)
        .map(|number| {
            let text: String = std::iter::repeat_with(|| random.alphanumeric()).take(1024).collect();
            let meta = json!({"name": format!("map-{number}"), "namespace": namespace});
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"text": text}}).to_string()
        })
        .collect();
    fixture.runtime.block_on(async {
        let local = tokio::task::LocalSet::new();
        for some in bodies.chunks(count.div_ceil(AT_ONCE)).map(<[String]>::to_vec) {
            let mut connection = servers.connect(true, true).await.unwrap();
            let uri = format!("https://{}/api/v1/namespaces/{namespace}/configmaps", connection.server());
            local.spawn_local(async move {
                for body in some {
                    let request = Request::builder().method(Method::POST).uri(&uri).header("content-type", JSON);
                    let answer = connection.send(request.body(whole(body)).unwrap()).await.unwrap();
                    assert_eq!(answer.status(), 201);
                    answer.into_body().collect().await.unwrap();
                }
            });
        }
        local.await;
    });
}

/// A service account that may read the namespace.
fn reader(plane: &ControlPlane, fixture: &Fixture, namespace: &str, name: &str) -> String {
    let run = |words: &[&str]| plane.kubectl(&[&["-n", namespace], words].concat()).unwrap();
    run(&["create", "serviceaccount", name]);
    let account = format!("--serviceaccount={namespace}:{name}");
    run(&["create", "rolebinding", name, "--clusterrole=view", &account]);
    let token = run(&["create", "token", name]).trim().to_owned();
    let ask = Ask::get(&format!("/api/v1/namespaces/{namespace}/configmaps/kube-root-ca.crt"), JSON).with(&token);
    wait::until("the role to be known", LIMIT, || Ok((fixture.directly(&ask).status == 200).then_some(()))).unwrap();
    token
}

fn list(fixture: &Fixture, client: &Servers, ask: &Ask) -> (Known, u64) {
    let answer = fixture.send(client, ask);
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let list = read_list(Encoding::of_content_type(&answer.content_type).unwrap(), &answer.body).unwrap();
    assert!(list.next.is_empty());
    (list.items.iter().map(|item| known(&item.meta, &item.bytes)).collect(), list.version)
}

fn watch_list(fixture: &Fixture, client: &Servers, ask: &Ask) -> (Known, Watch) {
    let mut watch = Watch::open(fixture, client, ask);
    let (events, _) = watch.initial(fixture);
    let object = |(_, frame): &(String, Vec<u8>)| {
        let event = read_event(watch.encoding, frame).unwrap();
        known(&event.object.meta, &event.object.bytes)
    };
    (events.iter().map(object).collect(), watch)
}

fn print_memory(fixture: &Fixture, when: &str) {
    let first = proc(fixture.process.as_ref().unwrap().pid(), "status", "VmRSS:");
    let [resident, most] = ["VmRSS:", "VmHWM:"].map(|name| proc(fixture.serving(), "status", name));
    let store = std::fs::metadata(fixture.config.state.join(apicache::worker::STORE)).unwrap().len();
    eprintln!("{when}: {resident} KiB resident, {most} KiB at most, and {first} KiB; store {} KiB", store >> 10);
}

fn the_same_again(plane: &ControlPlane, node: &str, count: usize) {
    workload(plane, node);
    let mut fixture = Fixture::new(plane, node);
    fixture.connected();
    fill(plane, &fixture, node, count);
    let [lists, watches, both] = ["lists", "watches", "both"].map(|name| reader(plane, &fixture, node, name));
    let path = format!("/api/v1/namespaces/{node}/configmaps");
    // As client-go reads by list and watch: from the API server's memory, which it does not give in pages.
    let listing = Ask::get(&format!("{path}?resourceVersion=0"), PROTOBUF);
    let watching = Ask::watch_list(&path, "", PROTOBUF);
    let (cache, direct) = (fixture.client(false), fixture.client(true));
    print_memory(&fixture, "nothing read");

    let (mut all, _) = list(&fixture, &direct, &listing.with(&both));
    // `settings` of the workload and `kube-root-ca.crt` are there, too.
    assert_eq!(all.len(), count + 2);
    let (through, version) = list(&fixture, &cache, &listing.with(&lists));
    assert!(through == all, "{} objects", through.len());
    print_memory(&fixture, "list");
    let from = format!("{path}?allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds=300&watch=true");
    let mut after_list = Watch::open(&fixture, &cache, &Ask::get(&from, PROTOBUF).with(&lists));
    let (through, mut after_all) = watch_list(&fixture, &cache, &watching.with(&watches));
    assert!(through == all, "{} objects", through.len());
    print_memory(&fixture, "watch-list");

    // What happens then comes through both watches.
    let meta = json!({"name": "map-later", "namespace": node});
    create(plane, &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}));
    plane.kubectl(&["-n", node, "delete", "configmap", "map-0"]).unwrap();
    for watch in [&mut after_list, &mut after_all] {
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let frame = watch.next(&fixture).expect("the watch goes on");
            let event = read_event(watch.encoding, &frame).unwrap();
            if event.change != Change::Bookmark {
                seen.push((event.change, event.object.meta.name.clone()));
            }
        }
        let wanted = [(Change::Added, "map-later".to_owned()), (Change::Delete, "map-0".to_owned())];
        assert_eq!(seen, wanted);
    }
    (all, _) = list(&fixture, &direct, &listing.with(&both));
    assert_eq!(all.len(), count + 2);

    plane.stop_apiserver().unwrap();
    fixture.disconnected();
    for round in ["without API server", "after a restart"] {
        for token in [&lists, &watches] {
            let (kept, _) = list(&fixture, &cache, &listing.with(token));
            assert!(kept == all, "{round}: {} objects", kept.len());
            print_memory(&fixture, &format!("{round}, list"));
            let (kept, _) = watch_list(&fixture, &cache, &watching.with(token));
            assert!(kept == all, "{round}: {} objects", kept.len());
            print_memory(&fixture, &format!("{round}, watch-list"));
        }
        // What others have read is not shown to one that has read nothing here.
        assert_eq!(fixture.send(&cache, &listing.with(&both)).status, 401, "{round}");
        if round == "without API server" {
            // At most so much is lost.
            std::thread::sleep(apicache::store::FLUSH + std::time::Duration::from_secs(1));
            fixture.kill();
            fixture.start();
            fixture.disconnected();
        }
    }
    plane.start_apiserver().unwrap();
    fixture.connected();
}
