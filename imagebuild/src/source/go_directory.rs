// SPDX-License-Identifier: Apache-2.0
//! Source `go-directory`: a small Go program of this repository. It needs nothing but Go's own library, or it imports
//! what a wrapper locks, and is built with the wrapper's go.mod and go.sum.

use super::{Request, gomod};
use crate::{cmd, digest};
use anyhow::{Context, Result, ensure};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Names and contents of the directory's files, the tool chain, and what the wrapper locks.
pub fn inputs(request: &Request, directory: &str, wrapper: Option<&str>) -> Result<Vec<String>> {
    let dir = request.lock.root.join(directory);
    let mut inputs = match wrapper {
        Some(wrapper) => gomod::inputs(request, wrapper)?,
        None => vec![gomod::toolchain(request, &dir)?],
    };
    for name in names(&dir)? {
        inputs.push(format!("{} {}", name.to_string_lossy(), digest::file(&dir.join(&name))?));
    }
    Ok(inputs)
}

/// Builds the directory's program to `to`.
pub fn fetch(request: &Request, directory: &str, wrapper: Option<&str>, to: &Path) -> Result<()> {
    let dir = request.lock.root.join(directory);
    let mut ldflags = vec!["-s".to_owned(), "-w".to_owned()];
    let mut command = match wrapper {
        Some(wrapper) => {
            gomod::module_dir(request, wrapper)?;
            // It is to give the same version as the wrapper's own programs.
            ldflags.extend(request.lock.wrapper(wrapper)?.ldflags.iter().cloned());
            gomod::go(request, &request.lock.wrapper_dir(wrapper))?
        }
        None => gomod::go(request, &dir)?,
    };
    command.args(["build", "-trimpath", "-ldflags", &ldflags.join(" "), "-o"]).arg(to);
    match wrapper {
        // Named one by one, Go files belong to the module in whose directory the command runs.
        Some(_) => command.args(files(&dir)?),
        None => command.arg("."),
    };
    cmd::run(&mut command).with_context(|| format!("build {} for {}", request.name(), request.arch))
}

/// Names in the directory, sorted.
fn names(dir: &Path) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        names.push(entry.with_context(|| format!("list {}", dir.display()))?.file_name());
    }
    names.sort();
    Ok(names)
}

/// Absolute paths of the directory's Go files.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let dir = dir.canonicalize().with_context(|| format!("find {}", dir.display()))?;
    let paths = names(&dir)?.into_iter().map(|name| dir.join(name));
    let files: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == "go")).collect();
    ensure!(!files.is_empty(), "find Go files in {}: there are none", dir.display());
    Ok(files)
}
