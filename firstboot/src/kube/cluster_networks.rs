// SPDX-License-Identifier: Apache-2.0
//! Which networks a cluster can give its pods and Services. They are past a seed's egress list and past its proxy, so a
//! network that is too wide would switch both off. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use super::config::Networking;
use super::error::Error;
use crate::fault::Code;

/// Shortest prefixes. 10.0.0.0/8 is the widest network for private use (RFC 1918); clusters give a node a /64 of IPv6.
const SHORTEST: (u8, u8) = (8, 16);

/// Networks that no pod and no Service is in: this host, one link, groups of hosts, and IPv4 within IPv6.
const NONE: [(&str, &str); 9] = [
    ("0.0.0.0/8", "this host (RFC 1122)"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/4", "multicast"),
    ("::/128", "this host"),
    ("::1/128", "loopback"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
    ("::ffff:0:0/96", "IPv4 within IPv6"),
];

/// Whether pods or Services can have this network.
///
/// # Errors
/// Why not, as the end of a sentence.
pub fn check(net: &IpNet) -> Result<(), String> {
    let shortest = if net.addr().is_ipv4() { SHORTEST.0 } else { SHORTEST.1 };
    if net.prefix_len() < shortest {
        return Err(format!("its prefix is shorter than /{shortest}"));
    }
    let meets = |text: &str| text.parse::<IpNet>().is_ok_and(|other| net.contains(&other) || other.contains(net));
    match NONE.iter().find(|(text, _)| meets(text)) {
        Some((text, kind)) => Err(format!("it meets {text}, {kind}")),
        None => Ok(()),
    }
}

/// [`check`], and whether one of these servers, which are none of its pods, is in it.
///
/// # Errors
/// Why not, as the end of a sentence.
pub fn check_beside(net: &IpNet, servers: &[IpAddr]) -> Result<(), String> {
    check(net)?;
    match servers.iter().find(|server| net.contains(&server.to_canonical())) {
        Some(server) => Err(format!("the API server {server} is in it")),
        None => Ok(()),
    }
}

/// Judges the networks of kubeadm-config.
///
/// # Errors
/// The cluster's, with the field, the network and the reason.
pub(super) fn judge(networking: &Networking, servers: &[IpAddr]) -> Result<(), Error> {
    for (field, ranges) in [("podSubnet", &networking.pod_subnet), ("serviceSubnet", &networking.service_subnet)] {
        for net in ranges.split(',').filter_map(|range| range.trim().parse::<IpNet>().ok()) {
            check_beside(&net, servers).map_err(|why| {
                let text = format!("ConfigMap kubeadm-config: networking.{field} {net} is refused: {why}; correct it");
                Error::answer(Code::ClusterConfiguration, text)
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(net: &str) -> String {
        check(&net.parse().unwrap()).err().unwrap_or_default()
    }

    #[test]
    fn s10_absurd_networks_are_refused() {
        for (net, reason) in [
            ("0.0.0.0/0", "its prefix is shorter than /8"),
            ("128.0.0.0/1", "its prefix is shorter than /8"),
            ("10.0.0.0/7", "its prefix is shorter than /8"),
            ("0.0.0.0/8", "it meets 0.0.0.0/8, this host (RFC 1122)"),
            ("127.0.0.0/8", "it meets 127.0.0.0/8, loopback"),
            ("127.0.0.0/24", "it meets 127.0.0.0/8, loopback"),
            ("169.254.0.0/16", "it meets 169.254.0.0/16, link-local"),
            ("169.0.0.0/8", "it meets 169.254.0.0/16, link-local"),
            ("239.1.0.0/16", "it meets 224.0.0.0/4, multicast"),
            ("::/0", "its prefix is shorter than /16"),
            ("8000::/1", "its prefix is shorter than /16"),
            ("::/16", "it meets ::/128, this host"),
            ("::1/128", "it meets ::1/128, loopback"),
            ("fe80::/64", "it meets fe80::/10, link-local"),
            ("ff02::/16", "it meets ff00::/8, multicast"),
            ("::ffff:10.0.0.0/104", "it meets ::ffff:0:0/96, IPv4 within IPv6"),
        ] {
            assert_eq!(why(net), reason, "{net}");
        }
        for net in [
            "10.0.0.0/8",
            "10.244.0.0/16",
            "10.96.0.0/12",
            "172.16.0.0/12",
            "100.64.0.0/10",
            "198.18.0.0/15",
            "240.0.0.0/8",
            "192.0.2.0/24",
            "fd00:10:244::/56",
            "fd00::/16",
            "2001:db8:42::/48",
        ] {
            assert_eq!(why(net), "", "{net}");
        }
    }

    #[test]
    fn s10_a_network_of_pods_that_holds_the_api_server_is_refused() {
        let servers = ["10.244.0.10", "fd00::10"].map(|a| a.parse().unwrap());
        let of = |pods: &str, services: &str| {
            let networking =
                Networking { pod_subnet: pods.into(), service_subnet: services.into(), ..Networking::default() };
            judge(&networking, &servers).map_err(|error| (error.code, error.text))
        };
        assert_eq!(of("10.245.0.0/16, fd01::/64", "10.96.0.0/12"), Ok(()));
        let text = |net: &str, why: &str| {
            let text = format!("ConfigMap kubeadm-config: networking.{net} is refused: {why}; correct it");
            Err((Code::ClusterConfiguration, text))
        };
        let inside = "the API server 10.244.0.10 is in it";
        assert_eq!(of("10.245.0.0/16,10.244.0.0/16", "10.96.0.0/12"), text("podSubnet 10.244.0.0/16", inside));
        assert_eq!(of("", "10.0.0.0/8"), text("serviceSubnet 10.0.0.0/8", inside));
        assert_eq!(of("fd00::/56", ""), text("podSubnet fd00::/56", "the API server fd00::10 is in it"));
        assert_eq!(of("0.0.0.0/0", ""), text("podSubnet 0.0.0.0/0", "its prefix is shorter than /8"));
    }
}
