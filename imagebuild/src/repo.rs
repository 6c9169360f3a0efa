// SPDX-License-Identifier: Apache-2.0
//! Finds the clone that a command is run in.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The repository's root: the nearest directory, from the working directory upwards, that holds both the workspace's
/// `Cargo.lock` and `firstboot/Cargo.toml`.
///
/// Found at run time, not built in: build directories are shared between clones.
pub fn root() -> Result<PathBuf> {
    let here = std::env::current_dir().context("read the working directory")?;
    find(&here).with_context(|| format!("find the firstboot repository from {} upwards", here.display()))
}

fn find(from: &Path) -> Option<PathBuf> {
    let is_root = |d: &&Path| d.join("Cargo.lock").is_file() && d.join("firstboot/Cargo.toml").is_file();
    from.ancestors().find(is_root).map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn finds_the_root_from_a_package() {
        let root = root().unwrap();
        assert!(root.join("imagebuild/src/repo.rs").is_file());
        assert_eq!(find(&root.join("imagebuild/src")), Some(root));
    }

    #[test]
    fn finds_nothing_outside() {
        assert_eq!(find(Path::new("/")), None);
    }
}
