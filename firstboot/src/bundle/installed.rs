// SPDX-License-Identifier: Apache-2.0
//! The bundle in the image, as this device can read it.

use super::{BUNDLE_DIR, Manifest};
use crate::fault::{Code, Fault, OwnedBy};
use crate::host::Host;
use crate::text::hex;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The bundle in the image.
pub struct Installed {
    /// The bundle's table of contents.
    pub manifest: Manifest,
    /// First 16 hex digits of the manifest's SHA-256: by what the journal knows the bundle.
    pub id: String,
}

impl Installed {
    /// Reads the image's bundle.
    ///
    /// # Errors
    /// An image fault when the manifest is missing, cannot be read, or is of another format.
    pub fn read(host: &Host) -> Result<Self, Fault> {
        let path = format!("{BUNDLE_DIR}/manifest.json");
        let bytes =
            host.read(&path).and_then(|b| b.with_context(|| format!("find {path}"))).coded(Code::BundleIncomplete)?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).with_context(|| format!("read {path}")).coded(Code::BundleIncomplete)?;
        let id = hex(&Sha256::digest(&bytes)[..8]);
        Ok(Installed { manifest, id })
    }
}
