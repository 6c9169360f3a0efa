// SPDX-License-Identifier: Apache-2.0
//! containerd's state with the bundle's images in it, made by `imagebuild/prepared`: a program of containerd's own
//! packages, of the version that runs on the device.

use crate::arch::Arch;
use crate::component;
use crate::lock::Lock;
use crate::oci::Archived;
use crate::source::Request;
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use firstboot::bundle::BUNDLE_DIR;
use firstboot::paths::CONTAINERD_ROOT;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Name of the program in the lock.
const PROGRAM: &str = "containerd-state";

/// What the state depends on besides the images. It runs on the build machine; what it writes is the same on all.
pub fn request<'a>(lock: &'a Lock, minor: &str) -> Result<Request<'a>> {
    Ok(Request { lock, component: lock.component(PROGRAM, minor)?, arch: Arch::host()? })
}

/// The program's file.
pub fn program(lock: &Lock, minor: &str) -> Result<PathBuf> {
    component::ensure_of(&request(lock, minor)?)
}

/// Writes the state to an empty directory.
pub fn write(program: &Path, images: &[(String, Archived)], to: &Path) -> Result<()> {
    let images: Vec<_> = images
        .iter()
        .map(|(name, image)| {
            let encoded = |bytes: &[u8]| STANDARD.encode(bytes);
            json!({
                "name": name,
                "media_type": image.media_type,
                "manifest": encoded(&image.manifest),
                "config": encoded(&image.config),
            })
        })
        .collect();
    let request = json!({ "root": CONTAINERD_ROOT, "layers": format!("{BUNDLE_DIR}/layers"), "images": images });
    let mut command = Command::new(program);
    command.arg(to).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {}", program.display()))?;
    let mut input = child.stdin.take().with_context(|| format!("write to {}", program.display()))?;
    // One that ends early says why.
    let _ = input.write_all(&serde_json::to_vec(&request)?);
    drop(input);
    let output = child.wait_with_output().with_context(|| format!("wait for {}", program.display()))?;
    if !output.status.success() {
        bail!("run {}: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}
