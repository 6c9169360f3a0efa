// SPDX-License-Identifier: Apache-2.0
//! Files of systemd-networkd: systemd.network(5), systemd.netdev(5). Pure.

use super::{Link, vlan_name};
use crate::host::Host;
use crate::host::managed_files::File;
use crate::seed::Network;
use anyhow::Result;

/// Directory of the files.
pub(crate) const DIR: &str = "/etc/systemd/network";

/// How the names of files begin where the seed says something about the link. networkd takes the first file that matches an
/// interface, by the files' names in all its directories (systemd.network(5)). What a seed says comes before all that an
/// image brings, as netplan's `10-netplan-*` of Ubuntu.
const OF_SEED: &str = "05-firstboot";
/// The same for DHCP where a seed says nothing: it comes after that.
const DEFAULT: &str = "50-firstboot";

/// The files for `network` on `link`.
pub(crate) fn files(network: &Network, link: &Link) -> Vec<File> {
    let prefix = if network.is_silent() { DEFAULT } else { OF_SEED };
    let path = |name: &str| format!("{DIR}/{prefix}{name}");
    let main = |text: &str| File::public(path(".network"), text);
    let Some(id) = network.vlan else {
        return vec![main(&format!("{}\n{}", link_match(link), addresses(network)))];
    };
    let name = vlan_name(id);
    // The parent interface has no addresses of its own.
    let below =
        format!("{}\n[Network]\nVLAN={name}\nDHCP=no\nIPv6AcceptRA=no\nLinkLocalAddressing=no\n", link_match(link));
    vec![
        main(&below),
        File::public(vlan_file(), &format!("[NetDev]\nName={name}\nKind=vlan\n\n[VLAN]\nId={id}\n")),
        File::public(path("-vlan.network"), &format!("[Match]\nName={name}\n\n{}", addresses(network))),
    ]
}

/// File that defines the VLAN. It competes with no other.
pub(crate) fn vlan_file() -> String {
    format!("{DIR}/{DEFAULT}-vlan.netdev")
}

/// `Kind=!*` excludes bridges, veth pairs, VLANs (which have the MAC address of their parent) and all other virtual
/// interfaces.
fn link_match(link: &Link) -> String {
    match link {
        Link::EveryWired => "[Match]\nType=ether\nKind=!*\n".to_owned(),
        Link::Name(name) => format!("[Match]\nName={name}\n"),
        Link::Mac(mac) => format!("[Match]\nMACAddress={mac}\nKind=!*\n"),
    }
}

fn addresses(network: &Network) -> String {
    let yes = |on: bool| if on { "yes" } else { "no" };
    let mut text = format!("[Network]\nDHCP={}\nIPv6AcceptRA={}\n", yes(network.dhcp), yes(network.has_router_ipv6()));
    text += "LinkLocalAddressing=ipv6\n";
    for address in &network.addresses {
        text += &format!("Address={address}\n");
    }
    for router in network.gateway.iter().filter(|r| !network.is_on_link(**r)) {
        text += &format!("Gateway={router}\n");
    }
    for server in &network.dns {
        text += &format!("DNS={server}\n");
    }
    let own_dns = if network.dns.is_empty() { "" } else { "UseDNS=no\n" };
    if network.dhcp {
        text += "\n[DHCPv4]\n\
                 # Some servers give two addresses when the identifier changes between firmware and system.\n\
                 ClientIdentifier=mac\n\
                 # firstboot sets the node's name.\n\
                 UseHostname=no\n";
        text += own_dns;
        text += "\n[DHCPv6]\nUseHostname=no\n";
        text += own_dns;
    }
    if network.has_router_ipv6() && !own_dns.is_empty() {
        text += "\n[IPv6AcceptRA]\n";
        text += own_dns;
    }
    // The kernel takes a router beyond the networks of the addresses only where it is said to be on the link.
    for router in network.gateway.iter().filter(|r| network.is_on_link(**r)) {
        text += &format!("\n[Route]\nGateway={router}\nGatewayOnLink=yes\n");
    }
    text
}

impl Network {
    /// Whether the seed says nothing about the link; a proxy is no matter of networkd's.
    fn is_silent(&self) -> bool {
        *self == Network { via: self.via.clone(), ..Network::default() }
    }

    /// Whether IPv6 addresses and routes come from router advertisements: where the network is asked, and not where the
    /// seed says what there is. Any neighbour can send them.
    fn has_router_ipv6(&self) -> bool {
        self.dhcp
    }
}

/// Name of the VLAN interface in the networkd file that firstboot wrote, if any.
pub(crate) fn configured_vlan(host: &Host) -> Result<Option<String>> {
    let file = vlan_file();
    let text = if host.journal().knows(&file) { host.read_text(&file)? } else { None };
    Ok(text.and_then(|text| text.lines().find_map(|line| line.strip_prefix("Name=")).map(str::to_owned)))
}

#[cfg(test)]
#[path = "networkd_tests.rs"]
mod tests;
