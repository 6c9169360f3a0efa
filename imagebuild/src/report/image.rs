// SPDX-License-Identifier: Apache-2.0
//! What an image says of itself: partitions, FAT file systems, command line, root. It is compared with the manifest, so
//! that a page is never about two builds.

use super::manifest::Manifest;
use super::space::{self, Space};
use crate::build::manifest::KernelImage;
use crate::disk::Placed;
use crate::erofs_reader::Root;
use crate::target::Role;
use crate::{digest, disk, sign, uki};
use anyhow::{Context, Result, bail, ensure};
use fatfs::{FileSystem, FsOptions};
use firstboot::boot_partition::BootPartition;
use firstboot::bundle::{self, BUNDLE_DIR, MANIFEST, SIGNING_KEYS};
use firstboot::image::{IMAGE_INFO, ImageInfo};
use firstboot::seed::{SshKey, ssh_signature};
use fscommon::{BufStream, StreamSlice};
use initrd::command_line::CommandLine;
use initrd::table::{Found, Numbered, Table};
use initrd::verity;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use uuid::Uuid;

/// Files beside an image, by their endings.
const ENDINGS: [&str; 5] = ["img", "img.zst", "manifest.json", "sbom.json", "provenance.json"];

/// What was read of an image.
pub struct Image {
    /// Name of its file, without `.img`.
    pub name: String,
    /// Identifier of the disk.
    pub disk: Uuid,
    /// The partitions as the initrd reads them, to see what a device makes of them.
    pub table: Vec<Numbered>,
    /// Bytes of a slot on a device; none where slots stay as they are.
    pub slot: Option<u64>,
    /// Bytes in use, of each partition of the manifest: of a FAT the clusters that are taken, of a root its content.
    pub used: Vec<u64>,
    /// What is in the root.
    pub space: Space,
    /// The bundle's own table of contents; none in an image without a bundle.
    pub bundle: Option<bundle::Manifest>,
    /// The image and the files beside it.
    pub files: Vec<SummedFile>,
    /// The key that signed `SHA256SUMS`, where its signature is good; none where there is no signature, or another one.
    pub signed: Option<SshKey>,
    /// The keys by which a device verifies its bundle, as they are in the root; empty where the bundle is not signed.
    pub device_keys: Vec<String>,
}

/// A file that a user gets.
pub struct SummedFile {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Hex SHA-256, computed now.
    pub sha256: String,
    /// Whether `SHA256SUMS` has the same; none where it has no line for the file.
    pub is_as_summed: Option<bool>,
}

impl Image {
    /// Reads an image, and compares it with its manifest.
    ///
    /// # Errors
    /// When something cannot be read, or differs: `compare IMAGE with its manifest: …`.
    pub fn read(path: &Path, manifest: &Manifest) -> Result<Image> {
        let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let what = || format!("read the partition table of {}", path.display());
        let Found { table, .. } = Table::read(&mut file).with_context(what)?;
        let compare = || format!("compare {} with its manifest", path.display());
        same_partitions(path, manifest).with_context(compare)?;
        let root_place = place(manifest, Role::RootA).with_context(compare)?;
        let root = Root::open(path, root_place.offset, root_place.length)?;
        let info: ImageInfo = json(&root, IMAGE_INFO)?.with_context(|| format!("read {IMAGE_INFO}: there is none"))?;
        same_build(&info, manifest).with_context(compare)?;
        let boot = place(manifest, Role::Esp).or_else(|_| place(manifest, Role::SystemA)).with_context(compare)?;
        let command_line = command_line(path, boot, &manifest.kernel_image).with_context(compare)?;
        let expected = &command_line.root;
        ensure!(
            expected.hex() == manifest.root.hash,
            "{}: root hash {} in the image, {} in the manifest: get both from one build",
            compare(),
            expected.hex(),
            manifest.root.hash
        );
        let holds = verity::holds(&file, root_place.offset, expected);
        ensure!(holds.context("read the hash tree")?, "{}: the hash tree has another root hash", compare());
        let used = |placed: &Placed| match placed.role {
            Role::RootA => Ok(manifest.root.file_system + manifest.root.hash_tree),
            _ => used(&file, placed),
        };
        Ok(Image {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            disk: table.disk,
            table: table.partitions(),
            slot: command_line.slot,
            used: manifest.partitions.iter().map(used).collect::<Result<_>>()?,
            space: space::of(&root)?,
            bundle: json(&root, &format!("{BUNDLE_DIR}/{MANIFEST}"))?,
            files: files(path)?,
            signed: signed_by(path),
            device_keys: device_keys(&root)?,
        })
    }
}

/// By which key the sums beside an image are signed. Whose key that is, the reader has to know.
fn signed_by(image: &Path) -> Option<SshKey> {
    let signature = std::fs::read(image.with_file_name(sign::SUMS_SIGNATURE)).ok()?;
    let key = ssh_signature::signer(&signature)?;
    sign::verify_sums(image, std::slice::from_ref(&key)).ok().map(|()| key)
}

/// The keys that the image gives its device.
fn device_keys(root: &Root) -> Result<Vec<String>> {
    let Some(node) = root.find(SIGNING_KEYS)? else { return Ok(Vec::new()) };
    let text = String::from_utf8(root.read(node)?).with_context(|| format!("read {SIGNING_KEYS} of the image"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// A partition of the manifest.
fn place(manifest: &Manifest, role: Role) -> Result<&Placed> {
    let found = manifest.partitions.iter().find(|placed| placed.role == role);
    found.with_context(|| format!("the manifest has no partition for {role:?}"))
}

fn same_partitions(image: &Path, manifest: &Manifest) -> Result<()> {
    let found: Vec<_> = disk::partitions(image)?.into_values().map(|e| (e.name, e.offset, e.length)).collect();
    let wanted: Vec<_> = manifest.partitions.iter().map(|p| (p.label.clone(), p.offset, p.length)).collect();
    let Some(number) = (0..found.len().max(wanted.len())).find(|n| found.get(*n) != wanted.get(*n)) else {
        return Ok(());
    };
    let shown = |of: Option<&(String, u64, u64)>| match of {
        Some((name, offset, length)) => format!("{name}, {length} bytes at {offset}"),
        None => "none".to_owned(),
    };
    let (found, wanted) = (shown(found.get(number)), shown(wanted.get(number)));
    bail!("partition {} is {found} in the image, {wanted} in the manifest: get both from one build", number + 1)
}

/// Compares what the root says of itself.
pub fn same_build(info: &ImageInfo, manifest: &Manifest) -> Result<()> {
    let times = (info.build_time.to_string(), manifest.build_time.to_string());
    let rows = [
        ("target", &info.target, &manifest.target),
        ("architecture", &info.arch, &manifest.arch),
        ("build id", &info.build_id, &manifest.build_id),
        ("build time", &times.0, &times.1),
    ];
    match rows.into_iter().find(|(_, found, wanted)| found != wanted) {
        Some((what, found, wanted)) => {
            bail!("{what} {found} in the image, {wanted} in the manifest: get both from one build")
        }
        None => Ok(()),
    }
}

/// A JSON file of the root; none where there is no such file.
fn json<T: serde::de::DeserializeOwned>(root: &Root, path: &str) -> Result<Option<T>> {
    let Some(node) = root.find(path)? else { return Ok(None) };
    let bytes = root.read(node)?;
    Ok(Some(serde_json::from_slice(&bytes).with_context(|| format!("read {path} of the image"))?))
}

/// Bytes of a FAT that are taken. The library reads the allocation table once for that; it follows no chain of
/// clusters, which may have no end. The image is open for reading only, so that nothing can change it.
fn used(image: &File, at: &Placed) -> Result<u64> {
    let what = || format!("measure the file system {}", at.label);
    let slice = StreamSlice::new(image.try_clone().with_context(what)?, at.offset, at.offset + at.length);
    let system = FileSystem::new(BufStream::new(slice.with_context(what)?), FsOptions::new()).with_context(what)?;
    let stats = system.stats().with_context(what)?;
    let clusters = u64::from(stats.total_clusters().saturating_sub(stats.free_clusters()));
    Ok(clusters * u64::from(stats.cluster_size()))
}

/// The kernel's command line: in the kernel image itself, or in a file beside it.
pub(super) fn command_line(image: &Path, at: &Placed, kernel: &KernelImage) -> Result<CommandLine> {
    let system = BootPartition::open(image, at.offset, at.length);
    let system = system.with_context(|| format!("read the file system {}", at.label))?;
    let read = |path: &str| system.read(path).with_context(|| format!("read {path} on {}", at.label));
    let program =
        read(&kernel.path)?.with_context(|| format!("read {} on {}: there is none", kernel.path, at.label))?;
    let found = digest::bytes(&program);
    ensure!(
        found == kernel.sha256,
        "{} has the SHA-256 {found} in the image, {} in the manifest: get both from one build",
        kernel.path,
        kernel.sha256
    );
    if at.role == Role::Esp {
        return CommandLine::parse(uki::command_line(&program)?);
    }
    if let Some(text) = read("cmdline.txt")? {
        return CommandLine::parse(&String::from_utf8_lossy(&text));
    }
    let text = read("extlinux/extlinux.conf")?
        .with_context(|| format!("find the command line on {}: no cmdline.txt, no extlinux.conf", at.label))?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find_map(|line| line.trim().strip_prefix("append "));
    CommandLine::parse(line.with_context(|| format!("read extlinux.conf on {}: it has no line append", at.label))?)
}

/// The image and what is beside it, with their digests.
fn files(image: &Path) -> Result<Vec<SummedFile>> {
    let sums = image.with_file_name("SHA256SUMS");
    let sums = match std::fs::read_to_string(&sums) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e).with_context(|| format!("read {}", sums.display())),
    };
    let mut files = Vec::new();
    for ending in ENDINGS {
        // The image itself has the name that it was given by.
        let path = if ending == "img" { image.to_owned() } else { image.with_extension(ending) };
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let sha256 = digest::file(&path)?;
        let line = digest::lines(&sums).find(|(_, other)| *other == name);
        let is_as_summed = line.map(|(sum, _)| sum.eq_ignore_ascii_case(&sha256));
        files.push(SummedFile { name, size: metadata.len(), sha256, is_as_summed });
    }
    Ok(files)
}
