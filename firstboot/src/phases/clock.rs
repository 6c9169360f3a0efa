// SPDX-License-Identifier: Apache-2.0
//! The clock before the join: not below the floor, and the NTP servers set.
//!
//! NTP is a hint, and nothing waits for it: systemd-timesyncd asks the seed's servers and those that DHCP offers whenever a
//! link is there, while the phases go on. The join then takes the time from the verified API server ([`crate::clock`]).

use super::context::PhaseContext;
use crate::clock::{self, NTP_UNIT, has_timesyncd};
use crate::fault::{Fault, OwnedBy, Owner};
use crate::host::Host;
use anyhow::Result;

pub(super) const NTP_FILE: &str = "/etc/systemd/timesyncd.conf.d/50-firstboot.conf";

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    let held = || -> Result<bool> {
        Ok(cx.host.now() >= clock::floor(&cx.host, &cx.image)? && ntp_holds(&cx.host, servers(cx))?)
    };
    held().owned_by(Owner::Host)
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    let work = || -> Result<()> {
        clock::raise_to_floor(&cx.host, &cx.image)?;
        ntp(&cx.host, servers(cx))
    };
    work().owned_by(Owner::Host)
}

/// NTP servers of the seed.
fn servers(cx: &PhaseContext) -> &[String] {
    &cx.seed.time.servers
}

/// Configuration of systemd-timesyncd (timesyncd.conf(5)); none when the seed names no server.
pub(super) fn ntp_file(servers: &[String]) -> Option<String> {
    let list = servers.join(" ");
    (!servers.is_empty()).then(|| format!("# Written by firstboot: [time] servers in the seed.\n[Time]\nNTP={list}\n"))
}

fn ntp_holds(host: &Host, servers: &[String]) -> Result<bool> {
    let found = host.read(NTP_FILE)?;
    Ok(found == ntp_file(servers).map(String::into_bytes))
}

fn ntp(host: &Host, servers: &[String]) -> Result<()> {
    if ntp_holds(host, servers)? {
        return Ok(());
    }
    match ntp_file(servers) {
        Some(text) => host.write(NTP_FILE, text.as_bytes(), 0o644)?,
        // An earlier seed's.
        None => host.remove(NTP_FILE)?,
    }
    // An image of another system may use another NTP client; `preflight` tells (Clock).
    match has_timesyncd(host)? {
        true => host.run(&["systemctl", "--no-block", "try-restart", NTP_UNIT]).map(drop),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;
    use crate::test_files::put_for_tests;

    #[test]
    fn ntp_is_told_the_seeds_servers_once_and_forgets_them_again() {
        let dir = tempfile::tempdir().unwrap();
        let (fake, seen) = Fake::new();
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        let servers = ["ntp1.example".to_owned(), "10.0.0.5".to_owned()];
        ntp(&host, &[]).unwrap();
        assert_eq!((seen.commands.take(), host.read(NTP_FILE).unwrap()), (vec![], None));
        put_for_tests(dir.path(), "usr/lib/systemd/system/systemd-timesyncd.service", "[Service]\n");
        ntp(&host, &servers).unwrap();
        ntp(&host, &servers).unwrap();
        assert_eq!(seen.commands.take(), ["systemctl --no-block try-restart systemd-timesyncd.service"]);
        let text = host.read_text(NTP_FILE).unwrap().unwrap();
        assert!(text.ends_with("[Time]\nNTP=ntp1.example 10.0.0.5"), "{text}");
        assert!(!ntp_holds(&host, &[]).unwrap());
        ntp(&host, &[]).unwrap();
        assert_eq!(host.read(NTP_FILE).unwrap(), None);
    }
}
