// SPDX-License-Identifier: Apache-2.0
//! What is added to a base: files and links for its root, as a directory of the build machine, and their list.

use super::base::Base;
use super::bundle_image::BundleImage;
use super::machinery;
use crate::build::tree;
use crate::device;
use crate::digest;
use crate::target::Target;
use crate::{repo, rootfs};
use ::initrd::bundle::{HASH, IMAGE, WHOLE};
use anyhow::{Context, Result};
use firstboot::bundle::{BUNDLE_DIR, COMMANDS};
use firstboot::harden::{modules, sysctl};
use firstboot::image::ImageInfo;
use serde::Serialize;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Units that a base gets enabled. There are no slots, so nothing to confirm.
const UNITS: [&str; 3] = ["firstboot-guard.service", "firstboot.service", "firstboot-clock.timer"];
/// The unit that mounts the bundle.
const MOUNT_UNIT: (&str, &str) = ("firstboot-bundle.service", include_str!("firstboot-bundle.service"));
/// The program that it runs.
const MOUNT_PROGRAM: &str = "/usr/lib/firstboot/mount-bundle";

/// Something that is added to the root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Added {
    /// Absolute path.
    pub path: String,
    /// What it is.
    #[serde(flatten)]
    pub what: What,
}

/// What is added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum What {
    /// A directory with mode 0755, where there is none.
    Directory,
    /// A file.
    File {
        /// Permission bits.
        mode: u32,
        /// Bytes.
        size: u64,
        /// Hex SHA-256.
        sha256: String,
        /// The file on the build machine.
        #[serde(skip)]
        source: PathBuf,
    },
    /// A symbolic link.
    Link {
        /// Where it leads.
        target: String,
    },
}

/// Fills the directory `tree` with what is added to the base, apart from the bundle's image, which is only listed.
///
/// # Errors
/// When a program cannot be built, or a file cannot be written.
pub fn fill(target: &Target, base: &Base, info: &ImageInfo, bundle: &BundleImage, tree: &Path) -> Result<Vec<Added>> {
    let units = repo::root()?.join("firstboot/units");
    tree::write_info(info, tree)?;
    tree::write_firstboot(&device::ensure(target.arch)?, &units, &UNITS, tree)?;
    let mount = device::ensure_program(&device::MOUNT_BUNDLE, target.arch)?;
    tree::install(&mount, &tree.join(&MOUNT_PROGRAM[1..]), 0o755)?;
    rootfs::put(tree, &format!("/usr/lib/systemd/system/{}", MOUNT_UNIT.0), MOUNT_UNIT.1, 0o644)?;
    rootfs::enable(tree, MOUNT_UNIT.0)?;
    let how = if base.verity { "\n".to_owned() } else { format!(" {WHOLE}\n") };
    rootfs::put(tree, HASH, &(bundle.hash.trim_end().to_owned() + &how), 0o644)?;
    // The part of the hardened host that needs no seed and replaces no file of the base.
    rootfs::put(tree, sysctl::FILE, &sysctl::file(), 0o644)?;
    rootfs::put(tree, modules::FILE, &modules::file(), 0o644)?;
    if let Some(text) = machinery::drop_in(&base.machinery) {
        rootfs::put(tree, "/usr/lib/systemd/system/firstboot.service.d/10-base.conf", &text, 0o644)?;
    }
    for (path, text) in &base.settings {
        rootfs::put(tree, path, text, 0o644)?;
    }
    let point = tree.join(&BUNDLE_DIR[1..]);
    fs::create_dir_all(&point).with_context(|| format!("create {}", point.display()))?;
    for command in COMMANDS {
        let link = tree.join("usr/bin").join(command);
        symlink(format!("../lib/firstboot/bundle/bin/{command}"), &link)
            .with_context(|| format!("link {}", link.display()))?;
    }
    let mut added = Vec::new();
    list(tree, "", &mut added)?;
    added.push(file(IMAGE, &bundle.path, 0o644)?);
    added.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(added)
}

/// Everything below a directory.
fn list(directory: &Path, prefix: &str, added: &mut Vec<Added>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let entry = entry.with_context(|| format!("list {}", directory.display()))?;
        let (source, path) = (entry.path(), format!("{prefix}/{}", entry.file_name().to_string_lossy()));
        let meta = entry.metadata().with_context(|| format!("read the type of {}", source.display()))?;
        if meta.is_dir() {
            added.push(Added { path: path.clone(), what: What::Directory });
            list(&source, &path, added)?;
        } else if meta.is_symlink() {
            let target = fs::read_link(&source).with_context(|| format!("read link {}", source.display()))?;
            added.push(Added { path, what: What::Link { target: target.to_string_lossy().into_owned() } });
        } else {
            added.push(file(&path, &source, meta.permissions().mode() & 0o7777)?);
        }
    }
    Ok(())
}

fn file(path: &str, source: &Path, mode: u32) -> Result<Added> {
    let size = source.metadata().with_context(|| format!("read the size of {}", source.display()))?.len();
    let what = What::File { mode, size, sha256: digest::file(source)?, source: source.to_owned() };
    Ok(Added { path: path.to_owned(), what })
}
