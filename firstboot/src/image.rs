// SPDX-License-Identifier: Apache-2.0
//! What the image says of itself: written by `imagebuild`, read on the device, never guessed.

use serde::{Deserialize, Serialize};

/// Where the image keeps its description, seen from the root file system.
pub const IMAGE_INFO: &str = "/usr/lib/firstboot/image.json";

/// Description of an image, baked in when it is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageInfo {
    /// Format of this description; 1.
    pub version: u32,
    /// Name of the target, as in `targets/NAME.toml`.
    pub target: String,
    /// `arm64` or `amd64`.
    pub arch: String,
    /// When the image was built, seconds since 1970-01-01 UTC. No clock on the device may be earlier.
    pub build_time: u64,
    /// Identifies this build: hex of the digest over everything that went into it.
    pub build_id: String,
    /// Volume label of the FAT partition that carries the seed.
    pub boot_label: String,
}
