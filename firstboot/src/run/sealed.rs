// SPDX-License-Identifier: Apache-2.0
//! A sealed device at a later boot: its clock first, then, by that clock, what its credential is worth.
//!
//! A clock two years ahead makes a good certificate look expired, and one that stopped makes an expired one look good. So
//! no new seed is asked for, and none is taken, before the cluster's clock was asked for minutes. NTP is not
//! authenticated: that a certificate has expired is known only by a verified time. Until then the status says so, and
//! the device goes on asking.

use crate::backoff::backoff;
use crate::clock;
use crate::fault::{Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::image::ImageInfo;
use crate::node::credential::{Credential, repaired};
use crate::phases::pod_network::withdraw;
use std::time::{Duration, SystemTime};

/// How long after a boot the link and the cluster may take before the expired certificate is reported.
const GRACE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_secs(1);

/// A device that was a node, and whose credential is unusable.
pub(crate) struct LostCredential {
    /// Why, one line.
    pub(crate) why: String,
    /// When its certificate expired by this device's clock, if that is why.
    expired: Option<SystemTime>,
    /// Whether there is nothing more to learn about the time.
    asked: bool,
    tries: u32,
    next: Duration,
}

/// Sees to the clock of a sealed device; `None` when it is a node and stays one. `refuse` is called with the end of a
/// good certificate, before the clock, which may take its time: `beside` is called meanwhile, again and again.
///
/// # Errors
/// A host fault when kubelet's files cannot be read.
pub(crate) fn look_after(
    host: &Host,
    image: &ImageInfo,
    refuse: &dyn Fn(SystemTime) -> Result<(), Fault>,
    beside: &mut dyn FnMut(),
) -> Result<Option<LostCredential>, Fault> {
    let mut lost = LostCredential { why: String::new(), expired: None, asked: false, tries: 0, next: Duration::ZERO };
    if let Credential::Usable { until } = repaired(host).owned_by(Owner::Host)? {
        withdraw(host).owned_by(Owner::Host)?;
        refuse(until)?;
        clock::compare_with(host, image, beside)?;
        lost.asked = true;
    }
    let until = host.sys().uptime() + GRACE;
    loop {
        if lost.regained(host, image)? {
            return Ok(None);
        }
        if lost.asked || host.sys().uptime() >= until {
            return Ok(Some(lost));
        }
        host.sys().sleep(LOOK);
    }
}

impl LostCredential {
    /// Whether the credential is good after all. Asks the cluster for its time until it has answered once.
    pub(crate) fn regained(&mut self, host: &Host, image: &ImageInfo) -> Result<bool, Fault> {
        let now = host.sys().uptime();
        if !self.asked && now >= self.next {
            match clock::once(host, image) {
                Ok(by) => {
                    clock::report_change(host, by);
                    self.asked = true;
                }
                Err(fault) if fault.owner() == Owner::Cluster => {
                    self.next = now + backoff(self.tries, host.sys().random());
                    self.tries += 1;
                }
                // Without kubelet.conf or CA there is no server to ask.
                Err(_) => self.asked = true,
            }
        }
        match repaired(host).owned_by(Owner::Host)? {
            Credential::Usable { .. } => Ok(true),
            Credential::Unusable { why, expired } => {
                (self.why, self.expired) = (why, expired);
                Ok(false)
            }
        }
    }

    /// What this device needs, one line.
    pub(super) fn needs(&self, host: &Host, image: &ImageInfo) -> String {
        // What was verified last is on record, and no time before it can be right.
        let verified = |end: SystemTime| clock::floor(host, image).is_ok_and(|floor| end < floor);
        let why = &self.why;
        match self.expired.is_none_or(verified) {
            true => format!("{why}; this node needs a new seed to join again, its workload's data is kept"),
            false => format!(
                "{why} by this device's clock, which its cluster has not confirmed: it goes on asking; where the clock is \
                 right, this node needs a new seed of its cluster to join again, its workload's data is kept"
            ),
        }
    }
}
