// SPDX-License-Identifier: Apache-2.0
//! On real FAT partitions: what is destroyed, what is named, and that nothing is sealed until nothing is left.

use super::super::tests::cx;
use super::*;
use crate::boot_partition::formatted_for_tests;
use crate::host::fake::{Fake, Recorded};
use crate::journal::facts::Fact;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::os::fd::AsRawFd;
use std::rc::Rc;

const SECRET: &str = "0123456789abcdef";
const SEED: &str = "version = 1\n[cluster]\napiserver = \"a\"\ntoken = \"abcdef.0123456789abcdef\"\nca-cert-hashes = \
                    \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n";

/// A device that has this seed on its boot partition, and, of that, copies in files of these names.
fn device(root: &std::path::Path, copies: &[&str]) -> (PhaseContext, Rc<Recorded>) {
    let (fake, seen) = Fake::new();
    let cx = cx(root, fake, SEED);
    cx.boot.write("seed.toml", SEED.as_bytes()).unwrap();
    for (number, name) in copies.iter().enumerate() {
        if let Some((directory, _)) = name.split_once('/') {
            cx.boot.make_directory_for_tests(directory).unwrap();
        }
        cx.boot.write(name, &encodings(SEED)[number % 3]).unwrap();
    }
    (cx, seen)
}

#[test]
fn copies_that_programs_made_go_with_the_seed() {
    let dir = tempfile::tempdir().unwrap();
    let copies = ["seed.toml~", ".seed.toml.swp", "._seed.toml", "$RECYCLE.BIN/$R1.toml", "seed.toml.txt"];
    let (cx, _) = device(dir.path(), &copies);
    cx.boot.write("seed.toml.bak", b"of another day").unwrap();
    cx.boot.write("seed.toml.example", b"stays").unwrap();
    cx.boot.write("RPI-PRESEED.TOML", b"[wlan]\npassword = \"pass of the Wi-Fi\"\n").unwrap();
    erase_token(&cx).unwrap();
    // From here on none of them is needed.
    assert_eq!(cx.boot.files_with(SECRET).unwrap(), Vec::<String>::new());
    apply(&cx).unwrap();
    assert!(cx.host.journal().sealed());
    assert_eq!(cx.boot.list().unwrap(), ["$RECYCLE.BIN", "seed.toml.example"]);
    for secret in [SECRET, "pass of the Wi-Fi"] {
        assert_eq!(cx.boot.scan(secret).unwrap(), Vec::<u64>::new());
    }
    let journal = std::fs::read_to_string(dir.path().join("var/lib/firstboot/journal")).unwrap();
    assert!(!journal.contains(SECRET));
}

#[test]
fn a_cut_in_the_middle_of_overwriting_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let (mut cx, _) = device(dir.path(), &[]);
    erase_token(&cx).unwrap();
    let noted = cx.host.journal().fact(Fact::TokenDigest).map(str::to_owned);
    // A sector of the token is new, the other one old; what is left of it goes, and what to look for stays noted.
    let half = SEED.replace("01234567", "********");
    cx.boot.write("seed.toml", half.as_bytes()).unwrap();
    cx.seed = crate::seed::parse(half.as_bytes()).unwrap();
    assert_eq!(cx.seed.digest(), crate::seed::parse(SEED.as_bytes()).unwrap().digest());
    erase_token(&cx).unwrap();
    assert_eq!(cx.boot.read("seed.toml").unwrap().unwrap(), SEED.replace(SECRET, JoinToken::ERASED).as_bytes());
    assert_eq!(cx.host.journal().fact(Fact::TokenDigest).map(str::to_owned), noted);
    // The same when the file is destroyed. A file that a person adds is not firstboot's.
    let mut zeros = vec![0; 512];
    zeros.extend_from_slice(b"# the rest\n");
    cx.boot.write("seed.toml", &zeros).unwrap();
    cx.boot.write("seed.toml.txt", SEED.as_bytes()).unwrap();
    finish_without_seed(&cx.host, &cx.boot, "bundle").unwrap_err();
    assert_eq!(cx.boot.list().unwrap(), ["seed.toml.txt"]);
    cx.boot.remove("seed.toml.txt").unwrap();
    finish_without_seed(&cx.host, &cx.boot, "bundle").unwrap();
    assert!(cx.host.journal().sealed());
}

#[test]
fn a_file_of_somebodys_is_named_at_every_boot_until_the_token_is_out_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (cx, seen) = device(dir.path(), &["seed.toml~", "notes.txt", "old/seed.toml"]);
    erase_token(&cx).unwrap();
    let want = "destroy the seed: the token also stands in notes.txt, old/seed.toml; remove it from the boot partition";
    assert_eq!(apply(&cx).unwrap_err().to_string(), want);
    // The next boot finds no seed any more, and knows the token by its digest alone.
    assert_eq!(cx.boot.seed().unwrap(), None);
    assert_eq!(finish_without_seed(&cx.host, &cx.boot, "bundle").unwrap_err().to_string(), want);
    assert!(!cx.host.journal().sealed());
    let said = seen.lines.take();
    assert_eq!(said.iter().filter(|l| l.starts_with("firstboot: no Event for the cluster")).count(), 3, "{said:?}");
    cx.boot.write("notes.txt", b"nothing any more").unwrap();
    cx.boot.remove("old/seed.toml").unwrap();
    finish_without_seed(&cx.host, &cx.boot, "bundle").unwrap();
    assert!(cx.host.journal().sealed());
    assert_eq!(cx.boot.scan(SECRET).unwrap(), Vec::<u64>::new());
}

#[test]
fn a_partition_that_cannot_be_written_keeps_the_device_from_being_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut cx, _) = device(dir.path(), &[]);
    // The same partition on a medium that takes no writes any more.
    let whole = std::fs::read(cx.boot.path()).unwrap();
    let memory = memfd_create("card", MemfdFlags::ALLOW_SEALING).unwrap();
    std::io::Write::write_all(&mut std::fs::File::from(memory.try_clone().unwrap()), &whole).unwrap();
    fcntl_add_seals(&memory, SealFlags::WRITE).unwrap();
    let card = std::path::PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
    let good = std::mem::replace(&mut cx.boot, BootPartition::open(&card, 0, 16 << 20).unwrap());
    let said = erase_token(&cx).unwrap_err().to_string();
    assert!(said.starts_with("destroy the seed: ") && said.contains("seed.toml on the boot partition"), "{said}");
    let said = apply(&cx).unwrap_err().to_string();
    assert!(said.starts_with("destroy the seed: ") && !cx.host.journal().sealed(), "{said}");
    // A card that can be written: it is tried again, from the start.
    cx.boot = good;
    erase_token(&cx).unwrap();
    apply(&cx).unwrap();
    assert!(cx.host.journal().sealed());
    assert_eq!(cx.boot.scan(SECRET).unwrap(), Vec::<u64>::new());
}

/// A seed of another device; its token is another one, or the same.
fn other(n: u8) -> String {
    SEED.replace(SECRET, &format!("{n:016}"))
}

#[test]
fn all_seeds_of_a_card_go_when_the_certificate_is_proven_and_the_own_one_when_the_node_is_ready() {
    let dir = tempfile::tempdir().unwrap();
    let (mut cx, _) = device(dir.path(), &[]);
    cx.boot.remove("seed.toml").unwrap();
    cx.seed_name = "seeds/me.toml".into();
    let others = [other(1), other(2), SEED.to_owned()];
    let files = ["a-1.toml", "a-2.toml", "a-3.toml"].iter().zip(&others);
    cx.boot.write_seeds(&files.map(|(name, text)| ((*name).to_owned(), text.as_bytes())).collect::<Vec<_>>()).unwrap();
    cx.boot.write("seeds/me.toml", SEED.as_bytes()).unwrap();
    // What programs and people did with them: one is in the bin, one was saved with another encoding.
    cx.boot.make_directory_for_tests(".Trash-1000").unwrap();
    cx.boot.write(".Trash-1000/a-2.toml", &encodings(&other(2))[1]).unwrap();
    cx.boot.write("seeds/notes.txt", other(9).as_bytes()).unwrap();
    erase_token(&cx).unwrap();
    assert_eq!(cx.boot.list_in("seeds").unwrap().unwrap(), ["me.toml"]);
    assert_eq!(seeds_destroyed(&cx.host), 0);
    // The power goes and comes: nothing is counted twice, and the own one still stands, without its secret.
    erase_token(&cx).unwrap();
    assert_eq!(cx.boot.files_with("abcdef.****************").unwrap(), ["seeds/me.toml"]);
    apply(&cx).unwrap();
    assert!(cx.host.journal().sealed());
    assert_eq!(cx.boot.list().unwrap(), [".Trash-1000"]);
    for secret in [SECRET, "0000000000000001", "0000000000000002", "0000000000000009"] {
        assert_eq!(cx.boot.scan(secret).unwrap(), [0; 0], "{secret}");
        assert!(!std::fs::read_to_string(dir.path().join("var/lib/firstboot/journal")).unwrap().contains(secret));
    }
    // The journal of this test has no seed of its own: the receipt tells how many there were.
    let receipt = std::fs::read_to_string(dir.path().join("var/lib/firstboot/receipt.json")).unwrap();
    assert!(receipt.contains("\"seeds_destroyed\": 4"), "{receipt}");
}

#[test]
fn a_token_of_another_device_in_a_persons_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (cx, _) = device(dir.path(), &[]);
    cx.boot.write_seeds(&[("a-1.toml".to_owned(), other(1).as_bytes())]).unwrap();
    cx.boot.write("list.txt", other(1).as_bytes()).unwrap();
    erase_token(&cx).unwrap();
    let want = "destroy the seed: the token also stands in list.txt; remove it from the boot partition";
    assert_eq!(apply(&cx).unwrap_err().to_string(), want);
    assert_eq!(cx.boot.list().unwrap(), ["list.txt"]);
    // The next boot knows it by its digest alone.
    assert_eq!(finish_without_seed(&cx.host, &cx.boot, "bundle").unwrap_err().to_string(), want);
    cx.boot.remove("list.txt").unwrap();
    finish_without_seed(&cx.host, &cx.boot, "bundle").unwrap();
    assert_eq!(cx.boot.scan("0000000000000001").unwrap(), [0; 0]);
}

#[test]
fn the_seeds_of_others_go_from_the_card_when_the_own_one_was_on_a_stick() {
    let dir = tempfile::tempdir().unwrap();
    let (mut cx, _) = device(dir.path(), &[]);
    let card = formatted_for_tests(&dir.path().join("card.img"), 0, 16 << 20).unwrap();
    card.write_seeds(&[("a-1.toml".to_owned(), other(1).as_bytes())]).unwrap();
    (cx.removable, cx.card) = (true, Some(card.clone()));
    erase_token(&cx).unwrap();
    apply(&cx).unwrap();
    assert_eq!((card.list().unwrap(), card.scan("0000000000000001").unwrap()), (vec![], vec![]));
    assert_eq!(cx.boot.read("seed.toml").unwrap().unwrap(), SEED.as_bytes());
}
