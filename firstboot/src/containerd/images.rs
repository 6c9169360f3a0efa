// SPDX-License-Identifier: Apache-2.0
//! Container images from the bundle into the runtime, each verified before a byte of it is imported.

use super::cri::Cri;
use super::damage;
use crate::bundle::Image;
use crate::bundle::installed::{CURRENT, Installed};
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::host::{Host, Job};
use crate::text::hex;
use crate::unpack::unpack;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Seek};

/// Imports those that are missing. Why the runtime's state has to be set aside all the same, where the power went while it
/// wrote earlier: an import that was cut off may leave an image's name, with which it begins, and a layer that is torn.
pub(crate) fn complete(host: &Host, bundle: &Installed, missing: &[String]) -> Result<Option<String>, Fault> {
    match import(host, &named(bundle, missing)) {
        Ok(()) => damage::torn_pause(host, &bundle.manifest).owned_by(Owner::Host),
        Err(fault) => {
            let why = damage::damage_by(host, &bundle.manifest, &fault).owned_by(Owner::Host)?;
            why.map_or(Err(fault), |why| Ok(Some(why)))
        }
    }
}

/// Names of the bundle's images that the runtime does not have.
///
/// # Errors
/// When it does not answer.
pub(crate) fn missing(host: &Host, bundle: &Installed) -> Result<Vec<String>> {
    let cri = Cri::connect(host.sys())?;
    let mut missing = Vec::new();
    for image in &bundle.manifest.images {
        if cri.image(&image.name)?.is_none() {
            missing.push(image.name.clone());
        }
    }
    Ok(missing)
}

/// Those of the bundle's images that are named.
pub(crate) fn named<'b>(bundle: &'b Installed, names: &[String]) -> Vec<&'b Image> {
    bundle.manifest.images.iter().filter(|image| names.contains(&image.name)).collect()
}

/// Imports all at the same time: each import is a chain of programs that wait for each other.
///
/// The archives go straight into the runtime: they are never on the disk, and a card is worn less.
pub(crate) fn import(host: &Host, images: &[&Image]) -> Result<(), Fault> {
    let ctr = format!("{CURRENT}/bin/ctr");
    let mut blobs = Vec::new();
    for &image in images {
        blobs.push((image, verified_blob(host, image)?));
    }
    std::thread::scope(|scope| {
        let mut jobs = Vec::new();
        let mut feeds = Vec::new();
        for (image, blob) in blobs {
            let (reader, mut writer) = io::pipe().context("make a pipe").owned_by(Owner::Host)?;
            let feed = move || unpack(&format!("image {}", image.name), blob, &image.blob, image.size, &mut writer);
            feeds.push(scope.spawn(feed));
            // --local: ctr writes to the content store itself, which hashes less than the transfer service does.
            let argv = vec![ctr.as_str(), "--namespace", "k8s.io", "images", "import", "--local", "-"];
            jobs.push(Job { argv, input: Box::new(reader) });
        }
        let imported = host.run_all(jobs).owned_by(Owner::Host)?;
        for ((image, imported), feed) in images.iter().zip(imported).zip(feeds) {
            let fed = feed.join().unwrap_or_else(|_| Err(Fault::new(Code::Host, "unpack an image: a worker stopped")));
            imported.with_context(|| format!("import image {}", image.name)).owned_by(Owner::Host)?;
            fed?;
        }
        Ok(())
    })
}

/// The blob, its digest checked: a damaged archive must not reach the runtime, not even half.
fn verified_blob(host: &Host, image: &Image) -> Result<File, Fault> {
    let path = Installed::blob_path(&image.blob.sha256);
    let mut blob = host
        .reader(&path)
        .and_then(|b| b.with_context(|| format!("find {path}, image {}", image.name)))
        .coded(Code::BundleIncomplete)?;
    let mut hash = Sha256::new();
    io::copy(&mut blob, &mut hash).with_context(|| format!("read {path}")).owned_by(Owner::Host)?;
    let found = hex(&hash.finalize());
    if found != image.blob.sha256 {
        let text = format!("verify image {}: expected sha256 {}, found {found}", image.name, image.blob.sha256);
        return Err(Fault::new(Code::BundleDamaged, text));
    }
    blob.rewind().with_context(|| format!("read {path}")).owned_by(Owner::Host)?;
    Ok(blob)
}
