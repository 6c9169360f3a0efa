// SPDX-License-Identifier: Apache-2.0
//! The bundle: the programs of runtime and kubelet, and the container images that every node needs, in place in the root
//! file system. Nothing of it is unpacked, imported or pulled.
//!
//! It is the directory [`BUNDLE_DIR`]: `manifest.json`, `bin/` and `cni/` with programs, `layers/<hex of its diff id>/` with
//! the files of each layer, whiteouts as overlayfs has them, and `containerd/`, a state of containerd that knows the images:
//! containerd.service mounts the layers in its snapshots, as its `layers.fstab` says. `/usr/bin` has a link to each of
//! [`COMMANDS`] that is there.

pub mod installed;

use serde::{Deserialize, Serialize};

/// Directory of the image's bundle, as seen from the root file system.
pub const BUNDLE_DIR: &str = "/usr/lib/firstboot/bundle";
/// The bundle's table of contents, in its directory.
pub const MANIFEST: &str = "manifest.json";
/// Public keys in lines as of a `.pub` file: one of them has to have signed the manifest. An image without this file is not
/// signed.
pub const SIGNING_KEYS: &str = "/usr/lib/firstboot/image-key.pub";
/// The signature of the manifest, as OpenSSH makes it (SSHSIG).
pub const SIGNATURE: &str = "/usr/lib/firstboot/bundle-manifest.sig";
/// What it has to be made for: `ssh-keygen -Y sign -n firstboot-bundle`.
pub const SIGNATURE_NAMESPACE: &str = "firstboot-bundle";
/// Programs in the bundle's `bin` that are found on PATH, as an administrator (and `kubeadm upgrade`) expects them.
pub const COMMANDS: &[&str] = &["containerd", "containerd-shim-runc-v2", "ctr", "kubeadm", "kubelet", "runc"];

/// The bundle's table of contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format of this manifest; 2.
    pub version: u32,
    /// `arm64` or `amd64`.
    pub arch: String,
    /// Version of kubelet in the bundle, without the leading `v`.
    pub kubernetes: String,
    /// Name of the pause image; containerd's sandbox image is pinned to it.
    pub sandbox_image: String,
    /// Programs, by path.
    pub files: Vec<File>,
    /// Container images.
    pub images: Vec<Image>,
}

#[cfg(any(test, feature = "fake"))]
impl Manifest {
    /// The manifest of an empty bundle, for tests.
    pub fn for_tests() -> Self {
        Manifest {
            version: 2,
            arch: "amd64".into(),
            kubernetes: "1.36.3".into(),
            sandbox_image: "registry.k8s.io/pause:3.10.2".into(),
            files: Vec::new(),
            images: Vec::new(),
        }
    }
}

#[cfg(test)]
impl Image {
    /// An image without content, for tests.
    pub(crate) fn for_tests(name: &str, component: &str) -> Self {
        Image {
            name: name.into(),
            sha256: String::new(),
            layers: Vec::new(),
            chain_id: String::new(),
            content: Vec::new(),
            component: component.into(),
            version: "1".into(),
        }
    }
}

/// One program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Path below [`BUNDLE_DIR`]: `bin/kubelet`, `cni/bridge`.
    pub path: String,
    /// Permission bits, for example 0o755.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Hex SHA-256.
    pub sha256: String,
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
    /// Hex SHA-256 of its manifest: the image's digest.
    pub sha256: String,
    /// Hex of the diff id of each layer, the lowest first: names of directories in `layers/`.
    pub layers: Vec<String>,
    /// `sha256:` and hex over all layers: what containerd calls the image's snapshot (OCI image-spec, config.md, "Layer
    /// ChainID").
    pub chain_id: String,
    /// Hex SHA-256 of its manifest and config, which containerd's state has as blobs.
    pub content: Vec<String>,
    /// Component in `components.lock` that provides it.
    pub component: String,
    /// That component's version.
    pub version: String,
}
