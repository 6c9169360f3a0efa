// SPDX-License-Identifier: Apache-2.0
//! The bundle's manifest: the files of the runtime, kubelet and container images, with their digests.
//!
//! A bundle is a directory: `manifest.json` and `blobs/<sha256 of the compressed bytes>`, each blob one zstd frame
//! with a window of at most [`MAX_WINDOW_LOG`] bits, so that a device with little memory can unpack it.

pub mod installed;

use serde::{Deserialize, Serialize};

/// Directory of the image's bundle, as seen from the root file system.
pub const BUNDLE_DIR: &str = "/usr/lib/firstboot/bundle";
/// Largest zstd window that a bundle may use: 2^21 bytes = 2 MiB.
pub const MAX_WINDOW_LOG: u32 = 21;

/// The bundle's table of contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format of this manifest; 1.
    pub version: u32,
    /// `arm64` or `amd64`.
    pub arch: String,
    /// Version of kubelet in the bundle, without the leading `v`.
    pub kubernetes: String,
    /// Name under which the pause image is imported; containerd's sandbox image is pinned to it.
    pub sandbox_image: String,
    /// Files to install, relative to the bundle's root on the device: `bin/kubelet`, `cni/bridge`.
    pub files: Vec<File>,
    /// Container images to import, OCI archives.
    pub images: Vec<Image>,
}

#[cfg(any(test, feature = "fake"))]
impl Manifest {
    /// The manifest of an empty bundle, for tests.
    pub fn for_tests() -> Self {
        Manifest {
            version: 1,
            arch: "amd64".into(),
            kubernetes: "1.36.3".into(),
            sandbox_image: "registry.k8s.io/pause:3.10.2".into(),
            files: Vec::new(),
            images: Vec::new(),
        }
    }
}

/// One file to install.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Relative path below the bundle's root, without `..`.
    pub path: String,
    /// Permission bits, for example 0o755.
    pub mode: u32,
    /// Bytes once unpacked.
    pub size: u64,
    /// Hex SHA-256 of the unpacked content.
    pub sha256: String,
    /// The compressed form.
    pub blob: Blob,
    /// Component in `components.lock` that provides it.
    pub component: String,
    /// That component's version.
    pub version: String,
}

/// One container image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Full reference, for example `registry.k8s.io/pause:3.10.2`.
    pub name: String,
    /// Bytes of the OCI archive once unpacked.
    pub size: u64,
    /// Hex SHA-256 of the unpacked OCI archive.
    pub sha256: String,
    /// The compressed form.
    pub blob: Blob,
    /// `sha256:` and hex over the unpacked layers: what containerd calls the image's snapshot (OCI image-spec, config.md,
    /// "Layer ChainID").
    pub chain_id: String,
    /// Hex SHA-256 of each blob in the archive: manifest, config and layers.
    pub content: Vec<String>,
    /// Component in `components.lock` that provides it.
    pub component: String,
    /// That component's version.
    pub version: String,
}

/// A compressed file in `blobs/`, named by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// Hex SHA-256 of the compressed bytes, and the file's name below `blobs/`.
    pub sha256: String,
    /// Compressed bytes.
    pub size: u64,
}
