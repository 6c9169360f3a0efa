// SPDX-License-Identifier: Apache-2.0
//! The verifier of boot files: `verify.efi` of the crate `loader`, a UEFI program for either architecture.
//!
//! Kept in the cache as the device binary is ([`crate::device`]): under a digest of all that goes into it.

use crate::arch::Arch;
use crate::toolchain::{self, Route};
use crate::{cache, cmd, digest, repo};
use anyhow::{Context, Result, ensure};
use object::LittleEndian as LE;
use object::pe::{IMAGE_FILE_MACHINE_AMD64, IMAGE_FILE_MACHINE_ARM64, IMAGE_SUBSYSTEM_EFI_APPLICATION};
use object::read::pe::PeFile64;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Size budget, bytes: 64 KiB. Firmware reads it from a slow file system at every boot.
pub const MAX_BYTES: u64 = 64 << 10;
/// What goes into it, relative to the repository's root.
const INPUTS: [&str; 6] = [
    "Cargo.lock",
    "Cargo.toml",
    "imagebuild/src/loader.rs",
    "imagebuild/src/toolchain.rs",
    "loader/Cargo.toml",
    "loader/src",
];
/// What the crate calls the program.
const PROGRAM: &str = "verify.efi";

/// `imagebuild loader`: builds the verifier of boot files and prints its path.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Architecture: arm64 or amd64
    #[arg(long)]
    arch: Arch,
}

/// Runs `imagebuild loader`.
pub fn main(args: &Args) -> Result<()> {
    println!("{}", ensure(args.arch)?.display());
    Ok(())
}

/// Path of `verify.efi` for `arch`, built now when the cache does not have it.
///
/// # Errors
/// When there is no tool chain, the build fails, or the result is no UEFI program or above [`MAX_BYTES`].
pub fn ensure(arch: Arch) -> Result<PathBuf> {
    let (root, triple) = (repo::root()?, arch.uefi());
    let route = toolchain::route(triple)?;
    let inputs = digest::tree(&root, &INPUTS)?;
    let key = digest::key(&[triple, &route.to_string(), toolchain::WHEELS, &inputs]);
    let dir = cache::dir()?.join("verify").join(key);
    cache::once_kept(&dir, |scratch| {
        let built = build(&root, &route, arch)?;
        let bytes = std::fs::read(&built).with_context(|| format!("read {}", built.display()))?;
        check(&bytes, arch)?;
        std::fs::copy(&built, scratch.join(PROGRAM)).with_context(|| format!("copy {PROGRAM} into the cache"))?;
        Ok(())
    })?;
    Ok(dir.join(PROGRAM))
}

fn build(root: &Path, route: &Route, arch: Arch) -> Result<PathBuf> {
    eprintln!("imagebuild: building {PROGRAM} for {arch} ({route})");
    let (start, triple) = (Instant::now(), arch.uefi());
    let target = cache::dir()?.join("verify-target");
    // Clones share it, as they do the device binary's.
    let _lock = cache::lock(&target)?;
    toolchain::forget(&target.join(triple).join("device/.fingerprint"), "loader-")?;
    let mut command = command(route, triple)?;
    command.current_dir(root).arg("--target-dir").arg(&target);
    cmd::run(&mut command).with_context(|| format!("build {PROGRAM} for {arch}"))?;
    eprintln!("imagebuild: {PROGRAM} for {arch} built in {:.0} s", start.elapsed().as_secs_f64());
    Ok(target.join(triple).join("device").join(PROGRAM))
}

fn command(route: &Route, triple: &str) -> Result<Command> {
    let mut command = toolchain::uefi_command(route, triple)?;
    command.args(["--locked", "--profile", "device", "--package", "loader", "--bin", "verify", "--features", "efi"]);
    Ok(command)
}

/// Checks that `file` is a UEFI program for `arch` and keeps to the budget.
///
/// # Errors
/// Names what is wrong.
pub fn check(file: &[u8], arch: Arch) -> Result<()> {
    let program = PeFile64::parse(file).with_context(|| format!("check {PROGRAM}: read its headers"))?;
    let machine = match arch {
        Arch::Arm64 => IMAGE_FILE_MACHINE_ARM64,
        Arch::Amd64 => IMAGE_FILE_MACHINE_AMD64,
    };
    let headers = program.nt_headers();
    ensure!(headers.file_header.machine.get(LE) == machine, "check {PROGRAM}: it is not for {arch}");
    let subsystem = headers.optional_header.subsystem.get(LE);
    ensure!(subsystem == IMAGE_SUBSYSTEM_EFI_APPLICATION, "check {PROGRAM}: its subsystem is {subsystem}, not UEFI's");
    let size = file.len() as u64;
    ensure!(size <= MAX_BYTES, "check {PROGRAM}: {size} bytes, {MAX_BYTES} are allowed");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use object::pe;

    /// A PE file that has headers only, of an empty section too.
    fn program(machine: u16, subsystem: u16) -> Vec<u8> {
        let directories = pe::IMAGE_NUMBEROF_DIRECTORY_ENTRIES;
        let optional = size_of::<pe::ImageOptionalHeader64>() + directories * size_of::<pe::ImageDataDirectory>();
        let mut file = vec![0; 0x40 + 4 + 20 + optional + size_of::<pe::ImageSectionHeader>()];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"MZ");
        put(0x3c, &[0x40]);
        put(0x40, b"PE\0\0");
        put(0x44, &machine.to_le_bytes());
        put(0x46, &[1]);
        put(0x54, &(optional as u16).to_le_bytes());
        put(0x58, &pe::IMAGE_NT_OPTIONAL_HDR64_MAGIC.to_le_bytes());
        put(0x58 + 68, &subsystem.to_le_bytes());
        put(0x58 + 108, &(directories as u32).to_le_bytes());
        file
    }

    fn refused(file: &[u8], arch: Arch) -> String {
        format!("{:#}", check(file, arch).unwrap_err())
    }

    #[test]
    fn a_uefi_program_for_its_architecture_passes() {
        let [arm64, amd64] = [IMAGE_FILE_MACHINE_ARM64, IMAGE_FILE_MACHINE_AMD64].map(|m| program(m, 10));
        check(&arm64, Arch::Arm64).unwrap();
        check(&amd64, Arch::Amd64).unwrap();
        assert_eq!(refused(&arm64, Arch::Amd64), "check verify.efi: it is not for amd64");
        assert_eq!(refused(&amd64, Arch::Arm64), "check verify.efi: it is not for arm64");
    }

    #[test]
    fn what_is_none_is_refused() {
        let text = refused(&program(IMAGE_FILE_MACHINE_AMD64, 3), Arch::Amd64);
        assert_eq!(text, "check verify.efi: its subsystem is 3, not UEFI's");
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(refused(&own, Arch::Amd64).starts_with("check verify.efi: read its headers: "));
        let mut large = program(IMAGE_FILE_MACHINE_AMD64, 10);
        large.resize(MAX_BYTES as usize + 1, 0);
        assert_eq!(refused(&large, Arch::Amd64), "check verify.efi: 65537 bytes, 65536 are allowed");
    }

    /// Each of them changes what is built.
    #[test]
    fn every_input_exists() {
        digest::tree(&repo::root().unwrap(), &INPUTS).unwrap();
    }
}
