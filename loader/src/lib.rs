// SPDX-License-Identifier: Apache-2.0
//! What `verify.efi` decides: which file it starts, whether that file is the one that the boot entry names, and what
//! it says when it is not. The program itself is `main.rs`; all that touches the firmware is there.
//!
//! systemd-boot starts `verify.efi` with the options of a boot entry, `\EFI\firstboot\a.efi SHA256`. Both ends of that
//! line are on the same unprotected file system as the file: this finds damage, not an attacker.

#![no_std]

extern crate alloc;

mod content;
mod failure;
mod kernel;
mod options;

pub use content::{CHUNK, Content, read};
pub use failure::{Failure, Line, WAIT};
pub use kernel::check as check_kernel;
pub use options::{Options, parse};
