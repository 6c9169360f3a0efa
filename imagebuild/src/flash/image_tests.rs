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
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(&raw).unwrap();
    let forms = [
        ("a.img", raw.clone(), Some(raw.len() as u64)),
        // The name says nothing.
        ("b.img", zstd::encode_all(&raw[..], 1).unwrap(), None),
        ("c.zst", zstd::bulk::compress(&raw, 1).unwrap(), Some(raw.len() as u64)),
        ("d.gz", gzip(&raw), None),
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
    let packed = zstd::encode_all(&[7; 9000][..], 1).unwrap();
    assert_eq!(error(&packed[..packed.len() - 4]), "unpack IMG: incomplete frame");
    let missing = Image::open(&dir.path().join("none")).err().unwrap();
    assert!(format!("{missing:#}").ends_with("none: No such file or directory (os error 2)"), "{missing:#}");
    assert!(format!("{:#}", Image::open(dir.path()).err().unwrap()).ends_with("it is a directory, not an image"));
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

#[test]
fn the_line_in_sha256sums_decides() {
    let dir = tempfile::tempdir().unwrap();
    let (path, sums) = (dir.path().join("a.img"), dir.path().join("SHA256SUMS"));
    std::fs::write(&path, "abc").unwrap();
    assert!(!check_sum(&path).unwrap());
    let good = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    std::fs::write(&sums, format!("{}  b.img\n{good} *a.img\n", "0".repeat(64))).unwrap();
    assert!(check_sum(&path).unwrap());
    std::fs::write(&sums, format!("{good}  b.img\n")).unwrap();
    assert!(!check_sum(&path).unwrap());
    std::fs::write(&sums, format!("{}  a.img\n", "0".repeat(64))).unwrap();
    let error = check_sum(&path).unwrap_err().to_string();
    let (path, sums) = (path.display(), sums.display());
    let zeros = "0".repeat(64);
    assert_eq!(error, format!("check {path}: its SHA-256 is {good}, and {sums} has {zeros}: get it again"));
}
