// SPDX-License-Identifier: Apache-2.0
//! Tests with real FAT16 and FAT32 file systems, at an offset in a larger file.

use std::os::unix::fs::FileExt;

use super::*;

const SECRET: &str = "0123456789abcdef";

fn formatted(mib: u64) -> (tempfile::TempDir, BootPartition) {
    let dir = tempfile::tempdir().unwrap();
    let partition = formatted_for_tests(&dir.path().join("disk.img"), 1 << 20, mib << 20).unwrap();
    (dir, partition)
}

#[test]
fn written_files_are_read_back_in_any_case() {
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
fn destroyed_seed_leaves_no_byte_behind() {
    for mib in [16, 64] {
        let (_dir, p) = formatted(mib);
        // An editor's earlier copy, deleted since, in free clusters; and one in UTF-16.
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
fn scan_finds_a_match_across_windows_once() {
    let (_dir, p) = formatted(16);
    let file = p.file(true).unwrap();
    let straddling = (1 << 20) - 5;
    std::os::unix::fs::FileExt::write_all_at(&file, SECRET.as_bytes(), p.offset + (8 << 20) + straddling).unwrap();
    assert_eq!(p.scan(SECRET).unwrap(), [(8 << 20) + straddling]);
}

#[test]
fn missing_file_system_and_too_long_seed_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blank");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    let error = BootPartition::open_whole(&path).unwrap_err().to_string();
    assert_eq!(error, format!("read a FAT file system from {}", path.display()));
    let (_dir, p) = formatted(16);
    p.write("seed.toml.txt", &vec![b'#'; 65537]).unwrap();
    assert_eq!(p.seed().unwrap_err().to_string(), "read seed.toml.txt: it has more than the 65536 bytes allowed");
}

/// The FAT library follows a cyclic chain of clusters for ever.
#[test]
fn broken_allocation_table_is_an_error() {
    let (_dir, mut p) = formatted(8);
    p.change(|root| root.create_dir("subdir").map(drop).context("create a directory")).unwrap();
    let file = p.file(true).unwrap();
    let mut sector = [0; 512];
    file.read_exact_at(&mut sector, p.offset).unwrap();
    let at = |i: usize| u64::from(u16::from_le_bytes([sector[i], sector[i + 1]]));
    // FAT16. The directory has the first cluster, number 2, which is made to follow itself and to be full.
    let (table, cluster) = (p.offset + at(14) * at(11), u64::from(sector[13]) * at(11));
    let data = table + u64::from(sector[16]) * at(22) * at(11) + at(17) * 32;
    file.write_all_at(&[2, 0], table + 2 * 2).unwrap();
    // Entries of removed files.
    let entry = [&b"\xe5FILE   TXT "[..], &[0; 20]].concat();
    file.write_all_at(&entry.repeat(cluster as usize / 32), data).unwrap();
    // A shorter partition has a lower limit, which is reached sooner.
    p.len = 1 << 20;
    assert_eq!(p.list().unwrap(), ["subdir"]);
    let why = format!("{:#}", p.files_with(SECRET).unwrap_err());
    assert_eq!(why, "list the boot partition: more was read than it can hold: its allocation table is broken");
}
