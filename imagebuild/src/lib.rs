// SPDX-License-Identifier: Apache-2.0
//! Builds what a device needs: tool chain, components, bundle, root file system, disk image, seed.

pub mod advisories;
pub mod approver;
pub mod arch;
pub mod archive;
pub mod bake;
pub mod build;
pub mod bundle;
pub mod cache;
pub mod check;
pub mod cluster;
pub mod cmd;
pub mod component;
pub mod container;
pub mod control_plane;
pub mod cpio;
pub mod debian;
pub mod dependencies;
pub mod device;
pub mod digest;
pub mod disk;
pub mod dist;
pub mod elf;
pub mod erofs;
pub mod erofs_reader;
pub mod exit;
pub mod flash;
pub mod fleet;
pub mod go;
pub mod http;
pub mod initrd;
pub mod loader;
pub mod lock;
pub mod manual;
pub mod oci;
pub mod owner;
pub mod packing;
mod private_file;
pub mod progress;
pub mod registry;
pub mod repo;
pub mod report;
pub mod rootfs;
pub mod seed;
pub mod setup;
pub mod sign;
#[cfg(test)]
#[path = "../../tests/skip.rs"]
mod skip;
pub mod source;
pub mod sums;
pub mod target;
pub mod toolchain;
pub mod uki;
pub mod verify;
pub mod verity;
