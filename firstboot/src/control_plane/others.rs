// SPDX-License-Identifier: Apache-2.0
//! The other control planes of this device's cluster.

use super::{card, is_control_plane};
use crate::host::Host;
use crate::journal::facts::Fact;

/// Whether this device runs an API server of its cluster, and no other control plane of it is known to answer: a reset would
/// end the cluster.
pub fn is_last(host: &Host) -> bool {
    if !is_control_plane(host) {
        return false;
    }
    let own = host.journal().fact(Fact::Node).unwrap_or_default().to_owned();
    let others = card::admin_client(host).and_then(|client| client.control_planes());
    !others.is_ok_and(|names| names.iter().any(|name| *name != own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    #[test]
    fn where_none_is_known_to_answer_it_is_the_last_one() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        assert!(!is_last(&host), "a node ends no cluster");
        host.note(Fact::ControlPlaneJoined, "true").unwrap();
        assert!(is_last(&host));
    }
}
