// SPDX-License-Identifier: Apache-2.0
//! What the status says of this device besides how far it is: gathered where all parts are known.

use super::confirm;
use crate::boot_report::BootReport;
use crate::containerd::repair;
use crate::harden::overrides::SeedOverrides;
use crate::host::Host;
use crate::journal::facts::Fact;
use crate::node::credential;
use crate::phases::seal::seeds_destroyed;
use crate::report::Facts;
use crate::status::Versions;
use crate::text::unix_seconds;
use crate::versions;

/// This device, asked anew each time. What cannot be read is reported elsewhere (by the run, or by the audit); here it must
/// not keep a status from being written.
pub struct DeviceFacts;

impl Facts for DeviceFacts {
    fn exceptions(&self, host: &Host) -> Vec<String> {
        SeedOverrides::read(host).map(|kept| kept.exceptions()).unwrap_or_default()
    }

    fn versions(&self, host: &Host) -> Versions {
        versions::of_image(host)
    }

    fn seeds_destroyed(&self, host: &Host) -> usize {
        seeds_destroyed(host)
    }

    fn certificate_until(&self, host: &Host) -> Option<u64> {
        credential::end(host).ok().flatten().map(unix_seconds)
    }

    fn warnings(&self, host: &Host) -> Vec<String> {
        let damage = host.journal().fact(Fact::Damage).unwrap_or_default().to_owned();
        let damage = damage.lines().map(|line| format!("Damage: repaired: {line}"));
        let boot = BootReport::read(host).map(|report| report.warnings()).unwrap_or_default();
        repair::warning(host).into_iter().chain(confirm::warning(host)).chain(boot).chain(damage).collect()
    }
}
