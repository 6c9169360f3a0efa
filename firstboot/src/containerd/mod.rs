// SPDX-License-Identifier: Apache-2.0
//! The container runtime: what it is asked over CRI, its images, and its state after a power cut.

pub mod cri;
pub(crate) mod damage;
pub(crate) mod images;
pub mod prepared;
pub(crate) mod ready;
mod rebuild_record;
pub(crate) mod repair;

/// Its unit.
pub(crate) const RUNTIME: &str = "containerd.service";
