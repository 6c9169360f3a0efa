// SPDX-License-Identifier: Apache-2.0
//! What the journal says of a device at each moment.

use super::facts::Fact;
use super::*;

fn done(phase: &str) -> Record {
    Record::Done { phase: phase.into(), seconds: 1.5 }
}

fn begun(seed: &str) -> Record {
    Record::Begun { version: "1".into(), seed: seed.into(), boot: "b".into() }
}

fn node(name: &str) -> Record {
    Record::Fact { name: Fact::Node, value: name.into() }
}

/// A directory in which a journal can be kept.
fn root() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("var/lib/firstboot")).unwrap();
    dir
}

#[test]
fn another_seed_after_the_seal_begins_another_installation() {
    let dir = root();
    let mut journal = Journal::read(dir.path());
    for record in [begun("s1"), node("edge-1"), done("ready"), Record::Sealed] {
        journal.append(record).unwrap();
    }
    assert!(journal.sealed() && journal.done("ready") && !journal.begun(&begun("s1")));
    // The very same seed, dropped again, is another installation as well.
    journal.append(begun("s1")).unwrap();
    assert!(!journal.sealed() && !journal.done("ready") && journal.begun(&begun("s1")));
    assert_eq!((journal.fact(Fact::Node), journal.seconds()), (Some("edge-1"), vec![]));
    journal.append(done("ready")).unwrap();
    journal.append(begun("s2")).unwrap();
    assert!(journal.done("ready") && !journal.sealed());
    journal.append(Record::Sealed).unwrap();
    assert!(journal.sealed());
}

#[test]
fn a_reset_holds_until_another_journal_takes_the_place_of_this_one() {
    let dir = root();
    let mut journal = Journal::read(dir.path());
    journal.append(begun("s")).unwrap();
    journal.append(Record::Sealed).unwrap();
    assert!(journal.sealed() && journal.used() && journal.resetting().is_none());
    journal.append(Record::Resetting { keep: vec!["/srv".into()], seed: None, destroy: false }).unwrap();
    let mut journal = Journal::read(dir.path());
    assert_eq!(journal.resetting(), Some(&["/srv".to_owned()][..]));
    assert!(!journal.sealed());
    let fact = Record::Fact { name: Fact::NodeBefore, value: "edge-1".into() };
    journal.replace(&[fact]).unwrap();
    journal.append(done("identity")).unwrap();
    let journal = Journal::read(dir.path());
    assert!(journal.resetting().is_none() && !journal.used() && journal.done("identity"));
    assert_eq!(journal.fact(Fact::NodeBefore), Some("edge-1"));
    assert!(journal.damage().is_empty());
    assert_eq!(std::fs::read_dir(dir.path().join("var/lib/firstboot")).unwrap().count(), 2);
}
