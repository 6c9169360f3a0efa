// SPDX-License-Identifier: Apache-2.0
//! Source `go-directory`: a small Go program of this repository that needs nothing but Go's own library.

use super::{Request, gomod};
use crate::{cmd, digest};
use anyhow::{Context, Result};
use std::path::Path;

/// Names and contents of the directory's files, and the tool chain.
pub fn inputs(request: &Request, directory: &str) -> Result<Vec<String>> {
    let dir = request.lock.root.join(directory);
    let mut inputs = vec![gomod::toolchain(request, &dir)?];
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        names.push(entry.with_context(|| format!("list {}", dir.display()))?.file_name());
    }
    names.sort();
    for name in names {
        inputs.push(format!("{} {}", name.to_string_lossy(), digest::file(&dir.join(&name))?));
    }
    Ok(inputs)
}

/// Builds the directory's program to `to`.
pub fn fetch(request: &Request, directory: &str, to: &Path) -> Result<()> {
    let mut command = gomod::go(request, &request.lock.root.join(directory))?;
    command.args(["build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o"]).arg(to).arg(".");
    cmd::run(&mut command).with_context(|| format!("build {} for {}", request.name(), request.arch))
}
