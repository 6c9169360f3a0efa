// SPDX-License-Identifier: Apache-2.0
//! Tests of finding disks, on a tree as sysfs has it.

use super::*;
use std::os::unix::fs::symlink;

/// A root with `/sys` and `/proc` of a laptop.
struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Machine {
        let machine = Machine { dir: tempfile::tempdir().unwrap() };
        for path in ["sys/block", "sys/dev/block", "proc/self"] {
            fs::create_dir_all(machine.dir.path().join(path)).unwrap();
        }
        machine.put("proc/self/mountinfo", "");
        machine
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A disk behind a bus, with two partitions.
    fn disk(&self, bus: &str, name: &str, major: u32, files: &[(&str, &str)]) {
        let directory = format!("sys/devices/{bus}/block/{name}");
        for (file, text) in [("size", "15523840\n"), ("removable", "0\n"), ("ro", "0\n")].iter().chain(files) {
            self.put(&format!("{directory}/{file}"), text);
        }
        let root = self.dir.path();
        fs::create_dir_all(root.join(&directory).join("holders")).unwrap();
        symlink(root.join(&directory), root.join("sys/block").join(name)).unwrap();
        symlink(root.join(&directory), root.join(format!("sys/dev/block/{major}:0"))).unwrap();
        for number in 1..3 {
            let part = format!("{directory}/{name}p{number}");
            self.put(&format!("{part}/partition"), &format!("{number}\n"));
            fs::create_dir_all(root.join(&part).join("holders")).unwrap();
            symlink(root.join(&part), root.join(format!("sys/dev/block/{major}:{number}"))).unwrap();
        }
    }

    /// A device that is made of partition 2 of a disk.
    fn made_of(&self, name: &str, major: u32, disk: &str) {
        let root = self.dir.path();
        let directory = root.join(format!("sys/devices/virtual/block/{name}"));
        fs::create_dir_all(directory.join("slaves")).unwrap();
        symlink(&directory, root.join("sys/block").join(name)).unwrap();
        symlink(&directory, root.join(format!("sys/dev/block/{major}:0"))).unwrap();
        let part = fs::canonicalize(root.join("sys/block").join(disk)).unwrap().join(format!("{disk}p2"));
        symlink(&part, directory.join("slaves").join(format!("{disk}p2"))).unwrap();
        symlink(&directory, part.join("holders").join(name)).unwrap();
    }

    fn kernel(&self) -> Kernel {
        Kernel { root: self.dir.path().to_owned() }
    }

    fn refusals(&self) -> Vec<(String, Option<String>)> {
        self.kernel().disks().unwrap().into_iter().map(|d| (d.name.clone(), d.refusal())).collect()
    }
}

#[test]
fn removable_disks_are_told_from_built_in_ones() {
    let machine = Machine::new();
    machine.disk("pci0/ata1", "sda", 8, &[("device/model", "SSD 870 \n")]);
    machine.disk("pci0/usb1/1-2", "sdb", 9, &[("device/vendor", "SanDisk \n"), ("device/model", "Ultra\n")]);
    machine.disk("pci0/mmc0", "mmcblk0", 10, &[("device/type", "SD\n"), ("device/name", "SC32G\n")]);
    machine.disk("pci0/mmc1", "mmcblk1", 11, &[("device/type", "MMC\n"), ("device/name", "BJTD4R\n")]);
    machine.disk("pci0/mmc1", "mmcblk1boot0", 12, &[("device/type", "MMC\n")]);
    machine.disk("pci0/ata2", "sdc", 13, &[("removable", "1\n"), ("size", "0\n")]);
    machine.disk("virtual", "loop0", 14, &[]);
    let disks = machine.kernel().disks().unwrap();
    let seen: Vec<_> = disks.iter().map(|d| (&*d.name, &*d.model, d.bus, d.removable, d.sector)).collect();
    assert_eq!(
        seen,
        [
            ("mmcblk0", "SC32G", "SD", true, 512),
            ("mmcblk1", "BJTD4R", "", false, 512),
            ("sda", "SSD 870", "", false, 512),
            ("sdb", "SanDisk Ultra", "USB", true, 512)
        ]
    );
    assert_eq!(disks[0].size, 15_523_840 * 512);
    assert!(disks.iter().all(|disk| disk.refusal().is_none()));
}

#[test]
fn a_disk_in_use_is_refused_through_whatever_is_made_of_it() {
    let machine = Machine::new();
    for (name, major) in [("sda", 8), ("sdb", 9), ("sdc", 10), ("sdd", 11), ("sde", 12)] {
        machine.disk("pci0/usb1/1-2", name, major, &[]);
    }
    machine.made_of("dm-0", 253, "sda");
    machine.made_of("md127", 254, "sdc");
    machine.put(
        "proc/self/mountinfo",
        "22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/mapper/root rw\n\
         23 22 0:21 / /proc rw - proc proc rw\n\
         24 22 9:1 / /media/a\\040user/BOOT rw,nosuid shared:2 - vfat /dev/sdb1 rw\n\
         25 22 11:1 / /boot/efi rw - vfat /dev/sdd1 rw\n",
    );
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        machine.refusals(),
        [
            ("sda".to_owned(), text("it is a disk of the running system: / is on it")),
            ("sdb".to_owned(), text("it is mounted at /media/a user/BOOT: run umount \"/media/a user/BOOT\"")),
            ("sdc".to_owned(), text("md127 is made of it: close that first (lsblk /dev/sdc)")),
            ("sdd".to_owned(), text("it is a disk of the running system: /boot/efi is on it")),
            ("sde".to_owned(), None)
        ]
    );
    machine.put("sys/devices/pci0/usb1/1-2/block/sde/ro", "1\n");
    assert_eq!(machine.refusals()[4].1, text("it is protected from writing (the switch at a card's edge)"));
}

#[test]
fn the_mount_point_of_a_disk_is_that_of_one_of_its_partitions() {
    let machine = Machine::new();
    for (name, major) in [("sda", 8), ("sdb", 9)] {
        machine.disk("pci0/usb1/1-2", name, major, &[]);
    }
    machine.put(
        "proc/self/mountinfo",
        "23 22 0:21 / /proc rw - proc proc rw\n\
         24 22 9:2 / /media/a\\040user/BOOT rw,nosuid shared:2 - vfat /dev/sdb2 rw\n",
    );
    let mounted = |device| machine.kernel().mounted(device);
    let point = Some("/media/a user/BOOT".to_owned());
    assert_eq!([mounted((9, 0)), mounted((9, 2))], [point.clone(), point]);
    assert_eq!([mounted((9, 1)), mounted((8, 0)), mounted((7, 0))], [None, None, None]);
}

#[test]
fn the_disk_of_a_swap_file_is_the_systems() {
    let machine = Machine::new();
    // The disk under this test's directory, by its real numbers.
    let file = machine.dir.path().join("swapfile");
    fs::write(&file, "").unwrap();
    let device = rustix::fs::stat(&file).unwrap().st_dev;
    machine.disk("pci0/ata1", "sda", 8, &[]);
    let link = machine.dir.path().join(format!("sys/dev/block/{}:{}", major(device), minor(device)));
    let _ = fs::remove_file(&link);
    symlink(machine.dir.path().join("sys/devices/pci0/ata1/block/sda"), link).unwrap();
    machine.put("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/swapfile file 1 0 -2\n");
    let refusal = machine.refusals()[0].1.clone();
    assert_eq!(refusal, Some("it is a disk of the running system: /swapfile on it is swap space".to_owned()));
}

#[test]
fn files_and_character_devices_are_no_disks() {
    let error = |path: &str| Kernel::here().find(Path::new(path)).unwrap_err().to_string();
    assert_eq!(error("/dev/null"), "open /dev/null: it is no block device");
    assert_eq!(error("/dev/none"), "open /dev/none");
}
