// SPDX-License-Identifier: Apache-2.0
//! An image with the seed of one device in it, as it is read: no copy of the image is made.
//!
//! The boot partition is copied once, to a temporary file, and gets a placeholder of the longest seed's length by the same
//! code that writes seeds to cards. A device's image is that of all others but for the placeholder's bytes, which are its
//! seed and line feeds: directory, allocation table and sizes are the same.

use super::make::Device;
use crate::{disk, seed};
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// What fills a placeholder: found again in the partition, where nothing else is like it.
const MARK: &[u8] = b"#placeholder of a seed 6b1f09c2d\n";
/// Length of placeholders is a multiple of this.
const STEP: usize = 512;
/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// What all devices of a fleet share.
#[derive(Debug, Clone)]
pub struct Template {
    image: Arc<File>,
    boot: Arc<File>,
    /// Bytes of the image.
    pub len: u64,
    /// First byte of the boot partition, and the one behind it.
    place: (u64, u64),
    /// First byte of the seed in the image.
    seed_at: u64,
    /// Bytes that are the seed's.
    room: usize,
}

impl Template {
    /// A template from a raw image whose boot partition has room for the longest of these seeds.
    ///
    /// # Errors
    /// When the image is packed or has no boot partition.
    pub fn new(image: &Path, devices: &[Device]) -> Result<Template> {
        let what = || format!("open {}", image.display());
        if image.extension().is_some_and(|e| e == "zst" || e == "gz" || e == "xz") {
            bail!("{}: unpack it first: its boot partition is patched while it is read", what());
        }
        let file = File::open(image).with_context(what)?;
        let len = file.metadata().with_context(what)?.len();
        let entry = disk::seed_partition(image)?.entry;
        let entry = entry.with_context(|| format!("find a partition table in {}", image.display()))?;
        ensure!(entry.offset + entry.length <= len, "{}: it ends within its boot partition", what());
        let mut source = &file;
        source.seek(SeekFrom::Start(entry.offset)).with_context(what)?;
        let mut boot = tempfile::NamedTempFile::new().context("create a copy of the boot partition")?;
        io::copy(&mut source.take(entry.length), boot.as_file_mut()).context("copy the boot partition")?;
        let longest = devices.iter().map(|device| device.seed.len()).max().unwrap_or(0);
        let room = longest.next_multiple_of(STEP);
        let placeholder: Vec<u8> = MARK.iter().copied().cycle().take(room).collect();
        seed::put(&placeholder, None, boot.path())
            .with_context(|| format!("make room for seeds in {}", image.display()))?;
        let mut bytes = Vec::new();
        let mut copy = boot.reopen().context("read the boot partition")?;
        copy.read_to_end(&mut bytes).context("read the boot partition")?;
        let at = firstboot::boot_partition::find_all(&bytes, &placeholder);
        let [at] = at[..] else {
            bail!(
                "make room for seeds in {}: its boot partition is fragmented: use the image as it was built",
                image.display()
            )
        };
        let place = (entry.offset, entry.offset + entry.length);
        let (image, boot) = (Arc::new(file), Arc::new(copy));
        Ok(Template { image, boot, len, place, seed_at: entry.offset + at as u64, room })
    }

    /// The image of a device.
    pub fn of(&self, device: &Device) -> Patched {
        let mut seed = device.seed.clone().into_bytes();
        seed.resize(self.room, b'\n');
        Patched { template: self.clone(), seed, at: 0 }
    }
}

/// The image of one device.
#[derive(Debug, Clone)]
pub struct Patched {
    template: Template,
    seed: Vec<u8>,
    at: u64,
}

impl Patched {
    /// Goes to a byte of the image.
    pub fn seek(&mut self, at: u64) {
        self.at = at;
    }

    /// Hexadecimal SHA-256 of the whole image.
    ///
    /// # Errors
    /// When the image cannot be read.
    pub fn sha256(mut self) -> io::Result<String> {
        self.seek(0);
        let mut hash = Sha256::new();
        let mut piece = vec![0; PIECE];
        loop {
            match self.read(&mut piece)? {
                0 => return Ok(crate::digest::hex(hash.finalize())),
                n => hash.update(&piece[..n]),
            }
        }
    }
}

impl Read for Patched {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let Template { image, boot, len, place, seed_at, room } = &self.template;
        let at = self.at;
        // A read ends where the next bytes come from elsewhere.
        let until = |end: u64, to: usize| (end - at).min(to as u64) as usize;
        let got = if at >= *len {
            0
        } else if at < place.0 {
            let n = until(place.0, to.len());
            image.read_at(&mut to[..n], at)?
        } else if at < place.1 {
            let n = until(place.1, to.len());
            let n = boot.read_at(&mut to[..n], at - place.0)?;
            let (from, end) = (at.max(*seed_at), (at + n as u64).min(seed_at + *room as u64));
            if from < end {
                let seed = &self.seed[(from - seed_at) as usize..(end - seed_at) as usize];
                to[(from - at) as usize..(end - at) as usize].copy_from_slice(seed);
            }
            n
        } else {
            let n = until(*len, to.len());
            image.read_at(&mut to[..n], at)?
        };
        if got == 0 && at < *len && !to.is_empty() {
            return Err(io::Error::other("the image became shorter"));
        }
        self.at += got as u64;
        Ok(got)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::disk::{Ids, testing};
    use crate::fleet::label::testing::device;
    use crate::target::Target;
    use firstboot::boot_partition::BootPartition;

    #[test]
    fn an_image_read_in_any_pieces_holds_the_devices_seed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        testing::fats_only(&Target::load("generic-amd64").unwrap(), &Ids::new("t"), &path).unwrap();
        let before = std::fs::read(&path).unwrap();
        let mut devices = [device(1, "a"), device(2, "b")];
        devices[1].seed += &"# long\n".repeat(500);
        let template = Template::new(&path, &devices).unwrap();
        for device in &devices {
            let mut whole = Vec::new();
            template.of(device).read_to_end(&mut whole).unwrap();
            assert_eq!(
                (whole.len() as u64, crate::digest::bytes(&whole)),
                (template.len, template.of(device).sha256().unwrap())
            );
            let copy = dir.path().join("copy.img");
            std::fs::write(&copy, &whole).unwrap();
            let boot = disk::partitions(&copy).unwrap().remove(&1).unwrap();
            let read =
                BootPartition::open(&copy, boot.offset, boot.length).unwrap().read("seed.toml").unwrap().unwrap();
            let read = String::from_utf8(read).unwrap();
            assert_eq!(read.trim_end_matches('\n'), device.seed.trim_end_matches('\n'));
            firstboot::seed::parse(read.as_bytes()).unwrap();
            // Outside of the boot partition, nothing is changed.
            let (start, end) = (boot.offset as usize, (boot.offset + boot.length) as usize);
            assert!(whole[..start] == before[..start] && whole[end..] == before[end..]);
            // From the middle, in odd pieces.
            let mut part = template.of(device);
            part.seek(template.seed_at - 100);
            let mut bytes = vec![0; 700];
            let mut got = 0;
            while got < bytes.len() {
                let end = bytes.len().min(got + 33);
                got += part.read(&mut bytes[got..end]).unwrap();
            }
            let at = template.seed_at as usize - 100;
            assert!(bytes == whole[at..at + 700]);
        }
        assert!(std::fs::read(&path).unwrap() == before, "the image itself is as it was");
    }

    #[test]
    fn what_cannot_be_patched_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let packed = dir.path().join("disk.img.zst");
        let error = Template::new(&packed, &[]).unwrap_err().to_string();
        let why = "unpack it first: its boot partition is patched while it is read";
        assert_eq!(error, format!("open {}: {why}", packed.display()));
    }
}
