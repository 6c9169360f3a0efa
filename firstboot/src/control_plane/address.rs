// SPDX-License-Identifier: Apache-2.0
//! The address at which this device's API server is reached.

use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::seed::Network;
use anyhow::Result;
use ipnet::IpNet;
use serde_json::Value;
use std::net::IpAddr;

/// Addresses for documentation (RFC 5737, RFC 3849): a route to one of them is the default route. Nothing is sent.
const ELSEWHERE: [&str; 2] = ["203.0.113.1", "2001:db8::1"];

/// The address of one family: the one that the seed names, that of the default route, or the only one.
///
/// # Errors
/// The cluster's, as for a device that finds no way to one: this device has no address.
pub fn own(host: &Host, network: &Network, v4: bool) -> Result<IpAddr, Fault> {
    let family = |address: &IpAddr| address.is_ipv4() == v4;
    if let Some(address) = network.node_ips().into_iter().find(family) {
        return Ok(address);
    }
    let route = by_default_route(host, v4);
    let first = || -> Result<Option<IpAddr>> {
        let shown = host.run(&["ip", "-json", "address", "show", "scope", "global", "up"])?;
        Ok(addresses(&shown).into_iter().find(family))
    };
    let found = route.map_or_else(first, |address| Ok(Some(address))).owned_by(Owner::Host)?;
    found.ok_or_else(|| {
        let text = format!("find an IPv{} address of this device for the API server", if v4 { 4 } else { 6 });
        Fault::new(Code::NoRoute, text)
    })
}

/// The source address of the default route; none where there is no such route, which `ip` reports as an error.
fn by_default_route(host: &Host, v4: bool) -> Option<IpAddr> {
    let shown = host.run(&["ip", "-json", "route", "get", ELSEWHERE[usize::from(!v4)]]).ok()?;
    let routes: Value = serde_json::from_str(&shown).ok()?;
    routes[0]["prefsrc"].as_str()?.parse().ok()
}

/// Global addresses in what `ip -json address` shows, in its order, without those of pod networks and loopback.
fn addresses(shown: &str) -> Vec<IpAddr> {
    const VIRTUAL: [&str; 5] = ["lo", "cni", "flannel", "veth", "kube-"];
    let real = |(link, _): &(String, IpNet)| !VIRTUAL.iter().any(|start| link.starts_with(start));
    with_links(shown).into_iter().filter(real).map(|(_, net)| net.addr()).collect()
}

/// Addresses in what `ip -json address` shows, in its order, each with its link and its network.
pub(super) fn with_links(shown: &str) -> Vec<(String, IpNet)> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let links = serde_json::from_str(shown).map(|links: Value| list(&links)).unwrap_or_default();
    let of_link = |link: &Value| {
        let name = link["ifname"].as_str().unwrap_or_default().to_owned();
        let nets = list(&link["addr_info"]).into_iter().filter_map(|address| {
            let prefix = u8::try_from(address["prefixlen"].as_u64()?).ok()?;
            IpNet::new(address["local"].as_str()?.parse().ok()?, prefix).ok()
        });
        nets.map(|net| (name.clone(), net)).collect::<Vec<_>>()
    };
    links.iter().flat_map(of_link).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_links_and_not_of_pods() {
        let shown = r#"[{"ifname":"lo","addr_info":[{"local":"10.9.9.9","prefixlen":32}]},
            {"ifname":"cni0","addr_info":[{"local":"10.244.0.1","prefixlen":24}]},
            {"ifname":"eth0","addr_info":[{"family":"inet","local":"192.0.2.7","prefixlen":24},{"local":"2001:db8::7","prefixlen":64}]}]"#;
        let found: Vec<String> = addresses(shown).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.7", "2001:db8::7"]);
        assert!(addresses("").is_empty() && addresses("[]").is_empty());
    }
}
