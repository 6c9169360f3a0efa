// SPDX-License-Identifier: Apache-2.0
//! What the firmware starts, up to the initrd: boot loader, boot entry, verifying loader, and the unified kernel image
//! of a slot, on the EFI system partition.

use super::device_trees::DeviceTrees;
use super::manifest::KernelImage;
use super::{extlinux, raspberry_pi};
use crate::arch::Arch;
use crate::debian::Debian;
use crate::disk::Fat;
use crate::progress::step;
use crate::rootfs::Rootfs;
use crate::target::{Bootloader, Role, Target};
use crate::verity::Tree;
use crate::{cache, digest, loader, uki};
use anyhow::{Context, Result};
use firstboot::image::ImageInfo;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where our loader is, and the kernel images beside it.
const DIRECTORY: &str = "EFI/firstboot";
/// Slots that a device has. One that is replaced loses its kernel image first: its root is gone by then, too.
const KERNEL_IMAGES: u64 = 2;
/// What the boot loader is to do: start the best entry at once, and let no keyboard change it (loader.conf(5)).
const LOADER_CONF: &[u8] = b"timeout 0\neditor no\n";

/// EFI programs of systemd.
#[derive(Debug, Clone)]
pub struct Systemd {
    directory: PathBuf,
    arch: Arch,
}

impl Systemd {
    /// Those of an architecture, fetched now when the cache does not have them.
    pub fn ensure(arch: Arch) -> Result<Systemd> {
        let debian = Debian::open(arch)?;
        let package = debian.resolve(&["systemd-boot-efi"], false)?;
        let name = package.first().context("find systemd-boot-efi")?.file_name();
        let directory = cache::dir()?.join("loader").join(name.trim_end_matches(".deb"));
        cache::once(&directory, |scratch| {
            let deb = debian.fetch(&package)?.into_iter().next().context("download systemd-boot-efi")?;
            debian.unpack(&deb, scratch)
        })?;
        Ok(Systemd { directory, arch })
    }

    fn program(&self, amd64: &str, arm64: &str) -> PathBuf {
        let name = match self.arch {
            Arch::Amd64 => amd64,
            Arch::Arm64 => arm64,
        };
        self.directory.join("usr/lib/systemd/boot/efi").join(name)
    }

    /// The boot loader.
    fn boot(&self) -> PathBuf {
        self.program("systemd-bootx64.efi", "systemd-bootaa64.efi")
    }

    /// What a unified kernel image begins with.
    fn stub(&self) -> PathBuf {
        self.program("linuxx64.efi.stub", "linuxaa64.efi.stub")
    }
}

/// What starts the kernel.
#[derive(Debug)]
pub enum Loader {
    /// A UEFI firmware, by way of systemd-boot.
    SystemdBoot {
        /// Boot loader and stub.
        systemd: Systemd,
        /// Our own loader, which starts a kernel image only when its digest is that of the boot entry.
        verify: PathBuf,
    },
    /// The firmware of a Raspberry Pi.
    RaspberryPi(raspberry_pi::Files),
    /// U-Boot in the board's flash: nothing but device trees.
    Extlinux(DeviceTrees),
}

impl Loader {
    /// That of a target, fetched or built now when the cache does not have it.
    pub fn ensure(target: &Target, rootfs: &Rootfs) -> Result<Loader> {
        Ok(match (target.bootloader, &target.firmware) {
            (Bootloader::SystemdBoot, _) => Loader::SystemdBoot {
                verify: step("verifying loader", || loader::ensure(target.arch))?,
                systemd: step("boot loader", || Systemd::ensure(target.arch))?,
            },
            (Bootloader::RaspberryPi, firmware) => {
                let firmware = firmware.as_ref().context("find [firmware] of the target")?;
                Loader::RaspberryPi(step("firmware", || raspberry_pi::Files::ensure(target, firmware, rootfs))?)
            }
            (Bootloader::Extlinux, _) => {
                Loader::Extlinux(step("device trees", || DeviceTrees::ensure(target, rootfs))?)
            }
        })
    }
}

/// The programs that start a device, one after another.
#[derive(Debug)]
pub struct Programs {
    /// What starts the kernel.
    pub loader: Loader,
    /// The kernel.
    pub kernel: PathBuf,
    /// Its release, as `uname -r` says it.
    pub release: String,
    /// The initrd.
    pub initrd: PathBuf,
}

impl Programs {
    /// Digest of them all.
    pub fn key(&self) -> Result<String> {
        let loader = match &self.loader {
            Loader::SystemdBoot { systemd, verify } => digests(&[&systemd.boot(), &systemd.stub(), verify])?,
            Loader::RaspberryPi(files) => files.key.clone(),
            Loader::Extlinux(trees) => trees.key.clone(),
        };
        Ok(digest::bytes(loader + &digests(&[&self.kernel, &self.initrd])?))
    }

    /// The FAT partitions of a new image, except the boot partition's own files, with slot A filled for this root; and
    /// what the manifest says of the kernel.
    pub fn fats(
        &self,
        target: &Target,
        info: &ImageInfo,
        os_release: &[u8],
        root: &Tree,
    ) -> Result<(BTreeMap<Role, Fat>, KernelImage)> {
        match &self.loader {
            Loader::SystemdBoot { systemd, verify } => {
                let slot = Slot::new(target, info, self, systemd, os_release, root, 'A')?;
                let kernel_image = slot.summary();
                let fat = Fat { free: slot.free(), files: slot.files(target.arch, systemd, verify)? };
                Ok((BTreeMap::from([(Role::Esp, fat)]), kernel_image))
            }
            Loader::RaspberryPi(files) => files.fats(target, self, &command_line(target, root, 'A')?),
            Loader::Extlinux(trees) => extlinux::fats(trees, self, &command_line(target, root, 'A')?),
        }
    }
}

fn digests(files: &[&PathBuf]) -> Result<String> {
    files.iter().map(|path| digest::file(path)).collect()
}

/// What is on the EFI system partition for one slot.
struct Slot {
    letter: char,
    version: String,
    image: Vec<u8>,
}

impl Slot {
    /// The kernel image that starts this root, which is in slot `letter`.
    fn new(
        target: &Target,
        info: &ImageInfo,
        programs: &Programs,
        systemd: &Systemd,
        os_release: &[u8],
        root: &Tree,
        letter: char,
    ) -> Result<Slot> {
        let parts = uki::Parts {
            os_release,
            command_line: &command_line(target, root, letter)?,
            release: &programs.release,
            initrd: &read(&programs.initrd)?,
            kernel: &read(&programs.kernel)?,
        };
        let image = uki::build(&read(&systemd.stub())?, &parts)?;
        Ok(Slot { letter, version: format!("{}-{}", info.build_time, info.build_id), image })
    }

    /// Name of the kernel image.
    fn name(&self) -> String {
        format!("{}.efi", self.letter.to_ascii_lowercase())
    }

    /// What the image's manifest says of it.
    fn summary(&self) -> KernelImage {
        KernelImage {
            path: format!("{DIRECTORY}/{}", self.name()),
            size: self.image.len() as u64,
            sha256: digest::bytes(&self.image),
        }
    }

    /// Bytes that the other kernel images need.
    fn free(&self) -> u64 {
        (KERNEL_IMAGES - 1) * self.image.len() as u64
    }

    /// The boot entry (<https://uapi-group.org/specifications/specs/boot_loader_specification/>, type 1). The newest
    /// version comes first, and is started.
    fn entry(&self) -> String {
        format!(
            "title firstboot\nsort-key firstboot\nversion {}\nefi /{DIRECTORY}/verify.efi\noptions \\{}\\{} {}\n",
            self.version,
            DIRECTORY.replace('/', "\\"),
            self.name(),
            digest::bytes(&self.image)
        )
    }

    /// All files of the EFI system partition: path and content.
    fn files(self, arch: Arch, systemd: &Systemd, verify: &Path) -> Result<Vec<(String, Vec<u8>)>> {
        let boot = match arch {
            Arch::Arm64 => "EFI/BOOT/BOOTAA64.EFI",
            Arch::Amd64 => "EFI/BOOT/BOOTX64.EFI",
        };
        let entry = format!("loader/entries/firstboot-{}.conf", self.letter.to_ascii_lowercase());
        Ok(vec![
            (boot.to_owned(), read(&systemd.boot())?),
            ("loader/loader.conf".to_owned(), LOADER_CONF.to_vec()),
            (entry, self.entry().into_bytes()),
            (format!("{DIRECTORY}/verify.efi"), read(verify)?),
            (format!("{DIRECTORY}/{}", self.name()), self.image),
        ])
    }
}

/// The kernel's command line: which root this is, for the initrd finds it by its content.
fn command_line(target: &Target, root: &Tree, letter: char) -> Result<String> {
    let mut line = format!(
        "firstboot.root={}:{}:{letter} firstboot.slot-mib={} firstboot.rootwait={}",
        root.root_hash,
        root.blocks,
        target.slot_mib()?,
        target.initrd.wait
    );
    for console in &target.consoles {
        line += &format!(" console={console}");
    }
    // Partitions are used as the initrd says; the EFI system partition stays unmounted.
    Ok(line + " systemd.gpt_auto=no " + &target.command_line)
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn root() -> Tree {
        Tree { root_hash: "ab".repeat(32), blocks: 5, bytes: Vec::new() }
    }

    #[test]
    fn the_command_line_names_root_slot_and_consoles_in_order() {
        let target = Target::load("generic-arm64").unwrap();
        let line = command_line(&target, &root(), 'A').unwrap();
        let begin = format!(
            "firstboot.root={}:5:A firstboot.slot-mib=768 firstboot.rootwait=60 console=tty0 console=ttyAMA0,115200 ",
            "ab".repeat(32)
        );
        assert!(line.starts_with(&begin), "{line}");
        assert!(!line.contains(" root=") && line.contains(" systemd.gpt_auto=no quiet "), "{line}");
    }

    #[test]
    fn the_entry_names_image_and_digest() {
        let slot = Slot { letter: 'B', version: "17-k".to_owned(), image: b"abc".to_vec() };
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(
            slot.entry(),
            format!(
                "title firstboot\nsort-key firstboot\nversion 17-k\nefi /EFI/firstboot/verify.efi\n\
                 options \\EFI\\firstboot\\b.efi {sha256}\n"
            )
        );
        assert_eq!(slot.free(), 3);
        assert_eq!(slot.summary().path, "EFI/firstboot/b.efi");
    }
}
