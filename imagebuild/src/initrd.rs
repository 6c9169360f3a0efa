// SPDX-License-Identifier: Apache-2.0
//! The initrd: busybox, one script (`initrd/init`), and the drivers that a root disk may need.
//!
//! Made natively for any architecture: nothing of the target runs here. The archive has fixed times and order, so
//! the same input gives the same bytes.

use crate::cmd::tool;
use crate::debian::Debian;
use crate::progress::step;
use crate::rootfs::Rootfs;
use crate::target::Target;
use crate::{cache, cmd, cpio, digest};
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const INIT: &str = include_str!("../initrd/init");
/// A change in how initrds are made makes a new key.
const RECIPE: [&str; 2] = [include_str!("initrd.rs"), include_str!("cpio.rs")];
/// The commands that the script uses.
#[rustfmt::skip]
const COMMANDS: [&str; 16] = [
    "cat", "cp", "dd", "find", "grep", "hexdump", "mkdir", "modprobe", "mount", "reboot", "sed", "sh", "sleep", "sort",
    "switch_root", "tr",
];
/// What a signed module ends with (kernel/module/signing.c).
const SIGNED: &[u8] = b"~Module signature appended~\n";
/// Unpacks as fast at every level; beyond this one, building costs far more than it saves.
const ZSTD_LEVEL: i32 = 12;

/// Builds the initrd of a target, or finds it in the cache.
pub fn ensure(target: &Target, rootfs: &Rootfs) -> Result<PathBuf> {
    let debian = Debian::open(target.arch)?;
    let busybox = debian.resolve(&["busybox-static"], false)?;
    let name = busybox.first().context("find busybox-static")?.file_name();
    let locked = if locked_down(target) { "locked" } else { "open" };
    let key = digest::key(&[&RECIPE.concat(), INIT, &name, &rootfs.key, &target.initrd.modules.join("\n"), locked]);
    let dir = cache::dir()?.join("initrd").join(key);
    cache::once(&dir, |scratch| {
        let deb = debian.fetch(&busybox)?.into_iter().next().context("download busybox-static")?;
        let tree = scratch.join("tree");
        debian.unpack(&deb, &scratch.join("busybox"))?;
        step("build the initrd", || {
            drivers(target, rootfs, scratch, &tree)?;
            let archive = pack(&scratch.join("busybox"), &tree)?;
            let packed = zstd::bulk::compress(&archive, ZSTD_LEVEL).context("compress the initrd")?;
            fs::write(scratch.join("initrd"), packed).context("write the initrd")
        })?;
        for leftover in ["busybox", "tree", "all"] {
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
    let selected = closure(&dependencies, &builtin, &target.initrd.modules)?;

    let home = tree.join("lib/modules").join(&rootfs.release);
    for module in &selected {
        let plain = home.join(module.trim_end_matches(".xz"));
        if let Some(parent) = plain.parent() {
            fs::create_dir_all(parent)?;
        }
        // busybox loads modules as they are, so compression is undone here; the archive is compressed as a whole.
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
    // busybox reads the text indexes.
    for entry in fs::read_dir(&home)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && !["modules.dep", "modules.alias", "modules.symbols"].contains(&name.as_str()) {
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
fn closure(
    dependencies: &BTreeMap<String, Vec<String>>,
    builtin: &BTreeSet<String>,
    patterns: &[String],
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
            found.peek().is_some() || directory.is_some() || builtin.contains(&name),
            "find kernel module {pattern}, named by the target under initrd.modules"
        );
        for (module, needs) in found {
            selected.insert(module.clone());
            selected.extend(needs.iter().cloned());
        }
    }
    Ok(selected)
}

fn pack(busybox: &Path, tree: &Path) -> Result<Vec<u8>> {
    let mut archive = cpio::Archive::default();
    for dir in ["bin", "dev", "proc", "root", "sbin", "sys"] {
        archive.directory(dir, 0o755);
    }
    let program = busybox.join("usr/bin/busybox");
    archive.file("bin/busybox", 0o755, &fs::read(&program).with_context(|| format!("read {}", program.display()))?);
    for command in COMMANDS {
        archive.link(&format!("bin/{command}"), "busybox");
    }
    // Where the kernel itself looks when a driver asks for another.
    archive.link("sbin/modprobe", "../bin/busybox");
    // The kernel opens it for the first program before anything is mounted.
    archive.device("dev/console", 0o600, 5, 1);
    archive.file("init", 0o755, INIT.as_bytes());
    archive.tree(tree, "")?;
    Ok(archive.finish())
}

#[cfg(test)]
#[path = "initrd_tests.rs"]
mod script_tests;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn closure_takes_directories_names_and_what_they_need() {
        let text = "kernel/a/x-y.ko.xz: kernel/lib/z.ko.xz\nkernel/a/b/q.ko.xz:\nkernel/lib/z.ko.xz:\nkernel/n.ko:\n";
        let deps = parse_dependencies(text);
        let builtin = BTreeSet::from(["core".to_owned()]);
        let get = |p: &[&str]| closure(&deps, &builtin, &p.iter().map(|s| s.to_string()).collect::<Vec<_>>());
        assert_eq!(
            get(&["x_y", "core"]).unwrap().into_iter().collect::<Vec<_>>(),
            ["kernel/a/x-y.ko.xz", "kernel/lib/z.ko.xz"]
        );
        assert_eq!(get(&["a/"]).unwrap().len(), 3);
        assert_eq!(
            get(&["nothing"]).unwrap_err().to_string(),
            "find kernel module nothing, named by the target under initrd.modules"
        );
    }

    #[test]
    fn the_script_uses_only_commands_that_are_there() {
        for command in COMMANDS {
            assert!(command == "mkdir" || command == "sh" || INIT.contains(command), "{command} is not used");
        }
    }
}
