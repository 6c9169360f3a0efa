// SPDX-License-Identifier: Apache-2.0
//! Tests with real FAT16 and FAT32 file systems, at an offset in a larger file.

use super::*;
use std::os::unix::fs::FileExt;

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
        assert!(p.zero_free_clusters().unwrap().zeroed > 0);
        let free = p.zero_free_clusters().unwrap();
        assert_eq!(free.zeroed, 0);
        // All but the allocation tables and what the directories take.
        let zero: u64 = free.zero.iter().map(|range| range.end - range.start).sum();
        assert!(zero < mib << 20 && zero > (mib << 20) - (1 << 20), "{free:?}");
        assert_eq!(p.scan(SECRET).unwrap(), Vec::<u64>::new());
        assert_eq!(p.seed().unwrap(), None);
    }
}

#[test]
fn what_was_zeroed_and_the_ends_of_files_are_searched_and_what_was_zero_is_not_read_again() {
    let (_dir, p) = formatted(16);
    let digest = SecretDigest::from_digests(&SecretDigest::of_secret(SECRET));
    p.write("a.txt", b"a file that stays").unwrap();
    p.write("b.txt", b"a file that goes").unwrap();
    p.remove("b.txt").unwrap();
    let file = p.file(true).unwrap();
    let text = p.scan("a file that stays").unwrap()[0];
    let at = |place: u64| p.offset + place;
    // In the last bytes of the file's cluster, which no file system shows.
    let slack = text + 512 - SECRET.len() as u64;
    file.write_all_at(SECRET.as_bytes(), at(slack)).unwrap();
    let free = p.zero_free_clusters().unwrap();
    assert!(free.zeroed > 0);
    assert_eq!(p.scan_for_secret(&digest, &free).unwrap(), [(slack, SECRET.len())]);
    assert!(free.zero.windows(2).all(|pair| pair[0].end < pair[1].start), "{free:?}");
    // A range that is taken for zero is not looked at; what begins right after it is.
    let last = free.zero.last().unwrap().clone();
    file.write_all_at(SECRET.as_bytes(), at(last.start + 100)).unwrap();
    assert_eq!(p.scan_for_secret(&digest, &free).unwrap(), [(slack, SECRET.len())]);
    let shorter = Free { zeroed: 0, zero: vec![0..slack, last.start + 101..last.end] };
    let found = p.scan_for_secret(&digest, &shorter).unwrap();
    assert_eq!(found, [(slack, SECRET.len())], "the second one is cut");
    let none = p.scan_for_secret(&digest, &Free::default()).unwrap();
    assert_eq!(none, [(slack, SECRET.len()), (last.start + 100, SECRET.len())]);
}

/// A damaged entry of a directory says that a file has two GiB. Where its clusters end, it ends.
#[test]
fn a_file_of_a_damaged_size_is_destroyed() {
    let seed = format!("token = \"abcdef.{SECRET}\"");
    for mib in [16, 64] {
        let (_dir, p) = formatted(mib);
        p.write("seed.toml", seed.as_bytes()).unwrap();
        p.write_seeds(&[("other.toml".to_owned(), seed.as_bytes())]).unwrap();
        let file = p.file(true).unwrap();
        for entry in ["SEED~1  TOM", "SEED    TOM", "OTHER~1 TOM", "OTHER   TOM"] {
            // The size is at byte 28 (FAT specification, §6).
            let places = p.scan(entry).unwrap();
            places.iter().for_each(|at| file.write_all_at(&[0xff, 0xff, 0xff, 0x7f], p.offset + at + 28).unwrap());
        }
        assert_eq!(
            p.volume(false).unwrap().root().iter().filter(|e| e.as_ref().unwrap().len() == 0x7fff_ffff).count(),
            1
        );
        p.zero("seed.toml").unwrap();
        p.zero_seeds(None).unwrap();
        assert_eq!(p.scan(SECRET).unwrap(), [0; 0]);
        p.remove("seed.toml").unwrap();
        p.remove_seeds(None).unwrap();
        assert!(!p.has_seeds().unwrap() && !p.has("seed.toml").unwrap());
    }
}

#[test]
fn scan_finds_a_match_across_windows_once() {
    let (_dir, p) = formatted(16);
    let file = p.file(true).unwrap();
    let straddling = (1 << 20) - 5;
    file.write_all_at(SECRET.as_bytes(), p.offset + (8 << 20) + straddling).unwrap();
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
