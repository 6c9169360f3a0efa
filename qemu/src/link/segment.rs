// SPDX-License-Identifier: Apache-2.0
//! An Ethernet segment for several devices: each reaches the others, and all share QEMU's user network, with its gateway
//! 10.0.2.2, its DHCP server, and ports of the devices on the build machine's loopback.
//!
//! It is a [`Switch`] of ours, and at one of its places an emulator without a machine, as the far end of a [`super::Link`]
//! is. It needs no privileges.

use super::relay::Ends;
use super::switch::Switch;
use super::tap_bridge::{self, Side};
use super::vrrp::Claim;
use crate::args::Link;
use crate::ports;
use crate::process::Process;
use crate::run_dir::RunDir;
use anyhow::{Context, Result};
use std::net::Ipv4Addr;

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
    switch: Switch,
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
        let log = dir.path().join("segment.log");
        let process = tap_bridge::start(&gateway, Side::Forwarding(&reached), &log, Process::start)?;
        Ok(Segment { process, switch, ends, reached, _dir: dir })
    }

    /// What a device is plugged into, by the number of its place.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn socket(&self, number: usize) -> Result<Link> {
        self.process.check()?;
        self.ends.get(number).map(|ends| Link::Relay(ends.clone())).context("find a free place on the segment")
    }

    /// Which places have claimed a virtual address, and when.
    pub fn claims(&self) -> Vec<Claim> {
        self.switch.claims()
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
