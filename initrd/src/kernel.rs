// SPDX-License-Identifier: Apache-2.0
//! The kernel interfaces that no library offers without `unsafe`: ioctls of the device mapper, of partitions and of loop
//! devices.
//!
//! Each is one call. What goes in is built by safe code and checked here for its length.
#![allow(unsafe_code)]

use rustix::io::Result;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Setter, Updater, ioctl, opcode};
use std::ffi::{c_int, c_void};
use std::fs::File;
use std::os::fd::AsRawFd;

/// Bytes of a request to the device mapper: `struct dm_ioctl`, one target, its parameters.
pub const DM_REQUEST: usize = 1024;
/// Bytes of `struct dm_ioctl` (kernel: include/uapi/linux/dm-ioctl.h).
pub const DM_HEADER: usize = 312;
/// Where it has the size of the whole request.
const DM_DATA_SIZE: usize = 12;

/// A command of the device mapper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DmCommand {
    /// `DM_DEV_CREATE`
    Create,
    /// `DM_DEV_REMOVE`
    Remove,
    /// `DM_DEV_SUSPEND`, which resumes without its flag
    Resume,
    /// `DM_TABLE_LOAD`
    Load,
}

/// Gives a command to `/dev/mapper/control`; the answer replaces the request.
///
/// # Errors
/// Those of the kernel.
pub fn dm(control: &File, command: DmCommand, request: &mut [u8; DM_REQUEST]) -> Result<()> {
    const fn number(command: u8) -> Opcode {
        opcode::read_write::<[u8; DM_HEADER]>(0xfd, command)
    }
    fn call<const OPCODE: Opcode>(control: &File, request: &mut [u8; DM_REQUEST]) -> Result<()> {
        // The kernel reads and writes as much as the request says.
        request[DM_DATA_SIZE..DM_DATA_SIZE + 4].copy_from_slice(&(DM_REQUEST as u32).to_ne_bytes());
        // SAFETY: the opcode is one of the device mapper's, whose argument points to `data_size` bytes: all of the
        // request, as was just set. It keeps no pointer.
        unsafe { ioctl(control, Updater::<OPCODE, _>::new(request)) }
    }
    match command {
        DmCommand::Create => call::<{ number(3) }>(control, request),
        DmCommand::Remove => call::<{ number(4) }>(control, request),
        DmCommand::Resume => call::<{ number(6) }>(control, request),
        DmCommand::Load => call::<{ number(9) }>(control, request),
    }
}

/// A change to the partitions that the kernel knows of a disk (include/uapi/linux/blkpg.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionChange {
    /// A new partition.
    Add,
    /// It is gone.
    Delete,
    /// It is longer.
    Resize,
}

/// `struct blkpg_partition`
#[repr(C)]
struct Partition {
    start: i64,
    length: i64,
    number: c_int,
    names: [u8; 128],
}

/// `struct blkpg_ioctl_arg`
#[repr(C)]
struct Argument {
    operation: c_int,
    flags: c_int,
    length: c_int,
    data: *mut Partition,
}

/// Informs the kernel of partition `number` of a disk, in bytes; other partitions of the disk may be in use.
///
/// # Errors
/// Those of the kernel.
pub fn partition(disk: &File, change: PartitionChange, number: u32, start: u64, length: u64) -> Result<()> {
    const BLKPG: Opcode = opcode::none(0x12, 105);
    let operation = match change {
        PartitionChange::Add => 1,
        PartitionChange::Delete => 2,
        PartitionChange::Resize => 3,
    };
    let mut data = Partition { start: start as i64, length: length as i64, number: number as c_int, names: [0; 128] };
    let size = size_of::<Partition>() as c_int;
    let argument = Argument { operation, flags: 0, length: size, data: &raw mut data };
    // SAFETY: BLKPG takes this structure and reads through its pointer, during the call, the one below it, which lives
    // until the end of this function.
    unsafe { ioctl(disk, Setter::<BLKPG, Argument>::new(argument)) }
}

/// `struct loop_config` with the `struct loop_info64` in it (include/uapi/linux/loop.h, since Linux 5.8).
#[repr(C)]
struct LoopConfig {
    file: u32,
    block: u32,
    /// Numbers of devices, offset and limit, number of the device, kind and length of a key: all 0.
    zeros: [u8; 52],
    flags: u32,
    name: [u8; 64],
    /// What no kernel reads any more, and what is reserved.
    rest: [u8; 176],
}

/// `LO_FLAGS_READ_ONLY`, `LO_FLAGS_AUTOCLEAR`, `LO_FLAGS_DIRECT_IO`: nothing is written, the device goes with its last user,
/// and what is read through it is not kept in memory a second time.
const LOOP_FLAGS: u32 = 1 | 4 | 16;

/// `LOOP_CTL_GET_FREE`, whose answer is what the call returns.
struct FreeLoop;

// SAFETY: the call takes no argument; its answer is a number.
unsafe impl Ioctl for FreeLoop {
    type Output = c_int;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        0x4c82
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(number: IoctlOutput, _: *mut c_void) -> Result<c_int> {
        Ok(number)
    }
}

/// Number of a loop device that is free at this moment: asked of `/dev/loop-control`.
///
/// # Errors
/// Those of the kernel.
pub fn free_loop(control: &File) -> Result<c_int> {
    // SAFETY: see `FreeLoop`.
    unsafe { ioctl(control, FreeLoop) }
}

/// Shows a file as the loop device `device`, read-only, with blocks of `block` bytes, until its last user is gone.
///
/// # Errors
/// Those of the kernel: `EBUSY` when another program was faster.
pub fn set_loop(device: &File, file: &File, block: u32) -> Result<()> {
    let Ok(file) = u32::try_from(file.as_raw_fd()) else { return Err(rustix::io::Errno::BADF) };
    let config = LoopConfig { file, block, zeros: [0; 52], flags: LOOP_FLAGS, name: [0; 64], rest: [0; 176] };
    // SAFETY: LOOP_CONFIGURE reads this structure during the call and keeps no pointer.
    unsafe { ioctl(device, Setter::<0x4c0a, LoopConfig>::new(config)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!((size_of::<Partition>(), size_of::<Argument>()), (152, 24));
        // `lo_flags` is 52 bytes into `struct loop_info64`, which begins 8 bytes into `struct loop_config`.
        assert_eq!((size_of::<LoopConfig>(), std::mem::offset_of!(LoopConfig, flags)), (304, 60));
    }
}
