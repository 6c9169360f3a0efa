// SPDX-License-Identifier: Apache-2.0
//! `T.manifest.json`: what an image consists of, for people and for scanners.

use super::Parts;
use crate::debian::lists::{Exception, Lists};
use crate::disk::Placed;
use crate::rootfs::Rootfs;
use crate::sums::Unseeded;
use crate::verity::{self, Tree};
use anyhow::{Context, Result};
use firstboot::bundle::Manifest;
use firstboot::image::ImageInfo;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The Debian packages of an image, and the lists they were chosen from.
pub struct Packages<'a> {
    /// The packages.
    pub rootfs: &'a Rootfs,
    lists: &'a Lists,
    exceptions: BTreeSet<Exception>,
}

impl<'a> Packages<'a> {
    /// The packages of a root file system.
    pub fn new(rootfs: &'a Rootfs, lists: &'a Lists, exceptions: BTreeSet<Exception>) -> Packages<'a> {
        Packages { rootfs, lists, exceptions }
    }

    /// What an image's key has of the lists: other lists make another manifest, another time of fetching them does not.
    pub fn lists_key(&self) -> Result<String> {
        serde_json::to_string(&(&self.lists.releases, &self.exceptions)).context("write the dates of package lists")
    }
}

#[derive(Serialize)]
struct ImageManifest<'a> {
    version: u32,
    target: &'a str,
    arch: &'a str,
    /// Seconds since 1970-01-01 UTC.
    build_time: u64,
    build_id: &'a str,
    kubernetes: Option<&'a str>,
    kernel: &'a str,
    /// The package lists: when they were fetched, and the dates of the archive's Release files.
    package_lists: &'a Lists,
    /// What the package lists lack, with the builder's permission.
    exceptions: &'a BTreeSet<Exception>,
    /// Debian packages: name to version.
    packages: BTreeMap<&'a str, &'a str>,
    /// Files and images of the bundle.
    components: Vec<Component<'a>>,
    #[serde(flatten)]
    built: &'a Built,
}

/// What came out of a build.
#[derive(Serialize)]
pub struct Built {
    /// The verified root file system.
    pub root: Root,
    /// The file with kernel, initrd and command line.
    pub kernel_image: KernelImage,
    /// The partitions.
    #[serde(rename = "partitions")]
    pub placed: Vec<Placed>,
    /// What stays the same when the image gets seeds.
    pub unseeded: Unseeded,
}

/// The verified root file system.
#[derive(Serialize, Deserialize)]
pub struct Root {
    /// Hex SHA-256 of the topmost block of its hash tree.
    pub hash: String,
    /// Bytes of the file system, at the partition's begin.
    pub file_system: u64,
    /// Bytes of the hash tree, which follows.
    pub hash_tree: u64,
}

impl Root {
    /// What is to say of a root.
    pub fn new(tree: &Tree) -> Root {
        let file_system = tree.blocks * verity::BLOCK as u64;
        Root { hash: tree.root_hash.clone(), file_system, hash_tree: tree.bytes.len() as u64 }
    }
}

/// A file on the EFI system partition.
#[derive(Serialize, Deserialize)]
pub struct KernelImage {
    /// Its path.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Hex SHA-256.
    pub sha256: String,
}

#[derive(Serialize)]
struct Component<'a> {
    component: &'a str,
    version: &'a str,
    /// Path below the bundle's root, or name of the image.
    name: &'a str,
    sha256: &'a str,
}

/// Writes the description of an image.
pub fn write(parts: &Parts, packages: &Packages, info: &ImageInfo, built: &Built, to: &Path) -> Result<()> {
    let bundle = parts.bundle.as_ref().map(|bundle| &bundle.manifest);
    let manifest = ImageManifest {
        version: 1,
        target: &info.target,
        arch: &info.arch,
        build_time: info.build_time,
        build_id: &info.build_id,
        kubernetes: bundle.map(|b| b.kubernetes.as_str()),
        kernel: &packages.rootfs.release,
        package_lists: packages.lists,
        exceptions: &packages.exceptions,
        packages: packages.rootfs.packages.iter().map(|p| (p.name.as_str(), p.version.as_str())).collect(),
        components: bundle.into_iter().flat_map(components).collect(),
        built,
    };
    let text = serde_json::to_string_pretty(&manifest).context("write the image's manifest")? + "\n";
    fs::write(to, text).with_context(|| format!("write {}", to.display()))
}

fn components(bundle: &Manifest) -> Vec<Component<'_>> {
    let files = bundle.files.iter().map(|f| Component {
        component: &f.component,
        version: &f.version,
        name: &f.path,
        sha256: &f.sha256,
    });
    let images = bundle.images.iter().map(|i| Component {
        component: &i.component,
        version: &i.version,
        name: &i.name,
        sha256: &i.sha256,
    });
    files.chain(images).collect()
}
