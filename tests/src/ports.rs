// SPDX-License-Identifier: Apache-2.0
//! Ports that are open to a host on the device's own network: nmap over all TCP ports and the 1000 most used UDP ports.

use anyhow::Result;
use qemu::link::site::{STRANGER, STRANGER_V6, Scan, Site};

/// The device's own address on its link, by its hardware address (RFC 4291, appendix A).
pub const LINK_LOCAL: &str = "fe80::5054:ff:fe12:3456%lan";

/// Open ports of the device that has `address` on this network, such as `tcp/10250`; those that are open over IPv6 as
/// `tcp/10250 (IPv6)`.
///
/// # Errors
/// When nmap does not run, or no host has the address.
pub fn open_to_strangers(site: &Site, address: &str) -> Result<Vec<String>> {
    let mut open = site.scan(STRANGER, address, Scan::Tcp)?;
    open.extend(site.scan(STRANGER, address, Scan::Udp)?);
    open.extend(site.scan(STRANGER_V6, LINK_LOCAL, Scan::Tcp)?.iter().map(|port| format!("{port} (IPv6)")));
    Ok(open)
}
