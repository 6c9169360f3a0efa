// SPDX-License-Identifier: Apache-2.0
//! What the image says of itself: written by `imagebuild`, read on the device, never guessed.

use crate::fault::{Code, Fault, OwnedBy};
use crate::host::Host;
use anyhow::Context;
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
    /// Lights that tell how far the device is, as the target names them; none in an image that names none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leds: Vec<String>,
}

impl ImageInfo {
    /// Reads what the image says of itself.
    ///
    /// # Errors
    /// An image fault when the description is missing or cannot be read.
    pub fn read(host: &Host) -> Result<Self, Fault> {
        let bytes = host.read_kept(IMAGE_INFO).bytes.with_context(|| format!("find {IMAGE_INFO}"));
        let bytes = bytes.coded(Code::NoImageInfo)?;
        serde_json::from_slice(&bytes).with_context(|| format!("read {IMAGE_INFO}")).coded(Code::NoImageInfo)
    }
}

#[cfg(any(test, feature = "fake"))]
impl ImageInfo {
    /// That of some image, for tests.
    pub fn for_tests() -> Self {
        ImageInfo {
            version: 1,
            target: "generic-amd64".into(),
            arch: "amd64".into(),
            build_time: 1,
            build_id: "test".into(),
            boot_label: "BOOT".into(),
            leds: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_lights_is_written_as_before_and_an_older_one_is_read() {
        let older = r#"{"version":1,"target":"t","arch":"amd64","build_time":1,"build_id":"b","boot_label":"BOOT"}"#;
        let mut image: ImageInfo = serde_json::from_str(older).unwrap();
        assert_eq!((image.leds.len(), serde_json::to_string(&image).unwrap().as_str()), (0, older));
        image.leds.push("ACT".into());
        let text = serde_json::to_string(&image).unwrap();
        assert!(text.ends_with(r#","leds":["ACT"]}"#), "{text}");
        assert_eq!(serde_json::from_str::<ImageInfo>(&text).unwrap(), image);
    }
}
