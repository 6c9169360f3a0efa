// SPDX-License-Identifier: Apache-2.0
//! Ten minutes on a bad network: the control plane and a node with its cache are on two ends of one wire, in namespaces of
//! their own. Needs root: the client, a thread of this program, goes to the node's end.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apicache::object::{Encoding, read_list};
use e2e::skip::{skip, skip_unless_ci};
use qemu::control_plane::config::Family;
use qemu::control_plane::{ControlPlane, Options};
use qemu::link::namespace::Namespace;
use qemu::run_dir::RunDir;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::cache::workload;
use super::cache_bench::*;
use super::cache_networks::{Reflector, come_and_go};

const TIME: Duration = Duration::from_secs(600);
const ROUND: Duration = Duration::from_secs(5);
/// How long the client may take to hear of everything while packets are still lost.
const LATE: Duration = Duration::from_secs(300);

/// Three of ten packets that arrive are dropped, at both ends. Not where they are sent: there the sender would know.
const LOSS: &str = "table inet loss {\n  counter arrived { }\n  counter lost { }\n  chain input {\n    type filter hook input \
                    priority filter; policy accept;\n    iifname \"wire\" counter name arrived\n    iifname \"wire\" numgen \
                    random mod 100 < 30 counter name lost drop\n  }\n}\n";

/// What is bad about the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// It comes and goes.
    Flaps,
    /// It loses 30 % of all packets, in both directions.
    Loses,
}

pub fn flapping() {
    ten_minutes(Bad::Flaps);
}

pub fn losing() {
    ten_minutes(Bad::Loses);
}

fn ten_minutes(bad: Bad) {
    if let Err(why) = Namespace::probe() {
        return skip_unless_ci(&format!("{why:#}"));
    }
    if !rustix::process::geteuid().is_root() {
        return skip("not root");
    }
    // This thread alone goes to another network, and the next case must not find itself there.
    let ended = std::thread::spawn(move || on_a_bad_network(bad)).join();
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Moves this thread, and what it starts, to another network.
fn enter(namespace: &Namespace) {
    let file = File::open(format!("/proc/{}/ns/net", namespace.pid())).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// A wire between two networks. No frame is longer than a packet: a lost one is one packet.
fn connect(cluster: &Namespace, site: &Namespace) {
    cluster.ip(&format!("link add wire type veth peer name wire netns {}", site.pid())).unwrap();
    for (end, address) in [(cluster, Family::V4.guest_view()), (site, "10.0.2.20")] {
        end.ip(&format!("addr add {address}/24 dev wire")).unwrap();
        end.ip("link set wire gso_max_segs 1").unwrap();
        end.ip("link set wire up").unwrap();
    }
}

/// Packets that arrived at an end, and those of them that were lost.
fn counted(end: &Namespace) -> [u64; 2] {
    let text = String::from_utf8(end.run("nft", &["list", "counters"]).unwrap()).unwrap();
    let mut words = text.split_whitespace();
    let mut next = || {
        words.find(|word| *word == "packets")?;
        words.next()?.parse().ok()
    };
    [next().unwrap(), next().unwrap()]
}

fn on_a_bad_network(bad: Bad) {
    let dir = RunDir::new("bad-network").unwrap();
    let cluster = Arc::new(Namespace::new(dir.path()).unwrap());
    let site = Arc::new(cluster.sibling(dir.path()).unwrap());
    connect(&cluster, &site);
    let options = Options { namespace: Some(cluster.clone()), ..Options::without_addons() };
    let plane = ControlPlane::start(&options).unwrap();
    enter(&site);
    let node = "far-away";
    workload(&plane, node);
    let fixture = Fixture::within(&plane, node, &site);
    fixture.connected();
    let (client, serving) = (fixture.client(false), fixture.serving());
    let mut reflector = Reflector::new(node);
    reflector.run(&fixture, &client, Duration::from_secs(2));
    assert_eq!(reflector.known.keys().collect::<Vec<_>>(), ["one", "two"]);

    if bad == Bad::Loses {
        let path = dir.path().join("loss.nft");
        std::fs::write(&path, LOSS).unwrap();
        for end in [&cluster, &site] {
            end.run("nft", &["-f", &path.display().to_string()]).unwrap();
        }
    }
    let (began, mut rounds, mut connected) = (Instant::now(), 0, 0);
    std::thread::scope(|scope| {
        // The client goes on by itself, on the same network as the thread that starts it.
        let watching = scope.spawn(|| reflector.run(&fixture, &client, TIME));
        while began.elapsed() < TIME && !watching.is_finished() {
            if bad == Bad::Flaps {
                cluster.ip(if rounds % 2 == 0 { "link set wire down" } else { "link set wire up" }).unwrap();
            }
            come_and_go(&plane, node, rounds);
            rounds += 1;
            std::thread::sleep((ROUND * u32::try_from(rounds).unwrap()).saturating_sub(began.elapsed()));
            connected += usize::from(fixture.wait_for("any", |_| true).link == "connected");
        }
        watching.join().unwrap();
    });
    if bad == Bad::Flaps {
        cluster.ip("link set wire up").unwrap();
    }
    let took = reflector.catch_up(&plane, &fixture, &client, LATE);
    eprintln!(
        "{bad:?}: the same after {:.1} s; {} watches, of which {} began anew and {} were refused; connected at the end of \
         {connected} of {rounds} rounds",
        took.as_secs_f64(),
        reflector.opened,
        reflector.begun,
        reflector.refused
    );
    if bad == Bad::Loses {
        for (end, name) in [(&cluster, "API server"), (&site, "node")] {
            let [arrived, lost] = counted(end);
            eprintln!("of {arrived} packets to the {name}, {lost} were lost");
            assert!((25..35).contains(&(lost * 100 / arrived)), "{lost} of {arrived}");
            end.run("nft", &["delete", "table", "inet", "loss"]).unwrap();
        }
    }
    assert_eq!(reflector.known.len(), 2 + rounds - rounds / 3);
    // The same process has served all the time.
    fixture.process.as_ref().unwrap().check().unwrap();
    assert_eq!(fixture.serving(), serving);
    fixture.connected();

    // And what it has kept is the same.
    reflector.catch_up(&plane, &fixture, &client, LIMIT);
    plane.stop_apiserver().unwrap();
    fixture.disconnected();
    let ask = Ask::get(&format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}"), PROTOBUF);
    let kept = fixture.ask(&ask);
    let list = read_list(Encoding::Protobuf, &kept.body).unwrap();
    let kept = list.items.into_iter().map(|item| (item.meta.name, item.meta.version));
    assert_eq!(kept.collect::<BTreeMap<_, _>>(), reflector.known);
}
