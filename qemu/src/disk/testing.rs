// SPDX-License-Identifier: Apache-2.0
//! Small disks for tests: a root file system, and a data partition as a first boot leaves it.

use super::{DATA, DiskImage, ROOT, SECOND_SLOT};
use gpt::partition::Partition;
use gpt::{GptConfig, mbr::ProtectiveMBR, partition_types as types};
use imagebuild::archive::Archive;
use imagebuild::cmd::{run, tool};
use imagebuild::erofs::Mkfs;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

const MIB: u64 = 1 << 20;
/// MiB from the beginning of the disk at which the partitions start.
const ROOT_AT: u64 = 3;
const DATA_AT: u64 = 8;
const SIZE: u64 = 32;

/// A disk with this root and an empty data partition; nothing where mkfs.erofs cannot be fetched.
pub(super) fn disk(dir: &Path, root: &Archive) -> Option<DiskImage> {
    if !imagebuild::cmd::found("apt-get") {
        crate::skip::skip_unless_ci("apt-get is not installed");
        return None;
    }
    let (path, erofs) = (dir.join("disk"), dir.join("erofs"));
    Mkfs::ensure().unwrap().pack(root, uuid::Uuid::nil(), 1_700_000_000, &erofs).unwrap();
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.set_len(SIZE * MIB).unwrap();
    file.write_all_at(&std::fs::read(erofs).unwrap(), ROOT_AT * MIB).unwrap();
    let partitions = [
        (1, "BOOT", 1, 1),
        (2, "ESP", 2, 1),
        (ROOT, "root-a", ROOT_AT, 4),
        (4, SECOND_SLOT, DATA_AT - 1, 1),
        (5, DATA, DATA_AT, SIZE - DATA_AT - 1),
    ];
    table(file, &partitions);
    let mut make = Command::new(tool("mke2fs"));
    make.args(["-q", "-t", "ext4", "-b", "4096", "-E", &format!("offset={}", DATA_AT * MIB)]);
    run(make.arg(&path).arg(format!("{}M", SIZE - DATA_AT - 1))).unwrap();
    let disk = DiskImage::open(&path).unwrap();
    for directory in ["/etc", "/etc/upper", "/etc/work", "/var", "/var/lib"] {
        disk.debugfs(true, &format!("mkdir \"{directory}\"")).unwrap();
    }
    Some(disk)
}

/// Partitions: number, label, first MiB, MiB.
fn table(mut file: File, partitions: &[(u32, &str, u64, u64)]) {
    ProtectiveMBR::new().overwrite_lba0(&mut file).unwrap();
    let mut table = GptConfig::new().writable(true).create_from_device(file, None).unwrap();
    let entry = |(number, label, first, length): &(u32, &str, u64, u64)| {
        let place = Partition {
            part_type_guid: types::LINUX_FS,
            part_guid: uuid::Uuid::from_u128(u128::from(*number)),
            first_lba: first * MIB / 512,
            last_lba: (first + length) * MIB / 512 - 1,
            flags: 0,
            name: (*label).to_owned(),
        };
        (*number, place)
    };
    table.update_partitions(partitions.iter().map(entry).collect::<BTreeMap<_, _>>()).unwrap();
    table.write().unwrap();
}
