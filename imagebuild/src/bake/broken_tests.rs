// SPDX-License-Identifier: Apache-2.0
//! Bases that would be destroyed, or that are broken so that reading them has no end; and disks that are full.

use super::*;
use ::initrd::table::{IN_MBR, write_mbr};

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

/// Gives the primary copy of the GPT so many entries, from this sector on.
fn set_entries(file: &File, count: u32, sector: u64) {
    let sum = |bytes: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum().to_le_bytes()
    };
    let (mut header, mut array) = ([0; 92], [0; 128 * 128]);
    file.read_exact_at(&mut header, 512).unwrap();
    file.read_exact_at(&mut array, 2 * 512).unwrap();
    header[72..80].copy_from_slice(&sector.to_le_bytes());
    header[80..84].copy_from_slice(&count.to_le_bytes());
    header[88..92].copy_from_slice(&sum(&array[..count as usize * 128]));
    header[16..20].fill(0);
    let whole = sum(&header);
    header[16..20].copy_from_slice(&whole);
    // A boot loader, where there is room for one.
    file.write_all_at(&[0x5a; 32 * 512], 2 * 512).unwrap();
    file.write_all_at(&array[..count as usize * 128], sector * 512).unwrap();
    file.write_all_at(&header, 512).unwrap();
}

#[test]
fn a_gpt_that_is_laid_out_otherwise_is_not_written_anew() {
    let sample = Sample::new();
    let path = sample.image();
    let whole = std::fs::read(&path).unwrap();
    let (_, superblock) = base::examine(&path, target().arch).unwrap().root.unwrap();
    let (lacks, free) = ((ADDED + FREE - superblock.free).div_ceil(MIB), superblock.free / MIB);
    let entries = |what: &str| format!("its GPT has {what} on, not 128 of 128 from sector 2 on");
    let cases = [
        (Some((56, 2)), entries("56 entries of 128 bytes from sector 2")),
        (Some((128, 40)), entries("128 entries of 128 bytes from sector 40")),
        (None, "the primary copy of its GPT is damaged".to_owned()),
    ];
    for (place, why) in cases {
        std::fs::write(&path, &whole).unwrap();
        let mut file = open(&path);
        match place {
            Some((count, sector)) => set_entries(&file, count, sector),
            None => file.write_all_at(&[0x5a; 512], 512).unwrap(),
        }
        let before = digest::file(&path).unwrap();
        assert_eq!(
            refused(&path),
            format!(
                "bake BASE: use an image with {lacks} MiB more free space in its root: it has {free} MiB, and bake \
                 cannot make the root longer: {why}"
            )
        );
        let mut base = base::examine(&path, target().arch).unwrap();
        let error = base.disk.lengthen(&mut file, 2, MIB).unwrap_err();
        assert_eq!(error.to_string(), format!("lengthen partition 2: {why}"));
        assert_eq!(digest::file(&path).unwrap(), before);
        // Nothing is in the way of a root with room.
        base.root.as_mut().unwrap().1.free = ADDED + FREE;
        assert_eq!((room(&mut base, ADDED), base.missing), (0, vec![]));
    }
}

#[test]
fn a_longer_root_changes_no_record_of_the_mbr_but_the_protective_one() {
    let sample = Sample::new();
    let path = sample.image();
    let mut file = open(&path);
    let mut table = Table::read(&mut file).unwrap().table;
    let (number, fat) = table.partitions().swap_remove(0);
    table.set(number, &Entry { flags: IN_MBR, ..fat }).unwrap();
    for copy in [Copy::Primary, Copy::Backup] {
        table.write(&mut file, copy, 106 * MIB / 512).unwrap();
    }
    let mbr_of = |file: &File| {
        let mut sector = [0; 512];
        file.read_exact_at(&mut sector, 0).unwrap();
        sector
    };
    // The number of the record whose length changes: the one of a plain GPT; none, where it ends before the first
    // partition that is listed, too; the third, which is as long as the disk.
    for changes in [Some(0), None, Some(2)] {
        let size = file.metadata().unwrap().len();
        match changes {
            Some(0) => {}
            None => write_mbr(&mut file, &table, size / 512).unwrap(),
            Some(_) => {
                let fat = Record { number: 1, kind: 0x0c, offset: FAT.0, length: FAT.1 };
                let rest = Record { number: 3, kind: 0xee, offset: 512, length: size - 512 };
                file.write_all_at(&mbr::for_tests(7, &[fat, rest]), 0).unwrap();
            }
        }
        let mut expected = mbr_of(&file);
        Disk::read(&mut file).unwrap().lengthen(&mut file, 2, MIB).unwrap();
        if let Some(record) = changes {
            let sectors = ((size + MIB) / 512 - 1) as u32;
            expected[446 + record * 16 + 12..][..4].copy_from_slice(&sectors.to_le_bytes());
        }
        assert!(mbr_of(&file) == expected, "{changes:?}");
    }
}

#[test]
fn a_full_disk_is_named_however_the_base_is_packed() {
    let sample = Sample::new();
    let (image, dir) = (sample.image(), sample.dir.path());
    let bytes = std::fs::read(&image).unwrap();
    cmd::run(Command::new("xz").args(["-0", "--keep"]).arg(&image)).unwrap();
    std::fs::write(dir.join("b.img.zst"), zstd::encode_all(&bytes[..], 1).unwrap()).unwrap();
    for (name, verb) in [("base.img", "copy"), ("base.img.xz", "unpack"), ("b.img.zst", "unpack")] {
        let (path, mut full) = (dir.join(name), open(Path::new("/dev/full")));
        let packing = Packing::of(&path).unwrap();
        let error = unpack::unpack(&path, packing, &mut full, Path::new("some/out")).unwrap_err();
        let text = "write to some/out: no space is left: make room there, or choose another directory (--out)";
        assert_eq!(format!("{error:#}"), format!("{verb} {}: {text}", path.display()));
    }
}

#[test]
fn a_check_of_a_packed_image_says_the_same_and_leaves_nothing() {
    let sample = Sample::new();
    let (image, dir) = (sample.image(), sample.dir.path());
    let mut all = vec![dir.join("base.img.xz")];
    cmd::run(Command::new("xz").args(["-0", "--keep"]).arg(&image)).unwrap();
    if cmd::found("qemu-img") {
        all.push(dir.join("b.qcow2"));
        let mut command = Command::new("qemu-img");
        cmd::run(command.args(["convert", "-O", "qcow2"]).arg(&image).arg(&all[1])).unwrap();
    } else {
        crate::skip::skip_unless_ci("qemu-img is not installed");
    }
    let out = dir.join("out/images");
    let count = || std::fs::read_dir(dir).unwrap().count();
    let (expected, before) = (check(&target(), &image, &Choices::default(), &out).unwrap(), count());
    assert_eq!(expected.missing, [""; 0]);
    for path in &all {
        assert_eq!(
            check(&target(), path, &Choices::default(), &out).unwrap().text(),
            expected.text(),
            "{}",
            path.display()
        );
        assert_eq!(count(), before);
    }
    // It goes beside the result, and not to the directory for temporary files.
    let error =
        format!("{:#}", check(&target(), &all[0], &Choices::default(), Path::new("/proc/none/images")).unwrap_err());
    assert!(error.starts_with("create a file for the base in /proc: "), "{error}");
    assert_eq!((nearest(&out), nearest(Path::new("no/such"))), (dir, Path::new(".")));
}

/// The FAT library follows a chain of clusters that leads to itself for ever.
#[test]
fn a_fat_without_end_is_an_error() {
    let sample = Sample { fat: false, ..Sample::new() };
    let path = sample.image();
    let file = open(&path);
    let slice = fscommon::StreamSlice::new(file.try_clone().unwrap(), FAT.0, FAT.0 + FAT.1).unwrap();
    let options = fatfs::FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat32).volume_label(*b"SEEDS      ");
    fatfs::format_volume(fscommon::BufStream::new(slice), options).unwrap();
    let mut boot = [0; 512];
    file.read_exact_at(&mut boot, FAT.0).unwrap();
    let number = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    // Cluster 2, which has the root directory, is made to follow itself and to be full: the label and removed files.
    let (table, cluster) = (number(14) * 512, usize::from(boot[13]) * 512);
    let data = table + u64::from(boot[16]) * number(36) * 512;
    file.write_all_at(&2u32.to_le_bytes(), FAT.0 + table + 2 * 4).unwrap();
    file.write_all_at(&vec![0xe5; cluster - 32], FAT.0 + data + 32).unwrap();
    let why = "more was read than it can hold: its allocation table is broken";
    let text = format!("bake BASE: read the FAT on partition 1: open directory loader/entries: {why}");
    assert_eq!(refused(&path), text);
    // Without the label, too.
    file.write_all_at(&[0xe5; 32], FAT.0 + data).unwrap();
    assert_eq!(refused(&path), format!("bake BASE: read the FAT on partition 1: read the volume label: {why}"));
}

#[test]
fn a_file_that_is_too_long_is_not_read() {
    let sample = Sample::new();
    let systemd = sample.root.join("usr/lib/systemd/systemd");
    open(&systemd).set_len(1 << 30).unwrap();
    let path = sample.image();
    let text = "read /usr/lib/systemd/systemd of the base: it is longer than 67108864 bytes: use another image";
    assert_eq!(refused(&path), format!("bake BASE: {text}"));
    let reader = Reader::at(&path, ROOT.0).unwrap();
    let text = text.replace("67108864", "536870912");
    assert_eq!(reader.read("/usr/lib/systemd/systemd").unwrap_err().to_string(), text);
    let text = text.replace("536870912", "8388608");
    assert_eq!(reader.text("/usr/lib/systemd/systemd").unwrap_err().to_string(), text);
}

#[test]
fn a_superblock_with_any_numbers_gives_an_answer() {
    let mut base = base::examine(&Sample::new().image(), target().arch).unwrap();
    let (partition, superblock) = base.root.as_mut().unwrap();
    (partition.length, superblock.size, superblock.free) = (u64::MAX, 0, u64::MAX);
    assert_eq!((room(&mut base, ADDED), base.missing), (0, vec![]));
}
