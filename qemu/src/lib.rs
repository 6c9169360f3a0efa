// SPDX-License-Identifier: Apache-2.0
//! Emulated devices and a real control plane, for the demo, the tests and the bench.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod accel;
pub mod args;
pub mod console;
pub mod control_plane;
pub mod device;
pub mod disk;
pub mod firmware;
pub mod ports;
pub mod process;
pub mod qmp;
pub mod run_dir;
pub mod search;
pub mod wait;

use anyhow::Result;

/// The build machine's architecture, as Kubernetes calls it.
pub fn host_arch() -> Result<&'static str> {
    Ok(imagebuild::arch::Arch::host()?.name())
}
