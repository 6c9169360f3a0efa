// SPDX-License-Identifier: Apache-2.0
//! The ladder of the data partition, with a machine that only writes down what was done.
#![allow(clippy::unwrap_used)]

use crate::data::{Actions, Attached, BeyondRepair, How, NotRun, Outcome, Unchecked, decide};
use crate::ext4::Content;
use crate::report::State;
use anyhow::{Context, Error, Result};
use rustix::io::Errno;

/// What fails, by the letters of what was done: `w`rite back, `c`heck, `m`ake, `u`se, `r`ead-only, `t`mpfs. The first
/// word of a letter counts once.
#[derive(Default)]
struct Fake {
    done: String,
    /// Letter, how often, and the error.
    fails: Vec<(char, usize, Errno)>,
    /// Why the check fails.
    check: Option<fn() -> Error>,
    filled: bool,
}

impl Fake {
    fn act(&mut self, letter: char) -> Result<()> {
        self.done.push(letter);
        let fails = self.fails.iter_mut().find(|(other, left, _)| *other == letter && *left > 0);
        let Some((_, left, error)) = fails else { return Ok(()) };
        *left -= 1;
        Err(*error).with_context(|| format!("do {letter}"))
    }
}

impl Actions for Fake {
    fn write_back(&mut self) -> Result<()> {
        self.act('w')
    }

    fn check(&mut self) -> Result<String> {
        self.act('c')?;
        match self.check {
            Some(error) => Err(error()),
            None => Ok("checked".to_owned()),
        }
    }

    fn make(&mut self) -> Result<()> {
        self.act('m')
    }

    fn attach(&mut self, how: How) -> Result<Attached> {
        self.act(match how {
            How::ReadWrite => 'u',
            How::ReadOnly => 'r',
            How::Memory => 't',
        })?;
        Ok(Attached { filled: self.filled, notes: vec![] })
    }
}

/// Letters that were done, and the outcome.
fn run(content: Option<Content>, writable: bool, fake: Fake) -> (String, State, Option<String>) {
    let mut fake = fake;
    let outcome = decide(&mut fake, content, writable, None).unwrap();
    (fake.done, outcome.state, outcome.reason)
}

fn fails(fails: &[(char, usize, Errno)]) -> Fake {
    Fake { fails: fails.to_vec(), ..Fake::default() }
}

#[test]
fn what_is_done_for_each_content() {
    use Content::{Blank, Faulty, OnlyCopy, Sound, Unknown};
    let holds_none = Some("the data partition holds no file system".to_owned());
    for (content, done, state, reason) in [
        (Some(Blank), "wmu", State::Created, None),
        (Some(Sound), "u", State::Kept, None),
        (Some(Faulty), "wcu", State::Kept, None),
        (Some(OnlyCopy), "wcu", State::Kept, None),
        (Some(Unknown), "wmu", State::Recreated, holds_none),
        (None, "t", State::Memory, None),
    ] {
        assert_eq!(run(content, true, Fake::default()), (done.to_owned(), state, reason), "{content:?}");
    }
}

#[test]
fn a_write_protected_medium_is_not_written() {
    for content in [Content::Sound, Content::Faulty, Content::OnlyCopy, Content::Unknown] {
        let (done, state, _) = run(Some(content), false, Fake::default());
        assert_eq!((done.as_str(), state), ("r", State::ReadOnly), "{content:?}");
        let (done, state, reason) = run(Some(content), false, fails(&[('r', 1, Errno::INVAL)]));
        assert_eq!((done.as_str(), state), ("rt", State::Memory), "{content:?}");
        assert!(reason.unwrap().contains("do r"));
    }
    assert_eq!(run(Some(Content::Blank), false, Fake::default()).0, "t");
}

#[test]
fn damage_leads_from_step_to_step() {
    let first = ('u', 1, Errno::UCLEAN);
    let (done, state, reason) = run(Some(Content::Sound), true, fails(&[first]));
    assert_eq!((done.as_str(), state, reason), ("uwcu", State::Kept, None));
    let twice = ('u', 2, Errno::UCLEAN);
    let (done, state, reason) = run(Some(Content::Sound), true, fails(&[twice]));
    assert_eq!((done.as_str(), state), ("uwcumu", State::Recreated));
    assert!(reason.unwrap().starts_with("do u: "));
    let beyond = Fake { check: Some(|| BeyondRepair("e2fsck gave up".to_owned()).into()), ..Fake::default() };
    let (done, state, reason) = run(Some(Content::Faulty), true, beyond);
    assert_eq!((done.as_str(), state, reason.as_deref()), ("wcmu", State::Recreated, Some("e2fsck gave up")));
    let (done, state, _) = run(Some(Content::Blank), true, fails(&[('m', 1, Errno::IO)]));
    assert_eq!((done.as_str(), state), ("wmt", State::Memory));
}

/// What has nothing to do with the file system must not cost what it holds.
#[test]
fn only_damage_loses_data() {
    for error in [Errno::NODEV, Errno::NOMEM, Errno::PERM, Errno::BUSY, Errno::NOENT, Errno::NOSYS, Errno::NOSPC] {
        let (done, state, reason) = run(Some(Content::Sound), true, fails(&[('u', 1, error)]));
        assert_eq!((done.as_str(), state), ("ut", State::Memory), "{error}");
        assert!(reason.is_some());
        let (done, state, _) = run(Some(Content::Faulty), true, fails(&[('c', 1, error)]));
        assert_eq!((done.as_str(), state), ("wct", State::Memory), "{error}");
    }
    // A block of the root cannot be read where e2fsck is, or a log cannot be written: that is not about the data.
    let not_run: [fn() -> Error; 2] = [
        || Error::new(Errno::IO).context("start it").context(NotRun("e2fsck".to_owned())),
        || Error::new(Errno::ROFS).context(NotRun("e2fsck".to_owned())),
    ];
    for check in not_run {
        let (done, state, reason) = run(Some(Content::Faulty), true, Fake { check: Some(check), ..Fake::default() });
        assert_eq!((done.as_str(), state), ("wct", State::Memory));
        assert!(reason.unwrap().starts_with("run e2fsck: "));
    }
}

/// e2fsck ended with 8: by damage, without memory, or by a medium that fails.
#[test]
fn what_cannot_be_checked_is_used_read_only_before_it_is_made_anew() {
    let unchecked = |fails: &[(char, usize, Errno)]| {
        let check: fn() -> Error = || Unchecked("e2fsck did not work".to_owned()).into();
        run(Some(Content::Faulty), true, Fake { fails: fails.to_vec(), check: Some(check), ..Fake::default() })
    };
    let (done, state, reason) = unchecked(&[]);
    assert_eq!((done.as_str(), state, reason.as_deref()), ("wcr", State::ReadOnly, Some("e2fsck did not work")));
    let (done, state, _) = unchecked(&[('r', 1, Errno::UCLEAN)]);
    assert_eq!((done.as_str(), state), ("wcrmu", State::Recreated));
    let (done, state, _) = unchecked(&[('r', 1, Errno::NOMEM)]);
    assert_eq!((done.as_str(), state), ("wcrt", State::Memory));
    let (done, state, _) = unchecked(&[('r', 1, Errno::UCLEAN), ('m', 1, Errno::IO)]);
    assert_eq!((done.as_str(), state), ("wcrmt", State::Memory));
}

#[test]
fn a_medium_that_refuses_writes_is_used_read_only() {
    let (done, state, _) = run(Some(Content::Sound), true, fails(&[('u', 1, Errno::ROFS)]));
    assert_eq!((done.as_str(), state), ("ur", State::ReadOnly));
    let worn = || fails(&[('u', 1, Errno::IO), ('w', 1, Errno::IO)]);
    let (done, state, reason) = run(Some(Content::Sound), true, worn());
    assert_eq!((done.as_str(), state), ("uwr", State::ReadOnly));
    let reason = reason.unwrap();
    assert!(reason.contains("do u: ") && reason.contains("do w: "), "{reason}");
    let (done, state, _) = run(Some(Content::Faulty), true, fails(&[('w', 1, Errno::IO)]));
    assert_eq!((done.as_str(), state), ("wr", State::ReadOnly));
    let (done, state, _) = run(Some(Content::Blank), true, fails(&[('w', 1, Errno::IO)]));
    assert_eq!((done.as_str(), state), ("wt", State::Memory));
}

#[test]
fn a_filling_that_was_cut_off_ends_as_created() {
    let (done, state, reason) = run(Some(Content::Sound), true, Fake { filled: true, ..Fake::default() });
    assert_eq!((done.as_str(), state, reason), ("u", State::Created, None));
}

#[test]
fn what_is_known_before_and_what_was_repaired_is_said() {
    let outcome = decide(&mut Fake::default(), None, true, Some("the disk has no room for data".into())).unwrap();
    let reason = Some("the disk has no room for data".to_owned());
    assert_eq!(outcome, Outcome { state: State::Memory, reason, repaired: vec![] });
    let torn = Some("write the backup copy of the partition table: I/O error".to_owned());
    let outcome = decide(&mut Fake::default(), Some(Content::Faulty), true, torn.clone()).unwrap();
    let repaired = vec!["data partition: checked".to_owned()];
    assert_eq!(outcome, Outcome { state: State::Kept, reason: torn, repaired });
}

#[test]
fn without_memory_it_is_an_error() {
    let error = decide(&mut fails(&[('t', 1, Errno::NOMEM)]), None, true, None).unwrap_err();
    assert!(format!("{error:#}").starts_with("do t: "));
}
