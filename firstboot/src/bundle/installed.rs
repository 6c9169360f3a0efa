// SPDX-License-Identifier: Apache-2.0
//! The bundle in the image, as this device can read it.

use super::{BUNDLE_DIR, Manifest};
use crate::fault::{Code, Fault, OwnedBy, error_number};
use crate::host::Host;
use crate::text::hex;
use anyhow::{Context, Result};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

/// The bundle in the image.
pub struct Installed {
    /// The bundle's table of contents.
    pub manifest: Manifest,
    /// First 16 hex digits of the manifest's SHA-256: by what the journal knows the bundle.
    pub id: String,
}

/// A fault of the image: damage where the kernel refuses to read a changed block of the verified root, or else `code`.
fn unreadable(error: anyhow::Error, code: Code) -> Fault {
    let damaged = error_number(&error) == Some(Errno::IO);
    Fault { code: if damaged { Code::BundleDamaged } else { code }, cause: error, retry_after: None }
}

impl Installed {
    /// Reads the image's bundle.
    ///
    /// # Errors
    /// An image fault when the manifest is missing, cannot be read, or is of another format.
    pub fn read(host: &Host) -> Result<Self, Fault> {
        let path = format!("{BUNDLE_DIR}/manifest.json");
        let bytes = host.read(&path).and_then(|b| b.with_context(|| format!("find {path}")));
        let bytes = bytes.map_err(|error| unreadable(error, Code::BundleIncomplete))?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).with_context(|| format!("read {path}")).coded(Code::BundleIncomplete)?;
        let id = hex(&Sha256::digest(&bytes)[..8]);
        Ok(Installed { manifest, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_block_is_damage_and_a_missing_manifest_is_not() {
        let code = |error: std::io::Error| {
            unreadable(anyhow::Error::new(error).context("read x"), Code::BundleIncomplete).code
        };
        assert_eq!(code(std::io::Error::from_raw_os_error(5)), Code::BundleDamaged);
        assert_eq!(code(std::io::Error::from_raw_os_error(2)), Code::BundleIncomplete);
    }
}
