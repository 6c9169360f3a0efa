// SPDX-License-Identifier: Apache-2.0
//! Whether a disk holds as much as it says. Cards are sold that do not: beyond their memory, addresses begin again at 0, and
//! what is written there destroys what is at the beginning.
#![allow(clippy::disallowed_methods)] // reads a block device, changes nothing

use super::locate;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// What is compared: MBR and primary partition table (UEFI 2.10, 5.3), which has the identifier of this disk and is nowhere
/// else on it.
const BEGIN: usize = 34 * 512;
/// The smallest memory that is looked for, bytes.
const LEAST: u64 = 256 << 20;

/// What a disk says of itself, and what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes that it says it has.
    pub claimed: u64,
    /// Bytes after which it begins again, when it does.
    pub real: Option<u64>,
}

/// The capacity of the disk with the root file system. Reads little of it and writes nothing.
///
/// # Errors
/// When that disk cannot be found or read.
pub fn of_root_disk() -> Result<Capacity> {
    let device = locate::root_disk_device()?;
    let mut file = File::open(&device).with_context(|| format!("open {}", device.display()))?;
    of(&mut file).with_context(|| format!("read {}", device.display()))
}

/// The memory of a chip is a power of two, and addresses that are too large lose their upper bits. A disk without a
/// partition table at its beginning tells nothing.
fn of(disk: &mut (impl Read + Seek)) -> Result<Capacity> {
    let claimed = disk.seek(SeekFrom::End(0))?;
    let mut at = |offset: u64| -> Result<Vec<u8>> {
        let mut bytes = vec![0; BEGIN];
        disk.seek(SeekFrom::Start(offset))?;
        disk.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    let begin = at(0)?;
    let mut real = None;
    let mut size = LEAST;
    while begin[512..].starts_with(b"EFI PART") && size + BEGIN as u64 <= claimed {
        // A place that cannot be read is another fault, and not a copy of the beginning.
        if at(size).is_ok_and(|bytes| bytes == begin) {
            real = Some(size);
            break;
        }
        size *= 2;
    }
    Ok(Capacity { claimed, real })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    const MIB: u64 = 1 << 20;

    /// A disk of which only the first `real` bytes exist.
    struct Card {
        file: File,
        claimed: u64,
        real: u64,
        at: u64,
    }

    impl Read for Card {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.file.read_at(buffer, self.at % self.real)?;
            self.at += count as u64;
            Ok(count)
        }
    }

    impl Seek for Card {
        fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
            self.at = match to {
                SeekFrom::Start(at) => at,
                SeekFrom::End(_) => self.claimed,
                SeekFrom::Current(_) => unreachable!(),
            };
            Ok(self.at)
        }
    }

    fn card(claimed: u64, real: u64, table: &[u8]) -> Card {
        let file = tempfile::tempfile().unwrap();
        file.set_len(real).unwrap();
        file.write_all_at(table, 512).unwrap();
        Card { file, claimed, real, at: 0 }
    }

    #[test]
    fn a_disk_that_begins_again_is_found() {
        for real in [256, 1024, 8192] {
            let found = of(&mut card(32_000 * MIB, real * MIB, b"EFI PART and what follows")).unwrap();
            assert_eq!(found, Capacity { claimed: 32_000 * MIB, real: Some(real * MIB) });
        }
    }

    #[test]
    fn a_disk_that_holds_what_it_says_is_not() {
        let honest = of(&mut card(32_000 * MIB, 32_000 * MIB, b"EFI PART and what follows")).unwrap();
        assert_eq!(honest, Capacity { claimed: 32_000 * MIB, real: None });
        // Zeros everywhere, as without a table, are no sign.
        assert_eq!(of(&mut card(1024 * MIB, 512 * MIB, b"")).unwrap().real, None);
        assert_eq!(of(&mut card(100 * MIB, 100 * MIB, b"EFI PART")).unwrap().real, None);
    }
}
