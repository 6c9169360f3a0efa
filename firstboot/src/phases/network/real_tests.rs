// SPDX-License-Identifier: Apache-2.0
//! Runs the real systemd-networkd with the files that firstboot writes, on a pair of virtual interfaces in a separate
//! network namespace.

use super::*;
use crate::network::tests::network;
use std::process::Command;

const SCRIPT: &str = include_str!("../../../../tests/networkd.sh");
const INTERFACES: &str = "ip link add eth0 address 02:00:5e:00:53:01 type veth peer name far && ip link set far up";
const SHOW: &str = "ip -oneline addr show dev eth0 && ip route && ip -6 route";

/// networkd's log and the resulting addresses and routes for this `[network]`.
fn run_networkd(lines: &str, link: &Link, until: &str, edit: impl Fn(&str) -> String) -> String {
    run_networkd_on(INTERFACES, lines, link, until, edit)
}

/// The same, with another command that makes the interfaces.
fn run_networkd_on(interfaces: &str, lines: &str, link: &Link, until: &str, edit: impl Fn(&str) -> String) -> String {
    let dir = tempfile::tempdir().unwrap();
    for file in networkd::files(&network(lines), link) {
        std::fs::write(dir.path().join(file.path.rsplit('/').next().unwrap()), edit(&file.text)).unwrap();
    }
    // networkd drops its privileges before it reads the files.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), mode).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-c", SCRIPT, "sh"]).arg(dir.path()).args([interfaces, until, "100", SHOW]);
    let out = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(text.contains("Enumeration completed"), "networkd did not start: {text}");
    text
}

const MAC: &str = "02:00:5e:00:53:01";

#[test]
#[ignore = "needs root and systemd-networkd"]
fn networkd_configures_the_interface_as_in_the_seed() {
    let lines = "addresses = [\"10.0.2.15/24\", \"2001:db8::10/64\"]\ngateway = [\"10.0.2.1\", \"fe80::1\"]\ndns = \"10.0.2.3\"";
    for link in [Link::Name("eth0".into()), Link::Mac(MAC.into())] {
        // A veth interface has a kind; a physical interface has none.
        let edit = |text: &str| text.replace("Kind=!*\n", "");
        let until = "ip -6 route | grep ^default && ip -6 addr show dev eth0 | grep 2001:db8::10";
        let seen = run_networkd(lines, &link, until, edit);
        for want in [
            "inet 10.0.2.15/24 ",
            "inet6 2001:db8::10/64 ",
            "default via 10.0.2.1 dev eth0 proto static",
            "default via fe80::1 dev eth0 proto static",
        ] {
            assert!(seen.contains(want), "no {want:?}: {seen}");
        }
    }
}

/// Sends router advertisements (RFC 4861, 4.2) from the other end of the link, as any neighbour can.
const ADVERTISE: &str = "\
import socket, struct, time
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'far')
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
prefix = socket.inet_pton(socket.AF_INET6, 'fd00:66::')
dns = struct.pack('!BBHI', 25, 3, 0, 3600) + socket.inet_pton(socket.AF_INET6, 'fd00:66::53')
head = struct.pack('!BBHBBHII', 134, 0, 0, 64, 0, 1800, 0, 0)
option = struct.pack('!BBBBIII', 3, 4, 64, 0xC0, 3600, 3600, 0) + prefix
for _ in range(100):
    try:
        s.sendto(head + option + dns, ('ff02::1', 0, 0, socket.if_nametoindex('far')))
    except OSError:
        pass
    time.sleep(0.2)
";

#[test]
#[ignore = "needs root and systemd-networkd"]
fn s21_a_neighbour_is_no_router_of_a_device_with_static_ipv4() {
    // The neighbour is a host of its own: a device takes no advertisement from its own addresses.
    let interfaces = format!(
        "unshare --net sleep 30 >/dev/null 2>&1 & far=$!; sleep 0.5; \
         ip link add eth0 address {MAC} type veth peer name far netns $far && nsenter --target $far --net ip link set far up && \
         {{ nsenter --target $far --net python3 -c \"{ADVERTISE}\" >/dev/null 2>&1 & }}"
    );
    let links = Link::Name("eth0".into());
    let seen = |lines: &str, until: &str| run_networkd_on(&interfaces, lines, &links, until, str::to_owned);
    let fixed = "addresses = \"10.0.2.15/24\"\ngateway = \"10.0.2.1\"";
    // The advertisements do arrive: with `dhcp` they are taken.
    let open = seen(&format!("{fixed}\ndhcp = true"), "ip -6 route | grep 'default.*proto ra'");
    assert!(open.contains("inet6 fd00:66:") && open.contains("default via fe80::"), "{open}");
    // Ten times as long as that took.
    let closed = seen(fixed, "test $((tries=tries+1)) -gt 50");
    assert!(closed.contains("inet 10.0.2.15/24 ") && closed.contains("inet6 fe80::"), "{closed}");
    assert!(!closed.contains("fd00:66:") && !closed.contains("proto ra"), "{closed}");
}

#[test]
#[ignore = "needs root and systemd-networkd"]
fn networkd_reaches_a_router_beyond_the_networks() {
    let lines = "addresses = [\"203.0.113.9/32\", \"2001:db8::9/64\"]\ngateway = [\"192.0.2.1\", \"2001:db8:1::1\"]";
    let until = "ip route | grep ^default && ip -6 route | grep ^default";
    let seen = run_networkd(lines, &Link::Name("eth0".into()), until, str::to_owned);
    for want in
        ["default via 192.0.2.1 dev eth0 proto static onlink", "default via 2001:db8:1::1 dev eth0 proto static"]
    {
        assert!(seen.contains(want), "no {want:?}: {seen}");
    }
}

/// netplan's files are in /run/systemd/network; networkd goes by their names alone.
#[test]
#[ignore = "needs root and systemd-networkd"]
fn networkd_prefers_what_a_seed_says_to_netplan_and_netplan_to_a_seed_that_says_nothing() {
    let netplan = "printf '[Match]\\nName=eth0\\n[Network]\\nAddress=192.0.2.7/24\\n' >\"$1\"/10-netplan-eth0.network";
    let interfaces = format!("{netplan} && {INTERFACES}");
    let (seed, other) = ("10.0.2.15/24", "192.0.2.7/24");
    for (lines, wanted, not) in [(format!("addresses = \"{seed}\""), seed, other), (String::new(), other, seed)] {
        let until = format!("ip addr show dev eth0 | grep {wanted}");
        let seen = run_networkd_on(&interfaces, &lines, &Link::Name("eth0".into()), &until, str::to_owned);
        assert!(seen.contains(&format!("inet {wanted} ")) && !seen.contains(not), "{lines}: {seen}");
    }
}

#[test]
#[ignore = "needs root and systemd-networkd"]
fn networkd_accepts_every_line() {
    let complaints =
        |text: &str| text.lines().filter(|l| l.contains("ignoring")).map(str::to_owned).collect::<Vec<_>>();
    for (lines, link) in [
        ("", Link::EveryWired),
        ("dns = \"10.0.2.3\"", Link::EveryWired),
        ("vlan = 42\ndns = [\"10.0.2.3\", \"fd00::3\"]", Link::Mac(MAC.into())),
        ("vlan = 42\naddresses = \"10.0.2.15/24\"\ngateway = \"10.0.2.1\"", Link::Name("eth0".into())),
        ("addresses = \"10.0.2.15/24\"\ndhcp = true", Link::Name("eth0".into())),
    ] {
        let seen = run_networkd(lines, &link, "true", str::to_owned);
        assert_eq!(complaints(&seen), Vec::<String>::new(), "{lines}");
    }
    // The check itself must be able to fail.
    let seen = run_networkd("", &Link::EveryWired, "true", |text| text.replace("UseHostname", "UseHostnam"));
    assert_eq!(complaints(&seen).len(), 2, "{seen}");
}
