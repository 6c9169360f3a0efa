// SPDX-License-Identifier: Apache-2.0
//! The first program of the initrd, from the kernel's start to systemd's.
//!
//! It loads the drivers that the hardware asks for, finds the verified root by its content, lays out the disk at the
//! first boot, repairs either copy of the partition table, opens the root by dm-verity, mounts data, `/var` and `/etc`,
//! writes [`report::Boot`], and starts `/sbin/init`. It never waits for a person: what fails is said on every console, and
//! the device starts over, so that the boot loader counts the attempt.
//!
//! The pure parts (command line, layout, partition table, report) are also what tests on disk images use.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod command_line;
pub mod console;
pub mod data;
pub mod disks;
pub mod kernel;
pub mod layout;
pub mod modules;
pub mod mounts;
pub mod report;
pub mod table;
pub mod verity;
