// SPDX-License-Identifier: Apache-2.0
//! No damage to one of the journal's files costs a record, and no reader changes a file.

use super::super::facts::Fact;
use super::*;
use tempfile::TempDir;

fn record(n: usize) -> Record {
    Record::Fact { name: Fact::Other(format!("fact-{n}")), value: "edge-1".into() }
}

/// A device with a journal of these records.
fn device(records: usize) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("var/lib/firstboot")).unwrap();
    let mut journal = Journal::read(dir.path());
    (0..records).for_each(|n| journal.append(record(n)).unwrap());
    dir
}

fn paths(dir: &TempDir) -> [PathBuf; 2] {
    [JOURNAL, JOURNAL_COPY].map(|path| dir.path().join(&path[1..]))
}

fn wanted(records: usize) -> Vec<Record> {
    (0..records).map(record).collect()
}

/// Everything that one damaged copy may look like: each byte flipped in two ways, cut at each length, empty, of zeros.
fn damaged(good: &[u8]) -> Vec<Vec<u8>> {
    let flipped = (0..good.len()).flat_map(|at| [0x01, 0x80].map(|bit| (at, bit))).map(|(at, bit)| {
        let mut bytes = good.to_vec();
        bytes[at] ^= bit;
        bytes
    });
    let cut = (0..good.len()).map(|length| good[..length].to_vec());
    flipped.chain(cut).chain([vec![0; good.len()]]).collect()
}

#[test]
fn any_damage_to_one_copy_loses_no_record_and_the_next_record_repairs_it() {
    const RECORDS: usize = 5;
    let dir = device(RECORDS);
    let paths = paths(&dir);
    let good = std::fs::read(&paths[0]).unwrap();
    assert_eq!(std::fs::read(&paths[1]).unwrap(), good);
    for (n, path) in paths.iter().enumerate() {
        for bytes in damaged(&good) {
            std::fs::write(path, &bytes).unwrap();
            let shown = format!("{}: {:?}", path.display(), String::from_utf8_lossy(&bytes));
            let journal = Journal::read(dir.path());
            assert_eq!(journal.records(), wanted(RECORDS), "{shown}");
            // A second copy that ends early is one that the kernel had not flushed.
            assert!(n == 1 || !journal.damage().is_empty(), "{shown}");
            assert_eq!(std::fs::read(path).unwrap(), bytes, "reading changed the file: {shown}");
            let mut journal = Journal::read(dir.path());
            journal.append(record(RECORDS)).unwrap();
            let journal = Journal::read(dir.path());
            assert_eq!((journal.records(), journal.damage().len()), (&wanted(RECORDS + 1)[..], 0), "{shown}");
            paths.iter().for_each(|path| std::fs::write(path, &good).unwrap());
        }
    }
}

#[test]
fn damage_to_both_copies_costs_the_damaged_records_alone() {
    let dir = device(4);
    let paths = paths(&dir);
    let good = std::fs::read_to_string(&paths[0]).unwrap();
    let bad = good.replace("fact-1", "fact-x");
    paths.iter().for_each(|path| std::fs::write(path, &bad).unwrap());
    let mut journal = Journal::read(dir.path());
    assert_eq!(journal.records().len(), 3);
    assert_eq!(
        journal.damage(),
        [
            "read /var/lib/firstboot/journal: damaged records: 1",
            "read /var/lib/firstboot/journal.copy: damaged records: 1",
            "read /var/lib/firstboot/journal and its copy: records that are in neither: 1"
        ]
    );
    journal.append(Record::Sealed).unwrap();
    // The marker of the repair, the three that are left, and the new one.
    let repaired = Journal::read(dir.path());
    assert_eq!(repaired.records(), [Record::Restarted, record(0), record(2), record(3), Record::Sealed]);
    assert_eq!((repaired.damage().len(), std::fs::read(&paths[0]).unwrap()), (0, std::fs::read(&paths[1]).unwrap()));
    assert_eq!(std::fs::read_to_string(paths[0].with_file_name("journal.damaged")).unwrap(), bad);
}

#[test]
fn a_repair_that_cannot_be_written_loses_nothing() {
    let dir = device(3);
    let paths = paths(&dir);
    let good = std::fs::read_to_string(&paths[0]).unwrap();
    std::fs::write(&paths[0], good.replace("fact-1", "fact-x")).unwrap();
    // As after a power cut: the second copy was not flushed.
    std::fs::write(&paths[1], "").unwrap();
    let beside = paths[0].with_extension("new");
    std::fs::create_dir(&beside).unwrap();
    for _ in 0..2 {
        let mut journal = Journal::read(dir.path());
        assert_eq!(journal.refresh().unwrap_err().to_string(), "write the journal");
        assert_eq!(Journal::read(dir.path()).records(), [record(0), record(2)]);
    }
    std::fs::remove_dir(&beside).unwrap();
    Journal::read(dir.path()).refresh().unwrap();
    let journal = Journal::read(dir.path());
    assert_eq!(journal.records(), [Record::Restarted, record(0), record(2)]);
    assert!(std::fs::read_to_string(paths[0].with_file_name("journal.damaged")).unwrap().contains("fact-x"));
}

#[test]
fn what_is_no_file_is_set_aside() {
    let dir = device(2);
    let [path, _] = paths(&dir);
    for _ in 0..2 {
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let mut journal = Journal::read(dir.path());
        assert_eq!(journal.damage(), ["read /var/lib/firstboot/journal: Is a directory (os error 21)"]);
        journal.refresh().unwrap();
        assert_eq!(Journal::read(dir.path()).records(), wanted(2));
        assert!(path.with_file_name("journal.damaged").is_dir() && path.is_file());
    }
}

#[test]
fn a_torn_last_line_is_dropped_and_is_no_damage() {
    let dir = device(2);
    let [path, copy] = paths(&dir);
    let good = std::fs::read_to_string(&path).unwrap();
    // As a power cut leaves them: the last record torn in the first copy, and not in the second.
    for torn in ["[3,\"0", "\0\0\0\0", "["] {
        std::fs::write(&path, format!("{good}{torn}")).unwrap();
        for behind in [0, good.len() / 2, good.len()] {
            std::fs::write(&copy, &good[..behind]).unwrap();
            let mut journal = Journal::read(dir.path());
            assert_eq!((journal.records(), journal.damage().len()), (&wanted(2)[..], 0), "{torn:?} {behind}");
            journal.append(record(2)).unwrap();
            let journal = Journal::read(dir.path());
            assert_eq!((journal.records(), journal.damage().len()), (&wanted(3)[..], 0), "{torn:?} {behind}");
            assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&copy).unwrap());
            std::fs::write(&path, format!("{good}{torn}")).unwrap();
        }
    }
}

#[test]
fn what_another_process_wrote_is_taken_in() {
    let dir = device(1);
    let (mut one, mut other) = (Journal::read(dir.path()), Journal::read(dir.path()));
    for n in 1..20 {
        let writer = if n % 3 == 0 { &mut one } else { &mut other };
        writer.append(record(n)).unwrap();
        assert_eq!(writer.records(), wanted(n + 1));
    }
    one.replace(&[Record::Sealed]).unwrap();
    other.append(record(1)).unwrap();
    assert_eq!(other.records(), [Record::Restarted, Record::Sealed, record(1)]);
    assert!(Journal::read(dir.path()).damage().is_empty());
}

#[test]
fn a_cut_between_the_copies_of_a_replaced_journal_brings_nothing_back() {
    let dir = device(3);
    let [_, copy] = paths(&dir);
    let old = std::fs::read(&copy).unwrap();
    Journal::read(dir.path()).replace(&[record(0)]).unwrap();
    std::fs::write(&copy, old).unwrap();
    let journal = Journal::read(dir.path());
    assert_eq!((journal.records(), journal.damage().len()), (&[Record::Restarted, record(0)][..], 0));
}

#[test]
fn records_of_a_disk_that_takes_no_writes_are_kept_in_memory_and_written_later() {
    let dir = device(0);
    let mut journal = Journal::read(dir.path());
    journal.assume(wanted(3));
    assert_eq!(journal.records(), wanted(3));
    assert!(Journal::read(dir.path()).records().is_empty());
    journal.append(record(3)).unwrap();
    assert_eq!(Journal::read(dir.path()).records(), wanted(4));
}
