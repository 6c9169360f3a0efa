// SPDX-License-Identifier: Apache-2.0
//! The real machine: its devices, its clock and its news.

use anyhow::{Context, Result};
use initrd::console::say;
use initrd::disks::Machine;
use initrd::modules::{Devices, Loader};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use std::path::PathBuf;
use std::time::Duration;

/// Drivers of disks that ask for them by name only, where an image's kernel has no alias for them.
const BY_NAME: [&str; 2] = ["sd_mod", "mmc_block"];

/// What process 1 sees.
pub struct Pid1 {
    loader: Loader,
    devices: Devices,
    /// The kernel's news of devices.
    events: OwnedFd,
}

impl Pid1 {
    /// Listens to the kernel before it looks for the first time, so that no device is missed.
    ///
    /// # Errors
    /// When the kernel has no socket for news.
    pub fn new(mut loader: Loader) -> Result<Pid1> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let events = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT));
        let events = events.context("listen to the kernel")?;
        bind(&events, &SocketAddrNetlink::new(0, 1)).context("listen to the kernel")?;
        BY_NAME.iter().for_each(|module| loader.load(module));
        Ok(Pid1 { loader, devices: Devices::default(), events })
    }

    /// Modules that the kernel refused, in words.
    pub fn refused(&self) -> Vec<String> {
        self.loader.refused.iter().map(|module| format!("cannot load {module}")).collect()
    }
}

impl Machine for Pid1 {
    fn sys(&self) -> PathBuf {
        "/sys".into()
    }

    fn dev(&self) -> PathBuf {
        "/dev".into()
    }

    fn now(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
    }

    fn load_drivers(&mut self) -> bool {
        let new = self.devices.new_aliases(&self.sys());
        new.iter().for_each(|alias| self.loader.load_alias(alias));
        !new.is_empty()
    }

    fn wait(&mut self, most: Duration) {
        let timeout = Timespec { tv_sec: most.as_secs() as _, tv_nsec: most.subsec_nanos().into() };
        // An error is as good as news: the caller looks again.
        let _ = poll(&mut [PollFd::new(&self.events, PollFlags::IN)], Some(&timeout));
        // What it says does not matter, and what is lost because there was too much neither.
        let mut buffer = [0u8; 8192];
        while recv(&self.events, &mut buffer[..], RecvFlags::empty()).is_ok() {}
    }

    fn say(&mut self, line: &str) {
        say(line);
    }
}
