// SPDX-License-Identifier: Apache-2.0
//! Fetches or builds one component from the source that the lock names, checking its digest on the way.
//!
//! Each kind of source is a module with `fetch`, which makes the file, and where needed `inputs`: everything besides
//! the lock entry that the result depends on. It goes into the cache key and needs no network.

pub mod c_file;
pub mod debian;
pub mod file;
pub mod go_directory;
pub mod gomod;
pub mod url;

use crate::arch::Arch;
use crate::lock::{Component, Lock, Source};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// A request to a source.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The lock that contains the component.
    pub lock: &'a Lock,
    /// The component.
    pub component: &'a Component,
    /// The architecture.
    pub arch: Arch,
}

impl Request<'_> {
    /// The component's name.
    pub fn name(&self) -> &str {
        &self.component.name
    }

    /// The value for the requested architecture of a table in the lock.
    fn of_arch<'t>(&self, table: &'t BTreeMap<Arch, String>, key: &str) -> Result<&'t str> {
        table
            .get(&self.arch)
            .map(String::as_str)
            .with_context(|| format!("read component {}: no {key} for {}", self.name(), self.arch))
    }
}

/// Everything besides the lock entry itself that the component's bytes depend on. Needs no network once the cache is
/// warm.
pub fn inputs(request: &Request) -> Result<Vec<String>> {
    match &request.component.source {
        Source::GoModule { wrapper, .. } => gomod::inputs(request, wrapper),
        Source::CFile { wrapper, .. } => c_file::inputs(request, wrapper),
        Source::GoDirectory { directory, wrapper } => go_directory::inputs(request, directory, wrapper.as_deref()),
        Source::Debian { package, version, .. } => debian::inputs(request, package, version.as_deref()),
        // Their digests are in the lock entry.
        Source::Url { .. } | Source::File { .. } => Ok(Vec::new()),
    }
}

/// Makes the component's file at `to`.
pub fn fetch(request: &Request, to: &Path) -> Result<()> {
    match &request.component.source {
        Source::GoModule { wrapper, package } => gomod::fetch(request, wrapper, package, to),
        Source::CFile { wrapper, path, define } => c_file::fetch(request, wrapper, path, define, to),
        Source::GoDirectory { directory, wrapper } => go_directory::fetch(request, directory, wrapper.as_deref(), to),
        Source::Url { url, sha256, member } => url::fetch(request, url, sha256, member.as_deref(), to),
        Source::File { path, sha256 } => file::fetch(request, path, sha256, to),
        Source::Debian { package, version, path, sha256 } => {
            debian::fetch(request, package, version.as_deref(), path, sha256, to)
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of all sources share.
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// A lock in `root` with one component `thing` of this source.
    pub fn lock(root: &Path, source: &str) -> Lock {
        let text = format!(
            "version = 1\nkubernetes = \"1.36\"\n\
             [[component]]\nname = \"kubelet\"\nversion = \"1.36.3\"\nkubernetes = \"1.36\"\n\
             source.file = {{ path = {{}}, sha256 = {{}} }}\n\
             [[component]]\nname = \"thing\"\nversion = \"1.0\"\n{source}\n"
        );
        Lock::parse(&text, root).unwrap()
    }

    /// Fetches `thing` for amd64 to a file `out` in the lock's directory; returns its bytes, or the error as one line.
    pub fn fetch_thing(lock: &Lock) -> Result<Vec<u8>, String> {
        let request = Request { lock, component: lock.component("thing", "1.36").unwrap(), arch: Arch::Amd64 };
        let to = lock.root.join("out");
        fetch(&request, &to).map_err(|e| format!("{e:#}"))?;
        Ok(std::fs::read(to).unwrap())
    }

    /// Whether a test that needs Go can run. If not, it is skipped, and in CI fails.
    pub fn have_go() -> bool {
        or_skip(crate::go::is_here(), "Go")
    }

    /// Whether a test that needs `program` can run. If not, it is skipped, and in CI fails.
    pub fn have(program: &str) -> bool {
        or_skip(crate::cmd::found(program), program)
    }

    fn or_skip(there: bool, program: &str) -> bool {
        if !there {
            crate::skip::skip_unless_ci(&format!("{program} is not installed"));
        }
        there
    }
}
