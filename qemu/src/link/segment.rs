// SPDX-License-Identifier: Apache-2.0
//! An Ethernet segment for several devices: each reaches the others, and all share QEMU's user network, with its gateway
//! 10.0.2.2, its DHCP server, and ports of the devices on the build machine's loopback.
//!
//! It is a [`Switch`] of ours, and at one of its places an emulator without a machine, as the far end of a [`super::Link`]
//! is. It needs no privileges.

use super::relay::Ends;
use super::switch::Switch;
use crate::args::{self, Link};
use crate::process::Process;
use crate::run_dir::RunDir;
use crate::{ports, wait};
use anyhow::{Context, Result};
use imagebuild::arch::Arch;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

/// A port of a device on the segment that is reached through loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Address of the device.
    pub address: Ipv4Addr,
    /// Its TCP port.
    pub port: u16,
    /// Port on 127.0.0.1 of the build machine.
    pub host: u16,
}

/// A segment, as a guard. It has to outlive the devices on it.
pub struct Segment {
    // Order matters: the emulator and the switch end before their directory goes.
    process: Process,
    _switch: Switch,
    ends: Vec<Ends>,
    reached: Vec<Reached>,
    _dir: RunDir,
}

impl Segment {
    /// A segment with `sockets` places; `ports` are those of devices that are to be reached.
    ///
    /// # Errors
    /// When the emulator does not start.
    pub fn new(sockets: usize, ports: &[(Ipv4Addr, u16)]) -> Result<Self> {
        let dir = RunDir::new("segment")?;
        let mut ends: Vec<Ends> = (0..=sockets)
            .map(|n| Ends {
                relay: dir.path().join(format!("switch-{n}")),
                peer: dir.path().join(format!("place-{n}")),
            })
            .collect();
        let reached =
            ports.iter().map(|(address, port)| Ok(Reached { address: *address, port: *port, host: ports::free()? }));
        let reached: Vec<Reached> = reached.collect::<Result<_>>()?;
        let switch = Switch::start(&ends)?;
        let gateway = ends.pop().context("find a place for the gateway")?;
        let program = args::program(Arch::host()?);
        let log = dir.path().join("segment.log");
        let process = Process::start("a segment", Path::new(program), &argv(&gateway, &reached), &log)?;
        wait::until("the segment to listen", Duration::from_secs(20), || {
            process.check()?;
            Ok(gateway.peer.exists().then_some(()))
        })?;
        Ok(Segment { process, _switch: switch, ends, reached, _dir: dir })
    }

    /// What a device is plugged into, by the number of its place.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn socket(&self, number: usize) -> Result<Link> {
        self.process.check()?;
        self.ends.get(number).map(|ends| Link::Relay(ends.clone())).context("find a free place on the segment")
    }

    /// `127.0.0.1:PORT` behind which this port of a device is.
    ///
    /// # Errors
    /// When it is not one of those that were asked for.
    pub fn reach(&self, address: Ipv4Addr, port: u16) -> Result<String> {
        let found = self.reached.iter().find(|r| (r.address, r.port) == (address, port));
        found
            .map(|r| format!("127.0.0.1:{}", r.host))
            .with_context(|| format!("reach {address}:{port}: it is not forwarded"))
    }
}

/// Arguments of the emulator that is the user network.
fn argv(gateway: &Ends, reached: &[Reached]) -> Vec<String> {
    let words = ["-no-user-config", "-nodefaults", "-display", "none", "-machine", "none"];
    let mut list = words.map(str::to_owned).to_vec();
    let forward = |r: &Reached| format!(",hostfwd=tcp:127.0.0.1:{}-{}:{}", r.host, r.address, r.port);
    let user = format!("user,id=user{}", reached.iter().map(forward).collect::<String>());
    let hub = |name: &str| format!("hubport,id=hub-{name},hubid=0,netdev={name}");
    for netdev in [args::dgram("segment", &gateway.peer, &gateway.relay), user, hub("segment"), hub("user")] {
        list.extend(["-netdev".to_owned(), netdev]);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_emulator_is_a_gateway_and_forwards_ports() {
        let gateway = Ends { relay: "/run/switch-2".into(), peer: "/run/place-2".into() };
        let reached = [Reached { address: Ipv4Addr::new(10, 0, 2, 21), port: 6443, host: 20001 }];
        let want = "-no-user-config -nodefaults -display none -machine none -netdev \
            dgram,id=segment,local.type=unix,local.path=/run/place-2,remote.type=unix,remote.path=/run/switch-2 -netdev \
            user,id=user,hostfwd=tcp:127.0.0.1:20001-10.0.2.21:6443 -netdev hubport,id=hub-segment,hubid=0,netdev=segment \
            -netdev hubport,id=hub-user,hubid=0,netdev=user";
        assert_eq!(argv(&gateway, &reached).join(" "), want);
    }
}
