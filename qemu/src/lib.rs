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

use anyhow::{Result, bail};

/// The build machine's architecture, as Kubernetes calls it.
pub fn host_arch() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("run on this machine: {other} is neither amd64 nor arm64"),
    }
}
