// SPDX-License-Identifier: Apache-2.0
//! Builds what a device needs: tool chain, components, bundle, root file system, disk image, seed.

pub mod arch;
pub mod cache;
pub mod cmd;
pub mod component;
pub mod debian;
pub mod elf;
pub mod http;
pub mod lock;
pub mod source;
pub mod verify;
