// SPDX-License-Identifier: Apache-2.0
//! Why a seed was refused.

use crate::fault::{Code, Fault};
use std::fmt;

/// Why a seed was refused; `Display` is one line, `seed.toml:LINE: …`, without any value of the seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Which kind of error; always one of the seed's.
    pub code: Code,
    /// Line in the file, from 1; none when the whole file is meant.
    pub line: Option<usize>,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "seed.toml:{line}: {}", self.text),
            None => write!(f, "seed.toml: {}", self.text),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault { code: error.code, cause: error.into(), retry_after: None }
    }
}
