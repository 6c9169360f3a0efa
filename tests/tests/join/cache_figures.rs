// SPDX-License-Identifier: Apache-2.0
//! What the cache costs, beside a direct connection in the same run: memory, time, bytes written, CPU.

use std::time::{Duration, Instant};

use apicache::body::whole;
use apicache::object::{Change, read_event, read_list};
use apicache::upstream::{Connection, Servers};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Request;
use qemu::control_plane::ControlPlane;
use serde_json::{Value, json};

use super::bench::*;
use super::cache::{watches, workload};
use super::cache_bench::*;

/// Both processes together, as the issue bounds them, KiB.
const RESIDENT: u64 = 15 << 10;

/// Creates pods of `node` in a namespace of its name.
pub fn crowd(plane: &ControlPlane, node: &str, count: usize) {
    let pod = |number: usize| {
        let meta = json!({"name": format!("more-{number}"), "namespace": node});
        let volumes = json!([{"name": "c", "configMap": {"name": "settings"}}]);
        let spec = json!({"nodeName": node, "volumes": volumes, "containers": [{"name": "c", "image": "i"}]});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    };
    let items: Vec<Value> = (0..count).map(pod).collect();
    create(plane, &json!({"apiVersion": "v1", "kind": "List", "items": items}));
}

/// The watches of kubelet, those of ConfigMaps twenty times: each has a connection of its own here.
fn open_watches(fixture: &Fixture, client: &Servers, node: &str, pods: usize) -> Vec<Watch> {
    let mut open = Vec::new();
    for (path, selector) in watches(node) {
        for _ in 0..if path.contains("configmaps") { 20 } else { 1 } {
            let mut watch = Watch::open(fixture, client, &Ask::watch_list(&path, &selector, PROTOBUF));
            let (events, _) = watch.initial(fixture);
            assert!(!path.ends_with("/pods") || events.len() == pods, "{}", events.len());
            open.push(watch);
        }
    }
    open
}

async fn get(connection: &mut Connection, ask: &Ask) -> Bytes {
    let uri = format!("https://{}{}", connection.server(), ask.path);
    let request = Request::get(uri).header("accept", ask.accept).body(whole(Bytes::new())).unwrap();
    connection.send(request).await.unwrap().into_body().collect().await.unwrap().to_bytes()
}

/// Median and 99th percentile.
pub fn summary(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// Times of a request, directly and through the cache, by turns: what else the machine does hits both.
fn by_turns(fixture: &Fixture, ask: &Ask, count: usize) -> [(Duration, Duration); 2] {
    let (cache, direct) = (fixture.client(false), fixture.client(true));
    fixture.runtime.block_on(async {
        let mut connections = [direct.connect(true, true).await.unwrap(), cache.connect(true, true).await.unwrap()];
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..count {
            for (connection, times) in connections.iter_mut().zip(&mut times) {
                let began = Instant::now();
                get(connection, ask).await;
                times.push(began.elapsed());
            }
        }
        times.map(summary)
    })
}

/// A number of a file of `/proc` after `name`.
pub fn proc(pid: u32, file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// CPU time of a process, in hundredths of a second.
fn cpu(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<u64> =
        text.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2).map(|f| f.parse().unwrap()).collect();
    fields.iter().sum()
}

/// The cache of a node with 60 pods.
fn crowded(plane: &ControlPlane, node: &str) -> Fixture {
    workload(plane, node);
    crowd(plane, node, 58);
    let fixture = Fixture::new(plane, node);
    fixture.connected();
    fixture
}

/// Resident memory of both processes with 60 pods, and what a GET takes longer.
pub fn memory_and_added_time(plane: &ControlPlane) {
    let node = "crowded";
    let fixture = crowded(plane, node);
    let _open = open_watches(&fixture, &fixture.client(false), node, 60);
    let ask = Ask::get(&format!("/api/v1/nodes/{node}"), PROTOBUF);
    let [without, with] = by_turns(&fixture, &ask, 500);
    let processes = [fixture.process.as_ref().unwrap().pid(), fixture.serving()];
    let both = processes.map(|pid| proc(pid, "status", "VmRSS:"));
    let files = processes.map(|pid| proc(pid, "status", "RssFile:"));
    let store = std::fs::metadata(fixture.config.state.join(apicache::worker::STORE)).unwrap().len();
    eprintln!(
        "GET, median and p99: {without:?} directly, {with:?} through the cache; {both:?} KiB, of which {files:?} are the \
         program; store {store} bytes"
    );
    if std::env::var_os("FIRSTBOOT_TEST_PROGRAM").is_none() {
        assert!(both.iter().sum::<u64>() <= RESIDENT, "{both:?} KiB resident");
    }
}

/// The figures of docs/performance.md: run it on a machine that does nothing else.
pub fn figures(plane: &ControlPlane) {
    let node = "figures";
    let fixture = crowded(plane, node);
    let (cache, direct) = (fixture.client(false), fixture.client(true));
    let open = open_watches(&fixture, &cache, node, 60);
    let serving = fixture.serving();
    let path = format!("/api/v1/nodes/{node}");
    let patch = |number: usize| {
        let body = json!({"metadata": {"annotations": {"number": number.to_string()}}});
        let answer = fixture.send(&direct, &Ask { method: hyper::Method::PATCH, ..Ask::post(&path, &body) });
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    };

    let ask = Ask::get(&path, PROTOBUF);
    let [without, with] = by_turns(&fixture, &ask, 2000);
    eprintln!("GET of a Node, median and p99: {without:?} directly, {with:?} through the cache");

    let watch = Ask::watch_list("/api/v1/nodes", &format!("metadata.name={node}"), PROTOBUF);
    let mut watches = [&direct, &cache].map(|client| Watch::open(&fixture, client, &watch));
    watches.iter_mut().for_each(|watch| drop(watch.initial(&fixture)));
    let mut later = Vec::new();
    for number in 0..200 {
        patch(number);
        let [one, two] = &mut watches;
        let (one, two) = fixture.runtime.block_on(async { tokio::join!(changed(one), changed(two)) });
        later.push(two.saturating_duration_since(one));
    }
    eprintln!("event of a watch, later through the cache than directly, median and p99: {:?}", summary(later));

    let (began, used) = (Instant::now(), cpu(serving));
    std::thread::sleep(Duration::from_secs(60));
    let idle = (cpu(serving) - used) as f64 / began.elapsed().as_secs_f64();
    let resident = proc(serving, "status", "VmRSS:");
    eprintln!("idle, {} watches open: {idle:.2} % of a CPU, {resident} KiB resident", open.len() + 1);

    // An hour of a node on which nothing happens: kubelet reports its status every five minutes.
    let written = proc(serving, "io", "write_bytes:");
    let (began, used) = (Instant::now(), cpu(serving));
    for number in 1000..1012 {
        patch(number);
        std::thread::sleep(apicache::store::FLUSH + Duration::from_secs(1));
    }
    let written = proc(serving, "io", "write_bytes:") - written;
    let used = (cpu(serving) - used) as f64 / began.elapsed().as_secs_f64();
    eprintln!("12 changes of the Node: {written} bytes written; {used:.2} % of a CPU meanwhile");

    for (client, way) in [(&direct, "directly"), (&cache, "through the cache")] {
        let (began, used) = (Instant::now(), cpu(serving));
        let sent = load(&fixture, client, &ask);
        let (sent, used) =
            [sent as f64, (cpu(serving) - used) as f64].map(|n| n / began.elapsed().as_secs_f64()).into();
        let resident = proc(serving, "status", "VmRSS:");
        eprintln!(
            "{sent:.0} requests in a second {way}: the cache takes {used:.0} % of a CPU, {resident} KiB resident"
        );
    }
    drop(open);

    crowd_more(plane, node);
    let ask = Ask::get(&format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}"), PROTOBUF);
    let listed = fixture.ask(&ask);
    assert_eq!(read_list(apicache::object::Encoding::Protobuf, &listed.body).unwrap().items.len(), 1000);
    let [without, with] = by_turns(&fixture, &ask, 100);
    eprintln!(
        "LIST of 1,000 pods ({} bytes), median and p99: {without:?} directly, {with:?} through the cache; {} KiB resident",
        listed.body.len(),
        proc(serving, "status", "VmRSS:")
    );
}

/// How many requests are answered in ten seconds, by eight connections with at most 1,000 in a second together.
fn load(fixture: &Fixture, client: &Servers, ask: &Ask) -> u64 {
    const CONNECTIONS: u64 = 8;
    let sent = std::rc::Rc::new(std::cell::Cell::new(0));
    fixture.runtime.block_on(async {
        let (local, began) = (tokio::task::LocalSet::new(), Instant::now());
        for _ in 0..CONNECTIONS {
            let mut connection = client.connect(true, true).await.unwrap();
            let (ask, sent) = (ask.clone(), sent.clone());
            local.spawn_local(async move {
                let mut own = 0;
                while began.elapsed() < Duration::from_secs(10) {
                    get(&mut connection, &ask).await;
                    own += 1;
                    sent.set(sent.get() + 1);
                    let due = Duration::from_millis(own * CONNECTIONS);
                    tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
                }
            });
        }
        local.await;
    });
    sent.get()
}

/// When the next change of an object comes.
async fn changed(watch: &mut Watch) -> Instant {
    loop {
        let frame = watch.event().await.expect("an event");
        if read_event(watch.encoding, &frame).unwrap().change == Change::Modified {
            return Instant::now();
        }
    }
}

/// The other 940 of 1,000 pods.
fn crowd_more(plane: &ControlPlane, node: &str) {
    let pod = |number: usize| {
        let meta = json!({"name": format!("other-{number}"), "namespace": node});
        let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}]});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    };
    let items: Vec<Value> = (0..940).map(pod).collect();
    create(plane, &json!({"apiVersion": "v1", "kind": "List", "items": items}));
}
