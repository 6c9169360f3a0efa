// SPDX-License-Identifier: Apache-2.0
//! The bundle as one file for images of others: what our own images have in their verified root.

use crate::archive::Archive;
use crate::bundle::Bundle;
use crate::erofs::Mkfs;
use crate::{cache, digest, verity};
use anyhow::{Context, Result};
use firstboot::bundle::BUNDLE_DIR;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

/// The bundle as one file: an EROFS and the hash tree over it, and what verifies it.
pub struct BundleImage {
    /// The file.
    pub path: PathBuf,
    /// The line of `bundle.verity`.
    pub hash: String,
}

/// The bundle's image, made now when the cache does not have it.
pub fn ensure(bundle: &Bundle) -> Result<BundleImage> {
    let mkfs = Mkfs::ensure()?;
    let manifest = digest::file(&bundle.manifest_file())?;
    let recipe = concat!(include_str!("bundle_image.rs"), include_str!("../erofs.rs"), include_str!("../verity.rs"));
    let key = digest::key(&[recipe, &manifest, &mkfs.version]);
    let dir = cache::dir()?.join("bundle-images").join(&key);
    let names = ["bundle.img", "bundle.verity"];
    cache::once_kept(&dir, |scratch| {
        let mut archive = Archive::default();
        archive.tar(&bundle.tar())?;
        let archive = archive.below(BUNDLE_DIR.trim_start_matches('/'))?;
        let path = scratch.join(names[0]);
        mkfs.pack(&archive, digest::uuid(&key, "bundle"), 0, &path)?;
        let tree = verity::tree(&path, digest::uuid(&key, "hash tree"))?;
        let file = fs::OpenOptions::new().append(true).open(&path);
        file.and_then(|mut file| file.write_all(&tree.bytes)).context("write the hash tree of the bundle")?;
        fs::write(scratch.join(names[1]), format!("{} {}\n", tree.root_hash, tree.blocks))
            .context("write its root hash")
    })?;
    let hash = fs::read_to_string(dir.join(names[1])).context("read the root hash of the bundle")?;
    Ok(BundleImage { path: dir.join(names[0]), hash })
}
