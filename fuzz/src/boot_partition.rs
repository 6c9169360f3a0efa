// SPDX-License-Identifier: Apache-2.0
//! The FAT partition with broken bytes: reading it ends, with an error or without, and takes no more memory than the
//! partition has bytes, and changes nothing. In memory: with a file, most of the time went into system calls.
//!
//! Input: patches to a partition of 64 KiB with a seed, a long name and a directory: offset (two bytes, little endian),
//! length (one byte), bytes.

use std::cell::RefCell;
use std::io::{Cursor, Write};
use std::sync::OnceLock;

use firstboot::boot_partition::{DeviceIds, SeedFound, Volume};
use fscommon::StreamSlice;

const SIZE: usize = 64 << 10;

type Memory<'a> = StreamSlice<Cursor<&'a mut [u8]>>;

fn slice(bytes: &mut [u8]) -> Memory<'_> {
    StreamSlice::new(Cursor::new(bytes), 0, SIZE as u64).expect("a slice")
}

/// The partition as it should be.
fn whole() -> &'static [u8] {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let mut bytes = vec![0; SIZE];
        let label = fatfs::FormatVolumeOptions::new().volume_label(*b"BOOT       ");
        fatfs::format_volume(slice(&mut bytes), label).expect("a file system");
        {
            let volume = fatfs::FileSystem::new(slice(&mut bytes), fatfs::FsOptions::new()).expect("a file system");
            let root = volume.root_dir();
            let write = |dir: &fatfs::Dir<'_, _>, name: &str, bytes: &[u8]| {
                dir.create_file(name).expect("a file").write_all(bytes).expect("room");
            };
            write(&root, "seed.toml", b"version = 1\n");
            write(&root, "a rather long name of a file.txt", &[b'x'; 3000]);
            write(&root.create_dir("overlays").expect("a directory"), "board.dtbo", b"token");
        }
        bytes
    })
}

pub fn run(input: &[u8]) {
    thread_local! {
        // As it should be between two inputs: copying it anew for each would take longer than most looks.
        static BYTES: RefCell<Vec<u8>> = RefCell::new(whole().to_vec());
    }
    BYTES.with_borrow_mut(|bytes| {
        let patched = patch(bytes, input);
        look(bytes);
        for range in patched {
            bytes[range.clone()].copy_from_slice(&whole()[range]);
        }
        assert!(bytes == whole(), "a look changed something");
    });
}

/// Applies the patches; where they went.
fn patch(bytes: &mut [u8], mut input: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut patched = Vec::new();
    while let Some((&[low, high, len], rest)) = input.split_first_chunk() {
        let at = usize::from(u16::from_le_bytes([low, high]));
        let len = usize::from(len).min(rest.len()).min(SIZE - at);
        bytes[at..at + len].copy_from_slice(&rest[..len]);
        patched.push(at..at + len);
        input = &rest[len..];
    }
    patched
}

fn open(bytes: &mut [u8]) -> std::io::Result<Volume<Cursor<&mut [u8]>>> {
    Volume::open(slice(bytes), SIZE as u64)
}

fn glance(bytes: &mut [u8]) -> std::io::Result<Volume<Cursor<&mut [u8]>>> {
    Volume::glance(slice(bytes), SIZE as u64)
}

/// Each look opens the file system anew, as [`firstboot::boot_partition::BootPartition`] does.
fn look(medium: &mut [u8]) {
    match open(medium) {
        Ok(volume) => drop(volume.label()),
        Err(_) => return,
    }
    let names = open(medium).map(|v| v.list().unwrap_or_default()).unwrap_or_default();
    assert!(names.len() <= SIZE / 32, "{} names in {SIZE} bytes", names.len());
    if let Ok(Ok(Some((name, seed)))) = glance(medium).map(|v| v.seed()) {
        assert!(seed.len() <= firstboot::seed::MAX_SIZE);
        if let Ok(Ok(Some(signature))) = glance(medium).map(|v| v.signature(name)) {
            assert!(signature.len() <= firstboot::seed::ssh_signature::MAX_SIZE);
        }
    }
    let ids = DeviceIds { serial: Some("x".into()), macs: vec!["dca632010203".into()] };
    if let Ok(Ok(SeedFound::Own(_, seed))) = glance(medium).map(|v| v.seed_for(&ids)) {
        assert!(seed.len() <= firstboot::seed::MAX_SIZE);
    }
    for name in names.iter().take(4) {
        if let Ok(Ok(Some(bytes))) = open(medium).map(|v| v.read(name)) {
            assert!(bytes.len() <= SIZE, "{} bytes of a file in {SIZE}", bytes.len());
        }
    }
    let _ = open(medium).map(|v| v.files_with("token"));
}
