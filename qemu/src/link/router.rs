// SPDX-License-Identifier: Apache-2.0
//! A shop's network in a namespace: a local network `lan` with the device on it, and a router that leads out through
//! `wan` and lets nothing in that the device did not ask for.
//!
//! `wan` is QEMU's user network, so the build machine's loopback, where the control plane listens, is 10.0.2.2 and
//! its IPv6 counterpart, as everywhere else. Addresses come from dnsmasq, the proxy is tinyproxy, the rules are
//! nftables'.

use super::namespace::Namespace;
use super::relay::Ends;
use super::tap_bridge::{self, Side};
use crate::control_plane::config::GUEST_VIEW_V6_PREFIX;
use crate::process::Process;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The router on the local network.
pub const ROUTER: &str = "192.168.76.1";
/// An address of the local network that no DHCP server hands out.
pub const FREE: &str = "192.168.76.20";
/// The router on the local network, IPv6.
pub const ROUTER_V6: &str = "fd00:77::1";
/// An IPv6 address of the local network that is never advertised.
pub const FREE_V6: &str = "fd00:77::20";
/// Where the proxy listens.
pub const PROXY: &str = "192.168.76.1:3128";

/// How devices on the local network get their addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// IPv4, by DHCP.
    Dhcp,
    /// IPv6, by router advertisements; no IPv4.
    Advertised,
    /// Not at all: they are configured by hand.
    Fixed,
}

/// How they get out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayOut {
    /// Through the router, for connections that they begin.
    Router,
    /// Through an HTTP proxy on the router, which forwards nothing else.
    Proxy,
}

/// Options of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lan {
    /// How devices get their addresses.
    pub addresses: Addresses,
    /// How they get out.
    pub way_out: WayOut,
}

/// A running network. Dropping it ends its programs, and its interfaces and rules with them.
pub struct Router {
    // Order matters: what runs in the namespace ends before its holder.
    _programs: Vec<Process>,
    namespace: Namespace,
    dir: PathBuf,
}

impl Router {
    /// Sets the network up below `dir`; the device's link ends at `device`, its network side.
    pub fn start(dir: &Path, device: &Ends, lan: Lan) -> Result<Self> {
        let namespace = Namespace::new(dir)?;
        interfaces(&namespace).context("set up a router's interfaces")?;
        let path = dir.join("rules.nft");
        std::fs::write(&path, rules(lan.way_out)).with_context(|| format!("write {}", path.display()))?;
        namespace.run("nft", &["-f", &path.display().to_string()])?;
        // Two far ends without a relay between them: each is the other's.
        let inside = Ends { relay: dir.join("wan-out"), peer: dir.join("wan-in") };
        let outside = Ends { relay: inside.peer.clone(), peer: inside.relay.clone() };
        let within =
            |name: &str, program: &Path, args: &[String], log: &Path| namespace.start(name, program, args, log);
        let mut programs = vec![
            tap_bridge::start(&outside, Side::User, &dir.join("wan-out.log"), Process::start)?,
            tap_bridge::start(&inside, Side::Tap("wan"), &dir.join("wan-in.log"), within)?,
            tap_bridge::start(device, Side::Tap("lan"), &dir.join("lan.log"), within)?,
        ];
        if let Some(args) = dnsmasq(lan.addresses, dir) {
            programs.push(namespace.start("dnsmasq", Path::new("dnsmasq"), &args, &dir.join("dnsmasq.log"))?);
        }
        if lan.way_out == WayOut::Proxy {
            let path = dir.join("tinyproxy.conf");
            std::fs::write(&path, proxy_config()).with_context(|| format!("write {}", path.display()))?;
            let args = ["-d", "-c", &path.display().to_string()].map(str::to_owned);
            programs.push(namespace.start("tinyproxy", Path::new("tinyproxy"), &args, &dir.join("tinyproxy.log"))?);
        }
        Ok(Router { _programs: programs, namespace, dir: dir.to_owned() })
    }

    /// The log of dnsmasq: which device asked for an address, and which it got. Empty where none runs.
    pub fn addresses_log(&self) -> String {
        crate::process::tail(&self.dir.join("dnsmasq.log"), usize::MAX)
    }

    /// The log of the proxy: a line for every connection. Empty where none runs.
    pub fn proxy_log(&self) -> String {
        crate::process::tail(&self.dir.join("tinyproxy.log"), usize::MAX)
    }

    /// Whether a program on the router's side can open a connection to the device. Tries for 3 seconds.
    pub fn reaches(&self, address: &str, port: u16) -> bool {
        let script = "exec 3<>\"/dev/tcp/$0/$1\"";
        self.namespace.run("timeout", &["3", "bash", "-c", script, address, &port.to_string()]).is_ok()
    }

    /// How many packets that would have opened a connection to the device were dropped.
    pub fn refused(&self) -> Result<u64> {
        let out = self.namespace.run("nft", &["-j", "list", "counter", "inet", "router", "refused"])?;
        let answer: Value = serde_json::from_slice(&out).context("read nft's answer")?;
        let counters = answer["nftables"].as_array().context("read nft's answer")?;
        let found = counters.iter().find_map(|c| c["counter"]["packets"].as_u64());
        found.context("find a counter in nft's answer")
    }
}

fn interfaces(namespace: &Namespace) -> Result<()> {
    // Addresses are usable at once: no other host can have them.
    namespace.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
    namespace.sysctl("net/ipv4/ip_forward", "1")?;
    namespace.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    let out = ["10.0.2.15/24".to_owned(), format!("{GUEST_VIEW_V6_PREFIX}15/64")];
    let inside = [format!("{ROUTER}/24"), format!("{ROUTER_V6}/64")];
    for (name, addresses) in [("wan", out), ("lan", inside)] {
        namespace.ip(&format!("tuntap add dev {name} mode tap"))?;
        for address in addresses {
            namespace.ip(&format!("addr add {address} dev {name}"))?;
        }
        namespace.ip(&format!("link set {name} up"))?;
    }
    Ok(())
}

/// nftables' rules. Towards the device go answers, addresses and neighbour discovery, nothing else.
fn rules(way_out: WayOut) -> String {
    let forward = match way_out {
        WayOut::Router => "iifname \"lan\" oifname \"wan\" accept",
        WayOut::Proxy => "iifname \"lan\" reject",
    };
    format!(
        "\
table inet router {{
  counter refused {{ }}
  chain inwards {{
    ct state established,related accept
    udp sport 67 accept
    meta l4proto ipv6-icmp accept
    tcp flags syn counter name refused drop
    drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    oifname \"lan\" goto inwards
    {forward}
  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    oifname \"lan\" goto inwards
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname \"wan\" masquerade
  }}
}}
"
    )
}

fn dnsmasq(addresses: Addresses, dir: &Path) -> Option<Vec<String>> {
    let ranges: &[&str] = match addresses {
        Addresses::Dhcp => &["--dhcp-range=192.168.76.100,192.168.76.150,1h"],
        Addresses::Advertised => &["--enable-ra", "--dhcp-range=fd00:77::,ra-only,64,1h"],
        Addresses::Fixed => return None,
    };
    let leases = format!("--dhcp-leasefile={}", dir.join("leases").display());
    let common = [
        // In the foreground, as the current user: the root of a namespace cannot become another user.
        "--no-daemon",
        "--conf-file=/dev/null",
        "--interface=lan",
        "--except-interface=lo",
        "--bind-interfaces",
        "--no-resolv",
        "--no-hosts",
        "--log-dhcp",
        &leases,
    ];
    Some(common.iter().chain(ranges).map(|w| (*w).to_owned()).collect())
}

fn proxy_config() -> String {
    let (listen, port) = PROXY.split_once(':').unwrap_or((ROUTER, "3128"));
    format!("Listen {listen}\nPort {port}\nAllow 192.168.76.0/24\nTimeout 600\nMaxClients 100\nLogLevel Connect\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_the_only_way_out_where_there_is_one() {
        assert!(rules(WayOut::Router).contains("iifname \"lan\" oifname \"wan\" accept"));
        let rules = rules(WayOut::Proxy);
        assert!(!rules.contains("oifname \"wan\" accept") && rules.contains("iifname \"lan\" reject"));
        assert!(proxy_config().starts_with("Listen 192.168.76.1\nPort 3128\n"));
    }

    #[test]
    fn router_without_dhcp_for_static_addresses() {
        let dir = Path::new("/run/x");
        assert_eq!(dnsmasq(Addresses::Fixed, dir), None);
        let advertised = dnsmasq(Addresses::Advertised, dir).unwrap();
        assert!(!advertised.iter().any(|a| a.contains("192.168.")), "{advertised:?}");
    }
}
