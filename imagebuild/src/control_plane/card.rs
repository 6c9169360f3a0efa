// SPDX-License-Identifier: Apache-2.0
//! What a device left on its boot partition: in an image, on a card or disk, or where the system has mounted it.

use crate::seed;
use anyhow::{Context, Result, bail};
use firstboot::boot_partition::BootPartition;
use firstboot::status::STATUS_NAME;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Largest file that is taken, bytes: a kubeconfig has 5 KiB, and a seed at most 64.
const MOST: u64 = 256 << 10;

/// A boot partition.
pub struct Card {
    place: PathBuf,
    /// None where it is mounted.
    partition: Option<BootPartition>,
}

impl Card {
    /// The boot partition of an image, card or disk, or the directory at which one is mounted.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn open(place: &Path) -> Result<Card> {
        let partition = if place.is_dir() { None } else { Some(seed::boot_partition(place)?) };
        Ok(Card { place: place.to_owned(), partition })
    }

    /// `NAME on PLACE`, for messages.
    pub fn file(&self, name: &str) -> String {
        format!("{name} on {}", self.place.display())
    }

    /// The text of a file that the device writes when it has created its cluster.
    ///
    /// # Errors
    /// It is not there, or cannot be read. None of its text is repeated.
    pub fn read(&self, name: &str) -> Result<Zeroizing<String>> {
        let what = || format!("read {}", self.file(name));
        let Some(bytes) = self.bytes(name).with_context(what)? else {
            let hint = match self.bytes(STATUS_NAME) {
                Ok(Some(_)) => format!("; the last lines of {STATUS_NAME} there say how far the device is"),
                _ => "; a device leaves it when it has created its cluster".to_owned(),
            };
            bail!("find {}: it is not there{hint}", self.file(name));
        };
        if bytes.len() as u64 > MOST {
            bail!("{}: it is too large", what());
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Zeroizing::new(text.to_owned())),
            Err(_) => bail!("{}: it is no text", what()),
        }
    }

    fn bytes(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>> {
        if let Some(partition) = &self.partition {
            return Ok(partition.read(name)?.map(Zeroizing::new));
        }
        let mut bytes = Zeroizing::new(Vec::new());
        match File::open(self.place.join(name)) {
            Ok(file) => file.take(MOST + 1).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(Some(bytes))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::disk::{Ids, testing};
    use crate::target::Target;
    use std::fs;

    #[test]
    fn a_file_is_read_from_an_image_and_from_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.img");
        let boot = testing::fats_only(&Target::load("generic-amd64").unwrap(), &Ids::new("t"), &image).unwrap();
        let boot = BootPartition::open(&image, boot.offset, boot.length).unwrap();
        let mounted = dir.path().join("BOOT");
        fs::create_dir(&mounted).unwrap();
        let put = |name: &str, bytes: &[u8]| {
            boot.write(name, bytes).unwrap();
            fs::write(mounted.join(name), bytes).unwrap();
        };
        let read = |place: &Path| Card::open(place).and_then(|card| Ok(card.read("a.txt")?.as_str().to_owned()));
        let both = || [read(&image), read(&mounted)].map(|read| read.map_err(|error| format!("{error:#}")));
        let places = [&image, &mounted].map(|place| place.display().to_string());
        let errors = |before: &str, after: &str| places.clone().map(|place| Err(format!("{before} {place}: {after}")));
        let none = "it is not there; a device leaves it when it has created its cluster";
        assert_eq!(both(), errors("find a.txt on", none));
        put(STATUS_NAME, b"state: working\n");
        let far = "it is not there; the last lines of firstboot-status.txt there say how far the device is";
        assert_eq!(both(), errors("find a.txt on", far));
        put("a.txt", b"text");
        assert_eq!(both(), [Ok("text".to_owned()), Ok("text".to_owned())]);
        put("a.txt", b"\xff\xfe");
        assert_eq!(both(), errors("read a.txt on", "it is no text"));
        put("a.txt", &vec![b'x'; 300 << 10]);
        assert_eq!(both(), errors("read a.txt on", "it is too large"));
    }

    #[test]
    fn a_place_without_a_boot_partition_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none");
        let error = Card::open(&path).map(drop).unwrap_err();
        assert_eq!(format!("{error:#}"), format!("open {}: No such file or directory (os error 2)", path.display()));
    }
}
