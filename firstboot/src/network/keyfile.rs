// SPDX-License-Identifier: Apache-2.0
//! Connection profiles of NetworkManager: nm-settings-keyfile(5). Pure.

use super::{Link, vlan_name, wifi};
use crate::host::managed_files::File;
use crate::seed::{Network, Security};
use std::fmt::Write;
use std::net::IpAddr;
use zeroize::Zeroizing;

/// Directory of the profiles; NetworkManager ignores files that others can read.
pub(crate) const DIR: &str = "/etc/NetworkManager/system-connections";
/// Name of the profile that carries the addresses.
pub(crate) const ID: &str = "firstboot";

/// The profiles for `network` on `link`; none where NetworkManager's default suffices.
pub(crate) fn files(network: &Network, link: &Link) -> Vec<File> {
    let profile = |id: &str, text: &str| File::secret(format!("{DIR}/{id}.nmconnection"), text);
    if *link == Link::EveryWired && network.dns.is_empty() {
        return Vec::new();
    }
    let mut text = Zeroizing::new(String::new());
    let Some(vlan) = network.vlan else {
        let kind = if network.wifi.is_some() { "wifi" } else { "ethernet" };
        *text += &connection(ID, kind, link);
        if let Some(wifi) = &network.wifi {
            let _ = write!(text, "\n[wifi]\nmode=infrastructure\nssid={}\n", ssid(&wifi.ssid));
            if wifi.hidden {
                *text += "hidden=true\n";
            }
            if let Some(password) = &wifi.password {
                *text += "\n[wifi-security]\n";
                // wpa-psk includes WPA3 where the network offers it.
                *text += match wifi.security {
                    Security::Both => "key-mgmt=wpa-psk\n",
                    Security::Wpa2 | Security::Open => "key-mgmt=wpa-psk\npmf=1\n",
                    Security::Wpa3 => "key-mgmt=sae\n",
                };
                // 64 hexadecimal digits are the key itself (nm-settings-keyfile(5), wifi-security.psk).
                let _ = writeln!(text, "psk={}", *escaped(password.expose()));
            }
        }
        *text += &addresses(network);
        return vec![profile(ID, &text)];
    };
    let name = vlan_name(vlan);
    // The parent interface has no addresses of its own.
    let below = format!("{ID}-below");
    *text += &connection(ID, "vlan", &Link::Name(name));
    let parent = match link {
        Link::Name(name) => format!("parent={name}\n"),
        // Without `parent` NetworkManager finds the interface by MAC address (nm-settings-keyfile(5), vlan.parent).
        Link::EveryWired | Link::Mac(_) => String::new(),
    };
    let _ = write!(text, "\n[vlan]\nid={vlan}\n{parent}");
    if let Link::Mac(mac) = link {
        let _ = write!(text, "\n[ethernet]\nmac-address={}\n", mac.to_ascii_uppercase());
    }
    *text += &addresses(network);
    let nothing = "\n[ipv4]\nmethod=disabled\n\n[ipv6]\nmethod=disabled\n";
    let carrier = connection(&below, "ethernet", link) + nothing;
    vec![profile(&below, &carrier), profile(ID, &text)]
}

fn connection(id: &str, kind: &str, link: &Link) -> String {
    // Higher than the priority of the profiles that NetworkManager generates.
    let head = format!("[connection]\nid={id}\ntype={kind}\nautoconnect-priority=100\n");
    match link {
        // One profile for all interfaces (NM_CONNECTION_MULTI_CONNECT_MULTIPLE).
        Link::EveryWired => format!("{head}multi-connect=3\n"),
        Link::Name(name) => format!("{head}interface-name={name}\n"),
        Link::Mac(mac) => format!("{head}\n[ethernet]\nmac-address={}\n", mac.to_ascii_uppercase()),
    }
}

fn addresses(network: &Network) -> String {
    let mut text = String::new();
    for (section, v4) in [("ipv4", true), ("ipv6", false)] {
        let of = |a: &IpAddr| a.is_ipv4() == v4;
        let own: Vec<_> = network.addresses.iter().filter(|a| of(&a.addr())).collect();
        let method = match (network.dhcp, own.is_empty(), v4) {
            (true, ..) => "auto",
            (false, false, _) => "manual",
            (false, true, true) => "disabled",
            // The link's own address, as with networkd, and no router advertisement.
            (false, true, false) => "link-local",
        };
        text += &format!("\n[{section}]\nmethod={method}\n");
        for (number, address) in own.iter().enumerate() {
            text += &format!("address{}={address}\n", number + 1);
        }
        if let Some(router) = network.gateway.iter().find(|g| of(g)) {
            // Beyond the networks of the addresses a router is reached only where the route says that it is on the link.
            text += &match network.is_on_link(*router) {
                true => {
                    format!("route1={},{router}\nroute1_options=onlink=true\n", if v4 { "0.0.0.0/0" } else { "::/0" })
                }
                false => format!("gateway={router}\n"),
            };
        }
        let servers: String = network.dns.iter().filter(|d| of(d)).map(|d| format!("{d};")).collect();
        if !servers.is_empty() {
            text += &format!("dns={servers}\n");
        }
        if !network.dns.is_empty() {
            text += "ignore-auto-dns=true\n";
        }
    }
    text
}

/// An SSID of plain characters unchanged; any other as a list of bytes.
fn ssid(name: &str) -> String {
    match wifi::is_plain(name) {
        true => name.to_owned(),
        false => name.bytes().map(|b| format!("{b};")).collect(),
    }
}

/// Escapes for key files (GLib, g_key_file_get_string): backslash, and a blank at either end, which would be trimmed.
fn escaped(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(2 * text.len()));
    for (index, c) in text.char_indices() {
        match c {
            '\\' => *out += "\\\\",
            ' ' if index == 0 || index + 1 == text.len() => *out += "\\s",
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
#[path = "keyfile_tests.rs"]
mod tests;
