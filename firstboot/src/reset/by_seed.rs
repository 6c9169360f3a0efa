// SPDX-License-Identifier: Apache-2.0
//! `reset = true` in a seed: when it is obeyed. The table is in docs/operations.md, "Which seed is accepted when".

use crate::journal::Journal;
use crate::journal::facts::Fact;
use crate::seed::{Asked, Seed};

/// What to do with a seed file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Reset this device first, for the seed with this digest.
    Reset(String),
    /// Join by it, as by any other.
    Join(Box<Seed>),
    /// It asks for a reset alone, and there is nothing to take back.
    NothingToReset,
}

/// Answers a seed. A stick is left as it is, so what it asks for it would ask for at every boot: it is obeyed once, and
/// resets no device that has joined by it.
pub(crate) fn answer(journal: &Journal, asked: Asked, carried: bool) -> Answer {
    let obeyed = |digest: &str| carried && [journal.fact(Fact::ResetBy), journal.seed()].contains(&Some(digest));
    match asked {
        Asked::Reset { digest } if journal.used() && !obeyed(&digest) => Answer::Reset(digest),
        Asked::Reset { .. } => Answer::NothingToReset,
        Asked::Join(seed) if seed.reset && journal.sealed() && !obeyed(seed.digest()) => {
            Answer::Reset(seed.digest().to_owned())
        }
        Asked::Join(seed) => Answer::Join(seed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Record;
    use crate::seed::asked;

    #[test]
    fn a_seed_resets_what_has_joined_and_a_stick_does_so_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("var/lib/firstboot")).unwrap();
        let mut journal = Journal::read(dir.path());
        let joins = |reset: bool| {
            let (pin, reset) = ("0".repeat(64), if reset { "reset = true\n" } else { "" });
            let text = format!(
                "version = 1\n{reset}[cluster]\napiserver = \"a\"\ntoken = \"abcdef.0123456789abcdef\"\nca-cert-hashes = \
                 \"sha256:{pin}\"\n"
            );
            asked(text.as_bytes()).unwrap()
        };
        let alone = || asked(b"version = 1\nreset = true\n").unwrap();
        let resets = |answer: Answer| matches!(answer, Answer::Reset(_));
        assert_eq!(answer(&journal, alone(), false), Answer::NothingToReset);
        assert!(matches!(answer(&journal, joins(true), false), Answer::Join(_)));
        journal.append(Record::Begun { version: "1".into(), seed: "s".into(), boot: "b".into() }).unwrap();
        // Half joined: another seed is taken as it is, and a reset takes back what there is.
        assert!(matches!(answer(&journal, joins(true), false), Answer::Join(_)));
        assert!(resets(answer(&journal, alone(), false)));
        journal.append(Record::Sealed).unwrap();
        assert!(matches!(answer(&journal, joins(false), false), Answer::Join(_)));
        for carried in [false, true] {
            assert!(resets(answer(&journal, joins(true), carried)) && resets(answer(&journal, alone(), carried)));
        }
        let Asked::Join(seed) = joins(true) else { panic!() };
        journal.append(Record::Fact { name: Fact::ResetBy, value: seed.digest().into() }).unwrap();
        assert!(matches!(answer(&journal, joins(true), true), Answer::Join(_)));
        assert!(resets(answer(&journal, joins(true), false)));
        // A new device that has joined by it.
        let other = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(other.path().join("var/lib/firstboot")).unwrap();
        let mut journal = Journal::read(other.path());
        let begun = Record::Begun { version: "1".into(), seed: seed.digest().into(), boot: "b".into() };
        for record in [begun, Record::Sealed] {
            journal.append(record).unwrap();
        }
        assert!(matches!(answer(&journal, joins(true), true), Answer::Join(_)));
        assert!(resets(answer(&journal, joins(true), false)));
    }
}
