// SPDX-License-Identifier: Apache-2.0
//! Makes one component of the lock, once: the cache keeps it under a key of everything that went into it.

use crate::arch::Arch;
use crate::lock::{Component, Lock};
use crate::source::{self, Request};
use crate::{cache, digest};
use anyhow::{Context, Result};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// `imagebuild component NAME --arch ARCH`: prints the path of the built file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name in components.lock
    name: String,
    /// arm64 or amd64; default: this machine's own
    #[arg(long)]
    arch: Option<Arch>,
    /// Kubernetes minor or version; default: the lock's
    #[arg(long, value_name = "V")]
    kubernetes_version: Option<String>,
}

/// Runs the subcommand.
pub fn main(args: &Args) -> Result<()> {
    let lock = Lock::find()?;
    let minor = lock.minor(args.kubernetes_version.as_deref())?;
    let arch = args.arch.map_or_else(Arch::host, Ok)?;
    let path = ensure_of(&Request { lock: &lock, component: lock.component(&args.name, &minor)?, arch })?;
    println!("{}", path.display());
    Ok(())
}

/// The file of component `name` of the repository's lock, for a Kubernetes minor or version of it (`None`: its
/// default). Built or fetched when the cache does not have it; with a warm cache it needs no network.
pub fn ensure(name: &str, arch: Arch, kubernetes_version: Option<&str>) -> Result<PathBuf> {
    let lock = Lock::find()?;
    let minor = lock.minor(kubernetes_version)?;
    ensure_of(&Request { lock: &lock, component: lock.component(name, &minor)?, arch })
}

/// [`ensure`] for a component of any lock.
pub fn ensure_of(request: &Request) -> Result<PathBuf> {
    let Component { name, mode, .. } = request.component;
    let key = key(request).with_context(|| format!("find what component {name} is made of"))?;
    let dir = cache::dir()?.join("components").join(key);
    cache::once(&dir, |scratch| {
        let to = scratch.join(name);
        source::fetch(request, &to)?;
        fs::set_permissions(&to, Permissions::from_mode(*mode))
            .with_context(|| format!("set the mode of {}", to.display()))
    })?;
    Ok(dir.join(name))
}

/// Hex digest of all that the component's bytes depend on.
pub fn key(request: &Request) -> Result<String> {
    let mut parts = vec!["component 1".to_owned(), request.arch.to_string()];
    parts.push(serde_json::to_string(request.component)?);
    parts.extend(source::inputs(request)?);
    // JSON keeps the parts apart.
    Ok(digest::bytes(&serde_json::to_vec(&parts)?)[..32].to_owned())
}
