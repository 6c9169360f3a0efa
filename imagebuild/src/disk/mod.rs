// SPDX-License-Identifier: Apache-2.0
//! Disk images: a GUID partition table, FAT file systems and the verified root, written into a sparse file without
//! mounting.

mod fat;
pub mod mbr;
mod seed_partition;
mod table;

pub(crate) use seed_partition::not_opened;
pub use seed_partition::{SeedPartition, seed_partition};
pub use table::{GptEntry, Placed, partitions};

use crate::target::{Role, Target};
use crate::{cmd, digest};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::path::Path;

const MIB: u64 = 1 << 20;

/// What goes onto the disk.
pub struct Content<'a> {
    /// What the FAT partitions hold; one that is not named here is empty.
    pub fats: BTreeMap<Role, Fat>,
    /// The root partition as it is: file system, then hash tree.
    pub root: &'a Path,
}

/// Content of a FAT partition.
#[derive(Debug, Default)]
pub struct Fat {
    /// Its files: path and content.
    pub files: Vec<(String, Vec<u8>)>,
    /// Bytes that must stay free.
    pub free: u64,
}

/// Identifiers of a build: the same for the same key.
#[derive(Debug, Clone)]
pub struct Ids {
    key: String,
}

impl Ids {
    /// Identifiers for the build with this key.
    pub fn new(key: &str) -> Ids {
        Ids { key: key.to_owned() }
    }

    /// GUID of the disk.
    pub fn disk(&self) -> uuid::Uuid {
        digest::uuid(&self.key, "disk")
    }

    /// GUID of a partition.
    pub fn partition(&self, role: Role) -> uuid::Uuid {
        digest::uuid(&self.key, &format!("partition {role:?}"))
    }

    /// UUID of the root file system.
    pub fn root_file_system(&self) -> uuid::Uuid {
        digest::uuid(&self.key, "root file system")
    }

    /// UUID in the superblock of its hash tree.
    pub fn verity(&self) -> uuid::Uuid {
        digest::uuid(&self.key, "hash tree")
    }

    /// Serial number of a FAT.
    pub fn volume(&self, role: Role) -> u32 {
        digest::uuid(&self.key, &format!("volume {role:?}")).as_fields().0
    }
}

/// Writes the image of `target` to `image`.
///
/// # Errors
/// When the root is longer than its slot, or a FAT partition too small for its content.
pub fn build(target: &Target, ids: &Ids, content: &Content, image: &Path) -> Result<Vec<Placed>> {
    let length = content.root.metadata().with_context(|| format!("read the size of {}", content.root.display()))?.len();
    let placed = table::plan(target, ids, length.next_multiple_of(MIB))?;
    let end = placed.last().map(|p| p.offset + p.length).context("place partitions: there are none")?;
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(image);
    let file = file.with_context(|| format!("create {}", image.display()))?;
    file.set_len(end + MIB).with_context(|| format!("set the size of {}", image.display()))?;
    table::write(file.try_clone()?, ids, &placed).with_context(|| format!("partition {}", image.display()))?;
    for place in &placed {
        match place.role {
            Role::RootA => {
                let mut root = File::open(content.root).with_context(|| format!("open {}", content.root.display()))?;
                let mut to = &file;
                to.seek(SeekFrom::Start(place.offset))?;
                std::io::copy(&mut root, &mut to).with_context(|| format!("write the root to {}", image.display()))?;
            }
            role => {
                let empty = Fat::default();
                let content = content.fats.get(&role).unwrap_or(&empty);
                let files = content.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()));
                fat::fill(&file, place, ids.volume(role), files, content.free)?;
            }
        }
    }
    file.sync_all().with_context(|| format!("write {}", image.display()))?;
    Ok(placed)
}

/// Copies a sparse file so that it stays sparse.
pub fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    cmd::run(std::process::Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(from).arg(to))
}

/// Disks for tests of other modules.
#[cfg(test)]
pub mod testing {
    use super::*;

    /// A partitioned disk whose boot partition is formatted; returns its place.
    pub fn fats_only(target: &Target, ids: &Ids, path: &Path) -> Result<Placed> {
        let placed = table::plan(target, ids, MIB)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.set_len(placed.iter().map(|p| p.length).sum::<u64>() + 2 * MIB)?;
        table::write(file.try_clone()?, ids, &placed)?;
        let boot = placed.into_iter().find(|p| p.role == Role::Boot).context("find the boot partition")?;
        fat::fill(&file, &boot, 1, [].into_iter(), 0)?;
        Ok(boot)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn an_image_has_the_root_at_its_place_and_ends_after_it() {
        let target = Target::load("generic-amd64").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::write(&root, b"root".repeat(300_000)).unwrap();
        let build = |name: &str, esp_free| {
            let files = |path: &str, bytes: &[u8]| vec![(path.to_owned(), bytes.to_vec())];
            let fats = BTreeMap::from([
                (Role::Boot, Fat { files: files("a.txt", b"a"), free: 0 }),
                (Role::Esp, Fat { files: files("EFI/BOOT/BOOTX64.EFI", b"loader"), free: esp_free }),
            ]);
            let content = Content { fats, root: &root };
            build(&target, &Ids::new("k"), &content, &dir.path().join(name))
        };
        let placed = build("a.img", 3 << 20).unwrap();
        let place = placed.last().unwrap();
        assert_eq!((place.role, place.length), (Role::RootA, 2 * MIB));
        let image = File::open(dir.path().join("a.img")).unwrap();
        assert_eq!(image.metadata().unwrap().len(), place.offset + 3 * MIB);
        let mut bytes = [0; 8];
        image.read_exact_at(&mut bytes, place.offset + 1_199_992).unwrap();
        assert_eq!(bytes, *b"rootroot");
        // The same again has the same bytes, dates of files included.
        build("b.img", 3 << 20).unwrap();
        let read = |name: &str| digest::file(&dir.path().join(name)).unwrap();
        assert_eq!(read("a.img"), read("b.img"));
        let error = format!("{:#}", build("c.img", 1 << 30).unwrap_err());
        assert!(error.starts_with("fill partition ESP: 1073741824 bytes must stay free, "), "{error}");
    }
}
