// SPDX-License-Identifier: Apache-2.0
//! The device binary: `firstboot` as a static musl program for either architecture.
//!
//! Its result is kept in the cache under a digest of everything that goes into it, so an unchanged tree builds
//! nothing, in any clone.

use crate::arch::Arch;
use crate::{cache, cmd, digest, elf, repo, toolchain};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Size budget for the device binary, bytes: 4 MiB.
pub const MAX_BYTES: u64 = 4 << 20;
/// What goes into the binary, relative to the repository's root.
const INPUTS: [&str; 6] = [
    "Cargo.lock",
    "Cargo.toml",
    "firstboot/Cargo.toml",
    "firstboot/src",
    "firstboot/units",
    "imagebuild/src/toolchain.rs",
];

/// `imagebuild device`: builds the device binary and prints its path.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Architecture: arm64 or amd64
    #[arg(long)]
    arch: Arch,
}

/// Runs `imagebuild device`.
pub fn main(args: &Args) -> Result<()> {
    println!("{}", ensure(args.arch)?.display());
    Ok(())
}

/// Path of the static binary for `arch`, built now when the cache does not have it.
///
/// # Errors
/// When there is no tool chain, the build fails, or the result is not static or above [`MAX_BYTES`].
pub fn ensure(arch: Arch) -> Result<PathBuf> {
    let (root, triple) = (repo::root()?, arch.musl());
    let route = toolchain::route(triple)?;
    let inputs = digest::tree(&root, &INPUTS)?;
    let key = digest::bytes(format!("{triple}\n{route}\n{}\n{inputs}", toolchain::WHEELS));
    let dir = cache::dir()?.join("device").join(&key[..16]);
    cache::once(&dir, |scratch| {
        let built = build(&root, triple, &route, arch)?;
        let bytes = std::fs::read(&built).with_context(|| format!("read {}", built.display()))?;
        check(&bytes, arch)?;
        std::fs::copy(&built, scratch.join("firstboot")).context("copy the device binary into the cache")?;
        Ok(())
    })?;
    Ok(dir.join("firstboot"))
}

fn build(root: &Path, triple: &str, route: &toolchain::Route, arch: Arch) -> Result<PathBuf> {
    eprintln!("imagebuild: building the device binary for {arch} ({route})");
    let start = Instant::now();
    let target = cache::dir()?.join("device-target");
    // Two clones that build at once would forget each other's work while it is done.
    let _lock = cache::lock(&target)?;
    toolchain::forget(&target.join(triple).join("device/.fingerprint"), "firstboot-")?;
    let mut command = toolchain::command(route, triple)?;
    command.current_dir(root);
    command.args(["--locked", "--profile", "device", "--package", "firstboot", "--bin", "firstboot"]);
    command.arg("--target-dir").arg(&target);
    cmd::run(&mut command).with_context(|| format!("build the device binary for {arch}"))?;
    eprintln!("imagebuild: device binary for {arch} built in {:.0} s", start.elapsed().as_secs_f64());
    Ok(target.join(triple).join("device/firstboot"))
}

/// Checks that `file` is a program for `arch`, needs no interpreter and no library, and keeps to the budget.
///
/// # Errors
/// Names what is wrong.
pub fn check(file: &[u8], arch: Arch) -> Result<()> {
    let needs = elf::needs(file).context("check the device binary")?;
    ensure!(needs.arch == arch, "check the device binary: it is not for {arch}");
    if let Some(name) = needs.interpreter.or_else(|| needs.libraries.into_iter().next()) {
        bail!("check the device binary: not static, it needs {name}");
    }
    let size = file.len() as u64;
    ensure!(size <= MAX_BYTES, "check the device binary: {size} bytes, {MAX_BYTES} are allowed");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The test program itself, which is dynamic.
    fn own() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn refuses_a_dynamic_program() {
        let text = check(&own(), Arch::host().unwrap()).unwrap_err().to_string();
        assert!(text.starts_with("check the device binary: not static, it needs /lib"), "{text}");
    }

    #[test]
    fn refuses_the_other_architecture() {
        let other = Arch::ALL.into_iter().find(|arch| *arch != Arch::host().unwrap()).unwrap();
        let text = check(&own(), other).unwrap_err().to_string();
        assert_eq!(text, format!("check the device binary: it is not for {other}"));
    }

    #[test]
    fn refuses_what_is_no_program() {
        let text = format!("{:#}", check(b"#!/bin/sh\n", Arch::Amd64).unwrap_err());
        assert!(text.starts_with("check the device binary: read ELF header"), "{text}");
    }
}
