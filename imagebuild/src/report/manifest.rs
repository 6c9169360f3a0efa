// SPDX-License-Identifier: Apache-2.0
//! `NAME.manifest.json` beside an image, read back: [`crate::build`] writes it.

use crate::build::manifest::{KernelImage, Root};
use crate::disk::Placed;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

/// The format that is read.
const VERSION: u32 = 1;

/// What the page shows of a manifest. Fields that are not known are skipped: a later version may add some.
#[derive(Deserialize)]
pub struct Manifest {
    /// Format.
    version: u32,
    /// Name of the target.
    pub target: String,
    /// `arm64` or `amd64`.
    pub arch: String,
    /// Seconds since 1970-01-01 UTC.
    pub build_time: u64,
    /// Identifies the build.
    pub build_id: String,
    /// Version of kubelet; none in an image without a bundle.
    pub kubernetes: Option<String>,
    /// The kernel's release.
    pub kernel: String,
    /// Where the packages are from.
    pub package_lists: Lists,
    /// What the package lists lacked, with the builder's permission.
    pub exceptions: Vec<String>,
    /// Debian packages: name to version.
    pub packages: BTreeMap<String, String>,
    /// Programs and container images of the bundle.
    pub components: Vec<Component>,
    /// The verified root.
    pub root: Root,
    /// What the boot loader starts.
    pub kernel_image: KernelImage,
    /// Partitions in the order of the disk.
    pub partitions: Vec<Placed>,
}

/// The package lists.
#[derive(Deserialize)]
pub struct Lists {
    /// When they were fetched, in seconds since 1970; 0 when that is not known.
    pub fetched: u64,
    /// Each suite.
    pub releases: Vec<Release>,
}

/// One suite.
#[derive(Deserialize)]
pub struct Release {
    /// `trixie-security`.
    pub suite: String,
    /// When the archive wrote it, in the archive's words.
    pub date: String,
    /// Until when it is valid, where the archive says so.
    pub valid_until: Option<String>,
}

/// A program or a container image.
#[derive(Deserialize)]
pub struct Component {
    /// Version in components.lock.
    pub version: String,
    /// Path below the bundle's root, or reference of the image.
    pub name: String,
    /// Hex SHA-256 of the program, or of the image's manifest.
    pub sha256: String,
}

impl Manifest {
    /// Reads the manifest beside an image.
    ///
    /// # Errors
    /// When there is none, or it is no manifest of the version that is known.
    pub fn beside(image: &Path) -> Result<Manifest> {
        let path = image.with_extension("manifest.json");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                bail!("read {}: there is none; `imagebuild build` writes it beside the image", path.display())
            }
            Err(e) => return Err(e).with_context(|| format!("read {}", path.display())),
        };
        let manifest: Manifest = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        ensure!(
            manifest.version == VERSION,
            "read {}: its version is {}, this imagebuild knows {VERSION}",
            path.display(),
            manifest.version
        );
        Ok(manifest)
    }
}
