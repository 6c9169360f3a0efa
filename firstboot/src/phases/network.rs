// SPDX-License-Identifier: Apache-2.0
//! The link: every wired interface asks for an address by DHCP and listens to router advertisements.
//!
//! systemd-networkd does the work; nothing is waited for here (see `online`).

use super::Cx;
use crate::fault::{Fault, OwnedBy, Owner};
use anyhow::Result;

const FILE: &str = "/etc/systemd/network/50-firstboot.network";

/// `Kind=!*` leaves out bridges, veth pairs and everything else that is not a real interface.
const TEXT: &str = "\
# Written by firstboot.
[Match]
Type=ether
Kind=!*

[Network]
DHCP=yes
IPv6AcceptRA=yes
LinkLocalAddressing=ipv6

[DHCPv4]
# Some servers give two addresses when the identifier changes between firmware and system.
ClientIdentifier=mac
# The node's name is ours to say.
UseHostname=no

[DHCPv6]
UseHostname=no
";

pub(super) fn check(cx: &Cx) -> Result<bool, Fault> {
    Ok(cx.host.read(FILE).owned_by(Owner::Host)?.as_deref() == Some(TEXT.as_bytes()))
}

pub(super) fn apply(cx: &Cx) -> Result<(), Fault> {
    let work = || -> Result<()> {
        cx.host.write(FILE, TEXT.as_bytes(), 0o644)?;
        cx.host.symlink(
            "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
            "/usr/lib/systemd/system/systemd-networkd.service",
        )?;
        // `restart` rather than `start`: it may be running already, without this file. Nobody waits for it here:
        // the bundle is unpacked while the address comes.
        cx.host.run(&["systemctl", "--no-block", "restart", "systemd-networkd.service"]).map(drop)
    };
    work().owned_by(Owner::Host)
}
