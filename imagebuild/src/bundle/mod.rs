// SPDX-License-Identifier: Apache-2.0
//! Makes the bundle of one architecture ([`firstboot::bundle`]): all programs of the lock, the layers of its container
//! images, unpacked, and a containerd state that knows them. A device runs all of it in place.
//!
//! It is one tar, because a build without root has no directory for other owners, devices and extended attributes. Its
//! members begin with `usr/`, sorted by path; directories above them are the root file system's. The same lock gives the
//! same bytes.

mod layers;
mod pack;
mod prepared;

use crate::arch::Arch;
use crate::container::{self, ImageRequest};
use crate::lock::{self, Component, Lock};
use crate::oci::{self, Archived};
use crate::source::Request;
use crate::{cache, component, digest};
use anyhow::{Context, Result, bail, ensure};
use firstboot::bundle::{BUNDLE_DIR, COMMANDS, File, Image, Manifest};
use layers::Layer;
use pack::Packer;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A change in how bundles are put together makes a new key.
const RECIPE: [&str; 4] =
    [include_str!("mod.rs"), include_str!("layers.rs"), include_str!("pack.rs"), include_str!("prepared.rs")];
/// Names of the two files.
const FILES: [&str; 2] = ["bundle.tar", "manifest.json"];

/// `imagebuild bundle --arch ARCH`: makes a bundle, prints its path and sizes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// arm64 or amd64
    #[arg(long)]
    arch: Arch,
    /// Kubernetes minor or version, of those in components.lock; default: the lock's
    #[arg(long, value_name = "V")]
    kubernetes_version: Option<String>,
    /// With the images of a control plane: those that components.lock marks with `control-plane = true`
    #[arg(long)]
    control_plane: bool,
    /// Copy the bundle to this directory, which must not exist yet or be empty
    #[arg(long)]
    out: Option<PathBuf>,
    /// Another lock than the repository's; its relative paths count from its directory
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
}

/// Which bundle of a lock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choice<'a> {
    /// A Kubernetes minor or version; none is the lock's default.
    pub kubernetes_version: Option<&'a str>,
    /// With the images of a control plane.
    pub control_plane: bool,
}

/// A bundle in the cache: copy it, do not change it.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The directory that holds it.
    pub dir: PathBuf,
    /// What is in it.
    pub manifest: Manifest,
}

impl Bundle {
    /// Its files, to be put into a root file system: `usr/lib/firstboot/bundle/…`, and the links of its commands in
    /// `usr/bin`.
    pub fn tar(&self) -> PathBuf {
        self.dir.join(FILES[0])
    }

    /// The manifest as a file, beside the tar, which has it as well. Its digest stands for the whole bundle.
    pub fn manifest_file(&self) -> PathBuf {
        self.dir.join(FILES[1])
    }

    /// The bundle in a directory.
    pub fn read(dir: &Path) -> Result<Bundle> {
        let path = dir.join(FILES[1]);
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let manifest = serde_json::from_slice(&bytes).with_context(|| format!("read {}", path.display()))?;
        Ok(Bundle { dir: dir.to_owned(), manifest })
    }
}

/// Runs the subcommand.
pub fn main(args: &Args) -> Result<()> {
    let lock = args.lock.as_deref().map_or_else(Lock::find, Lock::read)?;
    let choice = Choice { kubernetes_version: args.kubernetes_version.as_deref(), control_plane: args.control_plane };
    let mut bundle = ensure_of(&lock, args.arch, choice)?;
    if let Some(out) = &args.out {
        copy(&bundle, out)?;
        bundle.dir.clone_from(out);
    }
    print!("{}", table(&bundle.manifest));
    println!("{}", bundle.dir.display());
    Ok(())
}

/// The bundle of the repository's lock for `arch`. With a warm cache it needs no network.
pub fn ensure(arch: Arch, choice: Choice) -> Result<Bundle> {
    ensure_of(&Lock::find()?, arch, choice)
}

/// [`ensure()`] for any lock.
pub fn ensure_of(lock: &Lock, arch: Arch, choice: Choice) -> Result<Bundle> {
    let wanted = Wanted::new(lock, arch, choice)?;
    let dir = cache::dir()?.join("bundles").join(key(&wanted)?);
    cache::once_kept(&dir, |scratch| write(&wanted, scratch))?;
    Bundle::read(&dir)
}

/// Makes a bundle of any lock in an empty directory, without keeping it in the cache: for tests.
pub fn build(lock: &Lock, arch: Arch, dir: &Path) -> Result<Bundle> {
    write(&Wanted::new(lock, arch, Choice::default())?, dir)?;
    Bundle::read(dir)
}

/// A bundle that is known to be possible.
struct Wanted<'a> {
    lock: &'a Lock,
    minor: String,
    arch: Arch,
    control_plane: bool,
}

impl<'a> Wanted<'a> {
    /// # Errors
    /// When the lock has no such Kubernetes version, or no control plane for it.
    fn new(lock: &'a Lock, arch: Arch, choice: Choice) -> Result<Wanted<'a>> {
        let minor = lock.minor(choice.kubernetes_version)?;
        let wanted = Wanted { lock, minor, arch, control_plane: choice.control_plane };
        let has_one = wanted.images().any(|image| image.control_plane);
        ensure!(
            has_one || !choice.control_plane,
            "make bundle: no image for Kubernetes {} is marked `control-plane = true` in the lock",
            wanted.minor
        );
        Ok(wanted)
    }

    /// The container images that go into it, in the lock's order.
    fn images(&self) -> impl Iterator<Item = &'a lock::Image> {
        self.lock.images_for(&self.minor).filter(|image| self.control_plane || !image.control_plane)
    }
}

/// Components that are installed on the device, with the place where each goes, sorted by it.
fn installed<'a>(lock: &'a Lock, minor: &str) -> BTreeMap<&'a str, &'a Component> {
    lock.components_for(minor).filter_map(|c| c.install.as_ref().map(|path| (path.as_str(), c))).collect()
}

/// Hex digest of all that the bundle's bytes depend on.
fn key(wanted: &Wanted) -> Result<String> {
    let Wanted { lock, minor, arch, .. } = wanted;
    let arch = *arch;
    let mut parts = vec![format!("bundle {minor} {arch}"), RECIPE.concat()];
    for component in installed(lock, minor).into_values() {
        parts.push(component::key(&Request { lock, component, arch })?);
    }
    for image in wanted.images() {
        parts.push(container::key(&ImageRequest { lock, image, minor, arch })?);
    }
    parts.push(component::key(&prepared::request(lock, minor)?)?);
    Ok(digest::bytes(&serde_json::to_vec(&parts)?)[..32].to_owned())
}

/// Writes the bundle to an empty directory, which afterwards holds nothing else.
fn write(wanted: &Wanted, dir: &Path) -> Result<()> {
    let Wanted { lock, minor, arch, .. } = wanted;
    let arch = *arch;
    let scratch = tempfile::tempdir_in(dir).context("create a scratch directory")?;
    let mut manifest = Manifest {
        version: 2,
        arch: arch.to_string(),
        kubernetes: lock.component("kubelet", minor)?.version.clone(),
        sandbox_image: String::new(),
        files: Vec::new(),
        images: Vec::new(),
    };
    let mut programs = Vec::new();
    for (path, component) in installed(lock, minor) {
        ensure!(proper(path), "install {} at {path}: not a path below bin or cni", component.name);
        let file = component::ensure_of(&Request { lock, component, arch })?;
        manifest.files.push(File {
            path: path.to_owned(),
            mode: component.mode,
            size: fs::metadata(&file).with_context(|| format!("read the size of {}", file.display()))?.len(),
            sha256: digest::file(&file)?,
            component: component.name.clone(),
            version: component.version.clone(),
        });
        programs.push(file);
    }
    let (mut images, mut unpacked) = (Vec::new(), Unpacked::default());
    for image in wanted.images() {
        let archive = container::ensure(&ImageRequest { lock, image, minor, arch })?;
        let archived = oci::read(&archive)?;
        unpacked
            .add(&archive, &archived, scratch.path())
            .with_context(|| format!("unpack image {}", image.reference))?;
        if image.sandbox {
            manifest.sandbox_image.clone_from(&image.reference);
        }
        manifest.images.push(Image {
            name: image.reference.clone(),
            sha256: archived.digest(),
            layers: archived.layers.iter().map(|layer| layer.diff_id.clone()).collect(),
            chain_id: archived.chain_ids().pop().context("find the image's layers")?,
            content: vec![archived.digest(), digest::bytes(&archived.config)],
            component: image.name.clone(),
            version: image.version.clone(),
        });
        images.push((image.reference.clone(), archived));
    }
    if manifest.sandbox_image.is_empty() {
        bail!("make bundle: no image of the lock is marked `sandbox = true`");
    }
    let state = scratch.path().join("state");
    fs::create_dir(&state).with_context(|| format!("create {}", state.display()))?;
    prepared::write(&prepared::program(lock, minor)?, &images, &state).context("prepare containerd's state")?;
    let json = serde_json::to_vec_pretty(&manifest).context("write manifest")?;
    fs::write(dir.join(FILES[1]), &json).with_context(|| format!("write {}", dir.join(FILES[1]).display()))?;
    pack(&manifest, &programs, &state, &unpacked, &json, &dir.join(FILES[0]))
}

/// Whether a component may be installed there.
fn proper(path: &str) -> bool {
    let name = path.strip_prefix("bin/").or_else(|| path.strip_prefix("cni/"));
    name.is_some_and(|name| !name.is_empty() && !name.starts_with('.') && !name.contains('/'))
}

fn pack(
    manifest: &Manifest,
    programs: &[PathBuf],
    state: &Path,
    unpacked: &Unpacked,
    json: &[u8],
    to: &Path,
) -> Result<()> {
    let mut tar = Packer::create(to)?;
    let root = BUNDLE_DIR.trim_start_matches('/');
    let from_bin = BUNDLE_DIR.replacen("/usr", "..", 1);
    let mut commands: Vec<&&str> =
        COMMANDS.iter().filter(|name| manifest.files.iter().any(|f| f.path == format!("bin/{name}"))).collect();
    commands.sort();
    for name in commands {
        tar.link(&format!("usr/bin/{name}"), &format!("{from_bin}/bin/{name}"))?;
    }
    tar.directory(root, 0o755)?;
    let mut directory = "";
    for (file, program) in manifest.files.iter().zip(programs) {
        let parent = file.path.split_once('/').map_or("", |(parent, _)| parent);
        if parent != directory {
            directory = parent;
            tar.directory(&format!("{root}/{parent}"), 0o755)?;
        }
        tar.file(&format!("{root}/{}", file.path), file.mode, program)?;
    }
    tar.tree(&format!("{root}/containerd"), state)?;
    tar.directory(&format!("{root}/layers"), 0o755)?;
    for (diff_id, (_, layer, bytes)) in &unpacked.layers {
        tar.layer(&format!("{root}/layers/{diff_id}"), layer, bytes)?;
    }
    tar.bytes(&format!("{root}/manifest.json"), 0o644, json)?;
    tar.finish()
}

/// The layers of all images.
#[derive(Default)]
struct Unpacked {
    /// By hex of the diff id: the chain that it was first found in, its files, and its tar.
    layers: BTreeMap<String, (String, Layer, PathBuf)>,
}

impl Unpacked {
    fn add(&mut self, archive: &Path, image: &Archived, scratch: &Path) -> Result<()> {
        for (n, (layer, chain)) in image.layers.iter().zip(image.chain_ids()).enumerate() {
            if self.layers.get(&layer.diff_id).is_some_and(|(first, ..)| *first == chain) {
                continue;
            }
            let tar = scratch.join(format!("{}.tar", layer.diff_id));
            if !tar.exists() {
                layers::extract(archive, layer, &tar)?;
            }
            let below: Vec<&Layer> = image.layers[..n]
                .iter()
                .filter_map(|l| self.layers.get(&l.diff_id).map(|(_, files, _)| files))
                .collect();
            let read = layers::read(&tar, &below).with_context(|| format!("unpack layer {}", layer.diff_id))?;
            match self.layers.get(&layer.diff_id) {
                None => drop(self.layers.insert(layer.diff_id.clone(), (chain, read, tar))),
                // What its removals and unnamed directories mean depends on what is below.
                Some((_, other, _)) => {
                    ensure!(*other == read, "unpack layer {}: it means another thing in another image", layer.diff_id);
                }
            }
        }
        Ok(())
    }
}

fn copy(from: &Bundle, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    if fs::read_dir(to).with_context(|| format!("list {}", to.display()))?.next().is_some() {
        bail!("write bundle to {}: the directory is not empty", to.display());
    }
    for file in FILES {
        fs::copy(from.dir.join(file), to.join(file)).with_context(|| format!("copy {file} of bundle"))?;
    }
    Ok(())
}

/// One row for each file and image, and the programs' sum.
fn table(manifest: &Manifest) -> String {
    let mut text = format!("{:<44} {:<8} {:>11}\n", "component", "version", "bytes");
    for file in &manifest.files {
        text += &format!("{:<44} {:<8} {:>11}\n", file.path, file.version, file.size);
    }
    for image in &manifest.images {
        text += &format!("{:<44} {:<8} {:>11}\n", image.name, image.version, format!("{} layers", image.layers.len()));
    }
    text + &format!("{:<44} {:<8} {:>11}\n", "all programs", "", manifest.files.iter().map(|f| f.size).sum::<u64>())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
