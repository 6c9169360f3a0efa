// SPDX-License-Identifier: Apache-2.0
//! The profiles for NetworkManager, word by word.

use super::*;
use crate::network::tests::network;

fn shown(lines: &str, link: Link) -> String {
    let files = files(&network(lines), &link);
    assert!(files.iter().all(|f| f.mode == 0o600), "NetworkManager ignores files that others can read");
    files.iter().map(|f| format!("{}\n{}", f.path, *f.text)).collect()
}

#[test]
fn networkmanager_needs_no_profile_for_dhcp() {
    assert_eq!(shown("", Link::EveryWired), "");
    let own_dns = shown("dns = \"10.0.2.3\"", Link::EveryWired);
    assert!(own_dns.contains("\nmulti-connect=3\n") && own_dns.contains("\ndns=10.0.2.3;\nignore-auto-dns=true\n"));
}

#[test]
fn static_addresses_of_both_families() {
    let lines = "addresses = [\"10.0.2.15/24\", \"2001:db8::10/64\"]\ngateway = [\"10.0.2.1\", \"fe80::1\"]\ndns = \"10.0.2.3\"";
    assert_eq!(
        shown(lines, Link::Name("eth0".into())),
        "\
/etc/NetworkManager/system-connections/firstboot.nmconnection
# Written by firstboot.
[connection]
id=firstboot
type=ethernet
autoconnect-priority=100
interface-name=eth0

[ipv4]
method=manual
address1=10.0.2.15/24
gateway=10.0.2.1
dns=10.0.2.3;
ignore-auto-dns=true

[ipv6]
method=manual
address1=2001:db8::10/64
gateway=fe80::1
ignore-auto-dns=true
"
    );
}

#[test]
fn s21_static_ipv4_takes_nothing_from_ipv6_routers() {
    for (lines, method) in [
        ("addresses = \"10.0.2.15/24\"", "link-local"),
        ("addresses = \"10.0.2.15/24\"\ndhcp = true", "auto"),
        ("addresses = [\"10.0.2.15/24\", \"2001:db8::10/64\"]", "manual"),
    ] {
        let text = shown(lines, Link::Name("eth0".into()));
        assert!(text.contains(&format!("\n[ipv6]\nmethod={method}\n")), "{lines}: {text}");
    }
}

#[test]
fn vlan_by_mac_address() {
    assert_eq!(
        shown("vlan = 42\naddresses = \"10.0.2.15/24\"", Link::Mac("02:00:5e:00:53:0a".into())),
        "\
/etc/NetworkManager/system-connections/firstboot-below.nmconnection
# Written by firstboot.
[connection]
id=firstboot-below
type=ethernet
autoconnect-priority=100

[ethernet]
mac-address=02:00:5E:00:53:0A

[ipv4]
method=disabled

[ipv6]
method=disabled
/etc/NetworkManager/system-connections/firstboot.nmconnection
# Written by firstboot.
[connection]
id=firstboot
type=vlan
autoconnect-priority=100
interface-name=vlan42

[vlan]
id=42

[ethernet]
mac-address=02:00:5E:00:53:0A

[ipv4]
method=manual
address1=10.0.2.15/24

[ipv6]
method=link-local
"
    );
    let by_name = shown("vlan = 42", Link::Name("eth0".into()));
    assert!(by_name.contains("\n[vlan]\nid=42\nparent=eth0\n\n[ipv4]\nmethod=auto\n"), "{by_name}");
}

#[test]
fn wifi_network() {
    let lines = "wifi = { ssid = \"Café 1\", password = ' a\\b cdef ', country = \"DE\", security = \"wpa3\" }";
    assert_eq!(
        shown(lines, Link::Name("wlan0".into())),
        "\
/etc/NetworkManager/system-connections/firstboot.nmconnection
# Written by firstboot.
[connection]
id=firstboot
type=wifi
autoconnect-priority=100
interface-name=wlan0

[wifi]
mode=infrastructure
ssid=67;97;102;195;169;32;49;
hidden=true

[wifi-security]
key-mgmt=sae
psk=\\sa\\\\b cdef\\s

[ipv4]
method=auto

[ipv6]
method=auto
"
    );
}

#[test]
fn wifi_networks_by_key_and_without_password() {
    let key = "0123456789abcdef".repeat(4);
    let lines = format!("wifi = {{ ssid = \"a\", password = \"{key}\", country = \"DE\", hidden = false }}");
    let by_key = shown(&lines, Link::Name("wlan0".into()));
    let part = format!("\nssid=a\n\n[wifi-security]\nkey-mgmt=wpa-psk\npmf=1\npsk={key}\n\n[ipv4]\n");
    assert!(by_key.contains(&part), "{by_key}");
    let open = shown("wifi = { ssid = \"a\", security = \"open\", country = \"DE\" }", Link::Name("wlan0".into()));
    assert!(open.contains("\nssid=a\nhidden=true\n\n[ipv4]\n"), "{open}");
}

#[test]
fn a_router_beyond_the_networks_is_on_the_link() {
    let lines = "addresses = [\"203.0.113.9/32\", \"2001:db8::9/64\"]\ngateway = [\"192.0.2.1\", \"2001:db8:1::1\"]";
    let text = shown(lines, Link::Name("eth0".into()));
    for part in [
        "\naddress1=203.0.113.9/32\nroute1=0.0.0.0/0,192.0.2.1\nroute1_options=onlink=true\n",
        "\naddress1=2001:db8::9/64\nroute1=::/0,2001:db8:1::1\nroute1_options=onlink=true\n",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("gateway="), "{text}");
}
