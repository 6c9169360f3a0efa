// SPDX-License-Identifier: Apache-2.0
//! Writes the bundle's tar: owners, modes, devices and extended attributes that no directory of a build without root can
//! hold. Times are 0, and what does not fit into a header stands in PAX records (POSIX.1-2024, pax).

use super::layers::{Inode, Kind, Layer, PAX_ATTRIBUTE};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tar::{EntryType, Header};

/// Bytes of a header's fields for name and target.
const FIELD: usize = 100;

/// A tar that is being written.
pub struct Packer(tar::Builder<BufWriter<File>>);

impl Packer {
    /// Begins a tar.
    pub fn create(to: &Path) -> Result<Packer> {
        let file = File::create(to).with_context(|| format!("create {}", to.display()))?;
        Ok(Packer(tar::Builder::new(BufWriter::with_capacity(1 << 20, file))))
    }

    /// Ends it.
    pub fn finish(self) -> Result<()> {
        let written = || self.0.into_inner()?.into_inner().map_err(std::io::IntoInnerError::into_error)?.flush();
        written().context("write the bundle's tar")
    }

    /// A directory of root's.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        self.put(path, EntryType::Directory, mode, &Extra::default(), &[][..], 0)
    }

    /// A symbolic link of root's.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.put(path, EntryType::Symlink, 0o777, &Extra::to(target), &[][..], 0)
    }

    /// A file of root's with these bytes.
    pub fn bytes(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        self.put(path, EntryType::Regular, mode, &Extra::default(), bytes, bytes.len() as u64)
    }

    /// A file of root's with the bytes of another.
    pub fn file(&mut self, path: &str, mode: u32, from: &Path) -> Result<()> {
        let file = File::open(from).with_context(|| format!("open {}", from.display()))?;
        let size = file.metadata().with_context(|| format!("read the size of {}", from.display()))?.len();
        self.put(path, EntryType::Regular, mode, &Extra::default(), file, size)
    }

    /// A directory with all below it, of root's, with the modes that it has.
    pub fn tree(&mut self, path: &str, from: &Path) -> Result<()> {
        let metadata = fs::symlink_metadata(from).with_context(|| format!("read the type of {}", from.display()))?;
        if metadata.is_symlink() {
            let target = fs::read_link(from).with_context(|| format!("read link {}", from.display()))?;
            return self.link(path, target.to_str().with_context(|| format!("read link {}", from.display()))?);
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if !metadata.is_dir() {
            return self.file(path, mode, from);
        }
        self.directory(path, mode)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
            let name = entry.with_context(|| format!("list {}", from.display()))?.file_name();
            names.push(name.into_string().ok().with_context(|| format!("read a name in {}", from.display()))?);
        }
        names.sort();
        names.iter().try_for_each(|name| self.tree(&format!("{path}/{name}"), &from.join(name)))
    }

    /// A layer as a directory; `tar` has the bytes of its files.
    pub fn layer(&mut self, path: &str, layer: &Layer, tar: &Path) -> Result<()> {
        let mut source = File::open(tar).with_context(|| format!("open {}", tar.display()))?;
        let mut first: BTreeMap<usize, String> = BTreeMap::new();
        for (relative, index) in &layer.paths {
            let at = if relative.is_empty() { path.to_owned() } else { format!("{path}/{relative}") };
            let Inode { kind, mode, uid, gid, attributes } = &layer.inodes[*index];
            let mut extra = Extra { uid: *uid, gid: *gid, attributes: attributes.clone(), ..Extra::default() };
            // Further paths of what is there already.
            if let Some(earlier) = first.get(index) {
                self.put(&at, EntryType::Link, *mode, &Extra::to(earlier), &[][..], 0)?;
                continue;
            }
            match kind {
                Kind::Directory => self.put(&at, EntryType::Directory, *mode, &extra, &[][..], 0)?,
                Kind::Link(target) => {
                    extra.target.clone_from(target);
                    self.put(&at, EntryType::Symlink, 0o777, &extra, &[][..], 0)?;
                }
                Kind::Special(kind, major, minor) => {
                    extra.device = (*kind != EntryType::Fifo).then_some((*major, *minor));
                    self.put(&at, *kind, *mode, &extra, &[][..], 0)?;
                }
                Kind::File(offset, size) => {
                    source.seek(SeekFrom::Start(*offset)).with_context(|| format!("read {}", tar.display()))?;
                    let bytes = BufReader::new((&source).take(*size));
                    self.put(&at, EntryType::Regular, *mode, &extra, bytes, *size)?;
                }
            }
            if *kind != Kind::Directory {
                first.insert(*index, at);
            }
        }
        Ok(())
    }

    fn put(
        &mut self,
        path: &str,
        kind: EntryType,
        mode: u32,
        extra: &Extra,
        bytes: impl Read,
        size: u64,
    ) -> Result<()> {
        let write = || -> Result<()> {
            let name = if kind == EntryType::Directory { format!("{path}/") } else { path.to_owned() };
            let mut records: Vec<(String, &[u8])> = Vec::new();
            if name.len() > FIELD {
                records.push(("path".to_owned(), name.as_bytes()));
            }
            if extra.target.len() > FIELD {
                records.push(("linkpath".to_owned(), extra.target.as_bytes()));
            }
            for (attribute, value) in &extra.attributes {
                records.push((format!("{PAX_ATTRIBUTE}{attribute}"), value));
            }
            if !records.is_empty() {
                self.0.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), *value)))?;
            }
            let mut header = Header::new_ustar();
            header.set_entry_type(kind);
            header.set_size(size);
            header.set_mode(mode);
            header.set_uid(extra.uid);
            header.set_gid(extra.gid);
            header.set_mtime(0);
            let fields = header.as_ustar_mut().context("make a header")?;
            // A longer one is in a record; the field is then not read.
            cut(&mut fields.name, name.as_bytes());
            cut(&mut fields.linkname, extra.target.as_bytes());
            if let Some((major, minor)) = extra.device {
                header.set_device_major(major)?;
                header.set_device_minor(minor)?;
            }
            header.set_cksum();
            let mut bytes = Counted { inner: bytes, count: 0 };
            self.0.append(&header, &mut bytes)?;
            ensure!(bytes.count == size, "it has {} bytes, not {size}", bytes.count);
            Ok(())
        };
        write().with_context(|| format!("write {path} to the bundle's tar"))
    }
}

/// What most entries do without.
#[derive(Default)]
struct Extra {
    uid: u64,
    gid: u64,
    target: String,
    device: Option<(u32, u32)>,
    attributes: BTreeMap<String, Vec<u8>>,
}

impl Extra {
    fn to(target: &str) -> Extra {
        Extra { target: target.to_owned(), ..Extra::default() }
    }
}

fn cut(field: &mut [u8; FIELD], text: &[u8]) {
    let length = text.len().min(FIELD);
    field[..length].copy_from_slice(&text[..length]);
}

/// A tar's header says how many bytes follow, and the crate does not compare.
struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.count += n as u64;
        Ok(n)
    }
}
