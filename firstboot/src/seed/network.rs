// SPDX-License-Identifier: Apache-2.0
//! What `[network]` and `[time]` may say: links and addresses.
//!
//! Messages of `parse` say what was expected, never what was found.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::wifi::Wifi;
use crate::names::{self, is_dns_subdomain};
use crate::proxy::Via;

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
    /// Whether a router is in no network of the addresses, so that it has to be said to be on the link all the same.
    pub fn is_on_link(&self, router: IpAddr) -> bool {
        !is_link_local(router) && !self.addresses.iter().any(|a| a.contains(&router))
    }

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
        // networkd reads `*`, `?`, `[…]`, `!` and blanks as a pattern (systemd.network(5), Name=). The kernel keeps the
        // last three words for directories of settings and for itself.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let number = ["0x", "0b", "0o"].iter().any(|prefix| text.starts_with(prefix))
            || text.bytes().all(|b| b.is_ascii_digit());
        let taken = ["lo", ".", "..", "all", "default"].contains(&text) || number;
        let vlan = |(_, id): (&str, &str)| id.parse::<u16>().is_ok_and(|id| (1..=4094).contains(&id));
        if text.rsplit_once('.').is_some_and(vlan) {
            return Err("expected the interface below the VLAN, as in interface = \"eth0\" and vlan = 42".to_owned());
        }
        match (1..16).contains(&text.len()) && text.bytes().all(plain) && !taken {
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

/// Reads `ADDRESS/PREFIX`, an address that one device can have.
pub(super) fn device_address(text: &str) -> Result<IpNet, String> {
    let expected = || "expected an address with the prefix length of its network, as in 192.0.2.10/24".to_owned();
    let net = names::network(text).ok_or_else(expected)?;
    if net.addr() != net.addr().to_canonical() {
        return Err("expected an IPv4 address as such, as in 192.0.2.10/24, not within an IPv6 address".to_owned());
    }
    if matches!(net.addr(), IpAddr::V4(a) if a.is_link_local()) || is_link_local(net.addr()) {
        // validateNodeIP, pkg/kubelet/kubelet_node_status.go; of IPv6 the kernel gives itself one besides.
        return Err("expected no link-local address: kubelet takes none for its node's".to_owned());
    }
    let lone = net.prefix_len() + 1 >= net.max_prefix_len();
    let reserved = match net.addr() {
        IpAddr::V4(a) => {
            !lone && (a == net.network() || a == net.broadcast())
                || [0, 127].contains(&a.octets()[0])
                || a.octets()[0] >= 224
        }
        IpAddr::V6(a) => !lone && a == net.network() || a.is_unspecified() || a.is_multicast(),
    };
    match reserved || net.addr().is_loopback() || net.prefix_len() == 0 {
        false => Ok(net),
        true => Err(expected()),
    }
}

/// Reads the address of a router.
pub(super) fn router(text: &str) -> Result<IpAddr, String> {
    let address: Option<IpAddr> = text.parse().ok();
    address.filter(|a| is_one_server(*a)).ok_or("expected an IP address, as in 192.0.2.1".to_owned())
}

/// Reads the address of a name server.
pub(super) fn name_server(text: &str) -> Result<IpAddr, String> {
    match router(text)? {
        // resolv.conf(5) would need the interface with it.
        address if is_link_local(address) => Err("expected an address that is valid beyond its link".to_owned()),
        address => Ok(address),
    }
}

/// Whether it can be another host's: no IPv4 address in IPv6's notation, which programs read as the one or the other.
fn is_one_server(a: IpAddr) -> bool {
    !a.is_unspecified() && !a.is_multicast() && !a.is_loopback() && a == a.to_canonical()
}

/// Whether it is an IPv6 address of one link, fe80::/10.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(a) if a.is_unicast_link_local())
}

/// Reads a time server: IP address or DNS name.
pub(super) fn time_server(text: &str) -> Result<String, String> {
    let name = text.to_ascii_lowercase();
    let digits = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let address = name.parse::<IpAddr>().is_ok_and(|a| is_one_server(a) && !is_link_local(a));
    match address || (!digits && is_dns_subdomain(&name)) {
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
