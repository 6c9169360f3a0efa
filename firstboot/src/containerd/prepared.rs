// SPDX-License-Identifier: Apache-2.0
//! containerd's state as the bundle brings it, put in place before containerd starts: it knows the bundle's images, and
//! containerd.service mounts their layers, which are in the image, where its snapshots are. So nothing is imported, unpacked or
//! pulled, at the first boot as after damage and after a reset.
//!
//! Which layer belongs to which snapshot is in the state itself (`layers.fstab`), not in the image: with another image, a
//! layer that is not there any more leaves its snapshot empty, and no other one takes its place.
//!
//! What is each device's own, containerd makes itself: its UUID, and the directories of what runs.

use crate::bundle::BUNDLE_DIR;
use crate::host::Host;
use crate::paths::CONTAINERD_ROOT;
use anyhow::Result;

/// Where the bundle has it.
pub(crate) fn template() -> String {
    format!("{BUNDLE_DIR}/containerd")
}

/// Puts it in place where containerd has no state. Whether it was: not in an image without a bundle, and not on a device that
/// is being reset.
///
/// Call it only while containerd does not run. From an empty directory containerd would begin without any image.
///
/// # Errors
/// When the bundle cannot be read or the directory cannot be written.
pub fn place(host: &Host) -> Result<bool> {
    Ok(host.journal().resetting().is_none() && host.copy_tree(&template(), CONTAINERD_ROOT)?)
}
