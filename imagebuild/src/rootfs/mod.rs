// SPDX-License-Identifier: Apache-2.0
//! The root file system: Debian packages, unpacked and configured without running any of their scripts.
//!
//! Maintainer scripts would need root, and emulation for a foreign architecture. The few that matter for an empty
//! system do simple things (accounts, alternatives, enabled units, certificates); [`configure`] does those itself,
//! the same way for both architectures, and [`database`] leaves dpkg a consistent record.

mod accounts;
mod configure;
mod database;
mod hardened;
mod units;

pub use configure::put;
pub use database::OWN_PACKAGE;
pub use units::enable;

use crate::cmd::tool;
use crate::debian::{Debian, Package, files_of};
use crate::owner::Owner;
use crate::progress::step;
use crate::target::Target;
use crate::{cache, cmd, digest};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files that no node needs, as dpkg path-exclude patterns; licences stay.
const EXCLUDE: [&str; 15] = [
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
    "/usr/share/bug/*",
    "/usr/share/bash-completion/*",
    "/usr/share/zsh/*",
    "/usr/share/initramfs-tools/*",
    "/usr/lib/systemd/catalog/*",
    "/usr/lib/udev/hwdb.d/*",
    "/usr/lib/*/gconv/*",
    // Device trees: firmware with UEFI brings its own, and other boards have them in their slots.
    "/usr/lib/linux-image-*",
    "/boot/vmlinuz-*",
    "/boot/System.map-*",
];
/// Exceptions from [`EXCLUDE`].
const INCLUDE: &str = "/usr/share/doc/*/copyright";
/// A change in how root file systems are made makes a new key.
const RECIPE: [&str; 6] = [
    include_str!("mod.rs"),
    include_str!("accounts.rs"),
    include_str!("configure.rs"),
    include_str!("database.rs"),
    include_str!("hardened.rs"),
    include_str!("units.rs"),
];

/// A root file system in the cache.
#[derive(Debug, Clone)]
pub struct Rootfs {
    /// Identifies what went into it.
    pub key: String,
    /// All files, with owners and modes.
    pub tar: PathBuf,
    /// The kernel, as the boot loader starts it.
    pub kernel: PathBuf,
    /// The kernel's release, as `uname -r` says it.
    pub release: String,
    /// What is installed.
    pub packages: Vec<Package>,
}

/// Builds the root file system of a target, or finds it in the cache.
pub fn ensure(target: &Target) -> Result<Rootfs> {
    let debian = Debian::open(target.arch)?;
    let packages = step("resolve Debian packages", || selection(&debian, target))?;
    let list: Vec<String> = packages.iter().map(Package::file_name).collect();
    let dropped = target.drop_modules.join("\n");
    let key = digest::key(&[&RECIPE.concat(), configure::OVERLAY_TEXT, &hardened::texts(), &list.join("\n"), &dropped]);
    let dir = cache::dir()?.join("rootfs").join(&key);
    cache::once_kept(&dir, |scratch| {
        let debs = step("download Debian packages", || debian.fetch(&packages))?;
        let tree = scratch.join("tree");
        let owner = Owner::new(scratch)?;
        step("unpack Debian packages", || unpack(&owner, target, &packages, &debs, &tree))?;
        step("configure the root file system", || configure::run(&owner, &tree))?;
        step("pack the root file system", || pack(&owner, scratch, &tree))
    })?;
    let release = fs::read_to_string(dir.join("release")).context("read the kernel's release")?;
    Ok(Rootfs { key, tar: dir.join("rootfs.tar"), kernel: dir.join("vmlinuz"), release, packages })
}

/// The packages of a target with everything they depend on.
fn selection(debian: &Debian, target: &Target) -> Result<Vec<Package>> {
    let essential = debian.essential()?;
    let mut names: Vec<&str> = essential.iter().map(String::as_str).collect();
    names.extend(target.packages.iter().map(String::as_str));
    names.push(&target.kernel_package);
    debian.resolve(&names, true)
}

fn unpack(owner: &Owner, target: &Target, packages: &[Package], debs: &[PathBuf], tree: &Path) -> Result<()> {
    fs::create_dir(tree).with_context(|| format!("create {}", tree.display()))?;
    let mut database = database::Database::new(tree)?;
    // base-files brings the links of the merged /usr (/bin → usr/bin), which the others are unpacked through.
    let mut order: Vec<(&Package, &PathBuf)> = packages.iter().zip(debs).collect();
    order.sort_by_key(|(package, _)| package.name != "base-files");
    for (package, deb) in order {
        let drop: &[String] = if package.name.starts_with("linux-image-") { &target.drop_modules } else { &[] };
        let files = extract(owner, deb, tree, drop).with_context(|| format!("unpack {}", deb.display()))?;
        database.add(deb, &files).with_context(|| format!("register {}", deb.display()))?;
    }
    database.write()?;
    let file = tree.join("etc/dpkg/dpkg.cfg.d/firstboot");
    fs::write(&file, dpkg_configuration(&target.drop_modules)).with_context(|| format!("write {}", file.display()))
}

/// Unpacks one package; returns the paths that it brought, each starting with `/`.
fn extract(owner: &Owner, deb: &Path, tree: &Path, drop: &[String]) -> Result<Vec<String>> {
    let (mut source, stream) = files_of(deb)?;
    let mut tar = owner.command("tar");
    tar.args(["--extract", "--verbose", "--preserve-permissions", "--same-owner", "--numeric-owner"]);
    tar.args(["--keep-directory-symlink", "--wildcards", "--wildcards-match-slash", "--file=-", "--directory"]);
    tar.arg(tree);
    // tar has no "except": the kernel is extracted as a separate file, licences in a second pass.
    for pattern in EXCLUDE.iter().filter(|p| !p.starts_with("/boot/vmlinuz") && !p.starts_with("/usr/share/doc")) {
        tar.arg(format!("--exclude=.{pattern}"));
    }
    tar.args([
        "--exclude=./usr/share/doc/*/[!c]*",
        "--exclude=./usr/share/doc/*/c[!o]*",
        "--exclude=./usr/share/doc/*/*/*",
    ]);
    for directory in drop {
        tar.arg(format!("--exclude=./usr/lib/modules/*/kernel/{directory}*"));
    }
    let out = tar.env("LC_ALL", "C.UTF-8").stdin(stream).output().context("start tar")?;
    let sent = source.wait().context("wait for dpkg-deb")?;
    ensure!(sent.success() && out.status.success(), "{}", String::from_utf8_lossy(&out.stderr).trim_end());
    let names = String::from_utf8_lossy(&out.stdout);
    Ok(names.lines().map(|l| l.trim_start_matches('.').trim_end_matches('/').to_owned()).collect())
}

/// Takes the kernel out and packs the rest, ready for any number of images.
fn pack(owner: &Owner, scratch: &Path, tree: &Path) -> Result<()> {
    let modules = tree.join("usr/lib/modules");
    let release = fs::read_dir(&modules)
        .with_context(|| format!("list {}", modules.display()))?
        .next()
        .context("find the kernel's release: no modules")??
        .file_name()
        .to_string_lossy()
        .into_owned();
    cmd::run(Command::new(tool("depmod")).arg("--basedir").arg(tree).arg(&release))?;
    let kernel = tree.join(format!("boot/vmlinuz-{release}"));
    fs::copy(&kernel, scratch.join("vmlinuz")).with_context(|| format!("copy {}", kernel.display()))?;
    cmd::run(owner.command("rm").arg(&kernel))?;
    fs::write(scratch.join("release"), &release)?;
    cmd::run(
        owner
            .command("tar")
            .args(["--create", "--sort=name", "--numeric-owner", "--file"])
            .arg(scratch.join("rootfs.tar"))
            .arg("--directory")
            .arg(tree)
            .arg("."),
    )?;
    fs::remove_dir_all(tree).with_context(|| format!("remove {}", tree.display()))
}

/// dpkg's configuration for the files that were left out.
fn dpkg_configuration(drop: &[String]) -> String {
    let mut text = String::from("# Left out of the image.\n");
    for pattern in EXCLUDE {
        text += &format!("path-exclude={pattern}\n");
    }
    for directory in drop {
        text += &format!("path-exclude=/usr/lib/modules/*/kernel/{directory}*\n");
    }
    text + &format!("path-include={INCLUDE}\n")
}
