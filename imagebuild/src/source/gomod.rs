// SPDX-License-Identifier: Apache-2.0
//! Source `go-module`: a program of a Go module, built here for either architecture.
//!
//! The module's `h1:` sum must be the same in the lock, in the wrapper's go.sum and in what Go has in its module
//! cache. Everything that the module needs is checked by Go itself against go.sum, which is never changed here.

use super::Request;
use crate::lock::Wrapper;
use crate::{cmd, digest, go, verify};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The part of `go mod download -json` that is used.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Download {
    dir: Option<PathBuf>,
    sum: Option<String>,
    error: Option<String>,
}

/// A `go` command in `dir` that obeys its go.mod and go.sum and builds for the requested architecture.
pub fn go(request: &Request, dir: &Path) -> Result<Command> {
    let mut command = go::command()?;
    command.current_dir(dir);
    // The lowest level of either architecture: a Raspberry Pi 4, an old Atom.
    command.env("GOAMD64", "v1").env("GOARM64", "v8.0");
    command.env("GOOS", "linux").env("GOARCH", request.arch.name()).env("CGO_ENABLED", "0");
    Ok(command)
}

/// The version of the Go tool chain that builds in `dir`.
pub fn toolchain(request: &Request, dir: &Path) -> Result<String> {
    let version = cmd::output(go(request, dir)?.args(["env", "GOVERSION"])).context("ask Go for its version")?;
    Ok(String::from_utf8_lossy(&version).trim().to_owned())
}

/// Wrapper, go.mod, go.sum and tool chain.
pub fn inputs(request: &Request, wrapper: &str) -> Result<Vec<String>> {
    let dir = request.lock.wrapper_dir(wrapper);
    let module = request.lock.wrapper(wrapper)?;
    let mut inputs = vec![serde_json::to_string(module)?, toolchain(request, &dir)?];
    for name in ["go.mod", "go.sum"] {
        let path = dir.join(name);
        inputs.push(std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?);
    }
    for name in directories(&dir)? {
        inputs.push(digest::tree(&dir, &[&name])?);
    }
    if let Some(cgo) = &module.cgo {
        inputs.push(super::c_file::compiler_version(request.arch)?);
        for package in &cgo.debian {
            inputs.extend(super::debian::inputs(request, package, None)?);
        }
    }
    Ok(inputs)
}

/// Names of a wrapper's directories, sorted: modules that its go.mod has in the place of others.
fn directories(wrapper: &Path) -> Result<Vec<String>> {
    let list = || format!("list {}", wrapper.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(wrapper).with_context(list)? {
        let entry = entry.with_context(list)?;
        if entry.file_type().with_context(list)?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Makes sure that the wrapper's module is in Go's module cache and is the locked one; returns its directory.
pub fn module_dir(request: &Request, wrapper: &str) -> Result<PathBuf> {
    let dir = request.lock.wrapper_dir(wrapper);
    let Wrapper { module, version, digest, .. } = request.lock.wrapper(wrapper)?;
    let go_sum = dir.join("go.sum");
    let text = std::fs::read_to_string(&go_sum).with_context(|| format!("read {}", go_sum.display()))?;
    let what = format!("go.sum of wrapper {wrapper}, {module} v{version}");
    verify::expect(request.name(), &what, digest, sum_line(&text, module, version).unwrap_or("no such line"))?;
    let what = format!("Go module {module} v{version}");
    let json = match cmd::output(go(request, &dir)?.args(["mod", "download", "-json", &format!("{module}@v{version}")]))
    {
        Ok(json) => json,
        Err(error) => {
            // Go checks the module against go.sum, which agrees with the lock.
            if let Some(found) = mismatch(&error.to_string()) {
                verify::expect(request.name(), &what, digest, found)?;
            }
            return Err(error).with_context(|| format!("download {what}"));
        }
    };
    let found: Download =
        serde_json::from_slice(&json).with_context(|| format!("read what Go says of {module} v{version}"))?;
    if let Some(error) = found.error {
        bail!("download {what}: {error}");
    }
    verify::expect(request.name(), &what, digest, found.sum.as_deref().unwrap_or("no sum"))?;
    found.dir.with_context(|| format!("find Go module {module} v{version} in the module cache"))
}

/// The `h1:` sum of a module's zip in the text of a go.sum.
fn sum_line<'a>(go_sum: &'a str, module: &str, version: &str) -> Option<&'a str> {
    go_sum.lines().find_map(|l| l.strip_prefix(module)?.strip_prefix(" v")?.strip_prefix(version)?.strip_prefix(' '))
}

/// The sum that Go found, in what it says of a module that is not the one of go.sum.
fn mismatch(text: &str) -> Option<&str> {
    text.contains("checksum mismatch").then(|| text.lines().find_map(|l| l.trim().strip_prefix("downloaded: ")))?
}

/// Builds `package` to `to`.
pub fn fetch(request: &Request, wrapper: &str, package: &str, to: &Path) -> Result<()> {
    module_dir(request, wrapper)?;
    let module = request.lock.wrapper(wrapper)?;
    let mut command = go(request, &request.lock.wrapper_dir(wrapper))?;
    let mut ldflags = vec!["-s".to_owned(), "-w".to_owned()];
    ldflags.extend(module.ldflags.iter().cloned());
    let scratch = tempfile::tempdir().context("create a scratch directory")?;
    if let Some(cgo) = &module.cgo {
        super::c_file::link_statically(request, cgo, scratch.path(), &mut command)?;
        // Go's build identifier depends on where the libraries were unpacked; nothing else does.
        ldflags.extend(["-buildid=", "-linkmode", "external", "-extldflags", "-static"].map(str::to_owned));
    }
    command.args(["build", "-trimpath"]);
    if !module.tags.is_empty() {
        command.arg(format!("-tags={}", module.tags.join(",")));
    }
    command.args(["-ldflags", &ldflags.join(" "), "-o"]).arg(to).arg(package);
    cmd::run(&mut command).with_context(|| format!("build {} for {}", request.name(), request.arch))
}

#[cfg(test)]
#[path = "gomod_tests.rs"]
mod tests;
