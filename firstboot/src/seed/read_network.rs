// SPDX-License-Identifier: Apache-2.0
//! Walks `[network]` and `[time]`, and holds what they say against each other and against `[cluster]`.

use crate::fault::Code;
use std::net::IpAddr;

use ipnet::IpNet;
use toml::de::{DeTable, DeValue};

use super::network::{self, Interface, Network, Time};
use super::reader::{Reader, Value, without_quotes};
use super::types::Endpoint;
use crate::proxy::{Direct, Proxy, Via};

/// Keys of `[network]`.
pub(super) const NETWORK_KEYS: [&str; 9] =
    ["interface", "dhcp", "addresses", "gateway", "dns", "vlan", "wifi", "proxy", "no-proxy"];
/// Keys of `[time]`.
pub(super) const TIME_KEYS: [&str; 1] = ["servers"];

impl Reader {
    pub(super) fn time(&mut self, table: &DeTable<'_>) -> Option<Time> {
        self.unknown_keys("time", table, &TIME_KEYS);
        let servers = table.get("servers").map(|v| self.strings(v, "servers", "time", network::time_server));
        Some(Time { servers: servers.unwrap_or(Some(Vec::new()))? })
    }

    pub(super) fn network(&mut self, at: usize, table: &DeTable<'_>) -> Option<Network> {
        self.unknown_keys("network", table, &NETWORK_KEYS);
        let before = self.errors.len();
        let interface = table.get("interface").map(|v| self.string(v, "interface", "network", Interface::parse));
        let mut list = |key: &str, read: fn(&str) -> Result<IpAddr, String>| {
            table.get(key).map_or(Some(Vec::new()), |v| self.strings(v, key, "network", read))
        };
        let (gateway, dns) = (list("gateway", network::router), list("dns", network::name_server));
        let addresses = table
            .get("addresses")
            .map_or(Some(Vec::new()), |v| self.strings(v, "addresses", "network", network::device_address));
        let dhcp = table.get("dhcp").map(|v| self.boolean(v, "dhcp", "network"));
        let vlan = table.get("vlan").map(|v| self.vlan(v));
        let wifi = table.get("wifi").map(|v| self.wifi(v));
        let proxy = table.get("proxy").map(|v| self.proxy(v));
        let no_proxy =
            table.get("no-proxy").map_or(Some(Vec::new()), |v| self.strings(v, "no-proxy", "network", Direct::parse));
        if self.errors.len() > before {
            return None;
        }
        let addresses = addresses?;
        let network = Network {
            interface: interface.flatten(),
            dhcp: dhcp.flatten().unwrap_or(addresses.is_empty()),
            addresses,
            gateway: gateway?,
            dns: dns?,
            vlan: vlan.flatten(),
            wifi: wifi.flatten(),
            via: Via { proxy: proxy.flatten(), direct: no_proxy? },
        };
        if let Err((key, code, why)) = consistent(&network) {
            let at = table.get_key_value(key).map_or(at, |(k, _)| k.span().start);
            self.error(at, code, why);
            return None;
        }
        Some(network)
    }

    pub(super) fn boolean(&mut self, value: &Value<'_>, key: &str, table: &str) -> Option<bool> {
        if value.get_ref().as_bool().is_none() {
            let text = format!("{key} in [{table}] must be true or false{}", without_quotes(value));
            self.error(value.span().start, Code::BadValue, text);
        }
        value.get_ref().as_bool()
    }

    fn vlan(&mut self, value: &Value<'_>) -> Option<u16> {
        let id = match value.get_ref() {
            DeValue::Integer(i) => u16::from_str_radix(i.as_str(), i.radix()).ok(),
            _ => None,
        };
        let id = id.filter(|id| (1..=4094).contains(id));
        if id.is_none() {
            let text = format!("vlan in [network] must be a number from 1 to 4094{}", without_quotes(value));
            self.error(value.span().start, Code::BadValue, text);
        }
        id
    }

    fn proxy(&mut self, value: &Value<'_>) -> Option<Proxy> {
        let proxy = self.string(value, "proxy", "network", Proxy::parse)?;
        if proxy.has_credentials() {
            self.secrets.push(value.span());
        }
        Some(proxy)
    }

    /// Whether some API server can be reached at all: an address alone leads no further than its own network.
    pub(super) fn a_way_out(&mut self, at: usize, network: &Network, servers: &[Endpoint]) {
        if let Some(server) = behind_tls_proxy(network, servers) {
            let text = format!(
                "proxy in [network] is https://, which kubelet verifies by the cluster's CA alone: add API server {} to \
                 no-proxy, or use http://",
                server.host
            );
            self.error(at, Code::ConflictingKeys, text);
        }
        let reached = |server: IpAddr| {
            let same = |a: &IpNet| a.contains(&server);
            let router = |g: &IpAddr| g.is_ipv4() == server.is_ipv4();
            network.addresses.iter().any(same) || network.gateway.iter().any(router)
        };
        // Addresses of IPv6 may come from routers all the same, and what a name stands for is known only there.
        let known = |host: &str| host.parse().is_ok_and(|server: IpAddr| server.is_ipv4() && !reached(server));
        if !network.dhcp && network.via.proxy.is_none() && !servers.is_empty() && servers.iter().all(|s| known(&s.host))
        {
            self.error(
                at,
                Code::MissingKey,
                "gateway is missing in [network]: no API server is within the networks of addresses",
            );
        }
    }
}

/// The first API server that would be reached through a proxy with `https://` ([`Proxy::is_tls`]).
fn behind_tls_proxy<'c>(network: &Network, servers: &'c [Endpoint]) -> Option<&'c Endpoint> {
    let behind = |server: &&Endpoint| network.via.proxy_for(&server.host, server.port).is_some_and(Proxy::is_tls);
    servers.iter().find(behind)
}

/// Whether the values fit each other; else the key at which they do not, the code and why.
fn consistent(network: &Network) -> Result<(), (&'static str, Code, String)> {
    let Network { addresses, gateway, .. } = network;
    if network.wifi.is_some() && network.vlan.is_some() {
        return Err((
            "vlan",
            Code::ConflictingKeys,
            "vlan and wifi are both set in [network]: a Wi-Fi network carries no VLANs".to_owned(),
        ));
    }
    if !network.dhcp && addresses.is_empty() {
        return Err((
            "dhcp",
            Code::MissingKey,
            "addresses is missing in [network]: they are required without DHCP".to_owned(),
        ));
    }
    for (number, address) in addresses.iter().enumerate() {
        if addresses[..number].iter().any(|other| other.addr() == address.addr()) {
            return Err(("addresses", Code::BadValue, "addresses in [network] names one address twice".to_owned()));
        }
    }
    for (number, router) in gateway.iter().enumerate() {
        if gateway[..number].iter().any(|other| other.is_ipv4() == router.is_ipv4()) {
            return Err((
                "gateway",
                Code::ConflictingKeys,
                "gateway in [network] names two of one address family".to_owned(),
            ));
        }
        if addresses.iter().any(|a| a.addr() == *router) {
            return Err((
                "gateway",
                Code::ConflictingKeys,
                "gateway in [network] is an address of this device itself".to_owned(),
            ));
        }
        let own: Vec<&IpNet> = addresses.iter().filter(|a| a.addr().is_ipv4() == router.is_ipv4()).collect();
        let family = if router.is_ipv4() { "IPv4" } else { "IPv6" };
        if own.is_empty() {
            let text = format!("gateway in [network] is an {family} address, but addresses has none of that family");
            return Err(("gateway", Code::ConflictingKeys, text));
        }
        // The kernel takes neither for a router (fib_check_nh, net/ipv4/fib_semantics.c).
        let edge = |a: &&IpNet| a.prefix_len() < 31 && (a.network() == *router || a.broadcast() == *router);
        if router.is_ipv4() && own.iter().any(edge) {
            let text = "gateway in [network] is the network's own address or its broadcast address".to_owned();
            return Err(("gateway", Code::ConflictingKeys, text));
        }
    }
    let of_vlan = network.vlan.map(|id| Interface::Name(format!("vlan{id}")));
    if of_vlan.is_some() && of_vlan == network.interface {
        let text = "interface in [network] is the name of the VLAN's own interface: name the one below it".to_owned();
        return Err(("interface", Code::ConflictingKeys, text));
    }
    if network.via.proxy.is_none() && !network.via.direct.is_empty() {
        return Err(("no-proxy", Code::ConflictingKeys, "no-proxy in [network] says nothing without proxy".to_owned()));
    }
    Ok(())
}
