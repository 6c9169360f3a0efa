// SPDX-License-Identifier: Apache-2.0
//! No damage to a kept file, or to its copy, costs what it says.

use super::super::fake::Fake;
use super::*;
use crate::journal::facts::Fact;

/// All that one damaged file may look like: a flipped bit in each byte, cut at each length, of zeros, gone.
fn damaged(good: &[u8]) -> Vec<Option<Vec<u8>>> {
    let flipped = (0..good.len()).flat_map(|at| [0x01, 0x80].map(|bit| (at, bit))).map(|(at, bit)| {
        let mut bytes = good.to_vec();
        bytes[at] ^= bit;
        Some(bytes)
    });
    let cut = (0..good.len()).map(|length| Some(good[..length].to_vec()));
    flipped.chain(cut).chain([Some(vec![0; good.len()]), None]).collect()
}

#[test]
fn any_damage_to_a_kept_file_or_its_copy_is_repaired_and_noted() {
    for file in KEPT_FILES {
        let dir = tempfile::tempdir().unwrap();
        let (fake, seen) = Fake::new();
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        let good = b"{\"since\":1795392000,\"node\":\"edge-1\"}".to_vec();
        host.keep(file, b"what was there before").unwrap();
        host.keep(file, &good).unwrap();
        let copy = copy_path(file.path);
        let whole = Reading { bytes: Some(good.clone()), damage: None };
        assert_eq!(host.read_kept(file.path), whole);
        for (path, damage) in [(file.path, Damage::File), (copy.as_str(), Damage::Copy)] {
            let on_disk = dir.path().join(&path[1..]);
            let right = std::fs::read(&on_disk).unwrap();
            for bytes in damaged(&right) {
                match &bytes {
                    Some(bytes) => std::fs::write(&on_disk, bytes).unwrap(),
                    None => std::fs::remove_file(&on_disk).unwrap(),
                }
                let reading = host.read_kept(path.strip_suffix(".copy").map_or(file.path, |_| file.path));
                assert_eq!(reading.bytes.as_ref(), Some(&good), "{path}: {bytes:?}");
                // A copy that is gone is as on a device of an older version: it is made anew without a word.
                let wanted = (bytes.is_some() || damage == Damage::File).then_some(damage);
                assert_eq!(reading.damage, wanted, "{path}: {bytes:?}");
                host.repair_kept().unwrap();
                if bytes.is_none() && damage == Damage::Copy {
                    host.keep(file, &good).unwrap();
                }
                assert_eq!(host.read_kept(file.path), whole, "{path}: {bytes:?}");
            }
        }
        let noted = host.journal().fact(Fact::Damage).unwrap_or_default().to_owned();
        assert_eq!(noted, format!("read {}: it was damaged\nread {copy}: it was damaged", file.path));
        assert!(seen.lines.take().contains(&format!("firstboot: repaired: read {}: it was damaged", file.path)));
    }
}

#[test]
fn a_directory_in_the_place_of_a_file_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
    host.keep(FIREWALL, b"{}").unwrap();
    let path = dir.path().join(&FIREWALL.path[1..]);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    host.repair_kept().unwrap();
    assert_eq!(host.read(FIREWALL.path).unwrap().unwrap(), b"{}");
}

#[test]
fn both_damaged_are_reported_once_and_never_used() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, seen) = Fake::new();
    let host = Host::open(dir.path(), Box::new(fake)).unwrap();
    host.keep(FIREWALL, b"{\"a\":1}").unwrap();
    let (path, copy) = (FIREWALL.path, copy_path(FIREWALL.path));
    std::fs::remove_file(dir.path().join(&path[1..])).unwrap();
    std::fs::write(dir.path().join(&copy[1..]), b"\0\0\0").unwrap();
    host.repair_kept().unwrap();
    host.repair_kept().unwrap();
    assert_eq!(host.read_kept(path), Reading { bytes: None, damage: None });
    assert_eq!(seen.lines.take().len(), 1);
}

#[test]
fn a_power_cut_between_copy_and_file_is_no_damage_and_finishes_the_update() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, seen) = Fake::new();
    let host = Host::open(dir.path(), Box::new(fake)).unwrap();
    for (old, new) in [(None, &b"first"[..]), (Some(&b"first"[..]), b"second")] {
        host.write(&copy_path(STATUS.path), &copy_of(new, old), 0o600).unwrap();
        assert_eq!(host.read_kept(STATUS.path), Reading { bytes: Some(new.to_vec()), damage: None });
        host.repair_kept().unwrap();
        assert_eq!(host.read(STATUS.path).unwrap().unwrap(), new);
    }
    assert!(seen.lines.take().is_empty());
    assert_eq!(host.journal().fact(Fact::Damage), None);
}
