// SPDX-License-Identifier: Apache-2.0
//! Waits for a way out: a route over an interface that is not the loopback.

use super::Cx;
use crate::fault::{Fault, OwnedBy, Owner};
use crate::host::Host;
use anyhow::Result;
use std::time::Duration;

/// How long one try waits for an address; after it the fault is told and the wait goes on.
const LIMIT: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(100);

pub(super) fn check(cx: &Cx) -> Result<bool, Fault> {
    has_route(&cx.host).owned_by(Owner::Host)
}

pub(super) fn apply(cx: &Cx) -> Result<(), Fault> {
    let found = cx.host.wait(LIMIT, INTERVAL, || Ok(has_route(&cx.host)?.then_some(()))).owned_by(Owner::Host)?;
    match found {
        Some(()) => Ok(()),
        None => Err(Fault::new(Owner::Cluster, format!("find a route: {}", links(&cx.host).owned_by(Owner::Host)?))),
    }
}

/// Whether there is an IPv4 or global IPv6 route beyond this device (formats: proc_net(5)).
fn has_route(host: &Host) -> Result<bool> {
    let v4 = host.read("/proc/net/route")?.unwrap_or_default();
    let v4 = String::from_utf8_lossy(&v4).lines().skip(1).any(|l| !l.starts_with("lo\t"));
    let v6 = host.read("/proc/net/ipv6_route")?.unwrap_or_default();
    let v6 = String::from_utf8_lossy(&v6).lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // A default route with a gateway; link-local and multicast routes exist on every link.
        fields.len() == 10 && fields[1] == "00" && fields[9] != "lo"
    });
    Ok(v4 || v6)
}

/// What the links look like, for the person who reads the status file.
fn links(host: &Host) -> Result<String> {
    let mut told = Vec::new();
    for name in host.list("/sys/class/net")? {
        if host.read_text(&format!("/sys/class/net/{name}/device/uevent"))?.is_none() {
            continue;
        }
        // Reading `carrier` of an interface that is down is an error; that is "down" too.
        let carrier = host.read_text(&format!("/sys/class/net/{name}/carrier")).unwrap_or(None);
        told.push(match carrier.as_deref() {
            Some("1") => format!("{name} has a link but no address (no DHCP answer)"),
            _ => format!("{name} has no link"),
        });
    }
    Ok(if told.is_empty() { "this device has no network interface".into() } else { told.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::super::put_for_tests;
    use super::*;
    use crate::host::fake::Fake;

    #[test]
    fn tells_a_route_from_none_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        let put = |path: &str, text: &str| put_for_tests(dir.path(), path, text);
        assert_eq!(links(&host).unwrap(), "this device has no network interface");
        put("sys/class/net/eth0/device/uevent", "DRIVER=x\n");
        put("sys/class/net/eth0/carrier", "0\n");
        assert_eq!(links(&host).unwrap(), "eth0 has no link");
        put("sys/class/net/eth0/carrier", "1\n");
        assert_eq!(links(&host).unwrap(), "eth0 has a link but no address (no DHCP answer)");
        let head = "Iface\tDestination\tGateway\n";
        put("proc/net/route", head);
        assert!(!has_route(&host).unwrap());
        put("proc/net/route", &format!("{head}eth0\t00000000\t0202000A\n"));
        assert!(has_route(&host).unwrap());
        put("proc/net/route", head);
        let none = "0".repeat(32);
        put("proc/net/ipv6_route", &format!("{none} 00 {none} 00 {none} ffffffff 1 0 00200200 lo\n"));
        assert!(!has_route(&host).unwrap());
        put("proc/net/ipv6_route", &format!("{none} 00 {none} 00 fe80{} 400 1 0 3 eth0\n", &none[4..]));
        assert!(has_route(&host).unwrap());
    }
}
