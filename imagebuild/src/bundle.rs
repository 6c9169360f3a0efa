// SPDX-License-Identifier: Apache-2.0
//! Makes the bundle of one architecture: all programs and container images of the lock, compressed, with a manifest
//! ([`firstboot::bundle`]). The device unpacks it.

use crate::arch::Arch;
use crate::container::{self, ImageRequest};
use crate::lock::{Component, Lock};
use crate::source::Request;
use crate::{cache, component, compress, digest, oci};
use anyhow::{Context, Result, bail};
use firstboot::bundle::{File, Image, MAX_WINDOW_LOG, Manifest};
use std::fs;
use std::path::{Path, PathBuf};

/// `imagebuild bundle --arch ARCH`: makes a bundle, prints its path and sizes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// arm64 or amd64
    #[arg(long)]
    arch: Arch,
    /// Kubernetes minor or version, of those in components.lock; default: the lock's
    #[arg(long, value_name = "V")]
    kubernetes_version: Option<String>,
    /// Copy the bundle to this directory, which must not exist yet or be empty
    #[arg(long)]
    out: Option<PathBuf>,
    /// Another lock than the repository's; its relative paths count from its directory
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
}

/// Runs the subcommand.
pub fn main(args: &Args) -> Result<()> {
    let lock = args.lock.as_deref().map_or_else(Lock::find, Lock::read)?;
    let mut dir = ensure_of(&lock, args.arch, args.kubernetes_version.as_deref())?;
    if let Some(out) = &args.out {
        copy(&dir, out)?;
        dir = out.clone();
    }
    print!("{}", table(&read_manifest(&dir)?));
    println!("{}", dir.display());
    Ok(())
}

/// The bundle of the repository's lock for `arch` and a Kubernetes minor or version (none: the lock's default).
/// With a warm cache it needs no network and compresses nothing. The directory belongs to the cache: copy it, do not
/// change it.
pub fn ensure(arch: Arch, kubernetes_version: Option<&str>) -> Result<PathBuf> {
    ensure_of(&Lock::find()?, arch, kubernetes_version)
}

/// [`ensure`] for any lock.
pub fn ensure_of(lock: &Lock, arch: Arch, kubernetes_version: Option<&str>) -> Result<PathBuf> {
    let minor = lock.minor(kubernetes_version)?;
    let dir = cache::dir()?.join("bundles").join(key(lock, &minor, arch)?);
    cache::once(&dir, |scratch| write(lock, &minor, arch, scratch))?;
    Ok(dir)
}

/// The manifest of the bundle in a directory.
pub fn read_manifest(dir: &Path) -> Result<Manifest> {
    let path = dir.join("manifest.json");
    let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("read {}", path.display()))
}

/// Components that are installed on the device, with the place where each goes.
fn installed<'a>(lock: &'a Lock, minor: &'a str) -> impl Iterator<Item = (&'a Component, &'a String)> {
    lock.components_for(minor).filter_map(|c| c.install.as_ref().map(|path| (c, path)))
}

/// Hex digest of all that the bundle's bytes depend on.
fn key(lock: &Lock, minor: &str, arch: Arch) -> Result<String> {
    let mut parts = vec![format!("bundle 2 {minor} {arch} {} {MAX_WINDOW_LOG}", compress::LEVEL)];
    for (component, _) in installed(lock, minor) {
        parts.push(component::key(&Request { lock, component, arch })?);
    }
    for image in lock.images_for(minor) {
        parts.push(container::key(&ImageRequest { lock, image, minor, arch })?);
    }
    Ok(digest::bytes(&serde_json::to_vec(&parts)?)[..32].to_owned())
}

/// Writes the bundle to an empty directory.
fn write(lock: &Lock, minor: &str, arch: Arch, dir: &Path) -> Result<()> {
    let manifest = fill(lock, minor, arch, &dir.join("blobs"))?;
    let path = dir.join("manifest.json");
    let json = serde_json::to_vec_pretty(&manifest).context("write manifest")?;
    fs::write(&path, json).with_context(|| format!("write {}", path.display()))
}

/// Builds and compresses everything into `blobs`.
fn fill(lock: &Lock, minor: &str, arch: Arch, blobs: &Path) -> Result<Manifest> {
    fs::create_dir(blobs).with_context(|| format!("create {}", blobs.display()))?;
    let mut manifest = Manifest {
        version: 1,
        arch: arch.to_string(),
        kubernetes: lock.component("kubelet", minor)?.version.clone(),
        sandbox_image: String::new(),
        files: Vec::new(),
        images: Vec::new(),
    };
    for (component, path) in installed(lock, minor) {
        let packed = pack(&component::ensure_of(&Request { lock, component, arch })?, blobs)?;
        manifest.files.push(File {
            path: path.clone(),
            mode: component.mode,
            size: packed.size,
            sha256: packed.sha256,
            blob: packed.blob,
            component: component.name.clone(),
            version: component.version.clone(),
        });
    }
    for image in lock.images_for(minor) {
        let archive = container::ensure(&ImageRequest { lock, image, minor, arch })?;
        let packed = pack(&archive, blobs)?;
        let oci::Identity { chain_id, content } = oci::identity(&archive)?;
        if image.sandbox {
            manifest.sandbox_image = image.reference.clone();
        }
        manifest.images.push(Image {
            name: image.reference.clone(),
            size: packed.size,
            sha256: packed.sha256,
            blob: packed.blob,
            chain_id,
            content,
            component: image.name.clone(),
            version: image.version.clone(),
        });
    }
    if manifest.sandbox_image.is_empty() {
        bail!("make bundle: no image of the lock is marked `sandbox = true`");
    }
    Ok(manifest)
}

fn pack(content: &Path, blobs: &Path) -> Result<compress::Packed> {
    let packed = compress::ensure(content)?;
    let to = blobs.join(&packed.blob.sha256);
    fs::copy(&packed.path, &to).with_context(|| format!("copy {} to {}", packed.path.display(), to.display()))?;
    Ok(packed)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let blobs = to.join("blobs");
    fs::create_dir_all(&blobs).with_context(|| format!("create {}", blobs.display()))?;
    let mut files = vec![PathBuf::from("manifest.json")];
    for entry in fs::read_dir(from.join("blobs")).with_context(|| format!("list {}", from.display()))? {
        files.push(Path::new("blobs").join(entry.with_context(|| format!("list {}", from.display()))?.file_name()));
    }
    let count = |dir: &Path| fs::read_dir(dir).map(Iterator::count).with_context(|| format!("list {}", dir.display()));
    if count(to)? != 1 || count(&blobs)? != 0 {
        bail!("write bundle to {}: the directory is not empty", to.display());
    }
    for file in files {
        fs::copy(from.join(&file), to.join(&file)).with_context(|| format!("copy {} of bundle", file.display()))?;
    }
    Ok(())
}

/// One row for each file and image, and the sum.
fn table(manifest: &Manifest) -> String {
    let files = manifest.files.iter().map(|f| (f.path.as_str(), &f.version, f.size, f.blob.size));
    let images = manifest.images.iter().map(|i| (i.name.as_str(), &i.version, i.size, i.blob.size));
    let rows: Vec<_> = files.chain(images).collect();
    let mut text = format!("{:<44} {:<8} {:>11} {:>11}\n", "component", "version", "bytes", "compressed");
    for (name, version, size, packed) in &rows {
        text += &format!("{name:<44} {version:<8} {size:>11} {packed:>11}\n");
    }
    let sum = |of: fn(&(&str, &String, u64, u64)) -> u64| rows.iter().map(of).sum::<u64>();
    text + &format!("{:<44} {:<8} {:>11} {:>11}\n", "all", "", sum(|r| r.2), sum(|r| r.3))
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
