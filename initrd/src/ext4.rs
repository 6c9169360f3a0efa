// SPDX-License-Identifier: Apache-2.0
//! What the superblock of an ext4 file system says about its state (kernel: Documentation/filesystems/ext4/super.rst),
//! so that a normal boot starts no program to check it: the kernel replays the journal when it mounts.

use std::fs::File;
use std::io::{ErrorKind, Result};
use std::os::unix::fs::FileExt;

/// Bytes at the start of a partition that are zero when nothing was put there.
pub const START: usize = 64 << 10;
/// Where the superblock is.
const SUPERBLOCK: u64 = 1024;
/// Where the first copy of the superblock is, by block size: 1, 2 and 4 KiB. e2fsck looks there.
pub const COPIES: [u64; 3] = [8193 << 10, 16_384 << 11, 32_768 << 12];

/// What a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Zeros, also where copies of a superblock would be: it was just made.
    Blank,
    /// An ext4 file system that may be mounted.
    Sound,
    /// An ext4 file system that the kernel found errors in.
    Faulty,
    /// No superblock that can be read where it belongs, but a copy of one.
    OnlyCopy,
    /// Something else.
    Unknown,
}

/// Looks at a partition.
///
/// # Errors
/// When its start cannot be read, and no copy of a superblock is there.
pub fn content(partition: &File) -> Result<Content> {
    content_by(|bytes, at| partition.read_exact_at(bytes, at))
}

/// The same by a function that reads bytes at a place.
pub(crate) fn content_by(mut read: impl FnMut(&mut [u8], u64) -> Result<()>) -> Result<Content> {
    let mut start = vec![0; START];
    let done = read(&mut start, 0);
    let superblock = &start[SUPERBLOCK as usize..];
    if done.is_ok() && is_superblock(superblock) {
        // s_state: 1 cleanly unmounted (always set where there is a journal), 2 errors found, 4 orphans.
        let faulty = superblock[0x3a] & 2 != 0 || superblock[0x194..0x198] != [0; 4];
        return Ok(if faulty { Content::Faulty } else { Content::Sound });
    }
    // Before zeros count as blank: a power cut may zero the whole erase block at the start of a healthy file system.
    // The place of a new partition is wiped at the copies, too.
    for at in COPIES {
        let mut copy = [0; 1024];
        match read(&mut copy, at) {
            Ok(()) if is_superblock(&copy) => return Ok(Content::OnlyCopy),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            _ => {}
        }
    }
    done?;
    Ok(if start.iter().all(|byte| *byte == 0) { Content::Blank } else { Content::Unknown })
}

fn is_superblock(bytes: &[u8]) -> bool {
    bytes[0x38..0x3a] == [0x53, 0xef]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use std::process::Command;

    #[test]
    fn states_of_a_partition() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let device = file.as_file();
        device.set_len(256 << 20).unwrap();
        assert_eq!(content(device).unwrap(), Content::Blank);
        device.write_all_at(&[1], START as u64 - 1).unwrap();
        assert_eq!(content(device).unwrap(), Content::Unknown);
        // With four KiB a block, as on the device.
        let made = Command::new("/sbin/mkfs.ext4").args(["-Fq", "-b4096"]).arg(file.path()).status();
        if !made.is_ok_and(|status| status.success()) {
            println!("SKIPPED: states of a partition: mkfs.ext4 is not installed");
            return;
        }
        assert_eq!(content(device).unwrap(), Content::Sound);
        for (at, value) in [(0x3a, 3), (0x194, 1)] {
            let mut byte = [0];
            device.read_exact_at(&mut byte, SUPERBLOCK + at).unwrap();
            device.write_all_at(&[value], SUPERBLOCK + at).unwrap();
            assert_eq!(content(device).unwrap(), Content::Faulty, "{at}");
            device.write_all_at(&byte, SUPERBLOCK + at).unwrap();
        }
        device.write_all_at(&[0], SUPERBLOCK + 0x38).unwrap();
        assert_eq!(content(device).unwrap(), Content::OnlyCopy);
        device.write_all_at(&[0; 1024], COPIES[2]).unwrap();
        assert_eq!(content(device).unwrap(), Content::Unknown);
    }

    /// A power cut may zero the start of a file system, and a worn medium may not read it any more.
    #[test]
    fn a_copy_tells_a_file_system_from_a_blank_partition() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let device = file.as_file();
        device.set_len(256 << 20).unwrap();
        let worn = |bytes: &mut [u8], at: u64| -> Result<()> {
            if at == 0 { Err(Errno::IO.into()) } else { device.read_exact_at(bytes, at) }
        };
        for at in COPIES {
            device.write_all_at(&[0x53, 0xef], at + 0x38).unwrap();
            assert_eq!(content(device).unwrap(), Content::OnlyCopy, "{at}");
            assert_eq!(content_by(worn).unwrap(), Content::OnlyCopy, "{at}");
            device.write_all_at(&[0; 2], at + 0x38).unwrap();
        }
        assert_eq!(content(device).unwrap(), Content::Blank);
        assert_eq!(Errno::from_io_error(&content_by(worn).unwrap_err()), Some(Errno::IO));
    }

    #[test]
    fn a_short_partition_has_no_copies() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&[1; START], 0).unwrap();
        assert_eq!(content(file.as_file()).unwrap(), Content::Unknown);
        file.as_file().set_len(10).unwrap();
        assert!(content(file.as_file()).is_err());
    }
}
