// SPDX-License-Identifier: Apache-2.0
//! The data partition: `/var` and the upper layer of `/etc`, on ext4.
//!
//! Nothing of e2fsprogs is in the initrd: check and mkfs run from the verified root. A clean file system is mounted
//! without a check, which the kernel's journal makes good for; one with an error is checked and repaired; and one that no
//! repair makes usable is made anew, for a device that has lost its data and asks for a seed is better than a dead one.

use crate::report::State;
use anyhow::{Context, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// What mkfs.ext4 is given besides the device. A small journal and no inode tables that are initialised later: a first boot
/// writes 17 MB to the card for an empty file system of 6 GB, all of it before it is mounted.
pub const MKFS: [&str; 11] = [
    "-F",
    "-q",
    "-t",
    "ext4",
    "-L",
    "data",
    "-J",
    "size=16",
    "-E",
    "nodiscard,lazy_itable_init=1,lazy_journal_init=0",
    "-m1",
];
/// Mount options: `noinit_itable` keeps the kernel from initialising inode tables that nothing uses yet.
pub const OPTIONS: &str = "errors=remount-ro,noinit_itable";

/// Byte offset of the superblock, and of the fields that are looked at (kernel: filesystems/ext4/super.rst).
const SUPERBLOCK: u64 = 1024;
const MAGIC: usize = 0x38;
const STATE: usize = 0x3a;
const ERROR: u16 = 2;

/// What the beginning of the data partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Zeros: it is new.
    Nothing,
    /// An ext4 file system; whether it has noted an error.
    Ext4 {
        /// Whether it has to be checked before it is mounted.
        error: bool,
    },
    /// Something else, which was an ext4 file system before it was damaged.
    Other,
}

/// Looks at the beginning of the data partition.
///
/// # Errors
/// When it cannot be read.
pub fn content(device: &File) -> Result<Content> {
    let mut bytes = [0; 4096];
    device.read_exact_at(&mut bytes, 0).context("read the data partition")?;
    let field = |at: usize| u16::from_le_bytes([bytes[SUPERBLOCK as usize + at], bytes[SUPERBLOCK as usize + at + 1]]);
    Ok(match field(MAGIC) {
        0xef53 => Content::Ext4 { error: field(STATE) & ERROR != 0 },
        _ if bytes == [0; 4096] => Content::Nothing,
        _ => Content::Other,
    })
}

/// The machine, as far as the data partition is concerned: for tests without one.
pub trait Machine {
    /// Runs a program of the verified root; its exit code. The device is its last argument.
    ///
    /// # Errors
    /// When it cannot be started.
    fn run(&mut self, program: &str, arguments: &[&str]) -> Result<i32>;
    /// Mounts the data partition.
    ///
    /// # Errors
    /// When the kernel refuses it.
    fn mount(&mut self) -> Result<()>;
}

/// Makes the data partition usable and mounts it: what became of it, and why where it is not as it was.
///
/// # Errors
/// When not even a new file system can be made and mounted.
pub fn prepare(content: Content, machine: &mut dyn Machine) -> Result<(State, Option<String>)> {
    if content == Content::Nothing {
        make(machine)?;
        return Ok((State::Created, None));
    }
    let mut why = "it has noted an error".to_owned();
    if content == (Content::Ext4 { error: false }) {
        match machine.mount() {
            Ok(()) => return Ok((State::Kept, None)),
            Err(error) => why = format!("{error:#}"),
        }
    } else if content == Content::Other {
        "its superblock is damaged".clone_into(&mut why);
    }
    // 0: nothing to repair; 1: repaired; 2: repaired, and the system should restart, which it is about to do anyway;
    // from 4 on something is left (e2fsck(8)).
    for mode in ["-p", "-y"] {
        let code = machine.run("/usr/sbin/e2fsck", &[mode])?;
        if code < 4 && machine.mount().is_ok() {
            return Ok((State::Kept, Some(format!("{why}; e2fsck {mode} has repaired it"))));
        }
    }
    make(machine)?;
    Ok((State::Recreated, Some(format!("{why}; e2fsck could not repair it"))))
}

fn make(machine: &mut dyn Machine) -> Result<()> {
    let code = machine.run("/usr/sbin/mkfs.ext4", &MKFS)?;
    anyhow::ensure!(code == 0, "make a file system on the data partition: mkfs.ext4 ended with {code}");
    machine.mount()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    /// A machine whose mounts succeed from a certain number of programs on, with the exit codes of the programs.
    struct Script {
        codes: Vec<i32>,
        mounts_after: usize,
        ran: Vec<String>,
    }

    impl Machine for Script {
        fn run(&mut self, program: &str, arguments: &[&str]) -> Result<i32> {
            let word = arguments.first().filter(|_| program.ends_with("e2fsck")).unwrap_or(&"");
            self.ran.push(format!("{program} {word}").trim_end().to_owned());
            Ok(self.codes[self.ran.len() - 1])
        }

        fn mount(&mut self) -> Result<()> {
            if self.ran.len() < self.mounts_after {
                bail!("mount /dev/vda5: Bad message");
            }
            Ok(())
        }
    }

    fn prepared(content: Content, codes: &[i32], mounts_after: usize) -> (State, Option<String>, Vec<String>) {
        let mut script = Script { codes: codes.to_vec(), mounts_after, ran: Vec::new() };
        let (state, why) = prepare(content, &mut script).unwrap();
        (state, why, script.ran)
    }

    #[test]
    fn each_content_is_kept_repaired_or_made_anew() {
        const CHECK: &str = "/usr/sbin/e2fsck -p";
        const REPAIR: &str = "/usr/sbin/e2fsck -y";
        const MAKE: &str = "/usr/sbin/mkfs.ext4";
        let clean = Content::Ext4 { error: false };
        assert_eq!(prepared(Content::Nothing, &[0], 1), (State::Created, None, vec![MAKE.into()]));
        assert_eq!(prepared(clean, &[], 0), (State::Kept, None, vec![]));
        let (state, why, ran) = prepared(clean, &[1], 1);
        assert_eq!((state, ran), (State::Kept, vec![CHECK.to_owned()]));
        assert_eq!(why.unwrap(), "mount /dev/vda5: Bad message; e2fsck -p has repaired it");
        let (state, why, ran) = prepared(Content::Ext4 { error: true }, &[4, 1], 2);
        assert_eq!((state, ran), (State::Kept, vec![CHECK.to_owned(), REPAIR.to_owned()]));
        assert_eq!(why.unwrap(), "it has noted an error; e2fsck -y has repaired it");
        let (state, why, ran) = prepared(Content::Other, &[8, 8, 0], 3);
        assert_eq!((state, ran), (State::Recreated, vec![CHECK.into(), REPAIR.into(), MAKE.into()]));
        assert_eq!(why.unwrap(), "its superblock is damaged; e2fsck could not repair it");
        let mut script = Script { codes: vec![1], mounts_after: 9, ran: Vec::new() };
        let error = prepare(Content::Nothing, &mut script).unwrap_err().to_string();
        assert_eq!(error, "make a file system on the data partition: mkfs.ext4 ended with 1");
    }

    #[test]
    fn the_beginning_of_the_partition_says_what_it_holds() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        assert_eq!(content(&file).unwrap(), Content::Nothing);
        file.write_all_at(&[0x53, 0xef, 1, 0], 1024 + 0x38).unwrap();
        assert_eq!(content(&file).unwrap(), Content::Ext4 { error: false });
        file.write_all_at(&[3], 1024 + 0x3a).unwrap();
        assert_eq!(content(&file).unwrap(), Content::Ext4 { error: true });
        file.write_all_at(&[0x52], 1024 + 0x38).unwrap();
        assert_eq!(content(&file).unwrap(), Content::Other);
    }
}
