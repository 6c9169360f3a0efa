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
use crate::offline::ipam::HOST_LOCAL;
use crate::paths::CNI_CONF;
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
            Ok(cidrs) => return put(&cx.host, &cidrs).owned_by(Owner::Host),
            Err(fault) => last = Some(fault),
        }
    }
    Err(last.unwrap_or_else(|| Fault::new(Code::NoPodCidr, "wait for the node's podCIDR")))
}

/// Writes our configuration.
fn put(host: &Host, cidrs: &[String]) -> Result<()> {
    host.write(FILE, format!("{:#}\n", conflist(cidrs)).as_bytes(), 0o644)
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
fn conflist(cidrs: &[String]) -> Value {
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
                "ipam": { "type": HOST_LOCAL, "ranges": ranges, "routes": routes },
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
    fn both_families_get_a_range_and_a_route() {
        let list = conflist(&["10.244.1.0/24".into(), "fd00:1::/64".into()]);
        let ipam = &list["plugins"][0]["ipam"];
        assert_eq!(ipam["ranges"], json!([[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fd00:1::/64" }]]));
        assert_eq!(ipam["routes"], json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]));
    }
}
