// SPDX-License-Identifier: Apache-2.0
//! Emulated devices and a real control plane, for the demo, the tests and the bench.
#![allow(clippy::disallowed_methods)] // runs on a build machine, not on a device
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod accel;
pub mod args;
pub mod bench;
pub mod board;
pub mod cluster;
pub mod compare;
pub mod console;
pub mod control_plane;
pub mod demo;
pub mod device;
pub mod disk;
pub mod disk_errors;
pub mod firmware;
pub mod kubectl;
pub mod link;
pub mod options;
pub mod pairs;
pub mod pods;
pub mod ports;
pub mod process;
pub mod progress;
pub mod qmp;
pub mod raspberry_pi;
pub mod run_dir;
pub mod saved;
pub mod scenario;
pub mod search;
pub mod seed;
#[cfg(test)]
#[path = "../../tests/skip.rs"]
mod skip;
pub mod status;
pub mod timeline;
pub mod wait;
pub mod writes;

use anyhow::{Context, Result};

/// The requested target, or the generic one of the build machine's own architecture.
pub fn target_or_own(asked: Option<&str>) -> Result<String> {
    asked.map_or_else(|| Ok(format!("generic-{}", imagebuild::arch::Arch::host()?)), |name| Ok(name.to_owned()))
}

/// Name of the target whose image has a control plane's images as well: for [`image_of`], `Target::load` and reports.
pub fn for_control_plane(target: &str) -> Result<String> {
    Ok(imagebuild::target::Target::load(target)?.for_control_plane().name)
}

/// The raw disk image of a target, built if anything that goes into it has changed.
pub fn image_of(target: &str) -> Result<std::path::PathBuf> {
    imagebuild::build::ensure_raw(target, None)
}

/// [`image_of`] with the bundle of a Kubernetes minor or version of components.lock.
pub fn image_with(target: &str, kubernetes_version: &str) -> Result<std::path::PathBuf> {
    imagebuild::build::ensure_raw(target, Some(kubernetes_version))
}

/// [`image_of`] that says it was built at `time`, in seconds since 1970.
pub fn image_built_at(target: &str, time: u64) -> Result<std::path::PathBuf> {
    Ok(imagebuild::build::ensure_built_at(target, time)?.raw())
}

/// An error with its causes, outermost first, one below the other and without a backtrace.
pub fn explain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join("\ncaused by: ")
}

/// Writes a report, its directory made when missing.
pub fn write_report(path: &std::path::Path, text: &str) -> Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
