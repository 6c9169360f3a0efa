// SPDX-License-Identifier: Apache-2.0
//! The other control planes of this device's cluster.

use super::{etcd, is_control_plane};
use crate::fault::Owner;
use crate::host::Host;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// How long the API may be away after a boot: all control planes may have lost their power at once, and etcd begins when
/// most of them are there again.
pub const BOOT: Duration = Duration::from_secs(20 * 60);
/// How long it may be away otherwise.
pub const BUSY: Duration = Duration::from_secs(2 * 60);
/// Between two questions.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// Whether this device runs an API server of its cluster, and etcd has no other member that votes: a reset would end the
/// cluster. etcd is asked until it says so, for `patience`; where it does not, this one is taken for the last.
pub fn is_last(host: &Host, servers: &BTreeSet<IpAddr>, patience: Duration) -> bool {
    if !is_control_plane(host) {
        return false;
    }
    let until = host.sys().uptime() + patience;
    let mut waits = false;
    loop {
        match etcd::other_voters(host, servers) {
            Ok(others) => return others == 0,
            // It may answer soon: after a power cut of all, etcd waits for the others.
            Err(fault) if fault.owner() == Owner::Cluster && host.sys().uptime() < until => {}
            Err(_) => return true,
        }
        if !waits {
            host.sys().say("firstboot: this control plane waits for etcd, which has to name the others");
            waits = true;
        }
        host.sys().sleep(INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;
    use crate::journal::facts::Fact;

    #[test]
    fn where_none_is_known_to_answer_it_is_the_last_one() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        let none = BTreeSet::new();
        assert!(!is_last(&host, &none, BOOT), "a node ends no cluster");
        host.note(Fact::ControlPlaneJoined, "true").unwrap();
        assert!(is_last(&host, &none, BOOT));
    }
}
