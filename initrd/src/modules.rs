// SPDX-License-Identifier: Apache-2.0
//! Kernel modules: which ones the devices ask for, and loading them in order, by the text indexes of depmod
//! (`modules.dep`, `modules.alias`).

use crate::command_line::module_parameters;
use anyhow::{Context, Result};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Suffixes of compressed modules; the archive has them unpacked.
const COMPRESSED: [&str; 3] = [".xz", ".zst", ".gz"];

/// What depmod knows of all modules in the archive.
#[derive(Debug, Default, Clone)]
pub struct Index {
    /// Name → its file and the files that it needs.
    files: HashMap<String, (String, Vec<String>)>,
    /// What an alias starts with, up to its first colon → the patterns and their modules.
    aliases: HashMap<String, Vec<(String, String)>>,
}

impl Index {
    /// Reads the texts of `modules.dep` and `modules.alias`.
    pub fn parse(dependencies: &str, aliases: &str) -> Index {
        let mut index = Index::default();
        for (file, needs) in dependencies.lines().filter_map(|line| line.split_once(':')) {
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            index.files.insert(name(file), (file.to_owned(), needs));
        }
        for line in aliases.lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(pattern), Some(module)) = (words.next(), words.next(), words.next()) {
                let pattern = normal(pattern);
                index.aliases.entry(bus(&pattern).to_owned()).or_default().push((pattern, normal(module)));
            }
        }
        index
    }

    /// Names of the modules for what a device calls itself.
    pub fn matching(&self, alias: &str) -> Vec<&str> {
        let alias = normal(alias);
        let of_bus = self.aliases.get(bus(&alias)).into_iter().flatten();
        let of_any = self.aliases.get("*").into_iter().flatten();
        of_bus
            .chain(of_any)
            .filter(|(pattern, _)| matches(pattern, &alias))
            .map(|(_, module)| module.as_str())
            .collect()
    }

    /// Files to load for a module, in order, it itself last. None for a module that the archive does not have, as one that
    /// is built in.
    pub fn order(&self, module: &str) -> Vec<&str> {
        let mut order = Vec::new();
        self.add(&normal(module), &mut order, &mut BTreeSet::new());
        order
    }

    fn add<'a>(&'a self, module: &str, order: &mut Vec<&'a str>, seen: &mut BTreeSet<String>) {
        let Some((file, needs)) = self.files.get(module) else { return };
        if seen.insert(module.to_owned()) {
            // depmod names what is needed first last.
            needs.iter().rev().for_each(|need| self.add(&name(need), order, seen));
            order.push(file);
        }
    }
}

/// `kernel/drivers/ata/ahci-x.ko.xz` → `ahci_x`
fn name(file: &str) -> String {
    let file = file.rsplit('/').next().unwrap_or(file);
    normal(file.split(".ko").next().unwrap_or(file))
}

/// `-` and `_` are the same to the kernel; between brackets a `-` is a range.
fn normal(text: &str) -> String {
    let mut brackets = false;
    let char = |c: char| {
        brackets = (brackets || c == '[') && c != ']';
        if c == '-' && !brackets { '_' } else { c }
    };
    text.chars().map(char).collect()
}

/// `pci:v…` → `pci`; `*` for a pattern that has a wildcard there.
fn bus(alias: &str) -> &str {
    let bus = alias.split(':').next().unwrap_or(alias);
    if bus.contains(['*', '?', '[']) { "*" } else { bus }
}

/// Whether a pattern as of fnmatch(3) matches: `*`, `?`, `[a-f0-9]` and `[!x]`.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on after the last `*`, should what follows it not match.
    let mut star = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(b'?') => Some(p + 1),
            Some(b'[') => match_class(pattern, p, text[t]),
            Some(byte) if *byte == text[t] => Some(p + 1),
            _ => None,
        };
        match (step, star) {
            (Some(next), _) => (p, t) = (next, t + 1),
            (None, Some((after, at))) => {
                star = Some((after, at + 1));
                (p, t) = (after, at + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// The place behind the brackets at `start`, when they have `byte`. Brackets without an end are text.
fn match_class(pattern: &[u8], start: usize, byte: u8) -> Option<usize> {
    let Some(length) = pattern[start + 1..].iter().skip(1).position(|b| *b == b']') else {
        return (byte == b'[').then_some(start + 1);
    };
    let end = start + 2 + length;
    let class = &pattern[start + 1..end];
    let (class, negated) = match class {
        [b'!' | b'^', rest @ ..] => (rest, true),
        _ => (class, false),
    };
    let (mut at, mut found) = (0, false);
    while let Some(first) = class.get(at) {
        let range = class.get(at + 1) == Some(&b'-') && at + 2 < class.len();
        let last = if range { class[at + 2] } else { *first };
        found |= (*first..=last).contains(&byte);
        at += if range { 3 } else { 1 };
    }
    (found != negated).then_some(end + 1)
}

/// Loads modules, each once.
#[derive(Debug, Clone)]
pub struct Loader {
    home: PathBuf,
    index: std::sync::Arc<Index>,
    command_line: String,
    done: BTreeSet<String>,
    /// Modules that the kernel refused, with its reason.
    pub refused: Vec<String>,
}

impl Loader {
    /// For the running kernel. Without an index there is nothing to load.
    ///
    /// # Errors
    /// When there is an index that cannot be read.
    pub fn open(command_line: &str) -> Result<Loader> {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let home = Path::new("/lib/modules").join(release);
        let read = |name: &str| match fs::read_to_string(home.join(name)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            other => other.with_context(|| format!("read {}", home.join(name).display())),
        };
        let index = Index::parse(&read("modules.dep")?, &read("modules.alias")?).into();
        Ok(Loader { home, index, command_line: command_line.to_owned(), done: BTreeSet::new(), refused: Vec::new() })
    }

    /// Loads a module and what it needs. One that the archive does not have is passed over.
    pub fn load(&mut self, module: &str) {
        let index = self.index.clone();
        for file in index.order(module) {
            if !self.done.insert(file.to_owned()) {
                continue;
            }
            if let Err(error) = self.insert(file) {
                self.refused.push(format!("{}: {error:#}", name(file)));
            }
        }
    }

    /// Loads all modules for what a device calls itself.
    pub fn load_alias(&mut self, alias: &str) {
        let index = self.index.clone();
        index.matching(alias).into_iter().for_each(|module| self.load(module));
    }

    /// Loads what the kernel asks modprobe for: a module, or an alias such as `crypto-crc32c`.
    pub fn request(&mut self, name: &str) {
        match self.index.order(name).is_empty() {
            true => self.load_alias(name),
            false => self.load(name),
        }
    }

    fn insert(&self, file: &str) -> Result<()> {
        let module = name(file);
        if Path::new("/sys/module").join(&module).join("initstate").exists() {
            return Ok(());
        }
        let plain = COMPRESSED.iter().find_map(|suffix| file.strip_suffix(suffix)).unwrap_or(file);
        let opened = File::open(self.home.join(plain)).context("open it")?;
        let parameters = CString::new(module_parameters(&self.command_line, &module)).context("pass parameters")?;
        match rustix::system::finit_module(&opened, &parameters, 0) {
            // Another thread was faster. No such device: a driver for several kinds of hardware, and this one is absent.
            Ok(()) | Err(Errno::EXIST | Errno::NODEV) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The devices that were asked so far.
#[derive(Debug, Default)]
pub struct Devices(BTreeSet<PathBuf>);

impl Devices {
    /// What the devices that are new since the last call call themselves, in the kernel's words. All buses are looked at;
    /// cards of MMC have it in `uevent` only.
    pub fn new_aliases(&mut self, sys: &Path) -> Vec<String> {
        let (mut here, mut aliases) = (BTreeSet::new(), BTreeSet::new());
        for bus in entries(&sys.join("bus")) {
            for device in entries(&bus.join("devices")) {
                if !self.0.contains(&device) {
                    aliases.extend(alias(&device));
                }
                here.insert(device);
            }
        }
        self.0 = here;
        aliases.into_iter().collect()
    }
}

fn alias(device: &Path) -> Option<String> {
    let text = match fs::read_to_string(device.join("modalias")) {
        Ok(text) => text,
        Err(_) => {
            let uevent = fs::read_to_string(device.join("uevent")).ok()?;
            uevent.lines().find_map(|line| line.strip_prefix("MODALIAS="))?.to_owned()
        }
    };
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Paths in a directory, sorted; none where it cannot be read.
pub(crate) fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const DEPENDENCIES: &str = "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/fs/mbcache.ko kernel/lib/crc16.ko\n\
        kernel/fs/jbd2/jbd2.ko:\nkernel/fs/mbcache.ko:\nkernel/lib/crc16.ko:\n\
        kernel/drivers/md/dm-verity.ko.xz: kernel/drivers/md/dm-bufio.ko.xz kernel/drivers/md/dm-mod.ko.xz\n\
        kernel/drivers/md/dm-bufio.ko.xz: kernel/drivers/md/dm-mod.ko.xz\nkernel/drivers/md/dm-mod.ko.xz:\n\
        kernel/a.ko: kernel/b.ko\nkernel/b.ko: kernel/a.ko\n";
    const ALIASES: &str = "# Aliases extracted from modules themselves.\n\
        alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio-pci\n\
        alias virtio:d00000002v* virtio_blk\n\
        alias of:N*T*Cbrcm,bcm2711-emmc2 sdhci-iproc\n\
        alias usb:v*p*d*dc*dsc*dp*ic08isc06ip50in* usb_storage\n\
        alias usb:v054Cp0[0-2]69d*dc*dsc*dp*ic*isc*ip*in* usb_storage_x\n\
        alias cpu:type:x86,ven*fam*mod*:feature:*0094* crc32c_intel\n\
        alias crypto-crc32c crc32c_generic\n\
        alias * everything\n";

    #[test]
    fn what_is_needed_comes_first() {
        let index = Index::parse(DEPENDENCIES, "");
        let ext4 = ["kernel/lib/crc16.ko", "kernel/fs/mbcache.ko", "kernel/fs/jbd2/jbd2.ko", "kernel/fs/ext4/ext4.ko"];
        assert_eq!(index.order("ext4"), ext4);
        let verity =
            ["kernel/drivers/md/dm-mod.ko.xz", "kernel/drivers/md/dm-bufio.ko.xz", "kernel/drivers/md/dm-verity.ko.xz"];
        assert_eq!(index.order("dm_verity"), verity);
        assert_eq!(index.order("dm-verity"), verity);
        assert_eq!(index.order("a"), ["kernel/b.ko", "kernel/a.ko"], "a circle ends");
        assert!(index.order("absent").is_empty());
    }

    #[test]
    fn devices_get_their_modules() {
        let index = Index::parse("", ALIASES);
        for (alias, module) in [
            ("pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00", "virtio_pci"),
            ("virtio:d00000002v00001AF4", "virtio_blk"),
            ("of:Nmmc@7e340000T(null)Cbrcm,bcm2711-emmc2", "sdhci_iproc"),
            ("of:NmmcT<NULL>Cbrcm,bcm2711_emmc2", "sdhci_iproc"),
            ("usb:v0781p5581d0100dc00dsc00dp00ic08isc06ip50in00", "usb_storage"),
            ("usb:v054Cp0169d0100dc00dsc00dp00ic08isc01ip01in00", "usb_storage_x"),
            ("crypto-crc32c", "crc32c_generic"),
            ("cpu:type:x86,ven0000fam0006mod0055:feature:,0000,0001,0094,0123", "crc32c_intel"),
        ] {
            assert_eq!(index.matching(alias), [module, "everything"], "{alias}");
        }
        for alias in ["pci:v00001AF5d00001042sv00001AF4sd00001100bc01sc00i00", "virtio:d00000001v00001AF4", "usb:", ""]
        {
            assert_eq!(index.matching(alias), ["everything"], "{alias}");
        }
    }

    #[test]
    fn patterns_match_as_fnmatch_does() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("*", "", true),
            ("**", "abc", true),
            ("a*c", "abcbc", true),
            ("a*c", "abcb", false),
            ("a*b*c", "a-b-b-c", true),
            ("?", "", false),
            ("?b", "ab", true),
            ("?b", "bb", true),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[!a-c]x", "dx", true),
            ("[^a-c]x", "ax", false),
            ("[abc]", "c", true),
            ("[a-]", "-", true),
            ("[]a]", "]", true),
            ("[]a]", "b", false),
            ("*[0-9]", "x12", true),
            ("*[0-9]z", "1a2z", true),
            ("[a", "[a", true),
            ("[a", "a", false),
            ("a[", "a[", true),
            ("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn names_are_normalised() {
        assert_eq!(name("kernel/drivers/md/dm-verity.ko.zst"), "dm_verity");
        assert_eq!(normal("a-b[0-9]-c"), "a_b[0-9]_c");
    }

    #[test]
    fn each_device_is_asked_once() {
        let dir = tempfile::tempdir().unwrap();
        let device = |bus: &str, name: &str, files: &[(&str, &str)]| {
            let real = dir.path().join("devices").join(name);
            fs::create_dir_all(&real).unwrap();
            for (file, text) in files {
                fs::write(real.join(file), text).unwrap();
            }
            let devices = dir.path().join("bus").join(bus).join("devices");
            fs::create_dir_all(&devices).unwrap();
            symlink(real, devices.join(name)).unwrap();
        };
        device("pci", "0000:00:01.0", &[("modalias", "pci:v1\n"), ("uevent", "MODALIAS=other\n")]);
        device("mmc", "mmc0:0001", &[("uevent", "DRIVER=\nMODALIAS=mmc:block\n")]);
        device("platform", "serial", &[("uevent", "DRIVER=x\n"), ("modalias", "\n")]);
        let mut devices = Devices::default();
        assert_eq!(devices.new_aliases(dir.path()), ["mmc:block", "pci:v1"]);
        assert!(devices.new_aliases(dir.path()).is_empty());
        device("scsi", "0:0:0:0", &[("modalias", "scsi:t-0x00")]);
        assert_eq!(devices.new_aliases(dir.path()), ["scsi:t-0x00"]);
        fs::remove_file(dir.path().join("bus/mmc/devices/mmc0:0001")).unwrap();
        assert!(devices.new_aliases(dir.path()).is_empty());
        device("mmc", "mmc0:0001", &[]);
        assert_eq!(devices.new_aliases(dir.path()), ["mmc:block"], "it went away and came back");
    }
}
