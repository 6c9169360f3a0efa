// SPDX-License-Identifier: Apache-2.0
//! Writes container images as OCI archives: <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>.
//!
//! Pure: the same entries give the same bytes. Names are sorted, times are 0, owners are root.
//! Layers are plain tar, not gzip: the archive is compressed as a whole by zstd, which packs tar better than gzip in
//! it, and a slow device does not unpack twice.

use crate::arch::Arch;
use crate::digest;
use anyhow::{Context, Result, bail};
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

/// What containerd calls the parts of an image.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// `sha256:…` over its unpacked layers (OCI image-spec, config.md, "Layer ChainID").
    pub chain_id: String,
    /// Hex SHA-256 of each blob, sorted.
    pub content: Vec<String>,
}

/// Reads the identity of the image in an archive that [`write()`] made.
pub fn identity(archive: &Path) -> Result<Identity> {
    let read = || -> Result<Identity> {
        let open = || std::fs::File::open(archive).map(tar::Archive::new);
        let (mut content, mut small) = (Vec::new(), BTreeMap::new());
        for entry in open()?.entries_with_seek()? {
            let mut entry = entry?;
            let path = entry.path()?.to_string_lossy().into_owned();
            let blob = path.strip_prefix("blobs/sha256/").map(str::to_owned);
            content.extend(blob.clone());
            // Manifest, config and index are small; layers are passed over.
            if entry.size() <= MAX_JSON {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                small.insert(blob.unwrap_or(path), bytes);
            }
        }
        content.sort();
        let json = |name: &str| -> Result<Value> {
            let name = name.strip_prefix("sha256:").unwrap_or(name);
            Ok(serde_json::from_slice(small.get(name).with_context(|| format!("find {name}"))?)?)
        };
        let text = |value: &Value| value.as_str().map(str::to_owned).context("read a digest");
        let manifest = json(&text(&json("index.json")?["manifests"][0]["digest"])?)?;
        let config = json(&text(&manifest["config"]["digest"])?)?;
        let mut layers = config["rootfs"]["diff_ids"].as_array().context("read diff_ids")?.iter().map(text);
        let first = layers.next().context("read diff_ids: there are none")??;
        let chain = |above: String, layer: Result<String>| {
            anyhow::Ok(format!("sha256:{}", digest::bytes(format!("{above} {}", layer?))))
        };
        Ok(Identity { chain_id: layers.try_fold(first, chain)?, content })
    };
    read().with_context(|| format!("read image archive {}", archive.display()))
}

#[cfg(test)]
#[path = "oci_tests.rs"]
mod tests;
