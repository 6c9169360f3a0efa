// SPDX-License-Identifier: Apache-2.0
//! What failed, and whose move it is.

use std::fmt;
use std::time::Duration;

/// Who has to act: the table "Whose move" in docs/operations.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Edit the seed file. firstboot stops and waits for a changed seed.
    Seed,
    /// Reflash or rebuild the image. firstboot stops.
    Image,
    /// Look at this device. firstboot stops and tries again at the next boot.
    Host,
    /// Mend the cluster or the network (or change the seed). firstboot keeps trying.
    Cluster,
}

impl Owner {
    /// One word, as it stands in the status file.
    pub fn word(self) -> &'static str {
        match self {
            Owner::Seed => "seed",
            Owner::Image => "image",
            Owner::Host => "host",
            Owner::Cluster => "cluster",
        }
    }

    /// Who has this word.
    pub fn of_word(word: &str) -> Option<Owner> {
        [Owner::Seed, Owner::Image, Owner::Host, Owner::Cluster].into_iter().find(|owner| owner.word() == word)
    }

    /// What the person in front of the device should do, one line.
    pub fn advice(self) -> &'static str {
        match self {
            Owner::Seed => "edit seed.toml on the boot partition",
            Owner::Image => "rebuild the image, or flash another one",
            Owner::Host => "look at this device; it tries again at the next boot",
            Owner::Cluster => "mend the cluster or the network, or change seed.toml; it keeps trying",
        }
    }

    /// Exit code of the process when this fault ends it.
    pub fn exit_code(self) -> u8 {
        match self {
            Owner::Seed => 10,
            Owner::Image => 11,
            Owner::Host => 12,
            Owner::Cluster => 13,
        }
    }
}

/// An error with its owner. The text is one line: verb, object, path or field, never a secret.
#[derive(Debug)]
pub struct Fault {
    /// Whose move it is.
    pub owner: Owner,
    /// The chain of causes, outermost first; printed once.
    pub cause: anyhow::Error,
    /// How long the other side asks to be left alone, where it said so.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// A fault of `owner` with this text.
    pub fn new(owner: Owner, text: impl fmt::Display) -> Self {
        Fault { owner, cause: anyhow::anyhow!("{text}"), retry_after: None }
    }
}

impl fmt::Display for Fault {
    /// The whole chain on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.cause)
    }
}

impl std::error::Error for Fault {}

/// Gives an error an owner: `std::fs::read(p).owned_by(Owner::Host)?`.
pub trait OwnedBy<T> {
    /// Names who has to act when this fails.
    fn owned_by(self, owner: Owner) -> Result<T, Fault>;
}

impl<T, E: Into<anyhow::Error>> OwnedBy<T> for Result<T, E> {
    fn owned_by(self, owner: Owner) -> Result<T, Fault> {
        self.map_err(|e| {
            let cause: anyhow::Error = e.into();
            // A fault that already has an owner keeps it.
            match cause.downcast::<Fault>() {
                Ok(fault) => fault,
                Err(cause) => Fault { owner, cause, retry_after: None },
            }
        })
    }
}
