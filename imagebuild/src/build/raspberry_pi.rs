// SPDX-License-Identifier: Apache-2.0
//! What the firmware of a Raspberry Pi starts, up to the initrd (documentation of Raspberry Pi, "config.txt" and
//! "autoboot.txt").
//!
//! The boot ROM reads the first FAT partition, our boot partition. `autoboot.txt` there names the partition of the slot
//! that runs. On that one are the firmware itself, its configuration, kernel, initrd and device trees: a version of the
//! system is whole in its slot.

use super::boot::{Programs, read};
use super::device_trees::{self, DeviceTrees};
use super::manifest::KernelImage;
use crate::debian::Debian;
use crate::disk::Fat;
use crate::rootfs::Rootfs;
use crate::target::{Firmware, Role, Target};
use crate::{cache, cmd, digest};
use anyhow::{Context, Result};
use firstboot::boot_slot::autoboot::{self, Numbers, State};
use firstboot::boot_slot::entry::Slot;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names on the partition of a slot.
const KERNEL: &str = "vmlinuz";
const INITRD: &str = "initrd.img";
/// The overlay's file, and what the firmware knows it as: it looks in this directory.
const OVERLAY: &str = "overlays/firstboot.dtbo";
const OVERLAY_LINE: &str = "dtoverlay=firstboot\n";

/// Firmware and device trees of a target, in the cache.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    firmware: Firmware,
    trees: DeviceTrees,
    /// Digest of all that is in them.
    pub key: String,
}

impl Files {
    /// Those of a target, fetched now when the cache does not have them.
    ///
    /// # Errors
    /// When a package cannot be fetched, or has not all of the files.
    pub fn ensure(target: &Target, firmware: &Firmware, rootfs: &Rootfs) -> Result<Files> {
        let debian = Debian::open(target.arch)?;
        let trees = DeviceTrees::ensure(target, rootfs)?;
        let package = debian.resolve(&[firmware.package.as_str()], false)?;
        let package = package.first().with_context(|| format!("find {}", firmware.package))?;
        let files = digest::key(&[include_str!("device_trees.rs"), &package.file_name(), &format!("{firmware:?}")]);
        let key = digest::key(&[include_str!("raspberry_pi.rs"), &files, &trees.key]);
        let directory = cache::dir()?.join("firmware").join(files);
        cache::once(&directory, |scratch| {
            let deb = debian.fetch(std::slice::from_ref(package))?.remove(0);
            let wanted = [&firmware.rom[..], &firmware.files].concat();
            device_trees::extract(&deb, &firmware.directory, &wanted, scratch)?;
            compile(&firmware.overlay, &scratch.join(OVERLAY))
        })?;
        Ok(Files { directory, firmware: firmware.clone(), trees, key })
    }

    /// The boot partition's part, and slot A with this command line.
    pub(super) fn fats(
        &self,
        target: &Target,
        programs: &Programs,
        command_line: &str,
    ) -> Result<(BTreeMap<Role, Fat>, KernelImage)> {
        let mut rom = self.read_all(&self.firmware.rom)?;
        let numbers = Numbers { a: target.number(Role::SystemA)? as u32, b: target.number(Role::SystemB)? as u32 };
        rom.push((autoboot::NAME.to_owned(), State::Settled(Slot::A).text(numbers).into_bytes()));
        let kernel = compressed(&read(&programs.kernel)?)?;
        let kernel_image =
            KernelImage { path: KERNEL.to_owned(), size: kernel.len() as u64, sha256: digest::bytes(&kernel) };
        let mut files = self.read_all(&self.firmware.files)?;
        // The firmware looks for them beside the kernel.
        files.extend(self.trees.files()?.into_iter().map(|(path, bytes)| (name(&path).to_owned(), bytes)));
        files.push((KERNEL.to_owned(), kernel));
        files.push((INITRD.to_owned(), read(&programs.initrd)?));
        files.extend(self.read_all(&[OVERLAY.to_owned()])?);
        files.push(("cmdline.txt".to_owned(), format!("{command_line} {}\n", numbers.word()).into_bytes()));
        files.push(("config.txt".to_owned(), config(&self.firmware.config).into_bytes()));
        let fats = BTreeMap::from([(Role::Boot, Fat { files: rom, free: 0 }), (Role::SystemA, Fat { files, free: 0 })]);
        Ok((fats, kernel_image))
    }

    fn read_all(&self, names: &[String]) -> Result<Vec<(String, Vec<u8>)>> {
        names.iter().map(|name| Ok((name.clone(), read(&self.directory.join(name))?))).collect()
    }
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The firmware unpacks a kernel as it reads it, and cards are slow. Without a time: the same bytes in each build.
fn compressed(kernel: &[u8]) -> Result<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(kernel).and_then(|()| packed.finish()).context("compress the kernel")
}

/// `config.txt` of a slot.
fn config(lines: &str) -> String {
    format!(
        "# Made with the image; a new version of the system brings its own.\n{lines}{OVERLAY_LINE}kernel={KERNEL}\n\
         initramfs {INITRD} followkernel\n"
    )
}

/// Compiles the source of an overlay (dtc(1)).
fn compile(source: &str, to: &Path) -> Result<()> {
    let directory = to.parent().context("find the directory of an overlay")?;
    std::fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let text = to.with_extension("dtso");
    std::fs::write(&text, source).with_context(|| format!("write {}", text.display()))?;
    // Quiet: it warns of addresses, which an overlay takes from the tree that it is laid over.
    let mut command = Command::new("dtc");
    command.args(["-q", "-I", "dts", "-O", "dtb", "-o"]).arg(to).arg(&text);
    cmd::run(&mut command).context("compile [firmware] overlay of the target")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_configuration_names_kernel_and_initrd_last() {
        let text = config("arm_64bit=1\nenable_uart=1\n");
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "arm_64bit=1",
                "enable_uart=1",
                "dtoverlay=firstboot",
                "kernel=vmlinuz",
                "initramfs initrd.img followkernel"
            ]
        );
    }

    #[test]
    fn an_overlay_is_compiled_or_its_mistake_named() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("overlays/x.dtbo");
        let target = Target::load("raspberrypi").unwrap();
        compile(&target.firmware.unwrap().overlay, &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap()[..4], [0xd0, 0x0d, 0xfe, 0xed]);
        let error = format!("{:#}", compile("/dts-v1/;\n/ { x = ; };\n", &dir.path().join("y.dtbo")).unwrap_err());
        assert!(error.starts_with("compile [firmware] overlay of the target: "), "{error}");
    }

    /// Each slot can be restarted into: the register has a bit for each bit of the partition's number, every other one
    /// (drivers/watchdog/bcm2835_wdt.c of Raspberry Pi's kernel).
    #[test]
    fn the_overlay_names_the_partitions_of_both_slots() {
        let target = Target::load("raspberrypi").unwrap();
        let overlay = &target.firmware.as_ref().unwrap().overlay;
        for (name, role) in [("slot-a", Role::SystemA), ("slot-b", Role::SystemB)] {
            let number = target.number(role).unwrap() as u32;
            let bits = (0..6).map(|bit| (number >> bit & 1) << (2 * bit)).sum::<u32>();
            let line = format!("mode-{name} = <{:#x}>;", 0x5a00_0000 + bits);
            assert!(overlay.contains(&line), "{line}");
        }
        assert!(overlay.contains("mode-normal = <0x5a000000>;") && overlay.contains("mask = <0xff000555>;"));
    }

    #[test]
    fn the_kernel_is_packed_the_same_way_each_time() {
        let kernel = b"kernel".repeat(1000);
        let packed = compressed(&kernel).unwrap();
        assert_eq!(packed, compressed(&kernel).unwrap());
        assert_eq!(&packed[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0], "no time in it");
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut back).unwrap();
        assert_eq!(back, kernel);
    }
}
