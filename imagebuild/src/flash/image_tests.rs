// SPDX-License-Identifier: Apache-2.0
//! Tests of opening images.

use super::*;
use crate::disk::{Ids, testing};
use crate::target::Target;
use std::io::Write;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn raw_zstd_and_gzip_have_one_content() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    testing::fats_only(&Target::load("generic-amd64").unwrap(), &Ids::new("t"), &path).unwrap();
    let raw = std::fs::read(&path).unwrap();
    let packed = zstd::bulk::compress(&raw, 1).unwrap();
    let (start, rest) = raw.split_at(1 << 20);
    let forms = [
        ("a.img", raw.clone(), Some(raw.len() as u64)),
        // The name says nothing.
        ("b.img", zstd::encode_all(&raw[..], 1).unwrap(), None),
        ("c.zst", packed.clone(), Some(raw.len() as u64)),
        ("d.gz", gzip(&raw), None),
        // As pzstd writes it: a frame that is to be skipped, with the length of the next one.
        ("e.zst", [&b"\x50\x2a\x4d\x18\x04\0\0\0\x01\x02\x03\x04"[..], &packed].concat(), None),
        // Several frames, of which the first one says its own length.
        ("f.zst", [zstd::bulk::compress(start, 1).unwrap(), zstd::bulk::compress(rest, 1).unwrap()].concat(), None),
    ];
    for (name, bytes, size) in forms {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let mut image = Image::open(&path).unwrap();
        let mut content = Vec::new();
        image.content().read_to_end(&mut content).unwrap();
        assert!(content == raw, "{name}");
        assert_eq!((image.size, image.sector), (size, Some(512)), "{name}");
        // The table says how long the disk is, also where the compressed file does not.
        assert_eq!((image.least, image.needs()), (raw.len() as u64, raw.len() as u64), "{name}");
    }
}

#[test]
fn what_is_no_disk_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.img");
    let error = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = Image::open(&path).err().map(|e| format!("{e:#}")).unwrap_or_default();
        error.replace(&path.display().to_string(), "IMG")
    };
    assert_eq!(error(b""), "open IMG: it is empty");
    assert_eq!(error(b"\xfd7zXZ\0\0\0"), "open IMG: it is packed with xz: unpack it first (xz --decompress --keep)");
    assert_eq!(error(b"PK\x03\x04"), "open IMG: it is a zip archive: unpack it first (unzip)");
    assert_eq!(error(b"7z\xbc\xaf\x27\x1c\0\x04"), "open IMG: it is a 7z archive: unpack it first (7z x)");
    let none = "open IMG: it is no disk image: it has no partition table and no boot sector: give a raw image, or one \
                packed with zstd or gzip";
    for bytes in [&b"version = 1\n"[..], &[7; 9000], &gzip(&[7; 9000])] {
        assert_eq!(error(bytes), none);
    }
    // The boot sector of a FAT is all that a disk without partitions has.
    let mut sector = [7u8; 9000];
    sector[510..512].copy_from_slice(&[0x55, 0xaa]);
    assert_eq!(error(&sector), "");
    let packed = zstd::encode_all(&[7; 9000][..], 1).unwrap();
    assert_eq!(error(&packed[..packed.len() - 4]), "unpack IMG: incomplete frame");
    let missing = Image::open(&dir.path().join("none")).err().unwrap();
    assert!(format!("{missing:#}").ends_with("none: No such file or directory (os error 2)"), "{missing:#}");
    assert!(format!("{:#}", Image::open(dir.path()).err().unwrap()).ends_with("it is a directory, not an image"));
}

#[test]
fn a_truncated_image_is_refused_or_has_no_size() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    testing::fats_only(&Target::load("generic-amd64").unwrap(), &Ids::new("t"), &path).unwrap();
    let whole = path.metadata().unwrap().len();
    File::options().write(true).open(&path).unwrap().set_len(whole - 512).unwrap();
    let error = Image::open(&path).err().unwrap().to_string();
    let why = format!("it has {} bytes of the {whole} that its partition table names: it is truncated", whole - 512);
    assert_eq!(error, format!("open {}: {why}: get it again", path.display()));
    // Packed, its first frame may be followed by another one: only unpacking it shows that there is none.
    let packed = dir.path().join("disk.img.zst");
    std::fs::write(&packed, zstd::bulk::compress(&std::fs::read(&path).unwrap(), 1).unwrap()).unwrap();
    let image = Image::open(&packed).unwrap();
    assert_eq!((image.size, image.least, image.needs()), (None, whole, whole));
}

#[test]
fn a_table_of_the_bios_says_where_its_partitions_end() {
    let mut head = vec![0; 1024];
    head[510..512].copy_from_slice(&[0x55, 0xaa]);
    assert_eq!(extent(&head), (0, None));
    head[446 + 4] = 0x0c;
    head[446 + 8..446 + 16].copy_from_slice(&[0, 8, 0, 0, 0, 0x10, 0, 0]);
    assert_eq!(extent(&head), ((0x800 + 0x1000) * 512, None));
    // The code of a FAT's boot sector stands where the table would.
    head[446] = 0x33;
    assert_eq!(extent(&head), (0, None));
}
