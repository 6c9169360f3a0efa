// SPDX-License-Identifier: Apache-2.0
//! Ports that are open to a host on the device's own network: nmap over all TCP ports and the 1000 most used UDP ports.

use anyhow::{Result, anyhow};
use qemu::link::site::{STRANGER, STRANGER_V6, Scan, Site};

/// The device's own address on its link, by its hardware address (RFC 4291, appendix A).
pub const LINK_LOCAL: &str = "fe80::5054:ff:fe12:3456%lan";

/// Open ports of the device that has `address` on this network, such as `tcp/10250`; those that are open over IPv6 as
/// `tcp/10250 (IPv6)`.
///
/// # Errors
/// When nmap does not run, or no host has the address.
pub fn open_to_strangers(site: &Site, address: &str) -> Result<Vec<String>> {
    // They do not share a port, so none waits for another.
    let scans = [(STRANGER, address, Scan::Tcp), (STRANGER, address, Scan::Udp), (STRANGER_V6, LINK_LOCAL, Scan::Tcp)];
    let [tcp, udp, ipv6] = std::thread::scope(|scope| {
        let scans = scans.map(|(from, to, what)| scope.spawn(move || site.scan(from, to, what)));
        scans.map(|scan| scan.join().map_err(|_| anyhow!("scan: a thread panicked")).flatten())
    });
    let mut open = tcp?;
    open.extend(udp?);
    open.extend(ipv6?.iter().map(|port| format!("{port} (IPv6)")));
    Ok(open)
}
