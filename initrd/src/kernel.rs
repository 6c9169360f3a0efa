// SPDX-License-Identifier: Apache-2.0
//! Calls of the kernel for which there is no safe library: the device mapper's ioctls, and reading a disk's partition table
//! again. `unsafe` stands in this file alone, and each use says why it is sound.
#![allow(unsafe_code)]

use crate::verity::Root;
use anyhow::{Context, Result};
use rustix::ioctl::{Ioctl, IoctlOutput, NoArg, Opcode, ioctl, opcode};
use std::ffi::c_void;
use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::Path;

/// BLKRRPART (linux/fs.h).
const READ_PARTITIONS: Opcode = opcode::none(0x12, 95);

/// Makes the kernel read the partition table of a disk again. No partition of it may be open.
///
/// # Errors
/// When one is, or the table cannot be read.
pub fn read_partitions(disk: &File) -> Result<()> {
    // SAFETY: BLKRRPART takes no argument (linux/fs.h), and `disk` is open.
    let done = unsafe { ioctl(disk, NoArg::<READ_PARTITIONS>::new()) };
    done.context("read the partition table again")
}

/// Bytes of `struct dm_ioctl` (linux/dm-ioctl.h), without what follows it.
const HEADER: usize = 312;
/// Bytes of `struct dm_target_spec`.
const TARGET: usize = 40;
const CREATE: u8 = 3;
const SUSPEND: u8 = 6;
const LOAD: u8 = 9;
const READ_ONLY: u32 = 1;

/// One call of the device mapper. The buffer begins with `struct dm_ioctl`, which says how long the buffer is.
struct Call<'a> {
    command: u8,
    buffer: &'a mut [u8],
}

// SAFETY: the opcode is of the form _IOWR(0xfd, command, struct dm_ioctl), and the pointer leads to a buffer of as many bytes
// as its field `data_size` says, which `request` sets, and which lives as long as the call.
unsafe impl Ioctl for Call<'_> {
    type Output = ();
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<[u8; HEADER]>(0xfd, self.command)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.buffer.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

/// `struct dm_ioctl` for the mapping `name`, followed by `payload`.
fn request(name: &str, uuid: &str, flags: u32, targets: u32, payload: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; HEADER];
    let mut word = |at: usize, value: u32| buffer[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    // Version 4.0.0, which every kernel since 2.6 takes.
    word(0, 4);
    word(12, (HEADER + payload.len()) as u32);
    word(16, HEADER as u32);
    word(20, targets);
    word(28, flags);
    buffer[48..48 + name.len()].copy_from_slice(name.as_bytes());
    buffer[176..176 + uuid.len()].copy_from_slice(uuid.as_bytes());
    buffer.extend_from_slice(payload);
    buffer
}

/// `struct dm_target_spec` for the whole mapping, and its parameters.
fn target(root: &Root, device: &str) -> Vec<u8> {
    let mut bytes = vec![0; TARGET];
    bytes[8..16].copy_from_slice(&root.sectors().to_ne_bytes());
    bytes[24..30].copy_from_slice(b"verity");
    bytes.extend_from_slice(root.table(device).as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let length = bytes.len() as u32;
    bytes[20..24].copy_from_slice(&length.to_ne_bytes());
    bytes
}

/// Opens a verified root under `/dev/mapper/NAME`, as `veritysetup open` would; neither udev nor a tool is needed.
///
/// # Errors
/// When the kernel refuses it: the module is missing, the partition is too short, or cannot be read.
pub fn open_verity(root: &Root, device: &str, name: &str) -> Result<String> {
    let control = File::options().read(true).write(true).open("/dev/mapper/control");
    let control = control.context("open /dev/mapper/control")?;
    // The form that cryptsetup gives, by which tools recognise what the mapping is.
    let uuid = format!("CRYPT-VERITY-{}-{name}", &root.hex()[..32]);
    let mut number = 0;
    for (command, words, what) in [
        (CREATE, request(name, &uuid, READ_ONLY, 0, &[]), "create"),
        (LOAD, request(name, "", READ_ONLY, 1, &target(root, device)), "load the table of"),
        // Not with the flag for suspending: resumes.
        (SUSPEND, request(name, "", 0, 0, &[]), "start"),
    ] {
        let mut buffer = words;
        // SAFETY: see `Call`.
        let done = unsafe { ioctl(&control, Call { command, buffer: &mut buffer }) };
        done.with_context(|| format!("{what} the dm-verity mapping of {device}"))?;
        number = u64::from_ne_bytes(buffer[40..48].try_into().unwrap_or_default());
    }
    let path = format!("/dev/mapper/{name}");
    // The kernel's own name of it is dm-MINOR (huge_encode_dev: minor in bits 0-7 and 20-31).
    let minor = (number & 0xff) | ((number >> 12) & 0xfff00);
    if !Path::new(&path).exists() {
        symlink(format!("../dm-{minor}"), &path).with_context(|| format!("link {path}"))?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_kernels_layout() {
        let root = Root { hash: [0xab; 32], blocks: 9 };
        let target = target(&root, "/dev/vda3");
        assert_eq!(target.len() % 8, 0);
        assert_eq!(u32::from_ne_bytes(target[20..24].try_into().unwrap()) as usize, target.len());
        assert_eq!(u64::from_ne_bytes(target[8..16].try_into().unwrap()), 72);
        assert!(target[40..].starts_with(b"1 /dev/vda3 /dev/vda3 4096 4096 9 10 sha256 abab"));
        let request = request("root", "CRYPT-VERITY-x-root", READ_ONLY, 1, &target);
        assert_eq!(u32::from_ne_bytes(request[12..16].try_into().unwrap()) as usize, request.len());
        assert_eq!(&request[48..53], b"root\0");
        assert_eq!(&request[176..189], b"CRYPT-VERITY-");
        let mut buffer = request;
        assert_eq!(Call { command: LOAD, buffer: &mut buffer }.opcode(), 0xc138_fd09);
    }
}
