// SPDX-License-Identifier: Apache-2.0
//! Against real FAT16 and FAT32 file systems, at an offset inside a larger file.

use super::*;

const SECRET: &str = "0123456789abcdef";

fn formatted(mib: u64) -> (tempfile::TempDir, BootPartition) {
    let dir = tempfile::tempdir().unwrap();
    let partition = formatted_for_tests(&dir.path().join("disk.img"), 1 << 20, mib << 20).unwrap();
    (dir, partition)
}

#[test]
fn reads_what_it_wrote_whatever_the_case() {
    for mib in [16, 64] {
        let (_dir, p) = formatted(mib);
        assert_eq!(p.label().unwrap(), "BOOT");
        p.write("seed.toml", b"version = 1\n").unwrap();
        assert_eq!(p.read("SEED.TOML").unwrap().as_deref(), Some(&b"version = 1\n"[..]));
        p.write("seed.toml", b"v").unwrap();
        assert_eq!(p.seed().unwrap(), Some(("seed.toml", b"v".to_vec())));
        assert_eq!(p.list().unwrap(), ["seed.toml"]);
        assert_eq!(p.read("none").unwrap(), None);
    }
}

#[test]
fn a_destroyed_seed_leaves_no_byte_behind() {
    for mib in [16, 64] {
        let (_dir, p) = formatted(mib);
        // An editor's earlier copy, since deleted, that lies in free clusters; and one in UTF-16.
        p.write("copy.txt", format!("token = \"abcdef.{SECRET}\"").repeat(400).as_bytes()).unwrap();
        p.write("wide.txt", &encodings(SECRET)[1]).unwrap();
        p.remove("copy.txt").unwrap();
        p.remove("wide.txt").unwrap();
        p.write("seed.toml", format!("token = \"abcdef.{SECRET}\"").as_bytes()).unwrap();
        assert!(p.scan(SECRET).unwrap().len() > 400);
        assert_eq!(p.files_with(SECRET).unwrap(), ["seed.toml"]);
        assert_eq!(p.overwrite("seed.toml", SECRET.as_bytes(), b"################").unwrap(), 1);
        assert_eq!(p.files_with(SECRET).unwrap(), Vec::<String>::new());
        p.destroy("seed.toml").unwrap();
        assert!(p.zero_free_clusters().unwrap() > 0);
        assert_eq!(p.zero_free_clusters().unwrap(), 0);
        assert_eq!(p.scan(SECRET).unwrap(), Vec::<u64>::new());
        assert_eq!(p.seed().unwrap(), None);
    }
}

#[test]
fn the_scan_sees_across_its_windows_and_counts_once() {
    let (_dir, p) = formatted(16);
    let file = p.file(true).unwrap();
    let straddling = (1 << 20) - 5;
    std::os::unix::fs::FileExt::write_all_at(&file, SECRET.as_bytes(), p.offset + (8 << 20) + straddling).unwrap();
    assert_eq!(p.scan(SECRET).unwrap(), [(8 << 20) + straddling]);
}

#[test]
fn says_when_there_is_no_file_system_or_the_seed_is_too_long() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blank");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    let error = BootPartition::open_whole(&path).unwrap_err().to_string();
    assert_eq!(error, format!("read a FAT file system from {}", path.display()));
    let (_dir, p) = formatted(16);
    p.write("seed.toml.txt", &vec![b'#'; 65537]).unwrap();
    assert_eq!(p.seed().unwrap_err().to_string(), "read seed.toml.txt: it has more than the 65536 bytes allowed");
}
