// SPDX-License-Identifier: Apache-2.0
//! What `[network]` and `[time]` may say: links, addresses, Wi-Fi.
//!
//! Messages of `parse` say what was expected, never what was found.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::names::is_dns_subdomain;
use crate::proxy::Via;
use crate::secret::Secret;

/// Table `[network]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The one interface that is used; none: every wired one by DHCP, or the first that has a link.
    pub interface: Option<Interface>,
    /// Whether an address is asked for (DHCP; IPv6 router advertisements are listened to as well).
    pub dhcp: bool,
    /// Addresses of this device, each with the prefix length of its network.
    pub addresses: Vec<IpNet>,
    /// Routers, at most one of each address family.
    pub gateway: Vec<IpAddr>,
    /// Name servers; where given, those that DHCP tells are not used.
    pub dns: Vec<IpAddr>,
    /// VLAN (IEEE 802.1Q) on top of the interface, 1 to 4094.
    pub vlan: Option<u16>,
    /// Wi-Fi network to join.
    pub wifi: Option<Wifi>,
    /// HTTP proxy towards the API server and registries, and who is reached without it.
    pub via: Via,
}

impl Default for Network {
    /// Every wired interface by DHCP.
    fn default() -> Self {
        Network {
            interface: None,
            dhcp: true,
            addresses: Vec::new(),
            gateway: Vec::new(),
            dns: Vec::new(),
            vlan: None,
            wifi: None,
            via: Via::default(),
        }
    }
}

impl Network {
    /// Addresses under which the node is known to the cluster, at most one of each family; empty where they are left to
    /// DHCP, and with it to kubelet.
    pub fn node_ips(&self) -> Vec<IpAddr> {
        let of = |v4: bool| self.addresses.iter().map(IpNet::addr).find(|a| a.is_ipv4() == v4);
        let first_v4 = self.addresses.first().is_none_or(|a| a.addr().is_ipv4());
        match self.dhcp {
            true => Vec::new(),
            false => [of(first_v4), of(!first_v4)].into_iter().flatten().collect(),
        }
    }
}

/// A network interface, by the kernel's name for it or by its hardware address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interface {
    /// As in `/sys/class/net`.
    Name(String),
    /// As `/sys/class/net/NAME/address` has it: six pairs of lower-case digits joined by colons.
    Mac(String),
}

impl Interface {
    /// Reads an interface name (1 to 15 characters) or a MAC address, joined by `:` or `-`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let pairs: Vec<&str> = text.split([':', '-']).collect();
        if pairs.len() == 6 && pairs.iter().all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit())) {
            let mac = pairs.join(":").to_ascii_lowercase();
            // The lowest bit of the first byte marks groups (IEEE 802).
            let group = matches!(mac.as_bytes()[1], b'1' | b'3' | b'5' | b'7' | b'9' | b'b' | b'd' | b'f');
            return match group || mac == "00:00:00:00:00:00" {
                false => Ok(Interface::Mac(mac)),
                true => Err("expected the MAC address of one interface".to_owned()),
            };
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        match (1..16).contains(&text.len()) && text.bytes().all(plain) && !["lo", ".", ".."].contains(&text) {
            true => Ok(Interface::Name(text.to_owned())),
            false => Err("expected an interface name as in eth0, or a MAC address as in 02:00:5e:00:53:01".to_owned()),
        }
    }
}

impl Interface {
    /// Whether it is the one with this name and this hardware address (as sysfs writes it).
    pub fn means(&self, name: &str, mac: &str) -> bool {
        match self {
            Interface::Name(own) => own == name,
            Interface::Mac(own) => own == mac,
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Interface::Name(text) | Interface::Mac(text)) = self;
        f.write_str(text)
    }
}

/// `[network] wifi`. `Debug` leaves the password out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wifi {
    /// Name of the Wi-Fi network, 1 to 32 bytes.
    pub ssid: String,
    /// WPA passphrase, 8 to 63 printable ASCII characters.
    pub password: Secret<String>,
    /// Country whose rules for Wi-Fi hold, ISO 3166-1 alpha-2, upper case.
    pub country: String,
    /// Which generations of WPA are accepted.
    pub security: Security,
}

/// Which generations of WPA (personal) are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// WPA2 or WPA3, whatever the network offers.
    Both,
    /// WPA2 alone.
    Wpa2,
    /// WPA3 alone: no fallback to WPA2 for an attacker who imitates the network.
    Wpa3,
}

impl Security {
    /// Reads `wpa2`, `wpa3` or `wpa2+wpa3`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "wpa2+wpa3" => Ok(Security::Both),
            "wpa2" => Ok(Security::Wpa2),
            "wpa3" => Ok(Security::Wpa3),
            _ => Err("expected \"wpa2+wpa3\", \"wpa2\" or \"wpa3\"".to_owned()),
        }
    }
}

/// Reads a network's name: IEEE 802.11, 1 to 32 bytes. A line end or NUL in it would be a mistake, not a name.
pub(super) fn ssid(text: &str) -> Result<String, String> {
    match (1..=32).contains(&text.len()) && !text.chars().any(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err("expected the network's name, 1 to 32 bytes".to_owned()),
    }
}

/// Reads a passphrase: IEEE 802.11, 8 to 63 printable ASCII characters.
pub(super) fn passphrase(text: &str) -> Result<Secret<String>, String> {
    match (8..=63).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        true => Ok(Secret::new(text.to_owned())),
        false => Err("expected a passphrase, 8 to 63 ASCII characters".to_owned()),
    }
}

/// Reads a country code, in either case.
pub(super) fn country(text: &str) -> Result<String, String> {
    match text.len() == 2 && text.bytes().all(|b| b.is_ascii_alphabetic()) {
        true => Ok(text.to_ascii_uppercase()),
        false => Err("expected two letters, as in DE".to_owned()),
    }
}

/// Reads `ADDRESS/PREFIX`, an address that one device can have.
pub(super) fn device_address(text: &str) -> Result<IpNet, String> {
    let expected = || "expected an address with the prefix length of its network, as in 192.0.2.10/24".to_owned();
    let net: IpNet = text.parse().map_err(|_| expected())?;
    let lone = net.prefix_len() + 1 >= net.max_prefix_len();
    let reserved = match net.addr() {
        IpAddr::V4(a) => {
            !lone && (a == net.network() || a == net.broadcast()) || a.is_unspecified() || a.octets()[0] >= 224
        }
        // Link-local ones are the kernel's to give.
        IpAddr::V6(a) => {
            !lone && a == net.network() || a.is_unspecified() || a.is_multicast() || is_link_local(a.into())
        }
    };
    match reserved || net.addr().is_loopback() || net.prefix_len() == 0 {
        false => Ok(net),
        true => Err(expected()),
    }
}

/// Reads the address of a router or name server.
pub(super) fn server_address(text: &str) -> Result<IpAddr, String> {
    let address: Option<IpAddr> = text.parse().ok();
    let address = address.filter(|a| !a.is_unspecified() && !a.is_multicast() && !a.is_loopback());
    address.ok_or("expected an IP address, as in 192.0.2.1".to_owned())
}

/// Whether it is an IPv6 address of one link, fe80::/10.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(a) if a.is_unicast_link_local())
}

/// Reads a time server: IP address or DNS name.
pub(super) fn time_server(text: &str) -> Result<String, String> {
    let name = text.to_ascii_lowercase();
    let digits = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match name.parse::<IpAddr>().is_ok() || (!digits && is_dns_subdomain(&name)) {
        true => Ok(name),
        false => Err("expected a host name or an IP address, as in ntp.example.com".to_owned()),
    }
}

/// Table `[time]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Time {
    /// NTP servers, by DNS name (lower case) or IP address, in order; may be empty.
    pub servers: Vec<String>,
}
