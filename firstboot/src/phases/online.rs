// SPDX-License-Identifier: Apache-2.0
//! Waits for a way to the cluster: a route to one of its API servers, or to the proxy that leads there. A default
//! route is not asked for where the API server is on the link.

use super::context::PhaseContext;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::network::rfkill::{self, Block};
use crate::network::{select_link, vlan_name};
use crate::seed::Seed;
use anyhow::Result;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// How long one try waits for an address; after it the fault is reported and the wait goes on.
const LIMIT: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(100);
/// Flag of a route that refuses (RTF_REJECT, linux/route.h).
const REJECT: u32 = 0x200;

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    has_way(&cx.host, &cx.seed).owned_by(Owner::Host)
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    let way = || Ok(has_way(&cx.host, &cx.seed)?.then_some(()));
    match cx.host.wait(LIMIT, INTERVAL, way).owned_by(Owner::Host)? {
        Some(()) => Ok(()),
        None => {
            let goals: Vec<String> = goals(&cx.seed).into_iter().map(|(_, shown)| shown).collect();
            let (code, why) = why_not(&cx.host, &cx.seed).owned_by(Owner::Host)?;
            let what = match cx.seed.create() {
                Some(_) => "find an address for a control plane".to_owned(),
                None => format!("find a route to {}", goals.join(", ")),
            };
            Err(Fault::new(code, format!("{what}: {why}")))
        }
    }
}

/// Who has to be reached, one of them at least: host, and `host:port` for messages.
fn goals(seed: &Seed) -> Vec<(String, String)> {
    let mut goals: Vec<(String, String)> = Vec::new();
    for server in seed.servers() {
        let goal = match seed.network.via.proxy_for(&server.host, server.port) {
            Some(proxy) => (proxy.address().0.to_owned(), format!("proxy {}", proxy.host())),
            None => (server.host.clone(), server.to_string()),
        };
        if !goals.contains(&goal) {
            goals.push(goal);
        }
    }
    goals
}

fn has_way(host: &Host, seed: &Seed) -> Result<bool> {
    let routes = routes(host)?;
    if seed.create().is_some() {
        // Others come to it.
        return Ok(!routes.is_empty());
    }
    let reached = |(goal, _): &(String, String)| match goal.parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || routes.iter().any(|(net, _)| net.contains(&address)),
        // Resolving a name takes a request to a DNS server.
        Err(_) => !routes.is_empty(),
    };
    Ok(goals(seed).iter().any(reached))
}

/// Networks that there is a route to, and the interface it leads over (formats: proc_net(5)). Loopback, multicast and
/// link-local ones are left out: they exist on every link.
fn routes(host: &Host) -> Result<Vec<(IpNet, String)>> {
    let text = |path: &str| -> Result<String> {
        Ok(String::from_utf8_lossy(&host.read(path)?.unwrap_or_default()).into_owned())
    };
    let v4 = text("/proc/net/route")?;
    let v6 = text("/proc/net/ipv6_route")?;
    let all = v4.lines().skip(1).filter_map(route_v4).chain(v6.lines().filter_map(route_v6));
    Ok(all.filter(|(_, interface)| interface != "lo").collect())
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`; numbers are printed as the processor holds them.
fn route_v4(line: &str) -> Option<(IpNet, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |index: usize| u32::from_str_radix(fields.get(index)?, 16).ok();
    let address = |index: usize| Some(Ipv4Addr::from(number(index)?.to_ne_bytes()));
    if number(3)? & REJECT != 0 {
        return None;
    }
    let net = Ipv4Net::with_netmask(address(1)?, address(7)?).ok()?;
    (!net.addr().is_link_local()).then(|| (net.into(), fields[0].to_owned()))
}

/// `destination prefix source prefix gateway metric refcnt use flags interface`.
fn route_v6(line: &str) -> Option<(IpNet, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [to, prefix, _, _, _, _, _, _, flags, interface] = fields.as_slice() else { return None };
    let address = Ipv6Addr::from(u128::from_str_radix(to, 16).ok()?);
    let flags = u32::from_str_radix(flags, 16).ok()?;
    if flags & REJECT != 0 || address.is_multicast() || address.is_unicast_link_local() {
        return None;
    }
    let net = Ipv6Net::new(address, u8::from_str_radix(prefix, 16).ok()?).ok()?;
    Some((net.into(), (*interface).to_owned()))
}

/// What the links look like, for the person who reads the status file; the code of the one that came furthest.
fn why_not(host: &Host, seed: &Seed) -> Result<(Code, String)> {
    let (network, routes) = (&seed.network, routes(host)?);
    let links = select_link::links(host)?;
    if let Some(interface) = &network.interface
        && !links.iter().any(|l| interface.means(&l.name, &l.mac))
        && host.size_and_mode(&format!("/sys/class/net/{interface}"))?.is_none()
    {
        let names: Vec<&str> = links.iter().map(|l| l.name.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let text = format!("interface {interface} of [network] is not there; this device has {names}");
        return Ok((Code::NoInterface, text));
    }
    let mut reported = Vec::new();
    for link in &links {
        let meant = network.interface.as_ref().is_none_or(|i| i.means(&link.name, &link.mac));
        if !meant || (network.wifi.is_some() && !link.wifi) {
            continue;
        }
        let over = |name: &str| name == link.name || network.vlan.is_some_and(|id| name == vlan_name(id));
        let name = &link.name;
        reported.push(match (link.carrier, network.wifi.is_some()) {
            (false, true) => {
                let why = match rfkill::block(host, name)? {
                    None => "wrong ssid or password, or out of reach",
                    Some(Block::Soft) => "its radio is switched off (rfkill, soft block)",
                    Some(Block::Hard) => "its radio is switched off by a switch of the device (rfkill, hard block)",
                };
                (Code::WifiNotConnected, format!("{name} is not connected: {why}"))
            }
            (false, false) => (Code::NoLink, format!("{name} has no link")),
            (true, _) if routes.iter().any(|(_, interface)| over(interface)) => {
                let gateway = network.gateway.is_empty() && !network.addresses.is_empty();
                let hint = if gateway { " (gateway is missing in [network])" } else { "" };
                (Code::NoRoute, format!("{name} has an address, but no route leads there{hint}"))
            }
            (true, _) if network.dhcp => (Code::NoRoute, format!("{name} has a link but no address (no DHCP answer)")),
            (true, _) => (Code::NoRoute, format!("{name} has a link but not the addresses of [network]")),
        });
    }
    // Codes are in the order of the way to the cluster.
    let code = reported.iter().map(|(code, _)| *code).max().unwrap_or(Code::NoLink);
    let texts: Vec<String> = reported.into_iter().map(|(_, text)| text).collect();
    Ok((code, if texts.is_empty() { "this device has no network interface".into() } else { texts.join(", ") }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;
    use crate::phases::tests::cx;
    use crate::test_files::put_for_tests;
    use std::path::Path;

    const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
    const DEFAULT: &str = "eth0\t00000000\t0202000A\t0003\t0\t0\t1024\t00000000\t0\t0\t0\n";
    const SUBNET: &str = "eth0\t0002000A\t00000000\t0001\t0\t0\t1024\t00FFFFFF\t0\t0\t0\n";

    fn device(root: &Path, server: &str, network: &str) -> PhaseContext {
        let pin = "0".repeat(64);
        let text = format!(
            "version = 1\n[cluster]\napiserver = \"{server}\"\ntoken = \"abcdef.0123456789abcdef\"\nca-cert-hashes = \
             \"sha256:{pin}\"\n{network}"
        );
        cx(root, Fake::new().0, &text)
    }

    fn put(cx: &PhaseContext, root: &Path, v4: &str, v6: &str) -> bool {
        put_for_tests(root, "proc/net/route", &format!("{HEAD}{v4}"));
        put_for_tests(root, "proc/net/ipv6_route", v6);
        check(cx).unwrap()
    }

    #[test]
    fn a_route_to_the_api_server_is_what_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let near = device(root, "10.0.2.2", "");
        let far = device(root, "192.0.2.1", "");
        let named = device(root, "api.example", "");
        for (cx, none, subnet, default) in
            [(&near, false, true, true), (&far, false, false, true), (&named, false, true, true)]
        {
            assert_eq!(put(cx, root, "", ""), none);
            assert_eq!(put(cx, root, SUBNET, ""), subnet);
            assert_eq!(put(cx, root, DEFAULT, ""), default);
        }
        let zero = "0".repeat(32);
        let line = |to: &str, prefix: &str, flags: &str, dev: &str| {
            format!("{to} {prefix} {zero} 00 {zero} 00000400 00000001 00000000 {flags} {dev}\n")
        };
        let six = device(root, "[fd00::1]", "");
        assert!(put(&six, root, "", &line(&zero, "00", "00450003", "eth0")));
        assert!(!put(&six, root, "", &line(&zero, "00", "00200200", "lo")));
        assert!(!put(&six, root, "", &line(&zero, "00", "00200200", "eth0")));
        assert!(put(&six, root, "", &line(&format!("fd00{}", &zero[4..]), "40", "00000001", "eth0")));
        assert!(!put(&six, root, "", &line(&format!("fd01{}", &zero[4..]), "40", "00000001", "eth0")));
        // Every link has these.
        let own = line(&format!("fe80{}", &zero[4..]), "40", "00000001", "eth0");
        assert!(!put(&named, root, "", &own));
        assert!(!put(&six, root, SUBNET, &own));
    }

    #[test]
    fn a_device_that_creates_a_cluster_needs_an_address_alone() {
        let dir = tempfile::tempdir().unwrap();
        let cx = cx(dir.path(), Fake::new().0, "version = 1\n[cluster]\ncreate = true\n");
        assert!(!put(&cx, dir.path(), "", "") && put(&cx, dir.path(), SUBNET, ""));
        put(&cx, dir.path(), "", "");
        let text = apply(&cx).unwrap_err().to_string();
        assert_eq!(text, "find an address for a control plane: this device has no network interface");
    }

    #[test]
    fn through_a_proxy_the_proxy_is_to_be_reached() {
        let dir = tempfile::tempdir().unwrap();
        let proxied = device(dir.path(), "192.0.2.1", "[network]\nproxy = \"http://u:hunter22@10.0.2.9:3128\"\n");
        assert!(put(&proxied, dir.path(), SUBNET, ""));
        assert!(!put(&proxied, dir.path(), "", ""));
        let text = apply(&proxied).unwrap_err().to_string();
        assert_eq!(text, "find a route to proxy 10.0.2.9:3128: this device has no network interface");
        let past = "[network]\nproxy = \"http://10.0.2.9:3128\"\nno-proxy = \"192.0.2.0/24\"\n";
        assert!(!put(&device(dir.path(), "192.0.2.1", past), dir.path(), SUBNET, ""));
    }

    #[test]
    fn says_why_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let why = |network: &str| {
            let text = apply(&device(root, "192.0.2.1", network)).unwrap_err().to_string();
            text.strip_prefix("find a route to 192.0.2.1:6443: ").unwrap().to_owned()
        };
        put_for_tests(root, "proc/net/route", HEAD);
        assert_eq!(why(""), "this device has no network interface");
        put_for_tests(root, "sys/class/net/eth0/device/uevent", "DRIVER=x\n");
        put_for_tests(root, "sys/class/net/eth0/carrier", "0\n");
        assert_eq!(why(""), "eth0 has no link");
        put_for_tests(root, "sys/class/net/eth0/carrier", "1\n");
        assert_eq!(why(""), "eth0 has a link but no address (no DHCP answer)");
        let fixed = "[network]\naddresses = \"10.0.2.15/24\"\ngateway = \"10.0.2.1\"\n";
        assert_eq!(why(fixed), "eth0 has a link but not the addresses of [network]");
        let other = "[network]\ninterface = \"eth7\"\n";
        assert_eq!(why(other), "interface eth7 of [network] is not there; this device has eth0");
        put_for_tests(root, "proc/net/route", &format!("{HEAD}{SUBNET}"));
        assert_eq!(why(""), "eth0 has an address, but no route leads there");
        let lone = "[network]\naddresses = \"10.0.2.15/24\"\nproxy = \"http://a:1\"\nno-proxy = \"192.0.2.1\"\n";
        assert_eq!(why(lone), "eth0 has an address, but no route leads there (gateway is missing in [network])");
        put_for_tests(root, "sys/class/net/wlan0/device/uevent", "DRIVER=x\n");
        put_for_tests(root, "sys/class/net/wlan0/phy80211/name", "phy0\n");
        let radio = "[network.wifi]\nssid = \"a\"\npassword = \"hunter22\"\ncountry = \"DE\"\n";
        assert_eq!(why(radio), "wlan0 is not connected: wrong ssid or password, or out of reach");
        let off = "wlan0 is not connected: its radio is switched off";
        put_for_tests(root, "sys/class/net/wlan0/phy80211/rfkill0/soft", "1\n");
        assert_eq!(why(radio), format!("{off} (rfkill, soft block)"));
        put_for_tests(root, "sys/class/net/wlan0/phy80211/rfkill0/hard", "1\n");
        assert_eq!(why(radio), format!("{off} by a switch of the device (rfkill, hard block)"));
    }
}
