// SPDX-License-Identifier: Apache-2.0
//! The other control planes of this device's cluster.

use super::{card, is_control_plane};
use crate::fault::{Fault, Owner};
use crate::host::Host;
use crate::journal::facts::Fact;
use std::time::Duration;

/// How long the API may be away after a boot: all control planes may have lost their power at once, and etcd begins when
/// most of them are there again.
pub const BOOT: Duration = Duration::from_secs(20 * 60);
/// How long it may be away otherwise.
pub const BUSY: Duration = Duration::from_secs(2 * 60);
const INTERVAL: Duration = Duration::from_secs(5);

/// Whether this device runs an API server of its cluster, and no other control plane of it is known to answer: a reset would
/// end the cluster. The cluster is asked until it says so, for `patience`.
pub fn is_last(host: &Host, patience: Duration) -> bool {
    if !is_control_plane(host) {
        return false;
    }
    let own = host.journal().fact(Fact::Node).unwrap_or_default().to_owned();
    let until = host.sys().uptime() + patience;
    let mut waits = false;
    loop {
        let known = known(&own, &card::admin_client(host).and_then(|client| client.control_planes()));
        if let Some(others) = known {
            return !others;
        }
        if host.sys().uptime() >= until {
            return true;
        }
        if !waits {
            host.sys().say("firstboot: this control plane waits for its cluster, which has to name the others");
            waits = true;
        }
        host.sys().sleep(INTERVAL);
    }
}

/// Whether another control plane is there, by what the cluster answers; none where it may answer otherwise soon: it is
/// silent, or another one is not Ready, as after a power cut of all.
fn known(own: &str, answer: &Result<Vec<(String, bool)>, Fault>) -> Option<bool> {
    match answer {
        Ok(nodes) => {
            let others = || nodes.iter().filter(|(name, _)| name != own);
            match others().next() {
                None => Some(false),
                Some(_) => others().any(|(_, ready)| *ready).then_some(true),
            }
        }
        Err(fault) if fault.owner() == Owner::Cluster => None,
        // Without kubeadm's kubeconfig none can be asked.
        Err(_) => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Code;
    use crate::host::fake::Fake;

    #[test]
    fn where_none_is_known_to_answer_it_is_the_last_one() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        assert!(!is_last(&host, BOOT), "a node ends no cluster");
        host.note(Fact::ControlPlaneJoined, "true").unwrap();
        assert!(is_last(&host, BOOT));
    }

    #[test]
    fn a_cluster_that_is_silent_or_not_whole_yet_is_asked_again() {
        let nodes =
            |ready: &[(&str, bool)]| Ok(ready.iter().map(|(name, ready)| ((*name).to_owned(), *ready)).collect());
        assert_eq!(known("a", &nodes(&[("a", true)])), Some(false));
        assert_eq!(known("a", &nodes(&[("a", false), ("b", true), ("c", false)])), Some(true));
        assert_eq!(known("a", &nodes(&[("a", true), ("b", false)])), None);
        assert_eq!(known("a", &Err(Fault::new(Code::Cluster, "no answer in time"))), None);
        assert_eq!(known("a", &Err(Fault::new(Code::NodeCredential, "find admin.conf"))), Some(false));
    }
}
