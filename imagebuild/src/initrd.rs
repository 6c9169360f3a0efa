// SPDX-License-Identifier: Apache-2.0
//! The initrd: one program of ours (crate `initrd`), and the drivers that a root disk may need.
//!
//! Made natively for any architecture: nothing of the target runs here. The archive has fixed times and order, so
//! the same input gives the same bytes.

use crate::cmd::tool;
use crate::progress::step;
use crate::rootfs::Rootfs;
use crate::target::Target;
use crate::{cache, cmd, cpio, device, digest};
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A change in how initrds are made makes a new key.
const RECIPE: [&str; 2] = [include_str!("initrd.rs"), include_str!("cpio.rs")];
/// The indexes of the modules that the program reads, as text.
const INDEXES: [&str; 2] = ["modules.dep", "modules.alias"];
/// What every root needs, whatever disk it is on: the file systems of root, /etc and data, and their checksums.
const REQUIRED: [&str; 6] = ["crc32c_generic", "dm-verity", "erofs", "ext4", "overlay", "sha256_generic"];
/// What a signed module ends with (kernel/module/signing.c).
const SIGNED: &[u8] = b"~Module signature appended~\n";
/// Unpacks as fast at every level, and is read by the firmware at every boot.
const ZSTD_LEVEL: i32 = 19;

/// Builds the initrd of a target, or finds it in the cache.
pub fn ensure(target: &Target, rootfs: &Rootfs) -> Result<PathBuf> {
    let init = device::ensure_program(&device::INIT, target.arch)?;
    let program = fs::read(&init).with_context(|| format!("read {}", init.display()))?;
    let locked = if locked_down(target) { "locked" } else { "open" };
    let modules = target.initrd.modules.join("\n");
    let key = digest::key(&[&RECIPE.concat(), &digest::bytes(&program), &rootfs.key, &modules, locked]);
    let dir = cache::dir()?.join("initrd").join(key);
    cache::once_kept(&dir, |scratch| {
        let tree = scratch.join("tree");
        step("build the initrd", || {
            drivers(target, rootfs, scratch, &tree)?;
            let archive = pack(&program, &tree)?;
            let packed = zstd::bulk::compress(&archive, ZSTD_LEVEL).context("compress the initrd")?;
            fs::write(scratch.join("initrd"), packed).context("write the initrd")
        })?;
        for leftover in ["tree", "all"] {
            fs::remove_dir_all(scratch.join(leftover)).with_context(|| format!("remove {leftover}"))?;
        }
        Ok(())
    })?;
    Ok(dir.join("initrd"))
}

/// Copies the selected modules and their dependencies into `tree`, unpacked, with their own indexes.
fn drivers(target: &Target, rootfs: &Rootfs, scratch: &Path, tree: &Path) -> Result<()> {
    let all = scratch.join("all");
    fs::create_dir(&all)?;
    cmd::run(
        Command::new("tar")
            .args(["--extract", "--file"])
            .arg(&rootfs.tar)
            .arg("--directory")
            .arg(&all)
            .arg(format!("./usr/lib/modules/{}", rootfs.release)),
    )?;
    let base = all.join("usr/lib/modules").join(&rootfs.release);
    let read = |name: &str| fs::read_to_string(base.join(name)).with_context(|| format!("read {name} of the kernel"));
    let builtin: BTreeSet<String> = read("modules.builtin")?.lines().map(module_name).collect();
    let dependencies = parse_dependencies(&read("modules.dep")?);
    let patterns = REQUIRED.into_iter().chain(target.initrd.modules.iter().map(String::as_str));
    let selected = closure(&dependencies, &builtin, patterns)?;

    let home = tree.join("lib/modules").join(&rootfs.release);
    for module in &selected {
        let plain = home.join(module.trim_end_matches(".xz"));
        if let Some(parent) = plain.parent() {
            fs::create_dir_all(parent)?;
        }
        // The kernel takes them as they are, so compression is undone here; the archive is compressed as a whole.
        let bytes = match module.ends_with(".xz") {
            true => cmd::output(Command::new("xz").args(["--decompress", "--stdout"]).arg(base.join(module)))?,
            false => fs::read(base.join(module)).with_context(|| format!("read {module}"))?,
        };
        ensure!(
            !locked_down(target) || bytes.ends_with(SIGNED),
            "use {module}: it is not signed, and with lockdown= on the target's command line the kernel refuses it"
        );
        fs::write(&plain, bytes).with_context(|| format!("write {}", plain.display()))?;
    }
    for name in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        fs::copy(base.join(name), home.join(name)).with_context(|| format!("copy {name}"))?;
    }
    cmd::run(Command::new(tool("depmod")).arg("--basedir").arg(tree).arg(&rootfs.release))?;
    for entry in fs::read_dir(&home)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && !INDEXES.contains(&name.as_str()) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Whether the kernel will take signed modules only.
fn locked_down(target: &Target) -> bool {
    target.command_line.split_whitespace().any(|word| word.starts_with("lockdown=") && word != "lockdown=none")
}

/// `kernel/drivers/ata/ahci.ko.xz` → `ahci`; the kernel holds `-` and `_` for the same.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// Reads modules.dep: path → paths of what it needs, all the way down.
fn parse_dependencies(text: &str) -> BTreeMap<String, Vec<String>> {
    text.lines()
        .filter_map(|l| l.split_once(':'))
        .map(|(module, needs)| (module.to_owned(), needs.split_whitespace().map(str::to_owned).collect()))
        .collect()
}

/// The modules that match a pattern, and what they need.
fn closure<'a>(
    dependencies: &BTreeMap<String, Vec<String>>,
    builtin: &BTreeSet<String>,
    patterns: impl Iterator<Item = &'a str>,
) -> Result<BTreeSet<String>> {
    let mut selected = BTreeSet::new();
    for pattern in patterns {
        let directory = pattern.ends_with('/').then(|| format!("kernel/{pattern}"));
        let name = module_name(pattern);
        let matches = |module: &String| match &directory {
            Some(directory) => module.starts_with(directory.as_str()),
            None => module_name(module) == name,
        };
        let mut found = dependencies.iter().filter(|(module, _)| matches(module)).peekable();
        ensure!(
            found.peek().is_some() || directory.is_none() && builtin.contains(&name),
            "[initrd] modules: the kernel has no module {pattern}: remove it, or correct its name"
        );
        for (module, needs) in found {
            selected.insert(module.clone());
            selected.extend(needs.iter().cloned());
        }
    }
    Ok(selected)
}

fn pack(program: &[u8], tree: &Path) -> Result<Vec<u8>> {
    let mut archive = cpio::Archive::default();
    for dir in ["dev", "proc", "root", "run", "sys"] {
        archive.directory(dir, 0o755);
    }
    // The kernel opens it for the first program before anything is mounted.
    archive.device("dev/console", 0o600, 5, 1);
    archive.file("init", 0o755, program);
    archive.tree(tree, "")?;
    Ok(archive.finish())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn closure_takes_directories_names_and_what_they_need() {
        let text = "kernel/a/x-y.ko.xz: kernel/lib/z.ko.xz\nkernel/a/b/q.ko.xz:\nkernel/lib/z.ko.xz:\nkernel/n.ko:\n";
        let deps = parse_dependencies(text);
        let builtin = BTreeSet::from(["core".to_owned()]);
        let get = |p: &[&str]| closure(&deps, &builtin, p.iter().copied());
        assert_eq!(
            get(&["x_y", "core"]).unwrap().into_iter().collect::<Vec<_>>(),
            ["kernel/a/x-y.ko.xz", "kernel/lib/z.ko.xz"]
        );
        assert_eq!(get(&["a/"]).unwrap().len(), 3);
        for missing in ["nothing", "nowhere/"] {
            assert_eq!(
                get(&[missing]).unwrap_err().to_string(),
                format!("[initrd] modules: the kernel has no module {missing}: remove it, or correct its name")
            );
        }
    }
}
