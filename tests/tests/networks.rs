// SPDX-License-Identifier: Apache-2.0
//! The networks of the guest tests in `links.rs`, tried natively: a namespace takes the device's place. Boots nothing.

#![allow(clippy::unwrap_used)]

use qemu::link::Link;
use qemu::link::conditions::Conditions;
use qemu::link::namespace::Namespace;
use qemu::link::router::{Addresses, FREE, FREE_V6, Lan, PROXY, ROUTER, ROUTER_V6, WayOut};
use qemu::link::tap_bridge::{self, Side};
use qemu::process::Process;
use qemu::run_dir::RunDir;
use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

/// A device's stand-in on a link.
struct Standin {
    // Order matters: the TAP bridge ends before its namespace.
    _bridge: Process,
    namespace: Namespace,
    _dir: RunDir,
}

impl Standin {
    fn new(link: &Link) -> Self {
        let dir = RunDir::new("stand-in").unwrap();
        let namespace = Namespace::new(dir.path()).unwrap();
        namespace.ip("tuntap add dev eth mode tap").unwrap();
        let within = |name: &str, program: &std::path::Path, args: &[String], log: &std::path::Path| {
            namespace.start(name, program, args, log)
        };
        let tap_bridge =
            tap_bridge::start(link.device_ends(), Side::Tap("eth"), &dir.path().join("tap_bridge.log"), within)
                .unwrap();
        Standin { _bridge: tap_bridge, namespace, _dir: dir }
    }

    /// Gives it addresses and routes, as a person would.
    fn configure(&self) {
        self.namespace.sysctl("net/ipv6/conf/eth/accept_dad", "0").unwrap();
        for words in [
            format!("addr add {FREE}/24 dev eth"),
            format!("addr add {FREE_V6}/64 dev eth"),
            "link set eth up".to_owned(),
            format!("route add default via {ROUTER}"),
            format!("-6 route add default via {ROUTER_V6}"),
        ] {
            self.namespace.ip(&words).unwrap();
        }
    }

    /// What a server sends to a client, after `ask` was sent; `None` when there is no connection.
    fn hears(&self, address: &str, port: u16, ask: &str) -> Option<String> {
        let script = "exec 3<>\"/dev/tcp/$0/$1\"; printf \"$2\" >&3; cat <&3";
        let words = ["10", "bash", "-c", script, address, &port.to_string(), ask];
        let heard = self.namespace.run("timeout", &words).ok()?;
        Some(String::from_utf8(heard).unwrap())
    }
}

/// A server on the build machine's loopback that greets each client.
fn greeter(loopback: &str) -> u16 {
    let listener = TcpListener::bind((loopback, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // One that is gone again needs no greeting.
            let _ = stream.and_then(|mut s| s.write_all(b"hello"));
        }
    });
    port
}

#[test]
fn a_router_leads_out_and_lets_nothing_in() {
    if !e2e::can_network() {
        return;
    }
    let (v4, v6) = (greeter("127.0.0.1"), greeter("::1"));
    let lan = Lan { addresses: Addresses::Fixed, way_out: WayOut::Router };
    let link = Link::to_router(Conditions::default(), lan).unwrap();
    let device = Standin::new(&link);
    device.configure();
    for (address, port) in [("10.0.2.2", v4), ("fd00:76::2", v6)] {
        // The first packets may be lost while the neighbours look for each other.
        let heard = qemu::wait::until("a greeting", Duration::from_secs(60), || Ok(device.hears(address, port, "")));
        assert_eq!(heard.unwrap(), "hello", "{address}");
    }
    let router = link.router().unwrap();
    assert_eq!(router.refused().unwrap(), 0);
    // Without the rule, the connection would be refused at once.
    assert!(!router.reaches(FREE, 10250));
    assert!(router.refused().unwrap() > 0);
}

#[test]
fn a_proxy_is_the_only_way_out() {
    if !e2e::can_network() {
        return;
    }
    let port = greeter("127.0.0.1");
    let lan = Lan { addresses: Addresses::Dhcp, way_out: WayOut::Proxy };
    let link = Link::to_router(Conditions::default(), lan).unwrap();
    let device = Standin::new(&link);
    device.configure();
    assert_eq!(device.hears("10.0.2.2", port, ""), None);
    let connect = format!("CONNECT 10.0.2.2:{port} HTTP/1.1\\r\\nHost: 10.0.2.2:{port}\\r\\n\\r\\n");
    let (address, at) = PROXY.split_once(':').unwrap();
    let heard = device.hears(address, at.parse().unwrap(), &connect).unwrap();
    assert!(heard.starts_with("HTTP/1.0 200 ") && heard.ends_with("hello"), "{heard:?}");
    let log = link.router().unwrap().proxy_log();
    assert!(log.contains(&format!("CONNECT 10.0.2.2:{port} HTTP/1.1")), "{log}");
}

#[test]
fn addresses_are_advertised() {
    if !e2e::can_network() {
        return;
    }
    let lan = Lan { addresses: Addresses::Advertised, way_out: WayOut::Router };
    let link = Link::to_router(Conditions::default(), lan).unwrap();
    let device = Standin::new(&link);
    device.namespace.ip("link set eth up").unwrap();
    let show = ["-6", "addr", "show", "dev", "eth", "scope", "global"];
    qemu::wait::until("an advertised address", Duration::from_secs(20), || {
        let text = String::from_utf8(device.namespace.run("ip", &show)?)?;
        Ok(text.contains("inet6 fd00:77:").then_some(()))
    })
    .unwrap();
    let port = greeter("::1");
    let heard = || Ok(device.hears("fd00:76::2", port, ""));
    assert_eq!(qemu::wait::until("a way out", Duration::from_secs(20), heard).unwrap(), "hello");
}

#[test]
fn a_bad_link_to_the_user_network_still_carries_a_connection() {
    if !e2e::can_network() {
        return;
    }
    let port = greeter("127.0.0.1");
    let latency = Duration::from_millis(200);
    let link = Link::to_user(Conditions { loss: 10, latency, ..Conditions::default() }).unwrap();
    let device = Standin::new(&link);
    for words in ["addr add 10.0.2.15/24 dev eth", "link set eth up"] {
        device.namespace.ip(words).unwrap();
    }
    let start = std::time::Instant::now();
    let heard = || Ok(device.hears("10.0.2.2", port, ""));
    assert_eq!(qemu::wait::until("a connection", Duration::from_secs(60), heard).unwrap(), "hello");
    // To find the gateway and to open the connection takes a round trip each.
    assert!(start.elapsed() >= 4 * latency, "{:?}", start.elapsed());
    assert!(link.counts().carried > 0 && link.counts().foreign == 0, "{:?}", link.counts());
}
