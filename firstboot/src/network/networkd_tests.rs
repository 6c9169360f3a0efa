// SPDX-License-Identifier: Apache-2.0
//! The files for systemd-networkd, word by word; phases/network/real_tests.rs runs networkd itself with the same files.

use super::*;
use crate::network::tests::network;

fn shown(lines: &str, link: Link) -> String {
    let files = files(&network(lines), &link);
    assert!(files.iter().all(|f| f.mode == 0o644));
    files.iter().map(|f| format!("{}\n{}", f.path, *f.text)).collect()
}

#[test]
fn every_wired_interface_by_dhcp() {
    assert_eq!(
        shown("", Link::EveryWired),
        "\
/etc/systemd/network/50-firstboot.network
# Written by firstboot.
[Match]
Type=ether
Kind=!*

[Network]
DHCP=yes
IPv6AcceptRA=yes
LinkLocalAddressing=ipv6

[DHCPv4]
# Some servers give two addresses when the identifier changes between firmware and system.
ClientIdentifier=mac
# firstboot sets the node's name.
UseHostname=no

[DHCPv6]
UseHostname=no
"
    );
}

#[test]
fn static_addresses_of_both_families() {
    let lines = "addresses = [\"10.0.2.15/24\", \"2001:db8::10/64\"]\ngateway = [\"10.0.2.1\", \"fe80::1\"]\ndns = \"10.0.2.3\"";
    assert_eq!(
        shown(lines, Link::Name("eth0".into())),
        "\
/etc/systemd/network/05-firstboot.network
# Written by firstboot.
[Match]
Name=eth0

[Network]
DHCP=no
IPv6AcceptRA=no
LinkLocalAddressing=ipv6
Address=10.0.2.15/24
Address=2001:db8::10/64
Gateway=10.0.2.1
Gateway=fe80::1
DNS=10.0.2.3
"
    );
}

#[test]
fn s21_static_ipv4_takes_nothing_from_ipv6_routers() {
    assert_eq!(
        shown("addresses = \"10.0.2.15/24\"\ndns = \"10.0.2.3\"", Link::Mac("02:00:5e:00:53:01".into())),
        "\
/etc/systemd/network/05-firstboot.network
# Written by firstboot.
[Match]
MACAddress=02:00:5e:00:53:01
Kind=!*

[Network]
DHCP=no
IPv6AcceptRA=no
LinkLocalAddressing=ipv6
Address=10.0.2.15/24
DNS=10.0.2.3
"
    );
}

#[test]
fn vlan_with_dhcp_and_own_name_servers() {
    assert_eq!(
        shown("vlan = 42\ndns = [\"10.0.2.3\", \"fd00::3\"]", Link::Mac("02:00:5e:00:53:01".into())),
        "\
/etc/systemd/network/05-firstboot.network
# Written by firstboot.
[Match]
MACAddress=02:00:5e:00:53:01
Kind=!*

[Network]
VLAN=vlan42
DHCP=no
IPv6AcceptRA=no
LinkLocalAddressing=no
/etc/systemd/network/50-firstboot-vlan.netdev
# Written by firstboot.
[NetDev]
Name=vlan42
Kind=vlan

[VLAN]
Id=42
/etc/systemd/network/05-firstboot-vlan.network
# Written by firstboot.
[Match]
Name=vlan42

[Network]
DHCP=yes
IPv6AcceptRA=yes
LinkLocalAddressing=ipv6
DNS=10.0.2.3
DNS=fd00::3

[DHCPv4]
# Some servers give two addresses when the identifier changes between firmware and system.
ClientIdentifier=mac
# firstboot sets the node's name.
UseHostname=no
UseDNS=no

[DHCPv6]
UseHostname=no
UseDNS=no

[IPv6AcceptRA]
UseDNS=no
"
    );
}

#[test]
fn a_router_beyond_the_networks_is_on_the_link() {
    let lines = "addresses = [\"203.0.113.9/32\", \"2001:db8::9/64\"]\ngateway = [\"192.0.2.1\", \"2001:db8:1::1\"]\ndns = \"10.0.2.3\"";
    let text = shown(lines, Link::Name("eth0".into()));
    let end = "Address=203.0.113.9/32\nAddress=2001:db8::9/64\nDNS=10.0.2.3\n\n[Route]\nGateway=192.0.2.1\n\
               GatewayOnLink=yes\n\n[Route]\nGateway=2001:db8:1::1\nGatewayOnLink=yes\n";
    assert!(text.ends_with(end), "{text}");
}

/// Names decide: networkd goes through the files of all its directories in the order of their names.
#[test]
fn what_a_seed_says_comes_before_netplan_and_dhcp_without_it_after_that() {
    let netplan = "10-netplan-enp0s2.network";
    for (lines, before) in [
        ("", false),
        ("proxy = \"http://10.0.2.9:3128\"", false),
        ("interface = \"enp0s2\"", true),
        ("addresses = \"10.0.2.15/24\"", true),
        ("dns = \"10.0.2.3\"", true),
        ("vlan = 42", true),
    ] {
        for file in files(&network(lines), &Link::Name("enp0s2".into())) {
            let name = file.path.rsplit('/').next().unwrap();
            assert!([OF_SEED, DEFAULT].iter().any(|prefix| name.starts_with(prefix)));
            assert!(name.ends_with(".netdev") || (name < netplan) == before, "{lines}: {name}");
        }
    }
}
