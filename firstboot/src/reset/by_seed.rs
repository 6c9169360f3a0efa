// SPDX-License-Identifier: Apache-2.0
//! `reset = true` in a seed: when it is obeyed. The table is in docs/operations.md, "Which seed is accepted when".

use crate::journal::Journal;
use crate::journal::facts::Fact;
use crate::seed::{Seed, SeedRequest};

/// The reset that a seed asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ResetRequest {
    /// Digest of the seed.
    pub(crate) digest: String,
    /// As [`Seed::destroys_cluster`].
    pub(crate) destroys_cluster: bool,
}

/// What to do with a seed file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Reset this device first.
    Reset(ResetRequest),
    /// Join by it, as by any other.
    Join(Box<Seed>),
    /// It asks for a reset alone, and there is nothing to take back.
    NothingToReset,
}

/// Answers a seed that this device may take (run/admit.rs). A stick is left as it is, so what it asks for it would ask for
/// at every boot: it is obeyed once, and resets no device that has joined by it.
pub(crate) fn decide(journal: &Journal, asked: SeedRequest, removable: bool) -> Decision {
    let obeyed = |digest: &str| removable && [journal.fact(Fact::ResetBy), journal.seed()].contains(&Some(digest));
    match asked {
        SeedRequest::Reset { digest, destroys_cluster } if journal.used() && !obeyed(&digest) => {
            Decision::Reset(ResetRequest { digest, destroys_cluster })
        }
        SeedRequest::Reset { .. } => Decision::NothingToReset,
        SeedRequest::Join(seed) if seed.reset && journal.was_sealed() && !obeyed(seed.digest()) => {
            Decision::Reset(ResetRequest { digest: seed.digest().to_owned(), destroys_cluster: seed.destroys_cluster })
        }
        SeedRequest::Join(seed) => Decision::Join(seed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Record;
    use crate::seed::parse_request;

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
            parse_request(text.as_bytes()).unwrap()
        };
        let alone = || parse_request(b"version = 1\nreset = true\n").unwrap();
        let resets = |answer: Decision| matches!(answer, Decision::Reset(_));
        assert_eq!(decide(&journal, alone(), false), Decision::NothingToReset);
        assert!(matches!(decide(&journal, joins(true), false), Decision::Join(_)));
        journal.append(Record::Begun { version: "1".into(), seed: "s".into(), boot: "b".into() }).unwrap();
        // Half joined: another seed is taken as it is, and a reset takes back what there is.
        assert!(matches!(decide(&journal, joins(true), false), Decision::Join(_)));
        assert!(resets(decide(&journal, alone(), false)));
        journal.append(Record::Sealed).unwrap();
        assert!(matches!(decide(&journal, joins(false), false), Decision::Join(_)));
        for removable in [false, true] {
            assert!(resets(decide(&journal, joins(true), removable)) && resets(decide(&journal, alone(), removable)));
        }
        let SeedRequest::Join(seed) = joins(true) else { panic!() };
        journal.append(Record::Fact { name: Fact::ResetBy, value: seed.digest().into() }).unwrap();
        assert!(matches!(decide(&journal, joins(true), true), Decision::Join(_)));
        assert!(resets(decide(&journal, joins(true), false)));
        // A new device that has joined by it.
        let other = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(other.path().join("var/lib/firstboot")).unwrap();
        let mut journal = Journal::read(other.path());
        let begun = Record::Begun { version: "1".into(), seed: seed.digest().into(), boot: "b".into() };
        for record in [begun, Record::Sealed] {
            journal.append(record).unwrap();
        }
        assert!(matches!(decide(&journal, joins(true), true), Decision::Join(_)));
        assert!(resets(decide(&journal, joins(true), false)));
    }
}
