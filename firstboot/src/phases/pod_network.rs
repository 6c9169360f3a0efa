// SPDX-License-Identifier: Apache-2.0
//! The pods' network: the cluster's own where it brings one, otherwise a bridge with the addresses that the cluster
//! gave this node.
//!
//! The addresses exist only once kubelet has registered the node, so this comes after kubelet. Our file's name sorts
//! behind those that DaemonSets write, so that theirs is taken as soon as it is there.

use super::Cx;
use super::join::client;
use crate::fault::{Fault, OwnedBy, Owner};
use crate::seed::Cni;
use serde_json::{Value, json};
use std::time::Duration;

const FOLDER: &str = "/etc/cni/net.d";
const FILE: &str = "/etc/cni/net.d/99-firstboot.conflist";
/// How long a try waits for addresses before it looks whether a pod of the cluster brings the network.
const STEP: Duration = Duration::from_secs(10);
const STEPS: u32 = 12;

pub(super) fn check(cx: &Cx) -> Result<bool, Fault> {
    if cx.seed.node.cni == Cni::None {
        return Ok(true);
    }
    let names = cx.host.list(FOLDER).owned_by(Owner::Host)?;
    if names.iter().any(|n| n.ends_with(".conflist") || n.ends_with(".conf")) {
        return Ok(true);
    }
    // Nothing yet: right only while a pod that brings it is on its way.
    Ok(cx.seed.node.cni == Cni::Auto && client(cx)?.cni_pod()?.is_some())
}

pub(super) fn apply(cx: &Cx) -> Result<(), Fault> {
    let cni = cx.seed.node.cni;
    if cni == Cni::None {
        return Ok(());
    }
    let client = client(cx)?;
    let mut last = None;
    for _ in 0..STEPS {
        let cidrs = client.wait_pod_cidrs(STEP);
        if cni == Cni::Auto && client.cni_pod()?.is_some() {
            return Ok(());
        }
        match cidrs {
            Ok(cidrs) => {
                let text = format!("{:#}\n", conflist(&cidrs));
                return cx.host.write(FILE, text.as_bytes(), 0o644).owned_by(Owner::Host);
            }
            Err(fault) => last = Some(fault),
        }
    }
    Err(last.unwrap_or_else(|| Fault::new(Owner::Cluster, "wait for the node's podCIDR")))
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
                "ipam": { "type": "host-local", "ranges": ranges, "routes": routes },
            },
            { "type": "portmap", "backend": "nftables", "capabilities": { "portMappings": true } },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_get_a_range_and_a_route() {
        let list = conflist(&["10.244.1.0/24".into(), "fd00:1::/64".into()]);
        let ipam = &list["plugins"][0]["ipam"];
        assert_eq!(ipam["ranges"], json!([[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fd00:1::/64" }]]));
        assert_eq!(ipam["routes"], json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]));
    }
}
