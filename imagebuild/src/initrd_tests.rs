// SPDX-License-Identifier: Apache-2.0
//! The initrd's script on this machine, with disks that are files in a directory, and without the programs that mount,
//! load modules or restart: those only say that they were called.
#![allow(clippy::unwrap_used)]

use crate::arch::Arch;
use crate::debian::Debian;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

const ROOT: &str = "01020304-0506-0708-090a-0b0c0d0e0f10";
/// The same as it is on a disk.
const ON_DISK: [u8; 16] = [4, 3, 2, 1, 6, 5, 8, 7, 9, 10, 11, 12, 13, 14, 15, 16];
/// Where a disk is in `/sys/devices`.
const INTERNAL: &str = "pci0000:00/0000:00:04.0/virtio1";
const USB: &str = "pci0000:00/0000:00:05.0/usb1/1-1/1-1:1.0/host2/target2:0:0/2:0:0:0";

/// A machine with no disk.
struct Machine(tempfile::TempDir);

impl Machine {
    /// `None` where busybox cannot be had.
    fn new() -> Option<Machine> {
        if !crate::cmd::found("apt-get") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let debian = Debian::open(Arch::host().unwrap()).unwrap();
        let deb = debian.download(&["busybox-static"], false).unwrap().remove(0);
        debian.unpack(&deb, &dir.path().join("busybox")).unwrap();
        let machine = Machine(dir);
        for directory in ["bin", "dev", "proc", "sys/block", "sys/class/block", "sys/class/tty/console", "sys/devices"]
        {
            fs::create_dir_all(machine.at(directory)).unwrap();
        }
        for command in crate::initrd::COMMANDS.iter().chain(&["mv", "busybox"]) {
            symlink(machine.at("busybox/usr/bin/busybox"), machine.at(&format!("bin/{command}"))).unwrap();
        }
        let root = machine.0.path().display();
        for (name, text) in [
            ("mount", String::new()),
            ("modprobe", String::new()),
            ("reboot", format!("echo reboot >>{root}/done; kill $PPID")),
            ("switch_root", format!("echo switch_root >>{root}/done")),
            // A second passes. Disks may appear in the third.
            (
                "sleep",
                format!(
                    "read -r up rest <{root}/proc/uptime; echo \"$((${{up%%.*}} + 1)).00 0\" >{root}/proc/uptime\n\
                     case $up in 3.*) [ -e {root}/late ] && . {root}/late;; esac; true"
                ),
            ),
        ] {
            let path = machine.at(&format!("bin/{name}"));
            fs::remove_file(&path).unwrap();
            fs::write(&path, format!("#!{root}/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(machine.at("sys/class/tty/console/active"), "console\n").unwrap();
        fs::write(machine.at("proc/cmdline"), format!("quiet root=PARTUUID={ROOT} rw\n")).unwrap();
        fs::write(machine.at("proc/uptime"), "1.00 0\n").unwrap();
        Some(machine)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// A disk whose partitions of these numbers have the root's PARTUUID. The kernel shows it in `sys`.
    fn disk(&self, sys: &str, name: &str, place: &str, numbers: &[usize]) {
        let mut table = vec![0; 34 * 512];
        for number in numbers {
            let at = 1024 + (number - 1) * 128 + 16;
            table[at..at + 16].copy_from_slice(&ON_DISK);
        }
        fs::write(self.at(&format!("dev/{name}")), table).unwrap();
        let device = self.at(&format!("sys/devices/{place}"));
        let block = device.join("block").join(name);
        for number in 1..=3 {
            let partition = format!("{name}{number}");
            fs::create_dir_all(block.join(&partition)).unwrap();
            fs::write(block.join(&partition).join("partition"), format!("{number}\n")).unwrap();
            fs::create_dir_all(self.at(&format!("{sys}/class/block"))).unwrap();
            symlink(block.join(&partition), self.at(&format!("{sys}/class/block/{partition}"))).unwrap();
        }
        symlink(&device, block.join("device")).unwrap();
        fs::create_dir_all(self.at(&format!("{sys}/block"))).unwrap();
        symlink(&block, self.at(&format!("{sys}/block/{name}"))).unwrap();
    }

    /// Runs the script; what the console shows, and how it ended.
    fn boot(&self) -> (String, String) {
        let root = self.0.path().display().to_string();
        let mut script = crate::initrd::INIT.to_owned();
        for path in ["/sys/", "/proc/", "/dev/", "/known", "/seen"] {
            script = script.replace(path, &format!("{root}{path}"));
        }
        script = script.replace("PATH=/bin", &format!("PATH={root}/bin"));
        // A terminal keeps its lines; a file is to do so, too.
        script = script.replace(&format!(">\"{root}/dev/$terminal"), &format!(">>\"{root}/dev/$terminal"));
        fs::write(self.at("init"), script).unwrap();
        // bash: it has none of these programs built in, as busybox may have.
        let mut bash = Command::new("/bin/bash");
        let out = bash.arg("--posix").arg(self.at("init")).env_clear().output().unwrap();
        let console = fs::read_to_string(self.at("dev/console")).unwrap_or_default();
        let done = fs::read_to_string(self.at("done")).unwrap_or_default();
        assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
        (console.replace(&root, ""), done.trim().to_owned())
    }
}

#[test]
fn the_only_root_is_taken() {
    let Some(machine) = Machine::new() else { return };
    machine.disk("sys", "vda", INTERNAL, &[3]);
    machine.disk("sys", "sda", USB, &[]);
    assert_eq!(machine.boot(), ("initrd: root is /dev/vda3\n".to_owned(), "switch_root".to_owned()));
    assert_eq!(fs::read_to_string(machine.at("proc/uptime")).unwrap(), "1.00 0\n", "nothing was waited for");
}

/// A device that runs from a USB disk: another one may still appear, so it is waited for.
#[test]
fn the_only_root_may_be_on_usb() {
    let Some(machine) = Machine::new() else { return };
    machine.disk("sys", "sda", USB, &[3]);
    assert_eq!(machine.boot(), ("initrd: root is /dev/sda3\n".to_owned(), "switch_root".to_owned()));
    assert_eq!(fs::read_to_string(machine.at("proc/uptime")).unwrap(), "6.00 0\n");
}

const REFUSED: &str = "initrd: more than one partition has PARTUUID=01020304-0506-0708-090a-0b0c0d0e0f10:";

/// The PARTUUID is the same in all devices of one image: a stick with it and a root of its own.
#[test]
fn s08_a_stick_with_the_roots_partuuid_is_not_started() {
    let Some(machine) = Machine::new() else { return };
    machine.disk("sys", "sda", USB, &[3]);
    machine.disk("sys", "vda", INTERNAL, &[3]);
    let (console, done) = machine.boot();
    let advice = "initrd: remove the disk that is not this device's; starting over in 30 s\n";
    assert_eq!(console, format!("{REFUSED} sda3 vda3\n{advice}"));
    assert_eq!(done, "reboot");
}

/// The same where the device's own disk is slow.
#[test]
fn s08_a_stick_does_not_win_against_a_slow_disk() {
    let Some(machine) = Machine::new() else { return };
    machine.disk("sys", "sda", USB, &[1]);
    machine.disk("later", "mmcblk0p", "platform/mmc0", &[3]);
    let root = machine.0.path().display().to_string();
    let late =
        format!("mv {root}/later/block/* {root}/sys/block; mv {root}/later/class/block/* {root}/sys/class/block");
    fs::write(machine.at("late"), late).unwrap();
    let (console, done) = machine.boot();
    assert!(console.starts_with(&format!("{REFUSED} mmcblk0p3 sda1\n")), "{console}");
    assert_eq!(done, "reboot");
}

#[test]
fn s08_two_roots_on_one_disk_are_refused_too() {
    let Some(machine) = Machine::new() else { return };
    machine.disk("sys", "vda", INTERNAL, &[2, 3]);
    let (console, done) = machine.boot();
    assert!(console.starts_with(&format!("{REFUSED} vda2 vda3\n")), "{console}");
    assert_eq!(done, "reboot");
}
