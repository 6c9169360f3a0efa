// SPDX-License-Identifier: Apache-2.0
//! Boot files that are missing or damaged, on real firmware: `verify.efi` names them and resets the machine, systemd-boot
//! counts the attempt in the name of the boot entry and takes the next one when none is left.
//! Boots 2 machines, each four times, that have firmware and an EFI system partition and no operating system.

#![allow(clippy::unwrap_used)]

use e2e::SOON;
use fatfs::{Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};
use fscommon::{BufStream, StreamSlice};
use imagebuild::arch::Arch;
use imagebuild::debian::Debian;
use imagebuild::{digest, loader};
use qemu::accel::Accelerator;
use qemu::args::{self, Controller, Files, Link, MAC, Machine};
use qemu::console::Console;
use qemu::process::Process;
use qemu::run_dir::RunDir;
use qemu::{firmware, wait};
use std::fs::File;
use std::io::Write;
use std::path::Path;

const SECTOR: u64 = 512;
/// The partition's place, sectors: FAT32 with clusters of one sector.
const ESP: (u64, u64) = (2048, 64 << 11);
const ENTRIES: &str = "loader/entries";

#[test]
fn damage_is_named_and_the_next_entry_starts_amd64() {
    damage_is_named_and_the_next_entry_starts(Arch::Amd64);
}

#[test]
fn damage_is_named_and_the_next_entry_starts_arm64() {
    damage_is_named_and_the_next_entry_starts(Arch::Arm64);
}

/// Three entries, newest first: `c` on its last trial, its file missing; `b` with two trials left, its file damaged; `a`.
/// What `a` starts is `verify.efi` again, which says that it has no options: it was started, and with none.
fn damage_is_named_and_the_next_entry_starts(arch: Arch) {
    if !e2e::can_boot(arch) {
        return;
    }
    let verify = std::fs::read(loader::ensure(arch).unwrap()).unwrap();
    let mut damaged = verify.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let entry = |slot: &str, version: u32| {
        let path = format!("\\EFI\\firstboot\\{slot}.efi");
        let head = format!("title firstboot\nsort-key firstboot\nversion {version}-0\nefi /EFI/firstboot/verify.efi\n");
        format!("{head}options {path} {}\n", digest::bytes(&verify)).into_bytes()
    };
    let start = match arch {
        Arch::Arm64 => "EFI/BOOT/BOOTAA64.EFI",
        Arch::Amd64 => "EFI/BOOT/BOOTX64.EFI",
    };
    let dir = RunDir::new("loader").unwrap();
    let firmware = firmware::find(arch).unwrap();
    let files = Files::plain(&firmware.code, dir.path());
    std::fs::copy(&firmware.vars, &files.vars).unwrap();
    make_disk(
        &files.disk,
        &[
            (start, systemd_boot(arch, dir.path())),
            ("EFI/firstboot/verify.efi", verify.clone()),
            ("EFI/firstboot/a.efi", verify.clone()),
            ("EFI/firstboot/b.efi", damaged),
            ("loader/loader.conf", b"timeout 0\neditor no\n".to_vec()),
            ("loader/entries/firstboot-a.conf", entry("a", 1000)),
            ("loader/entries/firstboot-b+2.conf", entry("b", 2000)),
            ("loader/entries/firstboot-c+1.conf", entry("c", 3000)),
        ],
    );
    let program = imagebuild::setup::qemu(arch).unwrap();
    let argv = args::argv(&machine(arch), &files);
    let emulator = Process::start("the emulator", &program, &argv, &dir.path().join("emulator.log")).unwrap();
    let console = Console::new(files.console.clone());
    wait::until("a file to be started", SOON, || {
        emulator.check()?;
        console.find("firstboot: options of the boot entry are damaged")
    })
    .unwrap();
    emulator.kill().unwrap();
    let text = console.text().unwrap();
    let said: Vec<&str> = text.lines().map(str::trim).filter(|line| line.starts_with("firstboot: ")).collect();
    let missing = "firstboot: \\EFI\\firstboot\\c.efi is missing; starting over in 10 s";
    let damaged = "firstboot: \\EFI\\firstboot\\b.efi is damaged: SHA-256 is not the one that the boot entry names; \
        starting over in 10 s";
    let started =
        "firstboot: options of the boot entry are damaged: they are not a path and a SHA-256; starting over in 10 s";
    assert_eq!(said, [missing, damaged, damaged, started]);
    assert_eq!(entries(&files.disk), ["firstboot-a.conf", "firstboot-b+0-2.conf", "firstboot-c+0-1.conf"]);
}

/// Emulated on every machine: kvm would have to be probed with a kernel, and here is none.
fn machine(arch: Arch) -> Machine {
    Machine {
        arch,
        accelerator: Accelerator::Tcg,
        cpus: 1,
        memory_mib: 512,
        controller: Controller::Virtio,
        serial: None,
        credentials: Vec::new(),
        clock: "utc".to_owned(),
        mac: MAC.to_owned(),
        link: Link::User,
        forwards: Vec::new(),
        disk_limits: None,
        board: None,
    }
}

/// The boot loader of the release that images are made of.
fn systemd_boot(arch: Arch, scratch: &Path) -> Vec<u8> {
    let debian = Debian::open(arch).unwrap();
    let deb = debian.fetch(&debian.resolve(&["systemd-boot-efi"], false).unwrap()).unwrap().remove(0);
    debian.unpack(&deb, &scratch.join("deb")).unwrap();
    let name = match arch {
        Arch::Arm64 => "systemd-bootaa64.efi",
        Arch::Amd64 => "systemd-bootx64.efi",
    };
    std::fs::read(scratch.join("deb/usr/lib/systemd/boot/efi").join(name)).unwrap()
}

/// Firmware renames no file whose date has month 0, which fatfs writes where it does not know the time.
#[derive(Debug)]
struct Fixed;
const DAY: Date = Date { year: 2026, month: 1, day: 1 };

impl TimeProvider for Fixed {
    fn get_current_date(&self) -> Date {
        DAY
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: DAY, time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

/// The EFI system partition of a disk.
fn partition(disk: &Path) -> BufStream<StreamSlice<File>> {
    let file = File::options().read(true).write(true).open(disk).unwrap();
    let (first, length) = ESP;
    BufStream::new(StreamSlice::new(file, first * SECTOR, (first + length) * SECTOR).unwrap())
}

/// A disk with nothing but an EFI system partition that has these files.
fn make_disk(path: &Path, files: &[(&str, Vec<u8>)]) {
    let (first, length) = ESP;
    let mut disk = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    disk.set_len((first + length + 2048) * SECTOR).unwrap();
    gpt::mbr::ProtectiveMBR::with_lb_size(u32::MAX).overwrite_lba0(&mut disk).unwrap();
    let mut table = gpt::GptConfig::new().writable(true).create_from_device(disk, None).unwrap();
    table.add_partition_at("esp", 1, first, length, gpt::partition_types::EFI, 0).unwrap();
    table.write().unwrap();
    let options = FormatVolumeOptions::new().fat_type(FatType::Fat32).bytes_per_cluster(512);
    let mut stream = partition(path);
    fatfs::format_volume(&mut stream, options).unwrap();
    stream.flush().unwrap();
    let system = FileSystem::new(partition(path), FsOptions::new().time_provider(&Fixed)).unwrap();
    for (name, bytes) in files {
        for (at, _) in name.match_indices('/') {
            system.root_dir().create_dir(&name[..at]).unwrap();
        }
        system.root_dir().create_file(name).unwrap().write_all(bytes).unwrap();
    }
    system.unmount().unwrap();
}

/// Names of the boot entries.
fn entries(disk: &Path) -> Vec<String> {
    let system = FileSystem::new(partition(disk), FsOptions::new()).unwrap();
    let directory = system.root_dir().open_dir(ENTRIES).unwrap();
    let mut names: Vec<String> = directory.iter().map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}
