// SPDX-License-Identifier: Apache-2.0
//! Devices behind bad links and in other people's networks: each joins, and says on the way what it waits for. Boots 10
//! guests, so only `make test-long` runs it.

#![allow(clippy::unwrap_used)]

use e2e::{SOON, status_value};
use qemu::control_plane::config::Family;
use qemu::control_plane::{ControlPlane, Options};
use qemu::device::Device;
use qemu::link::Link;
use qemu::link::conditions::Conditions;
use qemu::link::router::{Addresses, FREE, FREE_V6, Lan, PROXY, ROUTER, ROUTER_V6, WayOut};
use qemu::seed::Seed;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The device's only interface, as systemd names it by its place on the bus.
const INTERFACE: &str = "enp0s2";
/// Hardware address of the device's interface.
const MAC: &str = "52:54:00:12:34:56";
/// kubelet's port: one that a host on the network would try.
const KUBELET: u16 = 10250;
/// Deadline to be Ready, when packets get lost and have to be sent again.
const LONG: Duration = Duration::from_secs(1200);

const VLAN: &str = "\n[network]\nvlan = 12\n";

fn proxied() -> String {
    format!("\n[network]\nproxy = \"http://{PROXY}\"\n")
}

fn fixed(address: &str, gateway: &str) -> String {
    format!("\n[network]\naddresses = [\"{address}\"]\ngateway = [\"{gateway}\"]\n")
}

#[test]
fn the_device_reads_these_seeds() {
    let (v4, v6) = (fixed(&format!("{FREE}/24"), ROUTER), fixed(&format!("{FREE_V6}/64"), ROUTER_V6));
    for (more, apiserver) in
        [(VLAN, "10.0.2.2:1"), (&proxied(), "10.0.2.2:1"), (&v4, "10.0.2.2:1"), (&v6, "[fd00:76::2]:1")]
    {
        let (token, pin) = ("abcdef.0123456789abcdef".to_owned(), format!("sha256:{}", "0f".repeat(32)));
        let seed = Seed { apiserver: apiserver.to_owned(), token, pin, more: more.to_owned() };
        firstboot::seed::parse(seed.text().as_bytes()).unwrap();
    }
}

/// A device on `link` that is switched off, with a seed for `plane` and `more` in it.
fn device(plane: &ControlPlane, link: &Link, serial: &str, more: &str) -> Device {
    let options = qemu::device::Options { link: link.socket(), ..e2e::device_options(serial) };
    let device = Device::new(&e2e::image(e2e::own_arch()).unwrap(), &options).unwrap();
    let token = plane.create_token("2h").unwrap();
    let seed = Seed { more: more.to_owned(), ..Seed::for_guest(plane, &token).unwrap() };
    device.disk().put_seed(&seed.text()).unwrap();
    device
}

/// Waits until the device has joined; returns the node's addresses.
fn joins(plane: &ControlPlane, device: &Device, serial: &str) -> Vec<IpAddr> {
    let name = format!("edge-{serial}");
    device.wait_console(&format!("node {name} is Ready, seed destroyed"), LONG).unwrap();
    let node = plane.wait_node_ready(&name, SOON, || device.check()).unwrap();
    let status = device.disk().status().unwrap();
    assert_eq!(status_value(&status, "state"), "joined");
    assert_eq!(status_value(&status, "error"), "");
    assert!(!device.disk().seed_present().unwrap(), "seed.toml is still listed");
    let addresses = node["status"]["addresses"].as_array().unwrap();
    let addresses = addresses.iter().filter(|a| a["type"] == "InternalIP");
    addresses.map(|a| a["address"].as_str().unwrap().parse().unwrap()).collect()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
#[ignore = "boots a guest"]
fn of_10_packets_3_are_lost() {
    if !e2e::can_boot(e2e::own_arch()) {
        return;
    }
    let plane = e2e::shared_plane();
    let link = Link::to_user(Conditions { loss: 30, seed: 1, ..Conditions::default() }).unwrap();
    let mut device = device(plane, &link, "loss", "");
    device.power_on().unwrap();
    joins(plane, &device, "loss");
    let counts = link.counts();
    let percent = counts.lost * 100 / (counts.lost + counts.carried);
    assert!(counts.lost > 50 && (25..=35).contains(&percent), "{counts:?}");
}

#[test]
#[ignore = "boots a guest"]
fn a_packet_takes_a_second() {
    if !e2e::can_boot(e2e::own_arch()) {
        return;
    }
    let plane = e2e::shared_plane();
    let latency = Duration::from_secs(1);
    let link = Link::to_user(Conditions { latency, ..Conditions::default() }).unwrap();
    let mut device = device(plane, &link, "latency", "");
    device.power_on().unwrap();
    joins(plane, &device, "latency");
    // A dozen requests, one after the other, of a round trip each, and the connections that they go over.
    let phases = qemu::status::phases(&device.disk().status().unwrap());
    let join = phases.iter().find(|p| p.name == "join").unwrap();
    assert!(join.seconds >= 14.0, "{phases:?}");
}

#[test]
#[ignore = "boots a guest"]
fn a_link_that_comes_up_after_3_minutes() {
    if !e2e::can_boot(e2e::own_arch()) {
        return;
    }
    let late = Duration::from_secs(180);
    let plane = e2e::shared_plane();
    let link = Link::to_user(Conditions::default()).unwrap();
    let mut device = device(plane, &link, "late", "");
    device.power_on().unwrap();
    device.set_link(false).unwrap();
    let start = Instant::now();
    let status = device.wait_status("error: find a route to ", SOON).unwrap();
    let error = format!("find a route to {}: {INTERFACE} has no link", plane.endpoint_for_guest());
    assert_eq!(status_value(&status, "error"), error);
    assert_eq!(status_value(&status, "code"), "FB401");
    assert_eq!(status_value(&status, "state"), "retrying");
    // All that needs no network is done meanwhile.
    let done: Vec<String> = qemu::status::phases(&status).into_iter().map(|p| p.name).collect();
    let all = firstboot::phases::PHASES.iter().map(|p| p.name);
    assert_eq!(done, all.take_while(|p| *p != "online").collect::<Vec<_>>());
    qemu::wait::every(Duration::from_secs(1), "the late link", late + SOON, || {
        device.check()?;
        Ok((start.elapsed() >= late).then_some(()))
    })
    .unwrap();
    assert_eq!(plane.node("edge-late").unwrap(), None);
    device.set_link(true).unwrap();
    joins(plane, &device, "late");
}

#[test]
#[ignore = "boots a guest"]
fn a_tagged_vlan() {
    if !e2e::can_boot(e2e::own_arch()) {
        return;
    }
    let plane = e2e::shared_plane();
    // What carries no tag, or another one, the relay drops.
    let link = Link::to_user(Conditions { vlan: Some(12), ..Conditions::default() }).unwrap();
    let mut device = device(plane, &link, "vlan", VLAN);
    device.power_on().unwrap();
    assert_eq!(joins(plane, &device, "vlan"), [address("10.0.2.15")]);
}

#[test]
#[ignore = "boots a guest"]
fn the_wrong_vlan() {
    if !e2e::can_boot(e2e::own_arch()) {
        return;
    }
    let plane = e2e::shared_plane();
    let link = Link::to_user(Conditions { vlan: Some(12), ..Conditions::default() }).unwrap();
    // Without a tag the link is up, and no host answers.
    let mut device = device(plane, &link, "no-vlan", "");
    device.power_on().unwrap();
    let status = device.wait_status("error: find a route to ", SOON).unwrap();
    let goal = plane.endpoint_for_guest();
    let error = format!("find a route to {goal}: {INTERFACE} has a link but no address (no DHCP answer)");
    assert_eq!(status_value(&status, "error"), error);
    assert_eq!(status_value(&status, "code"), "FB404");
    assert!(link.counts().foreign > 0, "{:?}", link.counts());
}

#[test]
#[ignore = "boots a guest"]
fn dhcp_and_a_router_that_lets_nothing_in() {
    if !e2e::can_boot(e2e::own_arch()) || !e2e::can_network() {
        return;
    }
    let plane = e2e::shared_plane();
    let lan = Lan { addresses: Addresses::Dhcp, way_out: WayOut::Router };
    let link = Link::to_router(Conditions::default(), lan).unwrap();
    let router = link.router().unwrap();
    let mut device = device(plane, &link, "one-way", "");
    device.power_on().unwrap();
    let addresses = joins(plane, &device, "one-way");
    assert_eq!(addresses.len(), 1, "{addresses:?}");
    let log = router.addresses_log();
    assert!(log.contains(&format!("DHCPACK(lan) {} {MAC}", addresses[0])), "{addresses:?}\n{log}");
    let before = router.refused().unwrap();
    assert!(!router.reaches(&addresses[0].to_string(), KUBELET));
    assert!(router.refused().unwrap() > before);
}

#[test]
#[ignore = "boots a guest"]
fn a_proxy_is_the_only_way_out() {
    if !e2e::can_boot(e2e::own_arch()) || !e2e::can_network() {
        return;
    }
    let plane = e2e::shared_plane();
    let lan = Lan { addresses: Addresses::Dhcp, way_out: WayOut::Proxy };
    let link = Link::to_router(Conditions::default(), lan).unwrap();
    let mut device = device(plane, &link, "proxy", &proxied());
    device.power_on().unwrap();
    joins(plane, &device, "proxy");
    let log = link.router().unwrap().proxy_log();
    assert!(log.contains(&format!("CONNECT {} HTTP/1.1", plane.endpoint_for_guest())), "{log}");
}

#[test]
#[ignore = "boots a guest"]
fn a_fixed_address() {
    if !e2e::can_boot(e2e::own_arch()) || !e2e::can_network() {
        return;
    }
    let plane = e2e::shared_plane();
    let lan = Lan { addresses: Addresses::Fixed, way_out: WayOut::Router };
    let link = Link::to_router(Conditions::default(), lan).unwrap();
    let mut device = device(plane, &link, "fixed", &fixed(&format!("{FREE}/24"), ROUTER));
    device.power_on().unwrap();
    assert_eq!(joins(plane, &device, "fixed"), [address(FREE)]);
}

/// A cluster without an IPv4 address anywhere; one device by router advertisements, then one with a static address.
#[test]
#[ignore = "boots a guest"]
fn a_cluster_of_ipv6_only() {
    if !e2e::can_boot(e2e::own_arch()) || !e2e::can_network() {
        return;
    }
    let plane = ControlPlane::start(&Options { family: Family::V6, ..Options::default() }).unwrap();
    let fixed = fixed(&format!("{FREE_V6}/64"), ROUTER_V6);
    let ways = [("v6-auto", Addresses::Advertised, ""), ("v6-fixed", Addresses::Fixed, &fixed)];
    for (serial, addresses, more) in ways {
        let link = Link::to_router(Conditions::default(), Lan { addresses, way_out: WayOut::Router }).unwrap();
        let mut device = device(&plane, &link, serial, more);
        device.power_on().unwrap();
        let found = joins(&plane, &device, serial);
        assert!(found.iter().all(|a| a.to_string().starts_with("fd00:77:")) && !found.is_empty(), "{found:?}");
        assert!(addresses != Addresses::Fixed || found == [address(FREE_V6)], "{found:?}");
        let node = plane.node(&format!("edge-{serial}")).unwrap().unwrap();
        let range = node["spec"]["podCIDR"].as_str().unwrap();
        assert!(range.starts_with("fd00:244:") && range.ends_with("/64"), "{range}");
    }
}
