// SPDX-License-Identifier: Apache-2.0
//! Bases that are made here, small ones: what is found in them, what is added, and what is refused.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::arch::Arch;
use crate::cmd;
use crate::disk::mbr::{self, Record};
use ::initrd::table::{Copy, Entry, Table};
use firstboot::image::ImageInfo;
use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, symlink};
use std::process::Command;

#[path = "broken_tests.rs"]
mod broken;

const FAT: (u64, u64) = (MIB, 40 * MIB);
const ROOT: (u64, u64) = (41 * MIB, 64 * MIB);

/// An image laid out as a base is, with as little in it as `--check` asks for.
struct Sample {
    dir: tempfile::TempDir,
    /// Content of the root, to be changed before [`Sample::image`].
    root: PathBuf,
    gpt: bool,
    fat: bool,
    config: bool,
}

impl Sample {
    fn new() -> Sample {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let sample = Sample { dir, root, gpt: true, fat: true, config: true };
        sample.put("etc/os-release", "PRETTY_NAME=\"Sample 1\"\n");
        sample.put("etc/fstab", "LABEL=SEEDS /boot/firmware vfat defaults 0 2\n");
        sample.put("usr/lib/systemd/libsystemd-shared-257.so", "");
        sample.put("usr/lib/systemd/systemd-networkd", "");
        std::fs::copy("/bin/true", sample.root.join("usr/lib/systemd/systemd")).unwrap();
        for program in ["nft", "ip", "modprobe", "losetup"] {
            sample.put(&format!("usr/sbin/{program}"), "");
        }
        for program in ["mount", "systemctl", "chgrp", "cp"] {
            sample.put(&format!("usr/bin/{program}"), "");
        }
        let modules = "loop dm-mod dm-verity erofs overlay br_netfilter veth bridge xt_comment nf_tables nft_ct nft_nat nft_limit";
        let list: String = modules.split(' ').map(|m| format!("kernel/{m}.ko:\n")).collect();
        sample.put("usr/lib/modules/6.12.1/modules.dep", &list);
        symlink("usr/lib", sample.root.join("lib")).unwrap();
        sample
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Writes the image.
    fn image(&self) -> PathBuf {
        let path = self.dir.path().join("base.img");
        let _ = std::fs::remove_file(&path);
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(106 * MIB).unwrap();
        self.table(&mut file);
        let alone = self.dir.path().join("ext4");
        let _ = std::fs::remove_file(&alone);
        File::create(&alone).unwrap().set_len(ROOT.1).unwrap();
        let mut command = Command::new(cmd::tool("mke2fs"));
        cmd::run(command.args(["-q", "-t", "ext4", "-d"]).arg(&self.root).arg(&alone)).unwrap();
        ext4::copy_part(&File::open(&alone).unwrap(), 0, &file, ROOT.0, ROOT.1).unwrap();
        if self.fat {
            let slice = || {
                let slice = fscommon::StreamSlice::new(file.try_clone().unwrap(), FAT.0, FAT.0 + FAT.1).unwrap();
                fscommon::BufStream::new(slice)
            };
            let options = fatfs::FormatVolumeOptions::new().volume_label(*b"SEEDS      ");
            fatfs::format_volume(slice(), options).unwrap();
            if self.config {
                let fat = BootPartition::open(&path, FAT.0, FAT.1).unwrap();
                fat.write("cmdline.txt", b"console=tty1 root=PARTUUID=1 rootwait\n").unwrap();
            }
        }
        path
    }

    fn table(&self, file: &mut File) {
        let places = [(FAT, 0x0c_u8), (ROOT, 0x83)];
        if self.gpt {
            let mut table = Table::new(uuid::Uuid::from_u128(7));
            let kinds = ["ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"];
            for ((number, ((first, length), _)), kind) in (1..).zip(places).zip(kinds) {
                let (first, last) = (first / 512, (first + length) / 512 - 1);
                let id = uuid::Uuid::from_u128(number.into());
                let entry = Entry { kind: kind.parse().unwrap(), id, first, last, flags: 0, name: String::new() };
                table.set(number, &entry).unwrap();
            }
            let sectors = 106 * MIB / 512;
            table.write(file, Copy::Primary, sectors).unwrap();
            table.write(file, Copy::Backup, sectors).unwrap();
            ::initrd::table::write_mbr(file, &table, sectors).unwrap();
        } else {
            let record = |(number, ((offset, length), kind))| Record { number, kind, offset, length };
            let records: Vec<Record> = (1..).zip(places).map(record).collect();
            file.write_all_at(&mbr::for_tests(0, &records), 0).unwrap();
        }
    }

    fn missing(&self) -> Vec<String> {
        check(&target(), &self.image(), &Choices::default(), self.dir.path()).unwrap().missing
    }
}

/// A target of this machine's architecture.
fn target() -> Target {
    Target::load(&format!("generic-{}", Arch::host().unwrap())).unwrap()
}

/// Everything on an ext4: path, and what is there.
fn inventory(image: &Path, offset: u64) -> BTreeMap<String, (Node, Vec<u8>)> {
    fn walk(reader: &Reader, path: &str, all: &mut BTreeMap<String, (Node, Vec<u8>)>) {
        for name in reader.names(if path.is_empty() { "/" } else { path }).unwrap() {
            let below = format!("{path}/{name}");
            let node = reader.node(&below).unwrap().unwrap();
            let content = match node.kind {
                'l' => reader.link(&below).unwrap().unwrap().into_bytes(),
                '-' => reader.read(&below).unwrap().unwrap(),
                _ => Vec::new(),
            };
            let kind = node.kind;
            // The size of a directory is what its entries take.
            let node = if kind == 'd' { Node { size: 0, ..node } } else { node };
            all.insert(below.clone(), (node, content));
            if kind == 'd' {
                walk(reader, &below, all);
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(&Reader::at(image, offset).unwrap(), "", &mut all);
    all
}

#[test]
fn a_base_gets_what_is_listed_and_nothing_else() {
    for gpt in [true, false] {
        let sample = Sample { gpt, ..Sample::new() };
        let path = sample.image();
        let mut base = base::examine(&path, target().arch).unwrap();
        assert_eq!((base.missing.clone(), base.disk.name()), (vec![], if gpt { "GPT" } else { "MBR" }));
        assert_eq!((base.os.as_str(), base.boot_mounted.as_deref()), ("Sample 1", Some("/boot/firmware")));
        let before = inventory(&path, ROOT.0);
        let source = sample.dir.path().join("new file");
        std::fs::write(&source, b"content".repeat(100_000)).unwrap();
        let file = |path: &str, mode| {
            let sha256 = digest::file(&source).unwrap();
            Added { path: path.into(), what: What::File { mode, size: 700_000, sha256, source: source.clone() } }
        };
        let link = |path: &str, to: &str| Added { path: path.into(), what: What::Link { target: to.into() } };
        let directory = |path: &str| Added { path: path.into(), what: What::Directory };
        let added = vec![
            directory("/usr"),
            directory("/usr/lib/firstboot"),
            file("/usr/lib/firstboot/a", 0o755),
            file("/usr/lib/firstboot/b c", 0o600),
            link("/etc/x", "../usr/lib/firstboot/a"),
        ];
        let info = ImageInfo { build_time: 1_700_000_000, ..info() };
        let mut image = File::options().read(true).write(true).open(&path).unwrap();
        let report = put(&mut base, &mut image, &path, &added, &info).unwrap();
        assert!(report.lengthened > 400 * MIB && report.free_after.unwrap() > 500 * MIB, "{report:?}");
        let again = base::examine(&path, target().arch).unwrap();
        assert_eq!(again.missing, ["use the image without firstboot: this one has it already"]);
        assert_eq!(again.disk.partitions[1].length, ROOT.1 + report.lengthened);
        let mut after = inventory(&path, ROOT.0);
        for one in &report.added {
            assert!(after.remove(&one.path).is_some(), "{}", one.path);
        }
        assert_eq!(report.added.len(), 4, "the directory /usr was there");
        assert!(before == after, "something else changed");
        let fat = BootPartition::open(&path, FAT.0, FAT.1).unwrap();
        let mut names = fat.list().unwrap();
        names.sort();
        assert_eq!(names, ["cmdline.txt", "firstboot-status.html", "firstboot-status.txt", "seed.toml.example"]);
        // The GPT that the crate `gpt` reads is whole, both copies of it.
        if gpt {
            let disk = gpt::GptConfig::new().open(&path).unwrap();
            assert_eq!(
                disk.partitions()[&2].bytes_len(gpt::disk::LogicalBlockSize::Lb512).unwrap(),
                again.disk.partitions[1].length
            );
            let found = Table::read(&mut image).unwrap();
            assert!(found.damaged.is_empty() && !found.grown && !found.mbr_damaged, "{found:?}");
        }
    }
}

fn info() -> ImageInfo {
    ImageInfo {
        version: 1,
        target: "t".into(),
        arch: "amd64".into(),
        build_time: 1,
        build_id: "x".into(),
        boot_label: "SEEDS".into(),
        leds: Vec::new(),
        machine_id: None,
    }
}

#[test]
fn what_is_in_the_way_is_an_error_before_anything_is_written() {
    let sample = Sample::new();
    sample.put("etc/x", "own");
    let alone = {
        sample.image();
        sample.dir.path().join("ext4")
    };
    let added = [
        Added { path: "/etc/new".into(), what: What::Link { target: "y".into() } },
        Added { path: "/etc/x".into(), what: What::Link { target: "y".into() } },
    ];
    let before = digest::file(&alone).unwrap();
    let error = write::add(&alone, &added, 1).unwrap_err().to_string();
    assert_eq!((error.as_str(), digest::file(&alone).unwrap()), ("add /etc/x: the base has it already", before));
}

#[test]
fn everything_that_is_missing_is_listed_at_once() {
    let sample = Sample { fat: false, ..Sample::new() };
    for gone in ["usr/sbin/nft", "usr/sbin/ip", "usr/lib/systemd/libsystemd-shared-257.so"] {
        std::fs::remove_file(sample.root.join(gone)).unwrap();
    }
    sample.put("usr/lib/systemd/libsystemd-shared-247.so", "");
    sample.put("usr/lib/modules/6.12.1/modules.dep", "kernel/loop.ko:\n");
    sample.put("usr/sbin/ifup", "");
    sample.put("etc/network/interfaces", "auto lo\niface lo inet loopback\niface eth0 inet dhcp\n");
    sample.put("usr/bin/kubelet", "");
    sample.put("boot/grub/grub.cfg", "linux /vmlinuz cgroup_disable=memory\n");
    assert_eq!(
        sample.missing(),
        [
            "make a FAT partition: the image has none, and the seed goes to one",
            "use an image with systemd 248 or later: it has 247",
            "install nft, ip in the image: firstboot or kubelet calls them",
            "remove /usr/bin/kubelet from the image: the bundle brings the runtime and kubelet",
            "use another kernel: kernel 6.12.1 lacks module erofs, module overlay, module \
             br_netfilter, module veth, module bridge, module xt_comment, module nf_tables, module nft_ct, module nft_nat, \
             module nft_limit",
            "switch the memory cgroup on: remove cgroup_disable=memory from the kernel command line",
            "manage the network by systemd-networkd or NetworkManager: the image uses ifupdown",
        ]
    );
}

/// The one file of a base that is changed, and only when that is asked for.
#[test]
fn the_memory_cgroup_of_a_raspberry_pi_is_switched_on_when_asked_for() {
    let sample = Sample::new();
    std::fs::rename(sample.root.join("usr/lib/modules/6.12.1"), sample.root.join("usr/lib/modules/6.12.1-rpi-v8"))
        .unwrap();
    let path = sample.image();
    let of = |enable_memory_cgroup| {
        let choices = Choices { enable_memory_cgroup, ..Choices::default() };
        let report = check(&target(), &path, &choices, sample.dir.path()).unwrap();
        (report.missing, report.changed_on_boot)
    };
    assert_eq!(of(false), (vec![kernel::NO_MEMORY_CGROUP.to_owned()], vec![]));
    assert_eq!(of(true), (vec![], vec!["cmdline.txt".to_owned()]));
    let mut base = base::examine(&path, target().arch).unwrap();
    base.choose_memory_cgroup(true);
    let mut file = File::options().read(true).write(true).open(&path).unwrap();
    let report = put(&mut base, &mut file, &path, &[], &info()).unwrap();
    assert_eq!(report.changed_on_boot, ["cmdline.txt"]);
    let cmdline = || BootPartition::open(&path, FAT.0, FAT.1).unwrap().read("cmdline.txt").unwrap().unwrap();
    let line = "console=tty1 root=PARTUUID=1 rootwait cgroup_enable=memory cgroup_memory=1\n";
    assert_eq!(String::from_utf8(cmdline()).unwrap(), line);
    // It is on: nothing is left to be changed.
    assert_eq!(of(true), (vec![], vec![]));
    // Another file may be what the firmware reads.
    let other = sample.image();
    let fat = BootPartition::open(&other, FAT.0, FAT.1).unwrap();
    fat.write("config.txt", b"[all]\ncmdline=other.txt\n").unwrap();
    assert_eq!(of(true), (vec![kernel::NO_MEMORY_CGROUP.to_owned()], vec![]));
}

/// Ubuntu: modules packed with zstd, a socket that starts sshd, cloud-init with a list of modules, and no nftables.
#[test]
fn what_ubuntu_has_otherwise_is_found() {
    let sample = Sample::new();
    let dependencies = sample.root.join("usr/lib/modules/6.12.1/modules.dep");
    let packed = std::fs::read_to_string(&dependencies).unwrap().replace(".ko:", ".ko.zst:");
    std::fs::write(dependencies, packed).unwrap();
    std::fs::remove_file(sample.root.join("usr/sbin/nft")).unwrap();
    sample.put("etc/systemd/system/sockets.target.wants/ssh.socket", "");
    sample.put("usr/lib/systemd/system/snapd.service", "");
    sample.put("usr/bin/unattended-upgrade", "");
    sample.put("etc/cloud/cloud.cfg", "cloud_init_modules:\n  - growpart\n  - update_etc_hosts\n\nsystem_info:\n");
    let base = base::examine(&sample.image(), target().arch).unwrap();
    assert_eq!(base.missing, ["install nft in the image: firstboot or kubelet calls them"]);
    assert_eq!((base.network, base.ssh, base.verity), (Network::Networkd, true, true));
    let names: Vec<&str> = base.machinery.iter().map(|machinery| machinery.name).collect();
    assert_eq!(names, ["cloud-init", "snapd", "unattended-upgrades"]);
    let text = |path: &str| base.settings.iter().find(|(of, _)| of == path).unwrap().1.as_str();
    assert!(text("/etc/cloud/cloud.cfg.d/99-firstboot.cfg").ends_with("\ncloud_init_modules:\n  - growpart\n"));
    assert!(text("/etc/apt/apt.conf.d/99firstboot").contains("Automatic-Reboot \"false\""));
}

#[test]
fn other_inits_architectures_and_root_file_systems_are_named() {
    let other = Arch::ALL.into_iter().find(|arch| *arch != Arch::host().unwrap()).unwrap();
    let sample = Sample::new();
    let path = sample.image();
    let report =
        check(&Target::load(&format!("generic-{other}")).unwrap(), &path, &Choices::default(), sample.dir.path())
            .unwrap();
    let host = Arch::host().unwrap();
    assert_eq!(report.missing, [format!("use an image for {other}, or another target: this one is for {host}")]);
    std::fs::remove_file(sample.root.join("usr/lib/systemd/systemd")).unwrap();
    assert_eq!(sample.missing(), ["use an image with systemd: its init is another"]);

    for (magic, at, name) in [
        (&b"LUKS\xba\xbe"[..], 0, "LUKS"),
        (b"LABELONE", 512, "LVM"),
        (b"_BHRfS_M", 65600, "btrfs"),
        (b"XFSB", 0, "XFS"),
    ] {
        let path = sample.image();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0; 4096], ROOT.0).unwrap();
        file.write_all_at(magic, ROOT.0 + at).unwrap();
        let text =
            format!("use an image with its root file system on ext4 on a partition of its own: partition 2 has {name}");
        assert_eq!(check(&target(), &path, &Choices::default(), sample.dir.path()).unwrap().missing, [text]);
    }
}

/// The error of `bake`, which has to leave nothing in its directory.
fn refused(base: &Path) -> String {
    let out = tempfile::tempdir().unwrap();
    let error = match bake(&target(), base, &Choices::default(), out.path()) {
        Ok(report) => fail_if_missing(base, &report.missing).unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0, "{error:#}");
    let text = format!("{error:#}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text.replace(&base.display().to_string(), "BASE")
}

#[test]
fn bad_input_is_one_line_and_leaves_nothing() {
    let sample = Sample::new();
    let (image, dir) = (sample.image(), sample.dir.path());
    let bytes = std::fs::read(&image).unwrap();
    let with = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).unwrap();
        refused(&path)
    };
    let cut = &bytes[..60 << 20];
    assert_eq!(
        with("cut.img", cut),
        "bake BASE: read the partition table: the image has 62914560 of 111149056 bytes; it is truncated, get it again"
    );
    assert_eq!(with("empty.img", b""), "open BASE: it is empty");
    assert_eq!(with("text.img", &b"hello".repeat(1000)), "bake BASE: find a partition table: it is no disk image");
    assert_eq!(
        with("short.img", b"hi"),
        "bake BASE: read its first sector: it is shorter than one: failed to fill whole buffer"
    );
    let mut packed = cmd::output(Command::new("xz").args(["-0", "--stdout"]).arg(&image)).unwrap();
    let middle = packed.len() / 2;
    packed[middle] ^= 0xff;
    assert_eq!(with("bad.img.xz", &packed), "unpack BASE: Compressed data is corrupt");
    assert_eq!(with("cut.img.xz", &packed[..middle]), "unpack BASE: Unexpected end of input");
    let packed = zstd::encode_all(&bytes[..], 1).unwrap();
    assert!(with("cut.img.zst", &packed[..packed.len() / 2]).starts_with("unpack BASE: "));
    assert_eq!(
        with("a.img.bz2", b"BZh91AY"),
        "open BASE: it is packed with bzip2; unpack it first (bzip2 --decompress --keep)"
    );
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for name in ["a.img", "b.img"] {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
    }
    let zip = zip.finish().unwrap().into_inner();
    let text = "unpack BASE: the zip archive has 2 files that end in .img, .raw or .wic, and should have one";
    assert_eq!(with("two.zip", &zip), text);
    let missing = dir.join("none.img");
    assert_eq!(refused(&missing), "open BASE: No such file or directory (os error 2)");
    let sample = Sample { fat: false, ..Sample::new() };
    let text = "bake BASE: make a FAT partition: the image has none, and the seed goes to one";
    assert_eq!(refused(&sample.image()), text);
}

#[test]
fn a_root_that_cannot_grow_needs_room() {
    let sample = Sample::new();
    let path = sample.image();
    let mut file = File::options().read(true).write(true).open(&path).unwrap();
    let sectors = 106 * MIB / 512;
    let mut table = Table::read(&mut file).unwrap().table;
    let first = (ROOT.0 + ROOT.1) / 512;
    let kind = "0fc63daf-8483-4772-8e79-3d69d8477de4".parse().unwrap();
    let entry = Entry { kind, id: uuid::Uuid::from_u128(9), first, last: first + 99, flags: 0, name: String::new() };
    table.set(3, &entry).unwrap();
    table.write(&mut file, Copy::Primary, sectors).unwrap();
    table.write(&mut file, Copy::Backup, sectors).unwrap();
    let text = refused(&path);
    assert!(
        text.starts_with("bake BASE: use an image with 8") && text.ends_with(", and partition 3 behind it"),
        "{text}"
    );
}

#[test]
fn all_ways_of_packing_give_the_same_image() {
    let sample = Sample::new();
    let image = sample.image();
    let bytes = std::fs::read(&image).unwrap();
    let dir = sample.dir.path();
    let at = |name: &str| dir.join(name);
    cmd::run(Command::new("xz").args(["-0", "--keep"]).arg(&image)).unwrap();
    std::fs::write(at("b.img.zst"), zstd::encode_all(&bytes[..], 1).unwrap()).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(File::create(at("b.img.gz")).unwrap(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &bytes).unwrap();
    gzip.finish().unwrap();
    let mut zip = zip::ZipWriter::new(File::create(at("b.zip")).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("readme.txt", options).unwrap();
    zip.start_file("os.img", options).unwrap();
    std::io::Write::write_all(&mut zip, &bytes).unwrap();
    zip.finish().unwrap();
    let mut names = vec!["base.img", "base.img.xz", "b.img.zst", "b.img.gz", "b.zip"];
    if cmd::found("qemu-img") {
        let mut command = Command::new("qemu-img");
        cmd::run(command.args(["convert", "-O", "qcow2"]).arg(&image).arg(at("b.qcow2"))).unwrap();
        names.push("b.qcow2");
    } else {
        crate::skip::skip_unless_ci("qemu-img is not installed");
    }
    for name in names {
        let to = at("raw");
        let _ = std::fs::remove_file(&to);
        let mut file = File::options().read(true).write(true).create_new(true).open(&to).unwrap();
        unpack::unpack(&at(name), Packing::of(&at(name)).unwrap(), &mut file, dir).unwrap();
        assert!(std::fs::read(&to).unwrap() == bytes, "{name}");
    }
    assert_eq!(["a.img.xz", "b.zip", "c.qcow2", "d"].map(|n| stem(Path::new(n))), ["a", "b", "c", "d"]);
}
