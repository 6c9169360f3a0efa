// SPDX-License-Identifier: Apache-2.0
//! The pods' network: the cluster's own where it brings one, otherwise a bridge with the addresses that the cluster
//! gave this node.
//!
//! The addresses exist only once kubelet has registered the node, so this comes after kubelet. Our file's name sorts
//! behind those that DaemonSets write, so that theirs is taken as soon as it is there.

use super::context::PhaseContext;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::node::client::node_client;
use crate::offline::ipam::{DELEGATE, IPAM};
use crate::paths::{CNI_CONF, CNI_IPAM, PROGRAM};
use crate::seed::Cni;
use anyhow::Result;
use serde_json::{Value, json};
use std::time::Duration;

const FILE: &str = "/etc/cni/net.d/99-firstboot.conflist";
/// How long a try waits for addresses before it looks whether a pod of the cluster brings the network.
const STEP: Duration = Duration::from_secs(10);
const STEPS: u32 = 12;

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    if cx.seed.node.cni == Cni::None {
        return Ok(true);
    }
    if !holds_addresses(&cx.host, cx.seed.node.offline).owned_by(Owner::Host)? {
        return Ok(false);
    }
    let names = cx.host.list(CNI_CONF).owned_by(Owner::Host)?;
    if names.iter().any(|n| is_configuration(n)) {
        return Ok(true);
    }
    // Nothing yet: right only while a pod that brings it is on its way.
    Ok(cx.seed.node.cni == Cni::Auto && node_client(&cx.host)?.cni_pod()?.is_some())
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    let cni = cx.seed.node.cni;
    if cni == Cni::None {
        return Ok(());
    }
    let client = node_client(&cx.host)?;
    if cx.seed.create().is_some() && cni == Cni::Auto {
        // The phase `create` deployed one, and its pod is on its way.
        let pod = || Ok(client.cni_pod().ok().flatten());
        let waited = cx.host.wait(STEP * STEPS, Duration::from_secs(1), pod).owned_by(Owner::Host)?;
        let none = || Fault::new(Code::NodeNotReady, "wait for flannel's pod on this node: none is scheduled yet");
        return waited.map(drop).ok_or_else(none);
    }
    let mut last = None;
    for _ in 0..STEPS {
        let cidrs = client.wait_pod_cidrs(STEP);
        if cni == Cni::Auto && client.cni_pod()?.is_some() {
            return Ok(());
        }
        match cidrs {
            Ok(cidrs) => {
                return put(&cx.host, &cidrs, cx.seed.node.offline).owned_by(Owner::Host);
            }
            Err(fault) => last = Some(fault),
        }
    }
    Err(last.unwrap_or_else(|| Fault::new(Code::NoPodCidr, "wait for the node's podCIDR")))
}

/// Whether our file, where there is one, hands out addresses as the seed's `offline` says.
fn holds_addresses(host: &Host, offline: bool) -> Result<bool> {
    let Some(text) = host.read_text(FILE)? else { return Ok(true) };
    Ok(text.contains(IPAM) == offline && host.read_link(CNI_IPAM)?.is_some() == offline)
}

/// Writes our configuration. With `offline`, pods keep their addresses over a reboot.
fn put(host: &Host, cidrs: &[String], offline: bool) -> Result<()> {
    // The plugin is there before what names it, and goes after that.
    if offline {
        host.symlink(CNI_IPAM, PROGRAM)?;
    }
    let text = format!("{:#}\n", conflist(cidrs, if offline { IPAM } else { DELEGATE }));
    host.write(FILE, text.as_bytes(), 0o644)?;
    if !offline && host.read_link(CNI_IPAM)?.is_some() {
        host.remove(CNI_IPAM)?;
    }
    Ok(())
}

/// Removes the configuration that firstboot wrote, once the cluster's own is beside it.
///
/// The runtime prefers the other already, by its name; but an unused file misleads a person who looks for the
/// network's configuration.
///
/// # Errors
/// When the directory cannot be read or the file not be removed.
pub fn withdraw(host: &Host) -> Result<()> {
    let names = host.list(CNI_CONF)?;
    let ours = FILE.rsplit('/').next().unwrap_or_default();
    if names.iter().any(|n| n == ours) && names.iter().any(|n| n != ours && is_configuration(n)) {
        host.remove(FILE)?;
    }
    Ok(())
}

fn is_configuration(name: &str) -> bool {
    [".conflist", ".conf", ".json"].iter().any(|end| name.ends_with(end))
}

/// Bridge with host-local addresses and host ports, rules in nftables (CNI plugins ≥ 1.6).
fn conflist(cidrs: &[String], ipam: &str) -> Value {
    let ranges: Vec<Value> = cidrs.iter().map(|c| json!([{ "subnet": c }])).collect();
    let routes: Vec<Value> =
        cidrs.iter().map(|c| json!({ "dst": if c.contains(':') { "::/0" } else { "0.0.0.0/0" } })).collect();
    json!({
        "cniVersion": "1.0.0",
        "name": "firstboot",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "hairpinMode": true,
                "ipMasq": true,
                "ipMasqBackend": "nftables",
                "ipam": { "type": ipam, "ranges": ranges, "routes": routes },
            },
            { "type": "portmap", "backend": "nftables", "capabilities": { "portMappings": true } },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clusters_own_network_takes_the_place_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(crate::host::fake::Fake::new().0)).unwrap();
        host.write(FILE, b"{}", 0o644).unwrap();
        host.write("/etc/cni/net.d/README", b"", 0o644).unwrap();
        withdraw(&host).unwrap();
        assert_eq!(host.list(CNI_CONF).unwrap(), ["99-firstboot.conflist", "README"]);
        host.write("/etc/cni/net.d/10-flannel.conflist", b"{}", 0o644).unwrap();
        withdraw(&host).unwrap();
        assert_eq!(host.list(CNI_CONF).unwrap(), ["10-flannel.conflist", "README"]);
        withdraw(&host).unwrap();
    }

    #[test]
    fn pods_keep_their_addresses_where_the_seed_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(crate::host::fake::Fake::new().0)).unwrap();
        let cidrs = ["10.244.1.0/24".to_owned()];
        let state = || {
            let list: Value = serde_json::from_slice(&host.read(FILE).unwrap().unwrap()).unwrap();
            let by = list["plugins"][0]["ipam"]["type"].as_str().unwrap().to_owned();
            (by, host.read_link(CNI_IPAM).unwrap())
        };
        assert!(holds_addresses(&host, true).unwrap(), "the cluster's own network is not ours");
        put(&host, &cidrs, false).unwrap();
        assert_eq!(state(), ("host-local".to_owned(), None));
        assert!(holds_addresses(&host, false).unwrap() && !holds_addresses(&host, true).unwrap());
        put(&host, &cidrs, true).unwrap();
        assert_eq!(state(), ("firstboot-ipam".to_owned(), Some("/usr/bin/firstboot".to_owned())));
        assert!(holds_addresses(&host, true).unwrap() && !holds_addresses(&host, false).unwrap());
        put(&host, &cidrs, false).unwrap();
        assert_eq!(state(), ("host-local".to_owned(), None));
    }

    #[test]
    fn both_families_get_a_range_and_a_route() {
        let list = conflist(&["10.244.1.0/24".into(), "fd00:1::/64".into()], DELEGATE);
        let ipam = &list["plugins"][0]["ipam"];
        assert_eq!(ipam["ranges"], json!([[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fd00:1::/64" }]]));
        assert_eq!(ipam["routes"], json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]));
    }
}
