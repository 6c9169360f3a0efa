// SPDX-License-Identifier: Apache-2.0
//! The initrd of our own images: one program that finds the verified root, lays out the disk at first boot, and hands
//! over to the root's own init with `/var` and `/etc` on the data partition.
//!
//! The library part is pure or works on files, so that tests and the harness use it on any machine:
//! [`command_line::CommandLine`], [`partitions::prepare`], [`verity`] and [`report::Boot`].

pub mod bundle;
pub mod command_line;
pub mod console;
pub mod data;
pub mod disks;
pub mod dm;
pub mod ext4;
pub mod fill;
pub mod kernel;
pub mod layers;
pub mod layout;
pub mod medium;
pub mod modules;
pub mod mounts;
pub mod partitions;
pub mod report;
pub mod switch;
pub mod table;
pub mod verity;

#[cfg(test)]
mod data_tests;
#[cfg(test)]
mod disks_tests;
#[cfg(test)]
mod partitions_tests;
