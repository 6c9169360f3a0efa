// SPDX-License-Identifier: Apache-2.0
//! Writes container images as OCI archives: <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>.
//!
//! Pure: the same entries give the same bytes. Names are sorted, times are 0, owners are root.
//! Layers are plain tar, not gzip: the bundle has them unpacked.

use crate::arch::Arch;
use crate::digest;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Media type of an OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// No index, manifest or config of an image is larger: containerd's own limit for a manifest (core/remotes/docker).
pub const MAX_JSON: u64 = 4 << 20;

/// Linux capability CAP_NET_BIND_SERVICE, permitted and effective, as the kernel keeps it in the extended attribute
/// `security.capability` (struct vfs_cap_data, revision 2): magic with the effective bit, then permitted and
/// inheritable, low and high words, little endian.
const NET_BIND_SERVICE: [u8; 20] = [0x01, 0, 0, 0x02, 0x00, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// One thing in an image's file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File {
        /// Content.
        bytes: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// May bind ports below 1024 as any user.
        net_bind_service: bool,
    },
    /// A symbolic link and its target.
    Link(String),
}

/// The file system of an image: absolute path to entry. Directories are made as needed.
pub type Tree = BTreeMap<String, Entry>;

/// How an image is run.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Argument vector.
    pub entrypoint: Vec<String>,
    /// `uid:gid`; none is root.
    pub user: Option<String>,
    /// PATH of the environment.
    pub path: Option<String>,
}

/// Bytes of an archive's blob.
pub enum Content {
    /// In memory.
    Bytes(Vec<u8>),
    /// In a file.
    File(PathBuf),
}

/// A manifest and the blobs that it names, ready to be written.
pub struct Image {
    /// Media type of the manifest.
    pub media_type: String,
    /// The manifest, byte for byte: its digest is the image's.
    pub manifest: Vec<u8>,
    /// Content by hex SHA-256, without the manifest.
    pub blobs: BTreeMap<String, Content>,
}

/// An image of one layer.
pub fn image(tree: &Tree, run: &Run, arch: Arch) -> Result<Image> {
    let layer = layer(tree)?;
    let layer_digest = digest::bytes(&layer);
    let config = serde_json::to_vec(&config(run, arch, &layer_digest))?;
    let config_digest = digest::bytes(&config);
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config_digest, config.len()),
        "layers": [descriptor(LAYER, &layer_digest, layer.len())],
    }))?;
    let blobs = [(layer_digest, layer), (config_digest, config)];
    let blobs = blobs.into_iter().map(|(digest, bytes)| (digest, Content::Bytes(bytes))).collect();
    Ok(Image { media_type: MANIFEST.to_owned(), manifest, blobs })
}

fn config(run: &Run, arch: Arch, layer_digest: &str) -> Value {
    let mut config = json!({ "WorkingDir": "/" });
    if !run.entrypoint.is_empty() {
        config["Entrypoint"] = json!(run.entrypoint);
    }
    if let Some(user) = &run.user {
        config["User"] = json!(user);
    }
    if let Some(path) = &run.path {
        config["Env"] = json!([format!("PATH={path}")]);
    }
    json!({
        "architecture": arch.name(),
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
    })
}

fn descriptor(media_type: &str, digest: &str, size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size })
}

/// The tree as a tar, parents before children.
fn layer(tree: &Tree) -> Result<Vec<u8>> {
    let mut directories = BTreeMap::new();
    for path in tree.keys() {
        let Some(relative) = path.strip_prefix('/').filter(|p| !p.is_empty() && !p.split('/').any(|c| c == ".."))
        else {
            bail!("write image layer: {path} is no absolute path");
        };
        for (end, _) in relative.match_indices('/') {
            directories.insert(&relative[..end], None);
        }
    }
    let mut all: BTreeMap<&str, Option<&Entry>> = directories;
    for (path, entry) in tree {
        if all.insert(path.trim_start_matches('/'), Some(entry)).is_some() {
            bail!("write image layer: {path} is both a directory and not");
        }
    }
    let mut tar = tar::Builder::new(Vec::new());
    for (path, entry) in all {
        append(&mut tar, path, entry).with_context(|| format!("write /{path} to image layer"))?;
    }
    tar.into_inner().context("write image layer")
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, entry: Option<&Entry>) -> Result<()> {
    match entry {
        None => tar.append_data(&mut header(tar::EntryType::Directory, 0, 0o755), format!("{path}/"), &[][..])?,
        Some(Entry::Link(target)) => tar.append_link(&mut header(tar::EntryType::Symlink, 0, 0o777), path, target)?,
        Some(Entry::File { bytes, mode, net_bind_service }) => {
            if *net_bind_service {
                tar.append_pax_extensions([("SCHILY.xattr.security.capability", &NET_BIND_SERVICE[..])])?;
            }
            let mut header = header(tar::EntryType::Regular, bytes.len() as u64, *mode);
            tar.append_data(&mut header, path, bytes.as_slice())?;
        }
    }
    Ok(())
}

/// A header without anything that differs between runs.
fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// Writes an image under the full name `reference` to a new file `to`, for `ctr -n k8s.io images import`.
pub fn write(image: &Image, reference: &str, arch: Arch, to: &Path) -> Result<()> {
    let digest = digest::bytes(&image.manifest);
    let mut entry = descriptor(&image.media_type, &digest, image.manifest.len());
    entry["platform"] = json!({ "architecture": arch.name(), "os": "linux" });
    // containerd takes the first as the image's name; other tools read the second, a tag.
    let tag = reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    entry["annotations"] = json!({ "io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag });
    let index = serde_json::to_vec(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] }))?;

    let file = std::fs::File::create(to).with_context(|| format!("create {}", to.display()))?;
    let mut tar = tar::Builder::new(std::io::BufWriter::new(file));
    let mut put = |name: &str, bytes: &[u8]| {
        let mut header = header(tar::EntryType::Regular, bytes.len() as u64, 0o644);
        tar.append_data(&mut header, name, bytes).with_context(|| format!("write {name} to {}", to.display()))
    };
    // First the file that names the format.
    put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    put("index.json", &index)?;
    let mut names: Vec<&String> = image.blobs.keys().chain([&digest]).collect();
    names.sort();
    names.dedup();
    for name in names {
        let at = format!("blobs/sha256/{name}");
        match image.blobs.get(name) {
            None => put(&at, &image.manifest)?,
            Some(Content::Bytes(bytes)) => put(&at, bytes)?,
            Some(Content::File(path)) => {
                put(&at, &std::fs::read(path).with_context(|| format!("read {}", path.display()))?)?;
            }
        }
    }
    let mut out = tar.into_inner().with_context(|| format!("write {}", to.display()))?;
    out.flush().with_context(|| format!("write {}", to.display()))
}

/// The image in an archive that [`write()`] made.
#[derive(Debug, PartialEq, Eq)]
pub struct Archived {
    /// Media type of the manifest.
    pub media_type: String,
    /// The manifest, byte for byte.
    pub manifest: Vec<u8>,
    /// The config that it names, byte for byte.
    pub config: Vec<u8>,
    /// Its layers, the lowest first.
    pub layers: Vec<ArchivedLayer>,
}

/// A layer in an archive, as it was stored: perhaps compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedLayer {
    /// Hex SHA-256 of the layer's tar, uncompressed.
    pub diff_id: String,
    /// Where its bytes begin in the archive.
    pub at: u64,
    /// How many there are.
    pub size: u64,
}

impl Archived {
    /// Hex SHA-256 of the manifest: the image's digest.
    pub fn digest(&self) -> String {
        digest::bytes(&self.manifest)
    }

    /// `sha256:…` over the layers up to each one (OCI image-spec, config.md, "Layer ChainID"): what containerd calls them.
    pub fn chain_ids(&self) -> Vec<String> {
        let mut chain: Vec<String> = Vec::new();
        for layer in &self.layers {
            let id = match chain.last() {
                None => layer.diff_id.clone(),
                Some(above) => digest::bytes(format!("{above} sha256:{}", layer.diff_id)),
            };
            chain.push(format!("sha256:{id}"));
        }
        chain
    }
}

/// Reads an archive that [`write()`] made, without its layers' bytes.
pub fn read(archive: &Path) -> Result<Archived> {
    let read = || -> Result<Archived> {
        let mut tar = tar::Archive::new(std::fs::File::open(archive)?);
        let (mut blobs, mut small) = (BTreeMap::new(), BTreeMap::new());
        for entry in tar.entries_with_seek()? {
            let mut entry = entry?;
            let path = entry.path()?.to_string_lossy().into_owned();
            let name = path.strip_prefix("blobs/sha256/").unwrap_or(&path).to_owned();
            blobs.insert(name.clone(), (entry.raw_file_position(), entry.size()));
            // Manifest, config and index are small; layers are passed over.
            if entry.size() <= MAX_JSON {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                small.insert(name, bytes);
            }
        }
        let hex = |value: &Value| {
            let text = value.as_str().and_then(|text| text.strip_prefix("sha256:"));
            // It becomes the name of a directory.
            let hex = text.filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
            hex.map(str::to_owned).context("read a digest")
        };
        let mut bytes = |name: &str| small.remove(name).with_context(|| format!("find {name}"));
        let index: Value = serde_json::from_slice(&bytes("index.json")?)?;
        let entry = &index["manifests"][0];
        let media_type = entry["mediaType"].as_str().unwrap_or(MANIFEST).to_owned();
        let manifest = bytes(&hex(&entry["digest"])?)?;
        let parsed: Value = serde_json::from_slice(&manifest)?;
        let config = bytes(&hex(&parsed["config"]["digest"])?)?;
        let diff_ids: Value = serde_json::from_slice(&config)?;
        let diff_ids = diff_ids["rootfs"]["diff_ids"].as_array().context("read diff_ids")?;
        let stored = parsed["layers"].as_array().context("read layers")?;
        ensure!(
            !diff_ids.is_empty() && diff_ids.len() == stored.len(),
            "read layers: {} for {}",
            stored.len(),
            diff_ids.len()
        );
        let mut layers = Vec::new();
        for (diff_id, stored) in diff_ids.iter().zip(stored) {
            let blob = hex(&stored["digest"])?;
            let (at, size) = *blobs.get(&blob).with_context(|| format!("find {blob}"))?;
            layers.push(ArchivedLayer { diff_id: hex(diff_id)?, at, size });
        }
        Ok(Archived { media_type, manifest, config, layers })
    };
    read().with_context(|| format!("read image archive {}", archive.display()))
}

#[cfg(test)]
#[path = "oci_tests.rs"]
mod tests;
