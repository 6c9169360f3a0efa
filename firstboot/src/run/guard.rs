// SPDX-License-Identifier: Apache-2.0
//! What runs at every boot before any link is up, and before the runtime and kubelet: quick, without any network.
//!
//! It applies the packet filter, lays the clock floor, so that nothing looks at a certificate in 1970, puts back torn
//! files of a sealed node, and removes what kubelet made and a power cut has torn.

use crate::fault::{Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::image::ImageInfo;
use crate::node::{kubelet_serving_cert, repair};
use crate::{clock, firewall};

/// Guards one boot. What fails of one duty does not keep the others from being done.
///
/// # Errors
/// A host fault when there is no packet filter, the clock cannot be set or a torn file cannot be put back or removed, an
/// image fault without a description of the image.
pub fn guard(host: &Host) -> Result<(), Fault> {
    let filter = firewall::guard(host).owned_by(Owner::Host);
    let clock = || clock::lay(host, &ImageInfo::read(host)?).owned_by(Owner::Host);
    let clock = clock();
    let torn = if host.journal().sealed() { repair::mend(host).map(drop).owned_by(Owner::Host) } else { Ok(()) };
    // kubelet may have started before the device was sealed. What a reset goes on to remove is its own.
    let being_reset = host.journal().resetting().is_some();
    let serving =
        if being_reset { Ok(()) } else { kubelet_serving_cert::remove_torn(host).map(drop).owned_by(Owner::Host) };
    filter.and(clock).and(torn).and(serving)
}
