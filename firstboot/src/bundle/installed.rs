// SPDX-License-Identifier: Apache-2.0
//! The bundle that the image brings, as this device finds it, and what of it is installed.

use super::{BUNDLE_DIR, File as Entry, Manifest};
use crate::fault::{Code, Fault, OwnedBy};
use crate::host::Host;
use crate::text::hex;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Link to the bundle in use.
pub const CURRENT: &str = "/opt/firstboot/current";

/// What must be left on the disk besides the bundle: pods, logs and their images need it.
const HEADROOM: u64 = 256 << 20;

/// The bundle that the image brings.
pub struct Installed {
    /// Its table of contents.
    pub manifest: Manifest,
    /// First 16 hex digits of the manifest's SHA-256: names the folder on the device.
    pub id: String,
}

impl Installed {
    /// Reads the image's bundle.
    ///
    /// # Errors
    /// An image fault when the manifest is missing or of another format.
    pub fn read(host: &Host) -> Result<Self, Fault> {
        let path = format!("{BUNDLE_DIR}/manifest.json");
        let bytes =
            host.read(&path).and_then(|b| b.with_context(|| format!("find {path}"))).coded(Code::BundleIncomplete)?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).with_context(|| format!("read {path}")).coded(Code::BundleIncomplete)?;
        let id = hex(&Sha256::digest(&bytes)[..8]);
        Ok(Installed { manifest, id })
    }

    pub(crate) fn dir(&self) -> String {
        format!("/opt/firstboot/bundles/{}", self.id)
    }

    /// Where a blob lies in the image.
    pub(crate) fn blob_path(sha256: &str) -> String {
        format!("{BUNDLE_DIR}/blobs/{sha256}")
    }
}

/// Files that are not there in full. What is renamed into place was verified, so size and mode tell.
pub(crate) fn missing<'b>(host: &Host, bundle: &'b Installed) -> Result<Vec<&'b Entry>> {
    let mut missing = Vec::new();
    for entry in &bundle.manifest.files {
        let path = format!("{}/{}", bundle.dir(), entry.path);
        if host.size_and_mode(&path)? != Some((entry.size, entry.mode)) {
            missing.push(entry);
        }
    }
    Ok(missing)
}

/// Bytes of the root file system that installing the bundle still takes, with what pods need besides. The container
/// images are unpacked by the runtime later; their room is asked for before anything is installed, while a clear
/// answer costs nothing.
pub(crate) fn room(host: &Host, bundle: &Installed) -> Result<u64> {
    let missing = missing(host, bundle)?;
    if missing.is_empty() {
        return Ok(HEADROOM);
    }
    let files: u64 = missing.iter().map(|f| f.size).sum();
    let images: u64 = bundle.manifest.images.iter().map(|i| i.size * 2).sum();
    Ok(files + images + HEADROOM)
}
