// SPDX-License-Identifier: Apache-2.0
//! The bundle in the image, and which of its files are installed on this device.

use super::{BUNDLE_DIR, File as Entry, Manifest};
use crate::fault::{Code, Fault, OwnedBy};
use crate::host::Host;
use crate::text::hex;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Link to the bundle in use.
pub const CURRENT: &str = "/opt/firstboot/current";

/// Bytes that must stay free on the disk for pods, their images and logs.
const HEADROOM: u64 = 256 << 20;

/// The bundle in the image.
pub struct Installed {
    /// The bundle's table of contents.
    pub manifest: Manifest,
    /// First 16 hex digits of the manifest's SHA-256: the name of the bundle's directory on the device.
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

    /// Path of a blob in the image.
    pub(crate) fn blob_path(sha256: &str) -> String {
        format!("{BUNDLE_DIR}/blobs/{sha256}")
    }
}

/// Files that are missing or incomplete. A file is verified before it is renamed into place, so comparing size and mode
/// suffices.
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

/// Bytes of the root file system that the rest of the installation needs, including [`HEADROOM`]. The runtime unpacks
/// the container images later; their space is required before anything is installed, so that a full disk is reported
/// early.
pub(crate) fn room(host: &Host, bundle: &Installed) -> Result<u64> {
    let missing = missing(host, bundle)?;
    if missing.is_empty() {
        return Ok(HEADROOM);
    }
    let files: u64 = missing.iter().map(|f| f.size).sum();
    let images: u64 = bundle.manifest.images.iter().map(|i| i.size * 2).sum();
    Ok(files + images + HEADROOM)
}
