// SPDX-License-Identifier: Apache-2.0
//! The image's description of itself: written by `imagebuild`, read on the device.

use crate::fault::{Code, Fault, OwnedBy};
use crate::host::Host;
use crate::text::hex;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// File of the description, as seen from the root file system.
pub const IMAGE_INFO: &str = "/usr/lib/firstboot/image.json";

/// Description of an image, written when the image is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageInfo {
    /// Format of this description; 1.
    pub version: u32,
    /// Name of the target, as in `targets/NAME.toml`.
    pub target: String,
    /// `arm64` or `amd64`.
    pub arch: String,
    /// Time of the build, seconds since 1970-01-01 UTC. The device's clock is never set earlier.
    pub build_time: u64,
    /// Identifies this build: hex of the digest over everything that went into it.
    pub build_id: String,
    /// Volume label of the FAT partition that carries the seed.
    pub boot_label: String,
    /// Lights that show the device's state, as the target names them; empty in an image without lights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leds: Vec<String>,
    /// Digest of the machine-id that an image of others has ([`machine_id_digest`]): all devices with it have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
}

/// Whether a text is a machine-id: 32 hexadecimal digits, not all of them zero.
pub fn is_machine_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) && text.bytes().any(|b| b != b'0')
}

/// By what a machine-id is known again: it must not be exposed itself (machine-id(5)).
pub fn machine_id_digest(id: &str) -> String {
    hex(&Sha256::new().chain_update(b"firstboot machine-id of an image\0").chain_update(id.trim()).finalize())
}

impl ImageInfo {
    /// Reads the description.
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
    /// The description of a sample image, for tests.
    pub fn for_tests() -> Self {
        ImageInfo {
            version: 1,
            target: "generic-amd64".into(),
            arch: "amd64".into(),
            build_time: 1,
            build_id: "test".into(),
            boot_label: "BOOT".into(),
            leds: Vec::new(),
            machine_id: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_leds_is_optional_in_both_directions() {
        let older = r#"{"version":1,"target":"t","arch":"amd64","build_time":1,"build_id":"b","boot_label":"BOOT"}"#;
        let mut image: ImageInfo = serde_json::from_str(older).unwrap();
        assert_eq!((image.leds.len(), serde_json::to_string(&image).unwrap().as_str()), (0, older));
        image.leds.push("ACT".into());
        let text = serde_json::to_string(&image).unwrap();
        assert!(text.ends_with(r#","leds":["ACT"]}"#), "{text}");
        assert_eq!(serde_json::from_str::<ImageInfo>(&text).unwrap(), image);
    }
}
