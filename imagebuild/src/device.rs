// SPDX-License-Identifier: Apache-2.0
//! Static musl programs for either architecture: those of ours that run on a device (`firstboot`, `init` of the initrd, and
//! what mounts a bundle in an image of others), and those that run anywhere.
//!
//! A result is kept in the cache under a digest of everything that goes into it, so an unchanged tree builds nothing, in
//! any clone.

use crate::arch::Arch;
use crate::{cache, cmd, digest, elf, repo, toolchain};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A program that runs on a device.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// What messages call it.
    pub what: &'static str,
    /// Package of the workspace.
    pub package: &'static str,
    /// Its binary.
    pub binary: &'static str,
    /// The profile of Cargo.toml that it is built with.
    pub profile: &'static str,
    /// Size budget, bytes.
    pub max_bytes: u64,
    /// What goes into it besides [`INPUTS`], relative to the repository's root.
    pub inputs: &'static [&'static str],
}

/// The device binary.
pub const FIRSTBOOT: Program = Program {
    what: "device binary",
    package: "firstboot",
    binary: "firstboot",
    profile: "device",
    // 4 MiB, and 1.5 MiB for the cache of the API server: HTTP/2 of both sides and a database.
    max_bytes: (4 << 20) + (3 << 19),
    inputs: &["apicache/Cargo.toml", "apicache/src", "firstboot/Cargo.toml", "firstboot/src", "firstboot/units"],
};

/// The only program of the initrd.
pub const INIT: Program = Program {
    what: "initrd's program",
    package: "initrd",
    binary: "init",
    profile: "device",
    max_bytes: 1 << 20,
    inputs: &["initrd/Cargo.toml", "initrd/src"],
};

/// What mounts the bundle in an image of others.
pub const MOUNT_BUNDLE: Program = Program { what: "program that mounts a bundle", binary: "mount-bundle", ..INIT };

/// What goes into every program, relative to the repository's root.
const INPUTS: [&str; 3] = ["Cargo.lock", "Cargo.toml", "imagebuild/src/toolchain.rs"];

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

/// [`ensure_program`] for the device binary.
pub fn ensure(arch: Arch) -> Result<PathBuf> {
    ensure_program(&FIRSTBOOT, arch)
}

/// Path of the static binary for `arch`, built now when the cache does not have it.
///
/// # Errors
/// When there is no tool chain, the build fails, or the result is not static or larger than its budget.
pub fn ensure_program(program: &Program, arch: Arch) -> Result<PathBuf> {
    let (root, triple) = (repo::root()?, arch.musl());
    let route = toolchain::route(triple)?;
    let inputs = digest::tree(&root, &[&INPUTS, program.inputs].concat())?;
    let key = digest::bytes(format!("{}\n{triple}\n{route}\n{}\n{inputs}", program.binary, toolchain::WHEELS));
    let dir = cache::dir()?.join("device").join(&key[..16]);
    cache::once_kept(&dir, |scratch| {
        let built = build(program, &root, triple, &route, arch)?;
        let bytes = std::fs::read(&built).with_context(|| format!("read {}", built.display()))?;
        check(program, &bytes, arch)?;
        let to = scratch.join(program.binary);
        std::fs::copy(&built, &to).with_context(|| format!("copy the {} into the cache", program.what))?;
        Ok(())
    })?;
    Ok(dir.join(program.binary))
}

fn build(program: &Program, root: &Path, triple: &str, route: &toolchain::Route, arch: Arch) -> Result<PathBuf> {
    let what = program.what;
    eprintln!("imagebuild: building the {what} for {arch} ({route})");
    let start = Instant::now();
    let target = cache::dir()?.join("device-target");
    // Two clones that build at once would forget each other's work while it is done.
    let _lock = cache::lock(&target)?;
    for ours in program.inputs.iter().filter_map(|input| input.strip_suffix("/Cargo.toml")) {
        toolchain::forget(&target.join(triple).join(program.profile).join(".fingerprint"), &format!("{ours}-"))?;
    }
    let mut command = toolchain::command(route, triple)?;
    command.current_dir(root);
    command.args(["--locked", "--profile", program.profile, "--package", program.package, "--bin", program.binary]);
    command.arg("--target-dir").arg(&target);
    cmd::run(&mut command).with_context(|| format!("build the {what} for {arch}"))?;
    eprintln!("imagebuild: {what} for {arch} built in {:.0} s", start.elapsed().as_secs_f64());
    Ok(target.join(triple).join(program.profile).join(program.binary))
}

/// Checks that `file` is a program for `arch`, needs no interpreter and no library, and keeps to the budget.
///
/// # Errors
/// Names what is wrong.
pub fn check(program: &Program, file: &[u8], arch: Arch) -> Result<()> {
    let what = program.what;
    let needs = elf::needs(file).with_context(|| format!("check the {what}"))?;
    ensure!(needs.arch == arch, "check the {what}: it is not for {arch}");
    if let Some(name) = needs.interpreter.or_else(|| needs.libraries.into_iter().next()) {
        bail!("check the {what}: not static, it needs {name}");
    }
    let (size, most) = (file.len() as u64, program.max_bytes);
    ensure!(size <= most, "check the {what}: {size} bytes, {most} are allowed");
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
        let text = check(&FIRSTBOOT, &own(), Arch::host().unwrap()).unwrap_err().to_string();
        assert!(text.starts_with("check the device binary: not static, it needs /lib"), "{text}");
    }

    #[test]
    fn refuses_the_other_architecture() {
        let other = Arch::ALL.into_iter().find(|arch| *arch != Arch::host().unwrap()).unwrap();
        let text = check(&FIRSTBOOT, &own(), other).unwrap_err().to_string();
        assert_eq!(text, format!("check the device binary: it is not for {other}"));
    }

    #[test]
    fn refuses_what_is_no_program() {
        let text = format!("{:#}", check(&FIRSTBOOT, b"#!/bin/sh\n", Arch::Amd64).unwrap_err());
        assert!(text.starts_with("check the device binary: read ELF header"), "{text}");
    }
}
