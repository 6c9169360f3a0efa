// SPDX-License-Identifier: Apache-2.0
//! One tar out of several: each path once, in order, with owner, mode and extended attributes. What mkfs.erofs reads.
//!
//! Content stays where it is until the archive is written; only its place is remembered.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tar::{EntryType, Header};

/// What pax calls the attribute that follows (pax(1) as written by GNU tar, star and containers).
const XATTR: &str = "SCHILY.xattr.";
/// Bytes of a name or of a link's target in a tar header; longer ones are in a pax record.
const NAME: usize = 100;

/// Files to be archived, by path: relative, without `./`, no slash at the end.
#[derive(Debug, Default)]
pub struct Archive {
    members: BTreeMap<Vec<u8>, Member>,
    /// Archives that members are read from.
    sources: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    mode: u32,
    owner: (u64, u64),
    /// Full name of the pax record, and value.
    attributes: Vec<(String, Vec<u8>)>,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Directory,
    File(Content),
    Symlink(Vec<u8>),
    /// Another name of the file at this path.
    Hardlink(Vec<u8>),
    /// Character or block device, or FIFO, with major and minor number.
    Special(EntryType, u32, u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Here(Vec<u8>),
    /// Part of a source: its number, first byte, bytes.
    Part(usize, u64, u64),
}

impl Archive {
    /// Adds a directory of root's, unless there is one.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        self.add(path.as_bytes(), Member::of_root(mode, Kind::Directory))
    }

    /// Adds a file of root's.
    pub fn file(&mut self, path: &str, mode: u32, content: Vec<u8>) -> Result<()> {
        self.add(path.as_bytes(), Member::of_root(mode, Kind::File(Content::Here(content))))
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.add(path.as_bytes(), Member::of_root(0o777, Kind::Symlink(target.as_bytes().to_owned())))
    }

    /// Adds all members of a tar. It must stay as it is until this archive is written.
    ///
    /// # Errors
    /// When it cannot be read, has a member of a kind that no file system keeps, or one that takes a directory's place.
    pub fn tar(&mut self, path: &Path) -> Result<()> {
        let what = || format!("read {}", path.display());
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let source = self.sources.len();
        self.sources.push(path.to_owned());
        let mut archive = tar::Archive::new(BufReader::new(file));
        let mut ahead = Ahead::default();
        // Raw: the tar crate's own reader of pax records ends a value at its first byte 10, and capabilities are binary.
        for entry in archive.entries_with_seek().with_context(what)?.raw(true) {
            let mut entry = entry.with_context(what)?;
            if !ahead.read(&mut entry).with_context(what)? {
                let ahead = std::mem::take(&mut ahead);
                let name = ahead.path.clone().unwrap_or_else(|| entry.path_bytes().into_owned());
                member(&entry, source, ahead)
                    .and_then(|member| self.add(&normal(&name)?, member))
                    .with_context(|| format!("{}: {}", what(), String::from_utf8_lossy(&name)))?;
            }
        }
        Ok(())
    }

    /// Adds all files and links below a directory of the build machine, as root's, with their modes. Directories get
    /// mode 0755, and those that are known already stay as they are.
    pub fn tree(&mut self, directory: &Path) -> Result<()> {
        self.tree_below(directory, &[])
    }

    fn tree_below(&mut self, directory: &Path, prefix: &[u8]) -> Result<()> {
        for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
            let (entry, mut name) = (entry?, prefix.to_owned());
            let path = entry.path();
            name.extend_from_slice(entry.file_name().as_bytes());
            let meta = entry.metadata().with_context(|| format!("read the type of {}", path.display()))?;
            if meta.is_dir() {
                self.add(&name, Member::of_root(0o755, Kind::Directory))?;
                name.push(b'/');
                self.tree_below(&path, &name)?;
            } else if meta.is_symlink() {
                let target = fs::read_link(&path).with_context(|| format!("read {}", path.display()))?;
                self.add(&name, Member::of_root(0o777, Kind::Symlink(target.as_os_str().as_bytes().to_owned())))?;
            } else {
                let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                let mode = meta.permissions().mode() & 0o7777;
                self.add(&name, Member::of_root(mode, Kind::File(Content::Here(content))))?;
            }
        }
        Ok(())
    }

    /// What is below a directory, named from there: a file system of its own. Hard links have to stay below it.
    ///
    /// # Errors
    /// When there is nothing below it, or a hard link leads out of it.
    pub fn below(self, directory: &str) -> Result<Archive> {
        let prefix = format!("{directory}/").into_bytes();
        let mut members = BTreeMap::new();
        for (path, mut member) in self.members {
            let Some(rest) = path.strip_prefix(&prefix[..]) else { continue };
            if let Kind::Hardlink(target) = &mut member.kind {
                let inside = target.strip_prefix(&prefix[..]).map(<[u8]>::to_vec);
                *target =
                    inside.with_context(|| format!("take {}: a link leads out", String::from_utf8_lossy(&path)))?;
            }
            members.insert(rest.to_vec(), member);
        }
        ensure!(!members.is_empty(), "take what is below {directory}: there is nothing");
        Ok(Archive { members, sources: self.sources })
    }

    /// A later member replaces an earlier one at its path; a directory stays as it was first added.
    fn add(&mut self, path: &[u8], member: Member) -> Result<()> {
        let shown = || String::from_utf8_lossy(path).into_owned();
        match self.members.get(path).map(|known| known.kind == Kind::Directory) {
            Some(true) if member.kind == Kind::Directory => return Ok(()),
            Some(true) => bail!("add {}: it is a directory", shown()),
            Some(false) if member.kind == Kind::Directory => bail!("add directory {}: it is none already", shown()),
            _ => {}
        }
        if !path.is_empty() {
            self.parents(path)?;
        }
        self.members.insert(path.to_owned(), member);
        Ok(())
    }

    /// Makes sure that everything above a path is a directory.
    fn parents(&mut self, path: &[u8]) -> Result<()> {
        let Some(slash) = path.iter().rposition(|byte| *byte == b'/') else { return Ok(()) };
        let parent = &path[..slash];
        match self.members.get(parent) {
            Some(Member { kind: Kind::Directory, .. }) => Ok(()),
            Some(_) => {
                bail!("add {}: {} is not a directory", String::from_utf8_lossy(path), String::from_utf8_lossy(parent))
            }
            None => {
                self.parents(parent)?;
                self.members.insert(parent.to_owned(), Member::of_root(0o755, Kind::Directory));
                Ok(())
            }
        }
    }

    /// Content of a file.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let member = self.members.get(path.as_bytes()).with_context(|| format!("find {path} in the archive"))?;
        let Kind::File(content) = &member.kind else { bail!("read {path} in the archive: it is no file") };
        let mut bytes = Vec::new();
        self.content(content)?.read_to_end(&mut bytes).with_context(|| format!("read {path}"))?;
        Ok(bytes)
    }

    /// Bytes of files, and number of members, below a directory (with a slash at its end).
    pub fn size(&self, directory: &str) -> (u64, usize) {
        let below = self.members.iter().filter(|(path, _)| path.starts_with(directory.as_bytes()));
        below.fold((0, 0), |(bytes, count), (_, member)| (bytes + member.kind.length(), count + 1))
    }

    fn content<'a>(&self, content: &'a Content) -> Result<Box<dyn Read + 'a>> {
        Ok(match content {
            Content::Here(bytes) => Box::new(bytes.as_slice()),
            Content::Part(source, offset, length) => {
                let path = self.sources.get(*source).context("find the source of a member")?;
                let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
                file.seek(SeekFrom::Start(*offset)).with_context(|| format!("read {}", path.display()))?;
                Box::new(file.take(*length))
            }
        })
    }

    /// Writes the archive: sorted, directories before what is in them, hard links after all files.
    ///
    /// # Errors
    /// When a source cannot be read, the output cannot be written, or a hard link leads nowhere.
    pub fn write(&self, to: impl Write) -> Result<()> {
        let mut builder = tar::Builder::new(to);
        let (links, others): (Vec<_>, Vec<_>) =
            self.members.iter().partition(|(_, member)| matches!(member.kind, Kind::Hardlink(_)));
        for (path, member) in others.into_iter().chain(links) {
            self.append(&mut builder, path, member)
                .with_context(|| format!("archive {}", String::from_utf8_lossy(path)))?;
        }
        builder.into_inner().and_then(|mut to| to.flush()).context("end the archive")
    }

    fn append(&self, builder: &mut tar::Builder<impl Write>, path: &[u8], member: &Member) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_mode(member.mode);
        header.set_uid(member.owner.0);
        header.set_gid(member.owner.1);
        header.set_mtime(0);
        header.set_size(member.kind.length());
        let mut records: Vec<(&str, &[u8])> =
            member.attributes.iter().map(|(k, v)| (k.as_str(), v.as_slice())).collect();
        let name = if path.is_empty() { b"./" } else { path };
        if name.len() > NAME {
            records.push(("path", name));
        }
        let shown = &name[..name.len().min(NAME)];
        header.as_old_mut().name[..shown.len()].copy_from_slice(shown);
        let mut none: &[u8] = &[];
        let mut content: Box<dyn Read> = Box::new(&mut none);
        match &member.kind {
            Kind::Directory => header.set_entry_type(EntryType::Directory),
            Kind::File(place) => {
                header.set_entry_type(EntryType::Regular);
                content = self.content(place)?;
            }
            Kind::Special(kind, major, minor) => {
                header.set_entry_type(*kind);
                header.set_device_major(*major)?;
                header.set_device_minor(*minor)?;
            }
            Kind::Symlink(target) | Kind::Hardlink(target) => {
                let hard = matches!(member.kind, Kind::Hardlink(_));
                ensure!(
                    !hard || matches!(self.members.get(target), Some(Member { kind: Kind::File(_), .. })),
                    "find {}, which it is a hard link to",
                    String::from_utf8_lossy(target)
                );
                header.set_entry_type(if hard { EntryType::Link } else { EntryType::Symlink });
                if target.len() > NAME {
                    records.push(("linkpath", target));
                }
                let shown = &target[..target.len().min(NAME)];
                header.as_old_mut().linkname[..shown.len()].copy_from_slice(shown);
            }
        }
        if !records.is_empty() {
            builder.append_pax_extensions(records)?;
        }
        header.set_cksum();
        Ok(builder.append(&header, content)?)
    }
}

impl Member {
    fn of_root(mode: u32, kind: Kind) -> Member {
        Member { mode, owner: (0, 0), attributes: Vec::new(), kind }
    }
}

impl Kind {
    fn length(&self) -> u64 {
        match self {
            Kind::File(Content::Here(bytes)) => bytes.len() as u64,
            Kind::File(Content::Part(_, _, length)) => *length,
            _ => 0,
        }
    }
}

/// What stands ahead of a member's own header and is valid for it alone.
#[derive(Debug, Default)]
struct Ahead {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    attributes: Vec<(String, Vec<u8>)>,
}

impl Ahead {
    /// Whether this was no member, but a header ahead of one: pax records, or GNU tar's long names.
    fn read<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<bool> {
        let kind = entry.header().entry_type();
        if !matches!(
            kind,
            EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink
        ) {
            return Ok(false);
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        let name = || bytes.split(|byte| *byte == 0).next().map(<[u8]>::to_owned);
        match kind {
            EntryType::GNULongName => self.path = name(),
            EntryType::GNULongLink => self.target = name(),
            // What is valid for all members is the archive's comment or a date.
            EntryType::XGlobalHeader => {}
            _ => self.records(&bytes)?,
        }
        Ok(true)
    }

    /// Reads pax records: `LENGTH KEY=VALUE` and a byte 10; the length counts the whole record.
    fn records(&mut self, mut bytes: &[u8]) -> Result<()> {
        let one = |bytes: &[u8]| -> Option<(String, Vec<u8>, usize)> {
            let blank = bytes.iter().position(|byte| *byte == b' ')?;
            let length = std::str::from_utf8(&bytes[..blank]).ok()?.parse().ok()?;
            let record = bytes.get(blank + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            Some((String::from_utf8(record[..equals].to_owned()).ok()?, record[equals + 1..].to_owned(), length))
        };
        while !bytes.is_empty() {
            let (key, value, length) = one(bytes).context("read its pax records")?;
            bytes = &bytes[length..];
            match key.as_str() {
                "path" => self.path = Some(value),
                "linkpath" => self.target = Some(value),
                "size" => bail!("a member of 8 GiB or more"),
                key if key.starts_with("GNU.sparse.") => bail!("a member with holes"),
                _ if key.starts_with(XATTR) => self.attributes.push((key, value)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Reads the header of a member.
fn member<R: Read>(entry: &tar::Entry<'_, R>, source: usize, ahead: Ahead) -> Result<Member> {
    let header = entry.header();
    let target = || {
        let target = ahead.target.clone().or_else(|| entry.link_name_bytes().map(|name| name.into_owned()));
        target.context("read its target")
    };
    let kind = match header.entry_type() {
        EntryType::Directory => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => {
            Kind::File(Content::Part(source, entry.raw_file_position(), entry.size()))
        }
        EntryType::Symlink => Kind::Symlink(target()?),
        EntryType::Link => Kind::Hardlink(normal(&target()?)?),
        kind @ (EntryType::Char | EntryType::Block | EntryType::Fifo) => {
            Kind::Special(kind, header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0))
        }
        other => bail!("a member of type {other:?}"),
    };
    let owner = (header.uid()?, header.gid()?);
    Ok(Member { mode: header.mode()? & 0o7777, owner, attributes: ahead.attributes, kind })
}

/// `./usr/bin/` → `usr/bin`.
fn normal(name: &[u8]) -> Result<Vec<u8>> {
    ensure!(!name.starts_with(b"/"), "its name is absolute");
    let parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    ensure!(!parts.contains(&b"..".as_slice()), "its name has `..`");
    Ok(parts.join(&b'/'))
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
