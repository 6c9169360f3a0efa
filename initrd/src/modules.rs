// SPDX-License-Identifier: Apache-2.0
//! Kernel modules of the initrd: which ones the hardware asks for, and loading them with what they need.
//!
//! The text indexes are depmod's (depmod(8)): `modules.dep` has what each module needs, all the way down, and
//! `modules.alias` the patterns of the names by which hardware asks (modprobe.d(5)).

use anyhow::{Context, Result};
use glob::Pattern;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The modules below one directory.
#[derive(Debug)]
pub struct Modules {
    directory: PathBuf,
    /// By name: file, and the files of what it needs.
    files: BTreeMap<String, (String, Vec<String>)>,
    aliases: Vec<(Pattern, String)>,
    /// Files that were loaded, or that the kernel refused.
    done: BTreeSet<String>,
    /// Aliases that were looked up.
    asked: BTreeSet<String>,
}

/// `kernel/drivers/ata/ahci.ko` → `ahci`; the kernel holds `-` and `_` for the same.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

impl Modules {
    /// Reads the indexes of the running kernel's modules.
    ///
    /// # Errors
    /// When one is missing.
    pub fn open(directory: &Path) -> Result<Modules> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        Ok(Modules {
            directory: directory.to_owned(),
            files: parse_files(&read("modules.dep")?),
            aliases: parse_aliases(&read("modules.alias")?),
            done: BTreeSet::new(),
            asked: BTreeSet::new(),
        })
    }

    /// Files to load for a module, in order, without those that were loaded.
    fn order(&self, name: &str) -> Vec<String> {
        let Some((file, needs)) = self.files.get(&name_of(name)) else { return Vec::new() };
        // depmod writes the needed ones so that the last must be loaded first.
        needs.iter().rev().chain([file]).filter(|file| !self.done.contains(*file)).cloned().collect()
    }

    /// Loads a module and what it needs. One that is built in, or that the kernel refuses because there is nothing for
    /// it to do, is passed over: what is missing shows where it is used.
    pub fn load(&mut self, name: &str) {
        for file in self.order(name) {
            if let Ok(module) = File::open(self.directory.join(&file)) {
                let _ = rustix::system::finit_module(&module, c"", 0);
            }
            self.done.insert(file);
        }
    }

    /// Names of the modules for an alias, as hardware gives it (`modalias` in sysfs).
    fn matching(&self, alias: &str) -> Vec<String> {
        let fits = self.aliases.iter().filter(|(pattern, _)| pattern.matches(alias));
        fits.map(|(_, name)| name.clone()).collect()
    }

    /// Loads every module for an alias: of an algorithm, all implementations that this processor has, of which the
    /// kernel takes the fastest.
    pub fn load_alias(&mut self, alias: &str) {
        self.matching(alias).iter().for_each(|name| self.load(name));
    }

    /// Loads what the hardware below `devices` asks for and was not asked for before. Returns whether there was any.
    pub fn load_for(&mut self, devices: &Path) -> bool {
        let mut found = BTreeSet::new();
        collect(devices, &mut found);
        let new: Vec<String> = found.difference(&self.asked).cloned().collect();
        for alias in &new {
            self.load_alias(alias);
        }
        self.asked.extend(new.iter().cloned());
        !new.is_empty()
    }
}

/// Content of all files named `modalias` below a directory, without following links.
fn collect(directory: &Path, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            collect(&entry.path(), found);
        } else if entry.file_name() == "modalias"
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            found.insert(text.trim().to_owned());
        }
    }
}

fn parse_files(text: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let line = |line: &str| {
        let (file, needs) = line.split_once(':')?;
        Some((name_of(file), (file.to_owned(), needs.split_whitespace().map(str::to_owned).collect())))
    };
    text.lines().filter_map(line).collect()
}

fn parse_aliases(text: &str) -> Vec<(Pattern, String)> {
    let line = |line: &str| {
        let mut words = line.strip_prefix("alias ")?.split_whitespace();
        Some((Pattern::new(words.next()?).ok()?, words.next()?.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(directory: &Path) -> Modules {
        let dep = "kernel/a/virtio_blk.ko: kernel/a/virtio.ko kernel/a/virtio_ring.ko\nkernel/a/virtio.ko: kernel/a/virtio_ring.ko\n\
                   kernel/a/virtio_ring.ko:\nkernel/b/sd-mod.ko:\n";
        let alias = "# Aliases extracted from modules themselves.\nalias virtio:d00000002v* virtio_blk\n\
                     alias of:N*T*Cvirtio,mmioC* virtio\nalias usb:v*p*d*dc*dsc*dp*ic08isc0[26]ip50in* sd_mod\n";
        fs::write(directory.join("modules.dep"), dep).unwrap();
        fs::write(directory.join("modules.alias"), alias).unwrap();
        Modules::open(directory).unwrap()
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut modules = sample(dir.path());
        let all = ["kernel/a/virtio_ring.ko", "kernel/a/virtio.ko", "kernel/a/virtio_blk.ko"];
        assert_eq!(modules.order("virtio-blk"), all);
        modules.load("virtio");
        assert_eq!(modules.order("virtio_blk"), all[2..]);
        assert_eq!(modules.order("sd_mod"), ["kernel/b/sd-mod.ko"]);
        assert!(modules.order("built_in").is_empty());
        let lacking = Modules::open(&dir.path().join("none")).unwrap_err().to_string();
        assert!(lacking.ends_with("none/modules.dep"), "{lacking}");
    }

    #[test]
    fn hardware_asks_by_patterns_and_each_name_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut modules = sample(dir.path());
        assert_eq!(modules.matching("virtio:d00000002v00001AF4"), ["virtio_blk"]);
        assert_eq!(modules.matching("usb:v1p2d3dc0dsc0dp0ic08isc06ip50in00"), ["sd_mod"]);
        assert!(modules.matching("usb:v1p2d3dc0dsc0dp0ic08isc05ip50in00").is_empty());
        let device = dir.path().join("devices/pci0/virtio0");
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("modalias"), "virtio:d00000002v00001AF4\n").unwrap();
        assert!(modules.load_for(&dir.path().join("devices")));
        assert!(modules.order("virtio_blk").is_empty());
        assert!(!modules.load_for(&dir.path().join("devices")));
    }
}
