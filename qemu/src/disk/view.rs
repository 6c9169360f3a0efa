// SPDX-License-Identifier: Apache-2.0
//! The files of a switched-off disk as the running system would see them: /var on the data partition, /etc there over the
//! root's own (an overlayfs: Documentation/filesystems/overlayfs.rst; there are no character devices in /etc but its
//! whiteouts), everything else in the root file system. Before the first boot there is only the root.

use super::{DATA, DiskImage, FIRST_SLOT};
use anyhow::{Context, Result, bail};
use erofs_rs::types::Inode;
use ext4_view::{Ext4, Ext4Error, Ext4Read, FileType};
use imagebuild::erofs_reader::{Root, permissions};
use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Directory of the data partition that holds what is changed in /etc.
pub(super) const UPPER: &str = "/etc/upper";
/// Links that are followed before they count as a circle.
const LINKS: usize = 40;

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    /// With its target.
    Link(String),
    /// A character device: in an upper directory, the sign that a name of the lower one is gone.
    Character,
    /// Another device, a socket, a pipe.
    Other,
}

impl Kind {
    /// As in `st_mode`.
    fn bits(&self) -> u16 {
        match self {
            Kind::File => 0o100_000,
            Kind::Directory => 0o040_000,
            Kind::Link(_) => 0o120_000,
            Kind::Character => 0o020_000,
            Kind::Other => 0,
        }
    }
}

/// A file, directory or link.
pub(super) struct Found {
    pub kind: Kind,
    /// Type and permissions, as in `st_mode`.
    pub mode: u16,
    /// Owner and group.
    pub owner: (u32, u32),
    place: Place,
}

/// Where it is.
enum Place {
    /// Path on the data partition.
    Data(String),
    Root(Inode),
}

/// An ext4 file system within a file.
struct Extent {
    file: File,
    offset: u64,
}

impl Ext4Read for Extent {
    fn read(&mut self, start_byte: u64, dst: &mut [u8]) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        Ok(self.file.read_exact_at(dst, self.offset + start_byte)?)
    }
}

/// A data partition: on its disk, or in a file of its own.
struct Data {
    files: Ext4,
    /// As e2fsprogs name it.
    spec: String,
}

/// Both file systems of a disk.
pub(super) struct View {
    root: Root,
    data: Option<Data>,
}

impl View {
    /// As the disk is. What is only in the journal of the data partition counts as written.
    pub(super) fn of(disk: &DiskImage) -> Result<View> {
        let data = match disk.named(DATA)? {
            Some(place) => Some(Data::open(disk.path(), place.offset, disk.spec(&place)?)?),
            None => None,
        };
        View::with(disk, data)
    }

    /// The disk with a data partition that is in a file of its own.
    pub(super) fn checked(disk: &DiskImage, data: &std::path::Path) -> Result<View> {
        View::with(disk, Some(Data::open(data, 0, data.display().to_string())?))
    }

    fn with(disk: &DiskImage, data: Option<Data>) -> Result<View> {
        let root =
            disk.named(FIRST_SLOT)?.with_context(|| format!("find {FIRST_SLOT} on {}", disk.path().display()))?;
        Ok(View { root: Root::open(disk.path(), root.offset, root.length)?, data })
    }

    /// The path without links: those on the way are followed, one at its end only if `last`. What does not exist has
    /// none.
    pub(super) fn resolve(&self, path: &str, last: bool) -> Result<String> {
        let mut left: Vec<String> = parts(path).rev().map(str::to_owned).collect();
        let (mut at, mut links) = (String::new(), 0);
        while let Some(name) = left.pop() {
            match name.as_str() {
                "." => continue,
                ".." => {
                    at.truncate(at.rfind('/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let next = format!("{at}/{name}");
            let target = match self.find(&next)? {
                Some(Found { kind: Kind::Link(target), .. }) if last || !left.is_empty() => target,
                _ => {
                    at = next;
                    continue;
                }
            };
            links += 1;
            if links > LINKS {
                bail!("follow {path}: it leads in a circle");
            }
            if target.starts_with('/') {
                at.clear();
            }
            left.extend(parts(&target).rev().map(str::to_owned));
        }
        Ok(if at.is_empty() { "/".to_owned() } else { at })
    }

    /// What an absolute path is that has no link on its way.
    pub(super) fn find(&self, path: &str) -> Result<Option<Found>> {
        if within(path, "/var") && self.on_data("/var")?.is_some() {
            return self.on_data(path);
        }
        let Some((parent, name)) = path.rsplit_once('/').filter(|(parent, _)| within(parent, "/etc")) else {
            // /etc itself has the mode of the data partition's, where there is one.
            let upper = if path == "/etc" { self.on_data(UPPER)? } else { None };
            return match upper {
                Some(upper) => Ok(Some(upper)),
                None => self.in_root(path),
            };
        };
        let (upper, lower) = self.layers(parent)?;
        let above = match upper {
            Some(upper) => self.on_data(&format!("{upper}/{name}"))?,
            None => None,
        };
        match above {
            Some(found) if found.kind == Kind::Character => Ok(None),
            Some(found) => Ok(Some(found)),
            None if lower => self.in_root(path),
            None => Ok(None),
        }
    }

    /// Names in a directory, sorted; no link is on its way.
    pub(super) fn names(&self, directory: &str) -> Result<Vec<String>> {
        if within(directory, "/var") && self.on_data("/var")?.is_some() {
            return self.names_on_data(directory);
        }
        if !within(directory, "/etc") {
            return self.names_in_root(directory);
        }
        let (upper, lower) = self.layers(directory)?;
        let mut names = if lower { self.names_in_root(directory)? } else { Vec::new() };
        if let Some(upper) = upper {
            for name in self.names_on_data(&upper)? {
                let found = self.on_data(&format!("{upper}/{name}"))?;
                names.retain(|other| *other != name);
                if found.is_none_or(|found| found.kind != Kind::Character) {
                    names.push(name);
                }
            }
        }
        names.sort();
        Ok(names)
    }

    /// The bytes of a file.
    pub(super) fn read(&self, found: &Found) -> Result<Vec<u8>> {
        match (&found.place, &self.data) {
            (Place::Root(node), _) => self.root.read(*node),
            (Place::Data(path), Some(data)) => data.files.read(path.as_str()).with_context(|| format!("read {path}")),
            (Place::Data(path), None) => bail!("read {path}: there is no data partition"),
        }
    }

    /// Offset on the disk of what a file of the root is read from; `None` for one of the data partition.
    pub(super) fn place(&self, found: &Found) -> Result<Option<u64>> {
        match found.place {
            Place::Root(node) => self.root.place(node).map(Some),
            Place::Data(_) => Ok(None),
        }
    }

    /// Of a directory below /etc: its upper one on the data partition, and whether that of the root shows through.
    fn layers(&self, directory: &str) -> Result<(Option<String>, bool)> {
        let upper = self.on_data(UPPER)?.map(|_| UPPER.to_owned());
        let (mut upper, mut lower, mut at) = (upper, true, "/etc".to_owned());
        for name in parts(directory).skip(1) {
            at = format!("{at}/{name}");
            let above = match upper {
                Some(upper) => {
                    self.on_data(&format!("{upper}/{name}"))?.map(|found| (format!("{upper}/{name}"), found))
                }
                None => None,
            };
            let below = lower && self.in_root(&at)?.is_some_and(|found| found.kind == Kind::Directory);
            (upper, lower) = match above {
                Some((path, found)) if found.kind == Kind::Directory => {
                    let lower = below && !self.is_opaque(&path)?;
                    (Some(path), lower)
                }
                Some(_) => (None, false),
                None => (None, below),
            };
        }
        Ok((upper, lower))
    }

    /// Whether a directory of the data partition hides the root's.
    fn is_opaque(&self, path: &str) -> Result<bool> {
        let Some(data) = &self.data else { return Ok(false) };
        let said = super::data::debugfs(&data.spec, false, &format!("ea_get \"{path}\" trusted.overlay.opaque"))?;
        Ok(said.is_some_and(|said| String::from_utf8_lossy(&said).contains('y')))
    }

    fn in_root(&self, path: &str) -> Result<Option<Found>> {
        let Some(node) = self.root.find(path)? else { return Ok(None) };
        let kind = match node.file_type() {
            kind if kind.is_dir() => Kind::Directory,
            kind if kind.is_file() => Kind::File,
            kind if kind.is_symlink() => Kind::Link(self.root.target(node)?),
            kind if kind.is_char_device() => Kind::Character,
            _ => Kind::Other,
        };
        let (mode, owner) = (kind.bits() | permissions(&node), (node.uid(), node.gid()));
        Ok(Some(Found { kind, mode, owner, place: Place::Root(node) }))
    }

    fn names_in_root(&self, directory: &str) -> Result<Vec<String>> {
        if self.root.find(directory)?.is_none_or(|node| !node.is_dir()) {
            return Ok(Vec::new());
        }
        let mut names: Vec<String> = self.root.names(directory)?.into_iter().map(|(name, _)| name).collect();
        names.sort();
        Ok(names)
    }

    /// What a path of the data partition is.
    pub(super) fn on_data(&self, path: &str) -> Result<Option<Found>> {
        let Some(data) = &self.data else { return Ok(None) };
        let metadata = match data.files.symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(Ext4Error::NotFound | Ext4Error::NotADirectory) => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("read the metadata of {path} of the data partition"));
            }
        };
        let kind = match metadata.file_type() {
            FileType::Regular => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => {
                let target = data.files.read_link(path).with_context(|| format!("read link {path}"))?;
                Kind::Link(target.display().to_string())
            }
            FileType::CharacterDevice => Kind::Character,
            _ => Kind::Other,
        };
        let (mode, owner) = (kind.bits() | metadata.mode(), (metadata.uid(), metadata.gid()));
        Ok(Some(Found { kind, mode, owner, place: Place::Data(path.to_owned()) }))
    }

    fn names_on_data(&self, directory: &str) -> Result<Vec<String>> {
        let shown = || format!("list {directory} of the data partition");
        let Some(data) = &self.data else { return Ok(Vec::new()) };
        if self.on_data(directory)?.is_none_or(|found| found.kind != Kind::Directory) {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        for entry in data.files.read_dir(directory).with_context(shown)? {
            let name = entry.with_context(shown)?.file_name().display().to_string();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

impl Data {
    fn open(path: &std::path::Path, offset: u64, spec: String) -> Result<Data> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let files = Ext4::load(Box::new(Extent { file, offset })).context("read the data partition")?;
        Ok(Data { files, spec })
    }
}

impl Found {
    /// Path on the data partition, when it is there.
    pub(super) fn data_path(&self) -> Option<&str> {
        match &self.place {
            Place::Data(path) => Some(path),
            Place::Root(_) => None,
        }
    }
}

fn parts(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

/// Whether `path` is `directory` or below it.
pub(super) fn within(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use imagebuild::archive::Archive;

    fn root() -> Archive {
        let mut root = Archive::default();
        for (path, mode) in [("etc", 0o755), ("etc/ssh", 0o711), ("etc/old", 0o755), ("usr/lib", 0o755), ("var", 0o755)]
        {
            root.directory(path, mode).unwrap();
        }
        // Compressed, in several clusters.
        root.file("usr/lib/big", 0o755, b"0123456789abcdef".repeat(20_000)).unwrap();
        root.file("etc/fstab", 0o644, b"root's".to_vec()).unwrap();
        root.file("etc/ssh/config", 0o600, b"config".to_vec()).unwrap();
        root.file("etc/old/a", 0o644, b"a".to_vec()).unwrap();
        root.symlink("lib", "usr/lib").unwrap();
        root.symlink("opt", "var/opt").unwrap();
        root.symlink("etc/up", "../usr/./lib").unwrap();
        root.symlink("etc/round", "round").unwrap();
        root
    }

    #[test]
    fn files_are_where_the_running_system_sees_them() {
        let dir = tempfile::tempdir().unwrap();
        let Some(disk) = testing::disk(dir.path(), &root()) else { return };
        let text = |path: &str| disk.read_file(path).unwrap().map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(text("/lib/big").unwrap(), "0123456789abcdef".repeat(20_000));
        // What is at its place is what is read.
        let copy = disk.copy(&dir.path().join("damaged"), 0).unwrap();
        copy.damage(copy.root_offset("/lib/big").unwrap(), &[0x5a; 4096]).unwrap();
        assert!(copy.read_file("/lib/big").ok().flatten() != disk.read_file("/lib/big").unwrap());
        assert_eq!(copy.read_file("/etc/ssh/config").unwrap().unwrap(), b"config");
        assert_eq!(disk.list("/etc/up").unwrap(), ["big"]);
        assert!(format!("{:#}", disk.read_file("/etc/round").unwrap_err()).ends_with("it leads in a circle"));
        assert_eq!(text("/etc/fstab/x"), None);

        // /etc is the data partition's over the root's; a directory that both have keeps its mode.
        disk.write_file("/etc/fstab", b"changed", 0o600).unwrap();
        disk.write_file("/etc/ssh/new file", b"new", 0o755).unwrap();
        assert_eq!(
            (text("/etc/fstab").unwrap(), text("/etc/ssh/config").unwrap()),
            ("changed".into(), "config".into())
        );
        assert_eq!(disk.list("/etc/ssh").unwrap(), ["config", "new file"]);
        let view = View::of(&disk).unwrap();
        assert_eq!(view.find("/etc/ssh").unwrap().unwrap().mode, 0o040_711);
        assert_eq!(view.find("/etc/ssh/new file").unwrap().unwrap().mode, 0o100_755);
        disk.remove_file("/etc/ssh/config").unwrap();
        assert_eq!((text("/etc/ssh/config"), disk.list("/etc/ssh").unwrap()), (None, vec!["new file".to_owned()]));
        disk.write_file("/etc/ssh/config", b"again", 0o600).unwrap();
        assert_eq!(text("/etc/ssh/config").unwrap(), "again");

        // A directory that was removed and made again hides what the root has of this name.
        disk.debugfs(true, "mkdir \"/etc/upper/old\"").unwrap();
        assert_eq!(disk.list("/etc/old").unwrap(), ["a"]);
        disk.debugfs(true, "ea_set \"/etc/upper/old\" trusted.overlay.opaque y").unwrap();
        assert_eq!((disk.list("/etc/old").unwrap(), text("/etc/old/a")), (vec![], None));

        // /var, and what leads there.
        disk.write_file("/opt/cni/bin/x", b"x", 0o755).unwrap();
        assert_eq!(text("/var/opt/cni/bin/x").unwrap(), "x");
        disk.link_file("/var/lib/link", "/etc/fstab").unwrap();
        assert_eq!(text("/var/lib/link").unwrap(), "changed");
        let refused = disk.write_file("/usr/lib/big", b"", 0o644).unwrap_err().to_string();
        assert_eq!(
            refused,
            "write /usr/lib/big to the guest's disk: the root file system is verified, and never changes"
        );
    }
}
