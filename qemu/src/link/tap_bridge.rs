// SPDX-License-Identifier: Apache-2.0
//! The far end of a link: an emulator without a machine, which joins the relay's socket to a network.
//!
//! QEMU knows how to drive a tap interface and how to be a network of its own (DHCP, gateway to the build machine's
//! loopback); with `-machine none` that is all it does. So neither needs code or privileges here.

use super::relay::Ends;
use super::segment::Reached;
use crate::args;
use crate::control_plane::config::{GUEST_VIEW_V6, GUEST_VIEW_V6_PREFIX};
use crate::process::Process;
use crate::wait;
use anyhow::Result;
use imagebuild::arch::Arch;
use std::path::Path;
use std::time::Duration;

/// What the far end leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side<'a> {
    /// QEMU's user network: the build machine's loopback behind 10.0.2.2 and its IPv6 counterpart.
    User,
    /// The same with nothing of IPv6, and with ports of machines on it behind loopback.
    Forwarding(&'a [Reached]),
    /// A tap interface of this name, where the emulator is started.
    Tap(&'a str),
}

/// The emulator's arguments.
pub fn argv(ends: &Ends, side: Side) -> Vec<String> {
    let side = match side {
        Side::User => format!("user,id=side,ipv6-prefix={GUEST_VIEW_V6_PREFIX},ipv6-host={GUEST_VIEW_V6}"),
        Side::Forwarding(ports) => {
            let forward = |r: &Reached| format!(",hostfwd=tcp:127.0.0.1:{}-{}:{}", r.host, r.address, r.port);
            format!("user,id=side{}", ports.iter().map(forward).collect::<String>())
        }
        Side::Tap(name) => format!("tap,id=side,ifname={name},script=no,downscript=no"),
    };
    let words = ["-no-user-config", "-nodefaults", "-display", "none", "-machine", "none"];
    let mut list = words.map(str::to_owned).to_vec();
    let hub = |name: &str| format!("hubport,id=hub-{name},hubid=0,netdev={name}");
    for netdev in [args::dgram("relay", &ends.peer, &ends.relay), side, hub("relay"), hub("side")] {
        list.extend(["-netdev".to_owned(), netdev]);
    }
    list
}

/// Starts a far end with `start`, here or in a namespace. Returns when it listens.
pub fn start(
    ends: &Ends,
    side: Side,
    log: &Path,
    start: impl FnOnce(&str, &Path, &[String], &Path) -> Result<Process>,
) -> Result<Process> {
    let program = imagebuild::setup::qemu(Arch::host()?)?;
    let process = start("the far end of a link", &program, &argv(ends, side), log)?;
    wait::until("the far end of a link to listen", Duration::from_secs(20), || {
        process.check()?;
        Ok(ends.peer.exists().then_some(()))
    })?;
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_joins_the_socket_to_the_network() {
        let ends = Ends { relay: "/run/far-relay".into(), peer: "/run/far".into() };
        let head = "-no-user-config -nodefaults -display none -machine none -netdev \
            dgram,id=relay,local.type=unix,local.path=/run/far,remote.type=unix,remote.path=/run/far-relay -netdev";
        let tail = "-netdev hubport,id=hub-relay,hubid=0,netdev=relay -netdev hubport,id=hub-side,hubid=0,netdev=side";
        assert_eq!(
            argv(&ends, Side::Tap("lan")).join(" "),
            format!("{head} tap,id=side,ifname=lan,script=no,downscript=no {tail}")
        );
        assert_eq!(
            argv(&ends, Side::User).join(" "),
            format!("{head} user,id=side,ipv6-prefix=fd00:76::,ipv6-host=fd00:76::2 {tail}")
        );
        let reached = [Reached { address: [10, 0, 2, 21].into(), port: 6443, host: 20001 }];
        assert_eq!(
            argv(&ends, Side::Forwarding(&reached)).join(" "),
            format!("{head} user,id=side,hostfwd=tcp:127.0.0.1:20001-10.0.2.21:6443 {tail}")
        );
    }
}
