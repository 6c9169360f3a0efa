// SPDX-License-Identifier: Apache-2.0
//! The packet filter: an nftables table of its own that lets nothing in but what a node needs and what the seed opens.
//!
//! [`render`] says what the table is, [`peers`] what it has to know of the cluster, [`discover_peers`] finds that out;
//! [`mod@audit`] and [`host_ports`] read back. `firstboot guard` applies it at every boot before any link is up, the phase
//! `harden` when a seed says more. Tables of others (kube-proxy, CNI plugins) are neither read for a decision nor
//! changed. Reasons: docs/hardening.md, Firewall.

pub(crate) mod audit;
pub mod discover_peers;
pub mod host_ports;
pub mod peers;
pub mod render;

use crate::harden::overrides::SeedOverrides;
use crate::host::Host;
use crate::seed::Seed;
use anyhow::{Context, Result};
use peers::Known;

/// Where an image says which of the kernel's modules the table needs (modules-load.d(5)).
pub const MODULES_FILE: &str = "/usr/lib/modules-load.d/firstboot-firewall.conf";
/// What stands there. The kernel would load them one by one, each by a program of its own, while the guard waits and with it
/// everything that comes after.
pub const MODULES: &str =
    "# Written by firstboot: the packet filter's.\nnft_ct\nnft_fib_inet\nnft_limit\nnft_log\nnf_log_syslog\n";

/// Whether what a seed says is kept for the guard.
pub(crate) fn holds(host: &Host, seed: &Seed) -> Result<bool> {
    let known = Known::read(host)?;
    Ok(Known::of_seed(seed, known.clone()) == known)
}

/// Keeps what a seed says of the cluster and applies it, together with what is kept of `[harden]` and `[access]`.
pub(crate) fn put(host: &Host, seed: &Seed) -> Result<()> {
    Known::of_seed(seed, Known::read(host)?).keep(host)?;
    apply(host)
}

/// Applies what is kept on this device, in one transaction: connections that exist go on.
///
/// # Errors
/// When what is kept cannot be read, or nft refuses it; then the table is as it was before.
pub fn apply(host: &Host) -> Result<()> {
    load(host, &render::rules(&SeedOverrides::read(host)?, &Known::read(host)?))
}

/// What the guard does at every boot. Where the seed's own openings cannot be applied, nothing is opened instead: the
/// device then still reaches its cluster, and nobody reaches the device.
///
/// # Errors
/// When not even that can be applied. No link comes up then (firstboot-guard.conf of systemd-networkd).
pub(crate) fn guard(host: &Host) -> Result<()> {
    let Err(error) = apply(host) else { return Ok(()) };
    host.sys()
        .say(&format!("firstboot: the seed's exceptions are not in the packet filter: {error:#}; nothing is open"));
    let closed = load(host, &render::rules(&SeedOverrides::default(), &Known::default()));
    closed.inspect_err(|_| host.sys().say("firstboot: no packet filter, so no network; flash the image again"))
}

fn load(host: &Host, rules: &str) -> Result<()> {
    host.feed(&["nft", "-f", "-"], &mut rules.as_bytes()).map(drop).context("load the packet filter")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harden::overrides::OVERRIDES_FILE;
    use crate::host::fake::{Fake, Seen};
    use std::cell::Cell;
    use std::rc::Rc;

    /// A device whose nft fails the first `failures` times.
    fn device(dir: &std::path::Path, failures: u32) -> (Host, Rc<Seen>) {
        let (fake, seen) = Fake::new();
        let left = Cell::new(failures);
        let fake = fake.answering(move |argv| {
            let fails = argv[0] == "nft" && left.get() > 0;
            left.set(left.get().saturating_sub(1));
            fails.then(|| anyhow::bail!("run nft -f -: exit status: 1: syntax error"))
        });
        (Host::open(dir, Box::new(fake)).unwrap(), seen)
    }

    #[test]
    fn a_filter_that_is_refused_leaves_the_device_closed_and_none_leaves_it_without_network() {
        let dir = tempfile::tempdir().unwrap();
        let (host, seen) = device(dir.path(), 0);
        guard(&host).unwrap();
        assert_eq!((seen.commands.take(), seen.lines.take()), (vec!["nft -f -".to_owned()], vec![]));
        let (host, seen) = device(dir.path(), 1);
        guard(&host).unwrap();
        assert_eq!(seen.commands.take(), ["nft -f -", "nft -f -"]);
        assert_eq!(
            seen.lines.take(),
            [
                "firstboot: the seed's exceptions are not in the packet filter: load the packet filter: run nft -f -: exit \
              status: 1: syntax error; nothing is open"
            ]
        );
        let (host, seen) = device(dir.path(), 2);
        let error = guard(&host).unwrap_err();
        assert_eq!(format!("{error:#}"), "load the packet filter: run nft -f -: exit status: 1: syntax error");
        assert_eq!(seen.lines.take()[1], "firstboot: no packet filter, so no network; flash the image again");
    }

    #[test]
    fn a_torn_list_of_exceptions_opens_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (host, seen) = device(dir.path(), 0);
        host.write(OVERRIDES_FILE, b"{\"harden\":", 0o644).unwrap();
        guard(&host).unwrap();
        // Only the second, closed one reached nft.
        assert_eq!(seen.commands.take(), ["nft -f -"]);
        assert!(seen.lines.take()[0].contains("read /etc/firstboot/harden.json"));
    }
}
