// SPDX-License-Identifier: Apache-2.0
//! What runs at every boot before the runtime and kubelet: quick, without any network.
//!
//! It lays the clock floor, so that nothing looks at a certificate in 1970. (Torn files and the firewall come with
//! later releases; docs/release-notes.md.)

use crate::clock;
use crate::fault::{Fault, OwnedBy, Owner};
use crate::host::Host;
use crate::run::image_info;

/// Guards one boot.
///
/// # Errors
/// An image fault without a description of the image, a host fault when the clock cannot be set.
pub fn guard(host: &Host) -> Result<(), Fault> {
    let image = image_info(host)?;
    clock::lay(host, &image).owned_by(Owner::Host)
}
