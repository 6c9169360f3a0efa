// SPDX-License-Identifier: Apache-2.0
//! Links under test: what is between an emulated device and its network.
//!
//! device (QEMU) — local datagram socket — relay — local datagram socket — far end (QEMU) — network
//!
//! The relay loses, delays and tags frames, because a build machine's kernel may not be able to (netem, 802.1Q). The
//! network is QEMU's own, or a router of ours in a namespace; both lead to the build machine's loopback, where the
//! control plane listens. Nothing is configured outside that namespace, and nothing is left behind.

pub mod conditions;
pub mod frame;
pub mod namespace;
pub mod relay;
pub mod router;
pub mod segment;
pub mod site;
pub mod switch;
pub mod tap_bridge;
pub mod vrrp;

use crate::args;
use crate::process::Process;
use crate::run_dir::RunDir;
use anyhow::Result;
use conditions::Conditions;
use relay::{Counts, Ends, Relay};
use router::{Lan, Router};
use tap_bridge::Side;

/// A link with its network, as a guard. It has to outlive the device on it.
pub struct Link {
    // Order matters: the ends are gone before the relay, and all before their directory.
    router: Option<Router>,
    _far_end: Option<Process>,
    relay: Relay,
    device: Ends,
    dir: RunDir,
}

impl Link {
    /// A link to QEMU's user network: DHCP, and the build machine's loopback behind 10.0.2.2.
    pub fn to_user(conditions: Conditions) -> Result<Self> {
        let mut link = Link::new(conditions)?;
        let ends = link.network_ends();
        let log = link.dir.path().join("far-end.log");
        link._far_end = Some(tap_bridge::start(&ends, Side::User, &log, Process::start)?);
        Ok(link)
    }

    /// A link to a router of ours; see [`Router`].
    ///
    /// # Errors
    /// When this machine does not allow namespaces or tap interfaces, or lacks a program.
    pub fn to_router(conditions: Conditions, lan: Lan) -> Result<Self> {
        let mut link = Link::new(conditions)?;
        link.router = Some(Router::start(link.dir.path(), &link.network_ends(), lan)?);
        Ok(link)
    }

    fn new(conditions: Conditions) -> Result<Self> {
        let dir = RunDir::new("link")?;
        let at = |name: &str| dir.path().join(name);
        let device = Ends { relay: at("near-relay"), peer: at("near") };
        let network = Ends { relay: at("far-relay"), peer: at("far") };
        let relay = Relay::start(&device, &network, conditions)?;
        Ok(Link { router: None, _far_end: None, relay, device, dir })
    }

    fn network_ends(&self) -> Ends {
        Ends { relay: self.dir.path().join("far-relay"), peer: self.dir.path().join("far") }
    }

    /// Where an emulated device is plugged in.
    pub fn socket(&self) -> args::Link {
        args::Link::Relay(self.device.clone())
    }

    /// Where anything else is plugged in that speaks Ethernet over datagrams, such as a [`tap_bridge`].
    pub fn device_ends(&self) -> &Ends {
        &self.device
    }

    /// What happened to the frames so far.
    pub fn counts(&self) -> Counts {
        self.relay.counts()
    }

    /// The router at its other end, where there is one.
    pub fn router(&self) -> Option<&Router> {
        self.router.as_ref()
    }
}
