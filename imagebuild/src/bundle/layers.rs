// SPDX-License-Identifier: Apache-2.0
//! The files of an image's layer, as overlayfs takes them for its lower directory: what containerd's overlayfs snapshotter would
//! have after unpacking it (OCI image-spec, layer.md; Linux, Documentation/filesystems/overlayfs.rst).
//!
//! A layer comes from a registry, checked by its digest alone: nothing in it reaches a path outside of its directory, and
//! what could not be shown truly is an error.

use crate::digest;
use crate::oci::ArchivedLayer;
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use tar::EntryType;

/// What the name of a whiteout begins with.
const WHITEOUT: &str = ".wh.";
/// In a directory: nothing of it is there from the layers below.
const OPAQUE: &str = ".wh..wh..opq";
/// overlayfs's word for the same, an extended attribute with the value `y`.
pub const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";
/// What a PAX record of an extended attribute begins with.
pub const PAX_ATTRIBUTE: &str = "SCHILY.xattr.";

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file: where its bytes begin in the layer's tar, and how many there are.
    File(u64, u64),
    /// A symbolic link and its target.
    Link(String),
    /// A device or a named pipe, with major and minor number. Character device 0, 0 is overlayfs's whiteout.
    Special(EntryType, u32, u32),
}

/// Something in a file system, under one or more paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Extended attributes.
    pub attributes: BTreeMap<String, Vec<u8>>,
}

impl Inode {
    fn plain(kind: Kind, mode: u32) -> Inode {
        Inode { kind, mode, uid: 0, gid: 0, attributes: BTreeMap::new() }
    }

    fn whiteout() -> Inode {
        Inode::plain(Kind::Special(EntryType::Char, 0, 0), 0)
    }

    fn is_whiteout(&self) -> bool {
        self.kind == Kind::Special(EntryType::Char, 0, 0)
    }
}

/// A layer's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Path without a leading `/` to index in `inodes`; the empty path is the layer's own directory.
    pub paths: BTreeMap<String, usize>,
    /// What is there; paths with the same one are hard links.
    pub inodes: Vec<Inode>,
}

impl Layer {
    /// What is at a path.
    pub fn get(&self, path: &str) -> Option<&Inode> {
        self.paths.get(path).map(|index| &self.inodes[*index])
    }

    fn put(&mut self, path: &str, inode: Inode) {
        self.inodes.push(inode);
        self.paths.insert(path.to_owned(), self.inodes.len() - 1);
    }
}

/// Writes a layer's tar, uncompressed, from its archive to `to`, and checks its digest.
pub fn extract(archive: &Path, layer: &ArchivedLayer, to: &Path) -> Result<()> {
    let mut file = File::open(archive).with_context(|| format!("open {}", archive.display()))?;
    let mut write = || -> Result<()> {
        file.seek(SeekFrom::Start(layer.at))?;
        let mut magic = Vec::new();
        (&file).take(4).read_to_end(&mut magic)?;
        file.seek(SeekFrom::Start(layer.at))?;
        let stored = BufReader::new((&file).take(layer.size));
        let mut plain: Box<dyn Read> = match magic.as_slice() {
            [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(stored)),
            [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::with_buffer(stored)?),
            _ => Box::new(stored),
        };
        std::io::copy(&mut plain, &mut File::create(to)?)?;
        Ok(())
    };
    write().with_context(|| format!("unpack layer {} of {}", layer.diff_id, archive.display()))?;
    let found = digest::file(to)?;
    ensure!(found == layer.diff_id, "verify layer {}: found {found}", layer.diff_id);
    Ok(())
}

/// Reads a layer's tar; `below` are the layers under it, the lowest first.
pub fn read(tar: &Path, below: &[&Layer]) -> Result<Layer> {
    let file = File::open(tar).with_context(|| format!("open {}", tar.display()))?;
    let mut reader = Reader {
        layer: Layer { paths: BTreeMap::new(), inodes: Vec::new() },
        below,
        removed: BTreeSet::new(),
        opaque: BTreeSet::new(),
    };
    reader.layer.put("", Inode::plain(Kind::Directory, 0o755));
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek().context("read the layer")? {
        let mut entry = entry.context("read the layer")?;
        let path = String::from_utf8(entry.path_bytes().into_owned()).context("read a name of the layer")?;
        reader.add(&path, &mut entry).with_context(|| format!("read {path} of the layer"))?;
    }
    reader.finish()
}

struct Reader<'a> {
    layer: Layer,
    below: &'a [&'a Layer],
    /// Paths of the layers below that are not there any more.
    removed: BTreeSet<String>,
    opaque: BTreeSet<String>,
}

impl Reader<'_> {
    fn add<R: Read>(&mut self, name: &str, entry: &mut tar::Entry<R>) -> Result<()> {
        let header = entry.header();
        let (kind, mode) = (header.entry_type(), header.mode()? & 0o7777);
        // What the archive says of itself.
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let path = clean(name)?;
        let (parent, base) = path.rsplit_once('/').unwrap_or(("", &path));
        if base == OPAQUE {
            self.directory(parent)?;
            self.opaque.insert(parent.to_owned());
            return Ok(());
        }
        if let Some(gone) = base.strip_prefix(WHITEOUT) {
            // Others of this form are of aufs alone.
            if !gone.starts_with(WHITEOUT) {
                ensure!(!gone.is_empty() && gone != "." && gone != "..", "find what it removes");
                self.directory(parent)?;
                self.removed.insert(join(parent, gone));
            }
            return Ok(());
        }
        let (uid, gid) = (header.uid()?, header.gid()?);
        let kind = match kind {
            EntryType::Directory => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File(entry.raw_file_position(), entry.size()),
            EntryType::Symlink => Kind::Link(target(entry)?),
            EntryType::Link => {
                let target = clean(&target(entry)?)?;
                let same =
                    *self.layer.paths.get(&target).with_context(|| format!("find {target}, of which it is a link"))?;
                self.make_room(&path, false)?;
                self.layer.paths.insert(path, same);
                return Ok(());
            }
            EntryType::Fifo => Kind::Special(kind, 0, 0),
            EntryType::Char | EntryType::Block => {
                let number = |field: Option<u32>| field.context("find its numbers");
                Kind::Special(kind, number(header.device_major()?)?, number(header.device_minor()?)?)
            }
            other => bail!("its type {:?} is unknown", other.as_byte() as char),
        };
        let attributes = attributes(entry)?;
        self.make_room(&path, kind == Kind::Directory)?;
        self.layer.put(&path, Inode { kind, mode, uid, gid, attributes });
        Ok(())
    }

    /// Makes the directories above a path, and removes what is there earlier of this layer, except a directory for a
    /// directory.
    fn make_room(&mut self, path: &str, directory: bool) -> Result<()> {
        if path.is_empty() {
            ensure!(directory, "the layer's own directory is none");
            return Ok(());
        }
        self.directory(path.rsplit_once('/').map_or("", |(parent, _)| parent))?;
        if !directory || self.layer.get(path).is_some_and(|inode| inode.kind != Kind::Directory) {
            let below = format!("{path}/");
            self.layer.paths.retain(|other, _| other != path && !other.starts_with(&below));
        }
        Ok(())
    }

    /// Makes a directory that no entry has named so far, with owner and mode that the layers below give it.
    fn directory(&mut self, path: &str) -> Result<()> {
        match self.layer.get(path).map(|inode| inode.kind == Kind::Directory) {
            Some(true) => return Ok(()),
            // containerd would follow a link in the whole file system, and write elsewhere.
            Some(false) => bail!("{path}, above it, is no directory"),
            None => {}
        }
        self.directory(path.rsplit_once('/').map_or("", |(parent, _)| parent))?;
        let inode = match lower(self.below, path) {
            Some(inode) => {
                ensure!(inode.kind == Kind::Directory, "{path}, above it, is no directory in the layers below");
                let mut inode = inode.clone();
                inode.attributes.remove(OPAQUE_ATTRIBUTE);
                inode
            }
            None => Inode::plain(Kind::Directory, 0o755),
        };
        self.layer.put(path, inode);
        Ok(())
    }

    fn finish(mut self) -> Result<Layer> {
        for path in std::mem::take(&mut self.removed) {
            match self.layer.get(&path).map(|inode| inode.kind == Kind::Directory) {
                // It is there anew.
                Some(true) => drop(self.opaque.insert(path)),
                Some(false) => {}
                None if lower(self.below, &path).is_some() => self.layer.put(&path, Inode::whiteout()),
                None => {}
            }
        }
        for path in self.opaque.iter().filter(|path| lower(self.below, path).is_some()) {
            let index = self.layer.paths.get(path).with_context(|| format!("find {path} of the layer"))?;
            self.layer.inodes[*index].attributes.insert(OPAQUE_ATTRIBUTE.to_owned(), b"y".to_vec());
        }
        Ok(self.layer)
    }
}

/// What is at a path of the layers together.
fn lower<'l>(layers: &[&'l Layer], path: &str) -> Option<&'l Inode> {
    for layer in layers.iter().rev() {
        if let Some(inode) = layer.get(path) {
            return (!inode.is_whiteout()).then_some(inode);
        }
        // Something above it hides what is below this layer.
        let mut above = path;
        while let Some((parent, _)) = above.rsplit_once('/') {
            above = parent;
            let hides = |i: &Inode| i.kind != Kind::Directory || i.attributes.contains_key(OPAQUE_ATTRIBUTE);
            if layer.get(above).is_some_and(hides) {
                return None;
            }
        }
    }
    None
}

/// A name of a tar as a path below the layer's directory: no `.`, no leading or final `/`.
fn clean(name: &str) -> Result<String> {
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    ensure!(!parts.contains(&".."), "its name has ..");
    Ok(parts.join("/"))
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

fn target<R: Read>(entry: &tar::Entry<R>) -> Result<String> {
    let bytes = entry.link_name_bytes().context("find its target")?;
    String::from_utf8(bytes.into_owned()).context("read its target")
}

fn attributes<R: Read>(entry: &mut tar::Entry<R>) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut attributes = BTreeMap::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        let Some(name) = extension.key()?.strip_prefix(PAX_ATTRIBUTE) else { continue };
        // Those are overlayfs's: an image that brings them would decide what is seen of other layers.
        ensure!(!name.starts_with("trusted."), "its extended attribute {name} is not an image's to set");
        attributes.insert(name.to_owned(), extension.value_bytes().to_vec());
    }
    Ok(attributes)
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
