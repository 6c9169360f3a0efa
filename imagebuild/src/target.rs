// SPDX-License-Identifier: Apache-2.0
//! Targets: what an image for one kind of board is made of. A target is one TOML file, complete in itself;
//! a new board is a new file, not new code.

use crate::arch::Arch;
use anyhow::{Context, Result, bail, ensure};
use firstboot::harden::boot::COMMAND_LINE;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// End of a target's name when it is another target for control planes.
const CONTROL_PLANE: &str = "-control-plane";

/// One `targets/NAME.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Target {
    /// File name without `.toml`.
    #[serde(skip)]
    pub name: String,
    /// Architecture of the board.
    pub arch: Arch,
    /// Debian package of the kernel.
    pub kernel_package: String,
    /// Values for `console=`; the last one also gets firstboot's progress lines.
    pub consoles: Vec<String>,
    /// Kernel parameters besides root and consoles.
    pub command_line: String,
    /// What the firmware starts.
    pub bootloader: Bootloader,
    /// The board's own firmware on the disk, where it has none in a chip.
    pub firmware: Option<Firmware>,
    /// Device trees of each slot, where the firmware brings none: paths below the kernel package's device trees, or whole
    /// directories of them, with a slash at the end.
    #[serde(default)]
    pub device_trees: Vec<String>,
    /// Debian packages besides the essential ones and the kernel.
    pub packages: Vec<String>,
    /// Directories below the kernel's modules that are left out.
    pub drop_modules: Vec<String>,
    /// What is needed to find the root file system.
    pub initrd: Initrd,
    /// LEDs of the board that show the progress of the device: names in /sys/class/leds, with at most one `*`.
    #[serde(default)]
    pub leds: Vec<String>,
    /// Whether the bundle has the images of a control plane.
    #[serde(default)]
    pub control_plane: bool,
    /// The disk from its beginning to its end.
    pub partitions: Vec<Partition>,
}

/// What the firmware starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bootloader {
    /// systemd-boot, as the removable-media loader of a UEFI firmware.
    SystemdBoot,
    /// The firmware of a Raspberry Pi, which starts Linux itself.
    RaspberryPi,
    /// U-Boot in the board's flash, which reads `extlinux.conf` (U-Boot documentation, "Extlinux").
    Extlinux,
}

impl Bootloader {
    /// The partitions that it needs, in the order of the disk.
    fn roles(self) -> &'static [Role] {
        match self {
            Bootloader::SystemdBoot => &[Role::Boot, Role::Esp, Role::RootA],
            Bootloader::RaspberryPi | Bootloader::Extlinux => &[Role::Boot, Role::SystemA, Role::SystemB, Role::RootA],
        }
    }
}

/// Firmware that comes with the disk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Firmware {
    /// Debian package that brings it.
    pub package: String,
    /// Directory of the files in the package, absolute.
    pub directory: String,
    /// Files that the boot ROM reads from the boot partition.
    pub rom: Vec<String>,
    /// Files of each slot.
    pub files: Vec<String>,
    /// Lines of the firmware's configuration, besides those that name kernel, initrd and overlay.
    pub config: String,
    /// What each slot's device tree lacks for restarting into a slot, as source of the device tree compiler.
    pub overlay: String,
}

/// What goes into the initrd.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Initrd {
    /// Names of kernel modules, or directories of them (with a slash at the end) below the kernel's modules.
    pub modules: Vec<String>,
    /// Seconds to wait for the root partition.
    pub wait: u32,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Partition {
    /// What it is for; decides on type and file system.
    pub role: Role,
    /// Name of the partition, and of its file system where that has one.
    pub label: String,
    /// MiB of a FAT.
    pub size_mib: Option<u64>,
    /// MiB that a root partition has on a device. In the image it is as long as its content; the initrd lengthens it at
    /// the first boot, and makes a second one of the same length.
    pub slot_mib: Option<u64>,
}

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// FAT that every desktop shows: the seed and the status file.
    Boot,
    /// EFI system partition.
    Esp,
    /// FAT with firmware, kernel and initrd of slot A, where the firmware reads no EFI system partition.
    SystemA,
    /// The same of slot B.
    SystemB,
    /// The verified root file system, slot A.
    RootA,
}

impl Role {
    /// As a target file calls it.
    fn name(self) -> &'static str {
        match self {
            Role::Boot => "boot",
            Role::Esp => "esp",
            Role::SystemA => "system-a",
            Role::SystemB => "system-b",
            Role::RootA => "root-a",
        }
    }
}

impl Target {
    /// Reads a target by name, or by path when it ends in `.toml`. `NAME-control-plane` is `NAME` for control planes.
    pub fn load(name: &str) -> Result<Target> {
        let path = match name.ends_with(".toml") {
            true => PathBuf::from(name),
            false => Target::directory()?.join(format!("{name}.toml")),
        };
        if let Some(plain) = name.strip_suffix(CONTROL_PLANE)
            && !plain.ends_with(CONTROL_PLANE)
            && !path.exists()
        {
            return Ok(Target::load(plain)?.for_control_plane());
        }
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !name.ends_with(".toml") => {
                bail!("read target {name}: there is none; known targets: {}", Target::names()?.join(", "))
            }
            Err(e) => return Err(e).with_context(|| format!("read target {}", path.display())),
        };
        let stem = path.file_stem().context("find the target's name")?.to_string_lossy().into_owned();
        Target::parse(&stem, &text).with_context(|| format!("read target {}", path.display()))
    }

    /// The directory of the targets.
    pub fn directory() -> Result<PathBuf> {
        Ok(crate::repo::root()?.join("targets"))
    }

    /// Names of all targets, sorted.
    pub fn names() -> Result<Vec<String>> {
        let directory = Target::directory()?;
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            names.extend(name.strip_suffix(".toml").map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// Parses the text of a target file.
    pub fn parse(name: &str, text: &str) -> Result<Target> {
        let mut target: Target = toml::from_str(text)?;
        target.name = name.to_owned();
        ensure!(!target.consoles.is_empty(), "consoles: name at least one");
        for name in &target.leds {
            ensure!(firstboot::leds::is_name(name), "leds: `{name}` is no name in /sys/class/leds with at most one *");
        }
        let roles: Vec<Role> = target.partitions.iter().map(|partition| partition.role).collect();
        // The root is last: on a device it is lengthened, and others follow it.
        let needed = target.bootloader.roles();
        let named = |roles: &[Role]| roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(", ");
        ensure!(
            roles == needed,
            "partitions: expected the roles {} in this order, found {}",
            named(needed),
            named(&roles)
        );
        let has_firmware = target.bootloader == Bootloader::RaspberryPi;
        ensure!(target.firmware.is_some() == has_firmware, "[firmware]: exactly bootloader \"raspberry-pi\" needs it");
        let has_trees = target.bootloader != Bootloader::SystemdBoot;
        ensure!(
            has_trees || target.device_trees.is_empty(),
            "device-trees: systemd-boot takes none: the firmware brings it"
        );
        ensure!(
            !has_trees || !target.device_trees.is_empty(),
            "device-trees: every bootloader but systemd-boot needs some"
        );
        let words: Vec<&str> = target.command_line.split_whitespace().collect();
        let hardened = COMMAND_LINE.iter().filter(|(_, arch, _)| arch.is_empty() || *arch == target.arch.name());
        let lacking: Vec<&str> = hardened.map(|(word, ..)| *word).filter(|word| !words.contains(word)).collect();
        ensure!(
            lacking.is_empty(),
            "command-line: {} from docs/hardening.md, \"Kernel command line\", must be there",
            lacking.join(" ")
        );
        for partition in &target.partitions {
            let (needed, other) = match partition.role {
                Role::RootA => ("slot-mib", "size-mib"),
                _ => ("size-mib", "slot-mib"),
            };
            let is_there =
                |key| if key == "size-mib" { partition.size_mib.is_some() } else { partition.slot_mib.is_some() };
            let label = &partition.label;
            ensure!(is_there(needed) && !is_there(other), "partitions: {label} needs {needed} and takes no {other}");
        }
        for label in target.partitions.iter().map(|p| &p.label) {
            ensure!(!label.is_empty() && label.len() <= 11, "partitions: label `{label}` is not 1 to 11 bytes long");
        }
        Ok(target)
    }

    /// The same board with the images of a control plane in its bundle. Its name says so, unless its file does.
    #[must_use]
    pub fn for_control_plane(mut self) -> Target {
        if !self.control_plane {
            self.control_plane = true;
            // The address that control planes share.
            self.packages.push("keepalived".to_owned());
            self.name += CONTROL_PLANE;
        }
        self
    }

    /// Length of a root partition on a device, in MiB.
    pub fn slot_mib(&self) -> Result<u64> {
        self.partition(Role::RootA)?.slot_mib.context("find slot-mib of the root partition")
    }

    /// Number of the partition with this role in the partition table, from 1.
    pub fn number(&self, role: Role) -> Result<usize> {
        let at = self.partitions.iter().position(|p| p.role == role);
        Ok(at.with_context(|| format!("find partition {role:?}"))? + 1)
    }

    /// The partition with this role.
    pub fn partition(&self, role: Role) -> Result<&Partition> {
        self.partitions.iter().find(|p| p.role == role).with_context(|| format!("find partition {role:?}"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_target_parses_and_stays_small() {
        let names = Target::names().unwrap();
        assert!(names.contains(&"generic-arm64".to_owned()) && names.contains(&"generic-amd64".to_owned()));
        for name in names {
            let target = Target::load(&name).unwrap();
            assert_eq!(target.name, name);
            let text = std::fs::read_to_string(Target::directory().unwrap().join(format!("{name}.toml"))).unwrap();
            assert!(text.lines().count() <= 80, "{name}: {} lines", text.lines().count());
        }
    }

    #[test]
    fn a_target_for_control_planes_is_marked() {
        let plain = Target::load("generic-arm64").unwrap();
        assert!(!plain.control_plane);
        let marked = plain.clone().for_control_plane();
        let packages = [plain.packages.clone(), vec!["keepalived".to_owned()]].concat();
        let name = "generic-arm64-control-plane".into();
        assert_eq!(marked, Target { name, control_plane: true, packages, ..plain.clone() });
        assert_eq!(Target::load("generic-arm64-control-plane").unwrap(), marked);
        assert_eq!(marked.clone().for_control_plane(), marked);
        // A file that has the mark needs no other name.
        let text = std::fs::read_to_string(Target::directory().unwrap().join("generic-arm64.toml")).unwrap();
        let own = Target::parse("shop", &format!("control-plane = true\n{text}")).unwrap();
        assert_eq!(own.for_control_plane().name, "shop");
        let error = |name: &str| Target::load(name).unwrap_err().to_string();
        assert!(error("x-control-plane").starts_with("read target x: there is none; known targets: "));
        let twice = "generic-arm64-control-plane-control-plane";
        assert!(error(twice).starts_with(&format!("read target {twice}: there is none; ")));
    }

    #[test]
    fn mistakes_are_named() {
        let good = std::fs::read_to_string(Target::directory().unwrap().join("generic-arm64.toml")).unwrap();
        let error = |from: &str, to: &str| {
            assert!(good.contains(from));
            Target::parse("x", &good.replace(from, to)).unwrap_err().to_string()
        };
        let arch = error("arch = \"arm64\"", "arch = \"mips\"");
        assert!(arch.contains("unknown variant `mips`, expected `arm64` or `amd64`"), "{arch}");
        let with = |leds: &str| Target::parse("x", &format!("leds = {leds}\n{good}"));
        assert_eq!(with(r#"["ACT", "input*::scrolllock"]"#).unwrap().leds.len(), 2);
        let wrong = with(r#"["../x"]"#).unwrap_err().to_string();
        assert_eq!(wrong, "leds: `../x` is no name in /sys/class/leds with at most one *");
        assert!(error("bootloader =", "boot-loader =").contains("unknown field `boot-loader`"));
        assert_eq!(
            error("role = \"esp\"", "role = \"boot\""),
            "partitions: expected the roles boot, esp, root-a in this order, found boot, boot, root-a"
        );
        assert_eq!(
            error("\"systemd-boot\"", "\"raspberry-pi\""),
            "partitions: expected the roles boot, system-a, system-b, root-a in this order, found boot, esp, root-a"
        );
        assert_eq!(
            error(" debugfs=off", ""),
            "command-line: debugfs=off from docs/hardening.md, \"Kernel command line\", must be there"
        );
        assert_eq!(
            error("packages = [", "device-trees = [\"x.dtb\"]\npackages = ["),
            "device-trees: systemd-boot takes none: the firmware brings it"
        );
        assert_eq!(error("slot-mib", "size-mib"), "partitions: root-a needs slot-mib and takes no size-mib");
        assert_eq!(
            Target::load("nothing").unwrap_err().to_string().split(';').next().unwrap(),
            "read target nothing: there is none"
        );
    }
}
