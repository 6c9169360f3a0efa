// SPDX-License-Identifier: Apache-2.0
//! The packet filter: a separate nftables table that admits only what a node needs and what the seed opens.
//!
//! [`render`] renders the table, [`peers`] stores the cluster's addresses, [`discover_peers`] discovers them;
//! [`mod@audit`] and [`host_ports`] read the kernel's state back. `firstboot guard` applies the table at every boot
//! before any link is up; the phase `harden` applies it when a seed changes it. Foreign tables (kube-proxy, CNI
//! plugins) are neither read for a decision nor changed. Reasons: docs/hardening.md, Firewall.

pub(crate) mod audit;
#[cfg(feature = "device")]
pub mod discover_peers;
pub mod host_ports;
pub mod peers;
pub mod render;

#[cfg(feature = "device")]
use crate::fault::{Code, OwnedBy};
use crate::harden::overrides::SeedOverrides;
use crate::host::Host;
#[cfg(feature = "device")]
use crate::seed::Harden;
use crate::seed::Seed;
use anyhow::{Context, Result};
use peers::ClusterPeers;

/// File of the image that names the kernel modules that the table needs (modules-load.d(5)).
pub const MODULES_FILE: &str = "/usr/lib/modules-load.d/firstboot-firewall.conf";
/// Content of [`MODULES_FILE`]. Without it the kernel would load the modules one by one, each by a separate modprobe
/// process, while the guard and every later unit wait.
pub const MODULES: &str = "# Written by firstboot: the packet filter's.\nnft_chain_nat\nnft_ct\nnft_fib_inet\nnft_limit\nnft_log\nnft_nat\n\
     nft_reject_inet\nnf_log_syslog\n";

/// Whether the stored peers match the seed.
pub(crate) fn is_current(host: &Host, seed: &Seed) -> Result<bool> {
    let peers = ClusterPeers::read(host)?;
    Ok(ClusterPeers::from_seed(seed, peers.clone()) == peers)
}

/// Stores the peers that a seed names and applies the filter, together with the kept overrides of `[harden]` and
/// `[access]`.
#[cfg(feature = "device")]
pub(crate) fn store_and_apply(host: &Host, seed: &Seed) -> Result<()> {
    ClusterPeers::from_seed(seed, ClusterPeers::read(host)?).store(host)?;
    apply(host)
}

/// Applies the peers and overrides stored on this device, in one transaction: existing connections continue.
///
/// # Errors
/// When the stored files cannot be read, or nft rejects the rules; the table is then unchanged.
#[cfg(feature = "device")]
pub fn apply(host: &Host) -> Result<()> {
    let peers = ClusterPeers::known(host);
    load(host, &render::rules(&SeedOverrides::read(host)?, &peers))?;
    // An address of this node: there is a way to it without any route. Without the cache it goes with the next boot.
    let Some(cache) = peers.cache else { return Ok(()) };
    let address = ipnet::IpNet::from(cache).to_string();
    host.run(&["ip", "address", "replace", &address, "dev", "lo"]).map(drop)
}

/// What the guard does at every boot. When the seed's exceptions cannot be applied, a closed filter is loaded instead:
/// the device then still reaches its cluster, and no host reaches the device. An egress list stays in force.
///
/// # Errors
/// When no closed filter can be applied either. No link comes up then (drop-ins 10-firstboot.conf of systemd-networkd and
/// NetworkManager).
#[cfg(feature = "device")]
pub(crate) fn guard(host: &Host) -> Result<()> {
    let Err(fault) = apply(host).coded(Code::PacketFilter) else { return Ok(()) };
    let line =
        format!("the seed's exceptions are not in the packet filter ({}): {fault}; nothing is open", fault.tag());
    host.sys().say(&format!("firstboot: {line}"));
    let (kept, peers) = closed(host);
    // What is wrong may be the peers.
    let loaded = load(host, &render::rules(&kept, &peers));
    let loaded = loaded.or_else(|_| load(host, &render::rules(&kept, &ClusterPeers::default())));
    loaded.inspect_err(|_| {
        let tag = Code::PacketFilter.tag();
        host.sys().say(&format!("firstboot: no packet filter ({tag}), so no network; flash the image again"));
    })
}

/// Nothing but the seed's egress list, by its second copy. Where that is lost as well, only what kubelet.conf says is left:
/// the API server.
#[cfg(feature = "device")]
fn closed(host: &Host) -> (SeedOverrides, ClusterPeers) {
    let peers = ClusterPeers::known(host);
    let harden = Harden { egress: peers.egress.clone(), ..Harden::default() };
    (SeedOverrides { harden, ..SeedOverrides::default() }, peers)
}

fn load(host: &Host, rules: &str) -> Result<()> {
    host.feed(&["nft", "-f", "-"], &mut rules.as_bytes()).map(drop).context("load the packet filter")
}

#[cfg(all(test, feature = "device"))]
mod tests {
    use super::*;
    use crate::harden::overrides::OVERRIDES_FILE;
    use crate::host::fake::{Fake, Recorded};
    use std::cell::Cell;
    use std::rc::Rc;

    /// A device whose nft fails the first `failures` times.
    fn device(dir: &std::path::Path, failures: u32) -> (Host, Rc<Recorded>) {
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
    fn rejected_filter_leaves_the_device_closed_and_a_second_failure_without_network() {
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
                "firstboot: the seed's exceptions are not in the packet filter (host, FB320): load the packet filter: run nft \
                 -f -: exit status: 1: syntax error; nothing is open"
            ]
        );
        // What nft refuses may be the peers: it is asked again without them.
        let (host, seen) = device(dir.path(), 2);
        guard(&host).unwrap();
        assert_eq!(seen.commands.take(), ["nft -f -"; 3]);
        let (host, seen) = device(dir.path(), 3);
        let error = guard(&host).unwrap_err();
        assert_eq!(format!("{error:#}"), "load the packet filter: run nft -f -: exit status: 1: syntax error");
        assert_eq!(
            seen.lines.take()[1],
            "firstboot: no packet filter (host, FB320), so no network; flash the image again"
        );
    }

    #[test]
    fn torn_overrides_file_opens_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (host, seen) = device(dir.path(), 0);
        host.write(OVERRIDES_FILE, b"{\"harden\":", 0o644).unwrap();
        guard(&host).unwrap();
        // Only the second, closed filter reached nft.
        assert_eq!(seen.commands.take(), ["nft -f -"]);
        assert!(seen.lines.take()[0].contains("read /etc/firstboot/harden.json"));
    }
}
