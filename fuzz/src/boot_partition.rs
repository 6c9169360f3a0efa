// SPDX-License-Identifier: Apache-2.0
//! The FAT partition with broken bytes: reading it ends, with an error or without, and takes no more memory than the
//! partition has bytes.
//!
//! Input: patches to a partition of 64 KiB with a seed, a long name and a folder: offset (two bytes, little endian),
//! length (one byte), bytes.

use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::{fs::File, io::Write};

use firstboot::boot_partition::BootPartition;
use fscommon::StreamSlice;

const SIZE: usize = 64 << 10;

/// The partition as it should be, and the memory that stands for the medium.
struct Medium {
    whole: Vec<u8>,
    file: File,
    path: PathBuf,
}

fn medium() -> &'static Medium {
    static MEDIUM: OnceLock<Medium> = OnceLock::new();
    MEDIUM.get_or_init(|| {
        let file = rustix::fs::memfd_create("boot", rustix::fs::MemfdFlags::CLOEXEC).expect("memory");
        let file = File::from(file);
        file.set_len(SIZE as u64).expect("memory");
        let slice = || StreamSlice::new(file.try_clone().expect("a handle"), 0, SIZE as u64).expect("a slice");
        let label = fatfs::FormatVolumeOptions::new().volume_label(*b"BOOT       ");
        fatfs::format_volume(slice(), label).expect("a file system");
        {
            let volume = fatfs::FileSystem::new(slice(), fatfs::FsOptions::new()).expect("a file system");
            let root = volume.root_dir();
            let write = |dir: &fatfs::Dir<'_, _>, name: &str, bytes: &[u8]| {
                dir.create_file(name).expect("a file").write_all(bytes).expect("room");
            };
            write(&root, "seed.toml", b"version = 1\n");
            write(&root, "a rather long name of a file.txt", &[b'x'; 3000]);
            write(&root.create_dir("overlays").expect("a folder"), "board.dtbo", b"token");
        }
        let mut whole = vec![0; SIZE];
        file.read_exact_at(&mut whole, 0).expect("memory");
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Medium { whole, file, path }
    })
}

pub fn run(mut input: &[u8]) {
    let Medium { whole, file, path } = medium();
    let mut bytes = whole.clone();
    while let Some((&[low, high, len], rest)) = input.split_first_chunk() {
        let at = usize::from(u16::from_le_bytes([low, high]));
        let len = usize::from(len).min(rest.len()).min(SIZE - at);
        bytes[at..at + len].copy_from_slice(&rest[..len]);
        input = &rest[len..];
    }
    file.write_all_at(&bytes, 0).expect("memory");
    let Ok(partition) = BootPartition::open_whole(path) else { return };
    let _ = partition.label();
    let names = partition.list().unwrap_or_default();
    assert!(names.len() <= SIZE / 32, "{} names in {SIZE} bytes", names.len());
    if let Ok(Some((_, seed))) = partition.seed() {
        assert!(seed.len() <= firstboot::seed::MAX_SIZE);
    }
    for name in names.iter().take(4) {
        if let Ok(Some(bytes)) = partition.read(name) {
            assert!(bytes.len() <= SIZE, "{} bytes of a file in {SIZE}", bytes.len());
        }
    }
    let _ = partition.files_with("token");
}
