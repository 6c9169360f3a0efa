// SPDX-License-Identifier: Apache-2.0
//! Source `c-file`: one C file of a locked Go module, compiled statically; and the linking of C into Go programs.

use super::{Request, debian, gomod};
use crate::arch::Arch;
use crate::cmd;
use crate::lock::Cgo;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// Name of the C compiler for `arch`, the same on either build machine: `aarch64-linux-gnu-gcc`.
pub fn compiler(arch: Arch) -> String {
    format!("{}-gcc", arch.triplet())
}

/// First line of the compiler's version.
pub fn compiler_version(arch: Arch) -> Result<String> {
    let compiler = compiler(arch);
    let text = cmd::output(Command::new(&compiler).arg("--version")).with_context(|| {
        format!("find the C compiler for {arch} (package gcc-{})", arch.triplet().replace('_', "-"))
    })?;
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
}

/// What the module's wrapper depends on, and the compiler.
pub fn inputs(request: &Request, wrapper: &str) -> Result<Vec<String>> {
    let mut inputs = gomod::inputs(request, wrapper)?;
    inputs.push(compiler_version(request.arch)?);
    Ok(inputs)
}

/// Compiles `path` of the wrapper's module to `to`.
pub fn fetch(request: &Request, wrapper: &str, path: &str, define: &[String], to: &Path) -> Result<()> {
    let source = gomod::module_dir(request, wrapper)?.join(path);
    let mut command = Command::new(compiler(request.arch));
    command.args(["-Os", "-Wall", "-static", "-s", "-Wl,--gc-sections"]);
    command.args(define.iter().map(|d| format!("-D{d}"))).arg("-o").arg(to).arg(source);
    cmd::run(&mut command).with_context(|| format!("compile {} for {}", request.name(), request.arch))
}

/// Lets a `go build` command link C libraries of Debian packages, unpacked below `scratch`, for the requested
/// architecture. Libraries of the build machine itself are never used, so that both architectures are built alike.
pub fn link_statically(request: &Request, cgo: &Cgo, scratch: &Path, command: &mut Command) -> Result<()> {
    for package in &cgo.debian {
        let deb = debian::deb(request, package, None)?;
        crate::debian::Debian::open(request.arch)?.unpack(&deb, scratch)?;
    }
    let libraries = scratch.join("usr/lib").join(request.arch.triplet());
    command.env("CGO_ENABLED", "1").env("CC", compiler(request.arch));
    // LIBDIR, not PATH: PATH would add to the build machine's own directories.
    command.env("PKG_CONFIG_LIBDIR", libraries.join("pkgconfig")).env("PKG_CONFIG_SYSROOT_DIR", scratch);
    // Paths of the scratch directory must not reach the program.
    command.env("CGO_CFLAGS", format!("-O2 -g0 -ffile-prefix-map={}=.", scratch.display()));
    Ok(())
}
